//! What a plugin took in a conformance run: for the evidence, so that an operator sees what it costs before it runs.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::plugin::Entry;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Profile {
    /// Batches it handled.
    pub batches: u64,
    /// Events in them.
    pub events: u64,
    /// Processor time for an event, in microseconds, on average.
    pub cpu_us_per_event: u64,
    /// Processor time of the longest batch, in microseconds.
    pub cpu_us_batch_max: u64,
    /// The most linear memory it had, in bytes.
    pub memory_bytes_max: u64,
    /// The most it saved, in bytes.
    pub saved_bytes_max: u64,
    /// Its effects, by their kind.
    pub effects: BTreeMap<&'static str, u64>,
    /// What they carried, in bytes.
    pub effect_bytes: u64,
    #[serde(skip)]
    cpu: Duration,
}

impl Profile {
    /// Counts a batch.
    pub(super) fn count(&mut self, events: usize, ran: Duration, memory_bytes: usize, effects: &[Entry]) {
        self.batches += 1;
        self.events += events as u64;
        self.cpu += ran;
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.cpu_us_per_event = us(self.cpu) / self.events.max(1);
        self.cpu_us_batch_max = self.cpu_us_batch_max.max(us(ran));
        self.memory_bytes_max = self.memory_bytes_max.max(memory_bytes as u64);
        for effect in effects {
            *self.effects.entry(kind(effect)).or_default() += 1;
            self.effect_bytes += effect.content().map_or(0, crate::plugin::content::Content::len);
        }
    }

    /// Counts what was saved.
    pub(super) fn count_saved(&mut self, bytes: usize) {
        self.saved_bytes_max = self.saved_bytes_max.max(bytes as u64);
    }
}

fn kind(effect: &Entry) -> &'static str {
    match effect {
        Entry::Frame { .. } => "frames",
        Entry::Reject { .. } => "rejects",
        Entry::Respond { .. } => "responses",
        Entry::Close { .. } => "closes",
        Entry::Publish { .. } => "publishes",
        Entry::SetTimer { .. } | Entry::CancelTimer { .. } => "timers",
        Entry::Put { .. } | Entry::Delete { .. } => "state",
        Entry::Append { .. } | Entry::Replace { .. } | Entry::Trim { .. } => "log",
    }
}
