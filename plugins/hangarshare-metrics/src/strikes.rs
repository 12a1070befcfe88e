//! How often a member sent what the protocol does not know: enough of that within a minute ends its connection.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Malformed or unknown messages within [`WINDOW_MS`] that close a member.
pub(crate) const STRIKES_MAX: usize = 100;
/// How long one counts.
pub(crate) const WINDOW_MS: u64 = 60_000;

/// The times of a member's last strikes, oldest first; fewer than [`STRIKES_MAX`].
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Strikes(VecDeque<u64>);

impl Strikes {
    /// Counts one; true if that was one too many.
    pub(crate) fn add(&mut self, now_ms: u64) -> bool {
        self.0.push_back(now_ms);
        // Only the newest can matter, so one look is enough: the rest goes as it grows old.
        while self.0.front().is_some_and(|first| now_ms.saturating_sub(*first) >= WINDOW_MS) {
            self.0.pop_front();
        }
        self.0.len() >= STRIKES_MAX
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
