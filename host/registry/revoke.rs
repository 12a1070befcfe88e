//! Revocations: a version that may not run any more is taken from all channels, and what they had before is back.

use serde_json::json;

use crate::plugin::compile::Digest;
use crate::registry::mounts::Active;
use crate::registry::rollback::Last;
use crate::registry::{Actor, Registry, RegistryError};
use crate::store::catalog::{Status, Version};

/// What a revocation did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revoked {
    /// Deployments that ended.
    pub ended: Vec<i64>,
    /// Mounts that have no version left, until another one is deployed.
    pub mounts_without_version: Vec<String>,
}

impl Registry {
    /// Takes an approval back: the version runs no more, nowhere, at once; its channels get what they had before. Of a version that was
    /// revoked already, it does what is left to be done of that.
    ///
    /// # Errors
    /// If it was not approved; or if the store fails on the way: then nothing of it runs all the same, and it may be done again.
    pub async fn revoke(&self, who: &Actor, row: &Version) -> Result<Revoked, RegistryError> {
        let _turn = self.deploying.lock().await;
        let digest = Digest(row.digest);
        let changes = vec![Self::becomes(row, &[Status::Approved], Status::Revoked, who.reason.clone())];
        if let Err(error) =
            self.decide(who, "plugin.revoked", row, changes, &json!({}), "versions that were approved").await
        {
            match self.catalog().version(&row.tenant, &row.digest).await {
                Ok(Some(now)) if now.status == Status::Revoked => {}
                Ok(_) => return Err(error),
                Err(unread) => {
                    // It may have taken hold, and nobody can say: what somebody wants revoked does not run on until the store works again.
                    // It is back when it is deployed anew or the broker starts, if it is still approved then.
                    self.mounts.withdraw(&row.tenant, digest);
                    self.apply();
                    tracing::error!(
                        tenant = row.tenant,
                        %digest,
                        %unread,
                        "it is not known whether a version was revoked: it does not run; revoke it again, or deploy it again if it is approved"
                    );
                    return Err(error);
                }
            }
        }
        self.mounts.withdraw(&row.tenant, digest);
        // Nothing of it is to run while the rest is written down.
        self.apply();
        let theirs = |active: &Active| active.digest() == digest && active.row.owner == row.tenant;
        let mut ended = Vec::new();
        for active in self.mounts.active().into_iter().filter(theirs) {
            self.end_revoked(who, &active, row).await?;
            ended.push(active.row.id);
        }
        Ok(Revoked { ended, mounts_without_version: self.mounts.left_with(&row.tenant, digest) })
    }

    /// Ends a deployment whose version was revoked. If there is nothing before it, its mount has no version.
    pub(super) async fn end_revoked(&self, who: &Actor, active: &Active, row: &Version) -> Result<(), RegistryError> {
        let because = who.clone().because(format!("{} {} was revoked", row.name, row.version));
        let again = self.roll_back_in_turn(&because, active.row.id, Last::Ends).await?;
        if again.is_none() && active.is_base() {
            tracing::error!(
                mount = active.row.mount,
                deployment = active.row.id,
                "a revoked version has nothing before it: its channels are unavailable until another one is deployed"
            );
        }
        Ok(())
    }
}
