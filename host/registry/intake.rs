//! Components on the disk: what came in whole becomes a version, or leaves nothing; and what no version needs any more goes.

use std::sync::PoisonError;

use crate::plugin::compile::Digest;
use crate::quota::{Limit, Over};
use crate::registry::tenants::Terms;
use crate::registry::versions::{Incoming, Upload};
use crate::registry::{Actor, DAY_MS, Registry, RegistryError};
use crate::store::catalog::{Change, Status, Verdict, Version};
use crate::telemetry::wall_ms;

impl Registry {
    /// Whether an upload of this tenant has a chance, before its component comes. Judged [again](Self::add) when it is there.
    ///
    /// # Errors
    /// If the tenant may not upload, uploaded as many as it may within a day, or too many wait to be vetted.
    pub async fn expect(&self, tenant: &str) -> Result<(), RegistryError> {
        let terms = self.terms(tenant).await?;
        terms.check_open(tenant)?;
        self.check_uploads(tenant, &terms).await?;
        drop(self.queue.place(tenant)?);
        Ok(())
    }

    /// Whether a tenant uploaded fewer versions within a day than it may, with those that were replaced since.
    pub(super) async fn check_uploads(&self, tenant: &str, terms: &Terms) -> Result<(), RegistryError> {
        let Some(max) = terms.uploads_max else { return Ok(()) };
        let since_ms = wall_ms().saturating_sub(DAY_MS);
        let uploads =
            self.catalog().count_uploads_since(tenant, since_ms).await? + self.replaced_since(tenant, since_ms);
        if uploads < max {
            return Ok(());
        }
        Err(RegistryError::TooMuch(Over { limit: Limit::Uploads, max }.to_string()))
    }

    /// How many uploads of a tenant took the place of others since then.
    pub(super) fn replaced_since(&self, tenant: &str, since_ms: u64) -> u64 {
        let mut replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        replaced.retain(|_, times| {
            times.retain(|time| *time >= since_ms);
            !times.is_empty()
        });
        replaced.get(tenant).map_or(0, |times| times.len() as u64)
    }

    /// What has to go before a component may come with this row: a version of it that failed vetting under another number. It was the
    /// manifest perhaps, or what its owner was granted, and is vetted anew.
    pub(super) async fn replaces(&self, row: &Version) -> Result<Option<Change>, RegistryError> {
        let Some(known) = self.catalog().version(&row.tenant, &row.digest).await? else { return Ok(None) };
        let is_raised = (&known.name, &known.version) != (&row.name, &row.version);
        if known.status != Status::Rejected || !is_raised || !self.failed_vetting(row).await? {
            return Ok(None);
        }
        Ok(Some(Change::ForgetFailed { tenant: row.tenant.clone(), digest: row.digest }))
    }

    pub(super) async fn failed_vetting(&self, row: &Version) -> Result<bool, RegistryError> {
        let vetting = self.catalog().vetting(&row.tenant, &row.digest).await?;
        Ok(vetting.is_some_and(|vetting| vetting.verdict == Some(Verdict::Failed)))
    }

    /// Makes a version of a component that came in whole. It waits to be vetted.
    ///
    /// # Errors
    /// If the disk does not take it, or it cannot be [added](Self::add); then its file is gone, unless another version needs it.
    pub async fn take_in(
        &self,
        who: &Actor,
        tenant: &str,
        upload: &Upload<'_>,
        incoming: Incoming,
    ) -> Result<Version, RegistryError> {
        let whole = incoming.end().await?;
        let _turn = self.taking.lock().await;
        let (digest, bytes) = self.keep(whole).await?;
        let added = self.add(who, tenant, upload, (digest, bytes)).await;
        if added.is_err() {
            self.let_go_in_turn(digest).await;
        }
        added
    }

    /// Removes a component, unless a version needs it: one that was not rejected, of whatever owner.
    pub(super) async fn let_go(&self, digest: Digest) {
        let _turn = self.taking.lock().await;
        self.let_go_in_turn(digest).await;
    }

    async fn let_go_in_turn(&self, digest: Digest) {
        let known = self.catalog().statuses(&digest.0).await;
        if known.is_ok_and(|known| known.iter().all(|(_, status)| *status == Status::Rejected)) {
            let path = self.component(digest);
            if let Err(error) = tokio::fs::remove_file(&path).await
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "the file of a refused version stays behind; delete it");
            }
        }
    }

    /// Removes what uploads that were cut off left, and components that no version names, when the broker starts.
    pub(super) async fn remove_left_behind(&self) -> Result<(), RegistryError> {
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let mut digest = [0; 32];
            let component = name.strip_suffix(".wasm").map(|hex| hex::decode_to_slice(hex, &mut digest));
            let is_left = match component {
                Some(Ok(())) => self.catalog().statuses(&digest).await?.is_empty(),
                _ => name.starts_with("incoming-"),
            };
            if is_left {
                tracing::info!(path = %entry.path().display(), "no version has this file: it is removed");
                drop(std::fs::remove_file(entry.path()));
            }
        }
        Ok(())
    }
}
