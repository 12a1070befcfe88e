//! The memory handed from one instance to the next: a cache. What cannot be read is left out, never an error.

use hotbay_sdk::MemberId;
use serde::{Deserialize, Serialize};

use crate::clients::Tally;
use crate::conflicts::Conflict;
use crate::sync::Waiting;

/// Connections whose counters are handed over; the others are counted anew.
const CLIENTS_MAX: usize = 50_000;

/// What an instance hands over.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Saved {
    pub(crate) last_id: u64,
    pub(crate) clients: Vec<(MemberId, Tally)>,
    pub(crate) conflicts: Vec<(u64, Conflict)>,
    pub(crate) waiting: Vec<Waiting>,
}

impl Saved {
    /// Reads it.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).unwrap_or_default()
    }

    /// Writes it.
    pub(crate) fn write(mut self) -> Vec<u8> {
        self.clients.truncate(CLIENTS_MAX);
        serde_json::to_vec(&self).unwrap_or_default()
    }
}
