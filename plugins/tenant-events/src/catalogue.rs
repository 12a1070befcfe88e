//! The event types and sources that were seen, so that clients can discover them. They live in the channel's state as `e/{type}` and
//! `s/{source}`; what is known from the start is not stored.

use std::collections::BTreeSet;

use hotbay_sdk::{Channel, Order};
use serde::{Deserialize, Serialize};

use crate::budget::Budget;

/// Most discovered types, and most discovered sources; later ones work as well, but are not listed.
const DISCOVERED_MAX: usize = 256;
/// What one costs to store, in bytes.
const ENTRY_BYTES: usize = 160;
const KNOWN_TYPES: [&str; 5] = ["connection", "idea_created", "idea_updated", "user_update", "custom_event"];
const KNOWN_SOURCES: [&str; 3] = ["system", "idea_service", "user_service"];

/// What was seen beside what is known.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Catalogue {
    types: BTreeSet<Box<str>>,
    sources: BTreeSet<Box<str>>,
}

impl Catalogue {
    /// Finds again what was seen.
    pub(crate) fn recover(channel: &Channel) -> Self {
        let read = |prefix: &str| {
            let entries = channel.kv().scan(prefix, Order::Ascending, DISCOVERED_MAX as u32);
            entries.iter().filter_map(|(key, _)| Some(key.strip_prefix(prefix)?.into())).collect()
        };
        Self { types: read("e/"), sources: read("s/") }
    }

    /// Notes what an event has.
    pub(crate) fn see(&mut self, channel: &Channel, budget: &mut Budget, event_type: &str, source: &str) {
        note(channel, budget, &mut self.types, &KNOWN_TYPES, "e/", event_type);
        note(channel, budget, &mut self.sources, &KNOWN_SOURCES, "s/", source);
    }

    /// All event types: the known ones, then the others in order.
    pub(crate) fn types(&self) -> Vec<&str> {
        KNOWN_TYPES.into_iter().chain(self.types.iter().map(|name| &**name)).collect()
    }

    /// All sources: the known ones, then the others in order.
    pub(crate) fn sources(&self) -> Vec<&str> {
        KNOWN_SOURCES.into_iter().chain(self.sources.iter().map(|name| &**name)).collect()
    }
}

fn note(
    channel: &Channel,
    budget: &mut Budget,
    seen: &mut BTreeSet<Box<str>>,
    known: &[&str],
    prefix: &str,
    name: &str,
) {
    if known.contains(&name) || seen.contains(name) || seen.len() >= DISCOVERED_MAX {
        return;
    }
    channel.kv().put(&format!("{prefix}{name}"), b"");
    budget.spend(1, ENTRY_BYTES);
    seen.insert(name.into());
}
