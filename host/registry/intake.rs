//! Uploads: what came in whole becomes a version, or leaves nothing.

use tokio::sync::Mutex;

use crate::registry::versions::{Incoming, Upload};
use crate::registry::{Actor, Registry, RegistryError};
use crate::store::catalog::Version;

/// Held while one becomes a version, so that no file is taken away that another upload of the same component needs.
static TAKING: Mutex<()> = Mutex::const_new(());

impl Registry {
    /// Makes a version of a component that came in whole. It waits to be vetted.
    ///
    /// # Errors
    /// If the disk does not take it, or it cannot be [added](Self::add); then its file is gone, unless another version has it.
    pub async fn take_in(
        &self,
        who: &Actor,
        tenant: &str,
        upload: &Upload<'_>,
        incoming: Incoming,
    ) -> Result<Version, RegistryError> {
        let _turn = TAKING.lock().await;
        let (digest, bytes) = self.keep(incoming).await?;
        let added = self.add(who, tenant, upload, (digest, bytes)).await;
        if added.is_err() && self.catalog().statuses(&digest.0).await.is_ok_and(|known| known.is_empty()) {
            let path = self.component(digest);
            if let Err(error) = tokio::fs::remove_file(&path).await {
                tracing::warn!(path = %path.display(), %error, "the file of a refused upload stays behind; delete it");
            }
        }
        added
    }
}
