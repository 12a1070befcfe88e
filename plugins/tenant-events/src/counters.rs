//! What `status` counts. Handed over when the channel sleeps; stored (`counters`) with a batch that stores events anyway, at most
//! every ten seconds, so that counting never costs a commit. A crash takes back what was counted since.

use hotbay_sdk::Channel;
use serde::{Deserialize, Serialize};

use crate::budget::Budget;

const KEY: &str = "counters";
/// Time between two writes, in milliseconds.
const INTERVAL_MS: u64 = 10_000;
const ENTRY_BYTES: usize = 256;

/// The counters of a tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Counters {
    /// Connections there ever were.
    pub(crate) connections: u64,
    /// Events sent to clients, one for each receiver; answers and replays too, errors not.
    pub(crate) sent: u64,
    /// Events accepted from clients and servers.
    pub(crate) received: u64,
    /// When a client came or something was accepted, in milliseconds since the Unix epoch.
    pub(crate) active_ms: Option<u64>,
    stored_ms: u64,
}

impl Counters {
    /// Finds what was stored.
    pub(crate) fn recover(channel: &Channel) -> Self {
        let stored = channel.kv().get(KEY);
        stored.and_then(|stored| serde_json::from_slice(&stored).ok()).unwrap_or_default()
    }

    /// The end of a batch that stores events.
    pub(crate) fn store(&mut self, channel: &Channel, budget: &mut Budget) {
        if channel.now_ms() < self.stored_ms.saturating_add(INTERVAL_MS) {
            return;
        }
        self.stored_ms = channel.now_ms();
        // Numbers always serialise.
        channel.kv().put(KEY, &serde_json::to_vec(self).unwrap_or_default());
        budget.spend(1, ENTRY_BYTES);
    }
}
