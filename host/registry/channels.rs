//! What operators do to a channel: resetting it.

use serde_json::json;

use crate::protocol::name::ChannelName;
use crate::quota::{Kept, Quotas};
use crate::registry::{Actor, Registry, RegistryError};
use crate::store::catalog::{AuditEntry, Change, ChannelSummary};
use crate::store::{Catalog, StoreError};

impl Registry {
    /// Takes away all that a channel keeps: state, log, timers, saved memory, and the version it is pinned to. Its members stay connected.
    /// An instance that runs is fenced out, so what it does next has no effect; it is opened anew, on nothing. Offsets of the log go on
    /// where they were, so that no member takes a new entry for an old one.
    ///
    /// # Errors
    /// If there is no such channel.
    pub async fn reset_channel(&self, who: &Actor, channel: &ChannelName) -> Result<(), RegistryError> {
        let audit = who.did("channel.reset", channel.tenant(), channel.name(), &json!({}));
        let quotas = self.directory.get().map(|directory| &**directory.quotas());
        if reset_channel(self.catalog(), quotas, channel, Some(audit)).await? {
            Ok(())
        } else {
            Err(RegistryError::NotFound { what: format!("channel {channel} that ever kept anything") })
        }
    }

    /// Writes down what an operator did that changes no row.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn note(
        &self,
        who: &Actor,
        action: &str,
        tenant: &str,
        subject: &str,
        detail: &serde_json::Value,
    ) -> Result<(), RegistryError> {
        self.catalog().change(Vec::new(), Some(who.did(action, tenant, subject, detail))).await?;
        Ok(())
    }
}

/// Takes away all that a channel keeps, and off its tenant's account, whatever commit of it is under way. False if there is no such channel.
///
/// # Errors
/// If the store cannot be asked.
pub async fn reset_channel(
    catalog: &dyn Catalog,
    quotas: Option<&Quotas>,
    channel: &ChannelName,
    audit: Option<AuditEntry>,
) -> Result<bool, StoreError> {
    let before = catalog.channel(channel).await?;
    if catalog.change(vec![Change::ResetChannel { channel: channel.clone() }], audit).await?.is_none() {
        return Ok(false);
    }
    // What nobody reads any more goes piece by piece, so that no other channel's commit waits for it.
    while catalog.change(vec![Change::SweepLog { channel: channel.clone() }], None).await?.is_some() {}
    let after = catalog.channel(channel).await?;
    if let (Some(quotas), Some(before), Some(after)) = (quotas, before, after) {
        let kept = |row: &ChannelSummary| Kept { state: row.state_bytes, log: row.log_bytes };
        let at = (after.epoch, after.seq);
        quotas.of(channel.tenant()).is_changed(after.key.0, kept(&before), at, kept(&after));
    }
    Ok(true)
}
