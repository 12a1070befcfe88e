//! What operators do to a channel: resetting it.

use serde_json::json;

use crate::protocol::name::ChannelName;
use crate::quota::Kept;
use crate::registry::{Actor, Registry, RegistryError};
use crate::store::catalog::Change;

impl Registry {
    /// Takes away all that a channel keeps: state, log, timers, saved memory, and the version it is pinned to. Its members stay connected.
    /// An instance that runs is fenced out, so what it does next has no effect; it is opened anew, on nothing. Offsets of the log go on
    /// where they were, so that no member takes a new entry for an old one.
    ///
    /// # Errors
    /// If there is no such channel.
    pub async fn reset_channel(&self, who: &Actor, channel: &ChannelName) -> Result<(), RegistryError> {
        let kept = self.catalog().channel(channel).await?;
        let audit = who.did("channel.reset", channel.tenant(), channel.name(), &json!({}));
        let reset = vec![Change::ResetChannel { channel: channel.clone() }];
        if self.catalog().change(reset, Some(audit)).await?.is_none() {
            return Err(RegistryError::NotFound { what: format!("channel {channel} that ever kept anything") });
        }
        // What nobody reads any more goes piece by piece, so that no other channel's commit waits for it.
        while self.catalog().change(vec![Change::SweepLog { channel: channel.clone() }], None).await?.is_some() {}
        if let (Some(directory), Some(kept)) = (self.directory.get(), kept) {
            let before = Kept { state: kept.state_bytes, log: kept.log_bytes };
            directory.quotas().of(channel.tenant()).keeps(before, Kept::default());
        }
        Ok(())
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
