//! What operators do to a channel: resetting it.

use serde_json::json;

use crate::protocol::name::ChannelName;
use crate::quota::{Kept, Quota, Quotas};
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
    let account = quotas.map(|quotas| quotas.of(channel.tenant()));
    if let (Some(account), Some(row)) = (&account, catalog.channel(channel).await?) {
        account.stays_known(row.key.0);
        // Read once more: it may have been in use until now, and have been given up with more than was read before.
        if let Some(row) = catalog.channel(channel).await? {
            account.will_change(row.key.0, (row.epoch, row.seq), kept(&row));
        }
    }
    let reset = catalog.change(vec![Change::ResetChannel { channel: channel.clone() }], audit).await;
    // At once, for the sweep may take long; and also if it failed, for it may have taken hold all the same.
    let told = tell(catalog, account.as_deref(), channel).await;
    if reset?.is_none() {
        return Ok(false);
    }
    if let Err(error) = told {
        tracing::warn!(%channel, %error, "what a channel keeps after its reset cannot be read; it is counted when its log is swept");
    }
    let swept = sweep(catalog, channel).await;
    let told = tell(catalog, account.as_deref(), channel).await;
    swept.and(told).map(|()| true)
}

/// What nobody reads any more goes piece by piece, so that no other channel's commit waits for it.
async fn sweep(catalog: &dyn Catalog, channel: &ChannelName) -> Result<(), StoreError> {
    while catalog.change(vec![Change::SweepLog { channel: channel.clone() }], None).await?.is_some() {}
    Ok(())
}

/// Puts on the account what the channel keeps now.
async fn tell(catalog: &dyn Catalog, account: Option<&Quota>, channel: &ChannelName) -> Result<(), StoreError> {
    let Some(account) = account else { return Ok(()) };
    if let Some(row) = catalog.channel(channel).await? {
        account.is_changed(row.key.0, (row.epoch, row.seq), kept(&row));
    }
    Ok(())
}

fn kept(row: &ChannelSummary) -> Kept {
    Kept { state: row.state_bytes, log: row.log_bytes }
}
