//! The events that were, for each event channel the newest. They live in the channel's durable state; memory knows where they begin and
//! end and how large they are.
//!
//! `c/{name}` marks an event channel that has a history. `h/{name}:{position}` is an event: how many bytes this event channel had
//! stored before it and when it was stored, each as a u64, little-endian, then the frame as it was sent. Positions are counted
//! from 1 without gaps, and written with 16 digits, so that the first and the last one tell all the rest.

use std::collections::{BTreeMap, VecDeque};

use hotbay_sdk::{Channel, Order};
use serde::{Deserialize, Serialize};

use crate::budget::Budget;

/// Before the frame.
pub(crate) const HEADER_BYTES: usize = 16;
/// Events forgotten at most when one is stored: enough for the largest one to make room among the smallest, and few enough for a
/// batch if an operator lowered a bound by much.
const EVICTIONS_MAX: usize = 256;
/// Longest key, and what else an eviction takes.
const EVICTION_BYTES: usize = 160;

/// Where a history stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Extent {
    /// Position of the oldest event.
    pub(crate) first: u64,
    /// Position the next event gets.
    pub(crate) next: u64,
    /// Bytes kept, keys too.
    bytes: u64,
    /// Bytes ever stored.
    written: u64,
    /// When the newest event was stored, in milliseconds since the Unix epoch.
    last_ms: u64,
}

impl Extent {
    const EMPTY: Self = Self { first: 1, next: 1, bytes: 0, written: 0, last_ms: 0 };

    /// Events kept.
    pub(crate) fn len(&self) -> u64 {
        self.next - self.first
    }

    /// Bytes ever stored, keys too.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }
}

struct History {
    extent: Extent,
    /// Sizes of the oldest events, from the first one on, if they were read.
    older: VecDeque<u32>,
    /// Sizes of the events stored by this instance, of the newest without gaps.
    newer: VecDeque<u32>,
}

impl History {
    fn new(extent: Extent) -> Self {
        Self { extent, older: VecDeque::new(), newer: VecDeque::new() }
    }
}

/// The histories of all event channels.
pub(crate) struct Histories {
    channels: BTreeMap<Box<str>, History>,
    bytes: u64,
    events: u64,
    /// Bounds: events of one event channel, bytes of all.
    events_max: u64,
    bytes_max: u64,
}

impl Histories {
    /// Takes over where the instance before stood.
    pub(crate) fn resume(events_max: u64, bytes_max: u64, extents: BTreeMap<Box<str>, Extent>) -> Self {
        let bytes = extents.values().map(|extent| extent.bytes).sum();
        let events = extents.values().map(Extent::len).sum();
        let channels = extents.into_iter().map(|(name, extent)| (name, History::new(extent))).collect();
        Self { channels, bytes, events, events_max, bytes_max }
    }

    /// Finds again where they stand: two reads for each event channel.
    pub(crate) fn recover(channel: &Channel, events_max: u64, bytes_max: u64) -> Self {
        let marks = channel.kv().scan("c/", Order::Ascending, 1_000);
        let names = marks.iter().filter_map(|(key, _)| key.strip_prefix("c/"));
        let found = names.map(|name| (name.into(), recover(channel, name).unwrap_or(Extent::EMPTY)));
        Self::resume(events_max, bytes_max, found.collect())
    }

    /// For the next instance.
    pub(crate) fn extents(&self) -> BTreeMap<&str, &Extent> {
        self.channels.iter().map(|(name, history)| (&**name, &history.extent)).collect()
    }

    /// Where the history of an event channel stands.
    pub(crate) fn extent(&self, name: &str) -> Extent {
        self.channels.get(name).map_or(Extent::EMPTY, |history| history.extent.clone())
    }

    /// Whether an event channel has a history.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.channels.contains_key(name)
    }

    /// Event channels with a history.
    pub(crate) fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.channels.keys().map(|name| &**name)
    }

    /// Events kept, of all event channels.
    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    /// Bytes kept, of all event channels.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether anything is kept at all.
    pub(crate) fn keeps(&self) -> bool {
        self.events_max > 0
    }

    /// Position of the oldest event once one more is stored, as far as their number decides.
    pub(crate) fn first_after_next(&self, name: &str) -> u64 {
        let extent = self.extent(name);
        extent.first.max((extent.next + 1).saturating_sub(self.events_max))
    }

    /// Of the event channels that are free, the one where nothing has happened for the longest time.
    pub(crate) fn oldest(&self, is_free: impl Fn(&str) -> bool) -> Option<&str> {
        let mut oldest: Option<(u64, &str)> = None;
        for (name, history) in &self.channels {
            let last_ms = history.extent.last_ms;
            if oldest.is_none_or(|(before_ms, _)| last_ms < before_ms) && is_free(name) {
                oldest = Some((last_ms, name));
            }
        }
        oldest.map(|(_, name)| name)
    }

    /// Begins what [`Histories::append`] stores; the frame comes after it.
    pub(crate) fn header(&self, name: &str, now_ms: u64, frame_bytes: usize) -> Vec<u8> {
        let written = self.channels.get(name).map_or(0, |history| history.extent.written);
        let mut value = Vec::with_capacity(HEADER_BYTES + frame_bytes);
        value.extend(written.to_le_bytes());
        value.extend(now_ms.to_le_bytes());
        value
    }

    /// What storing a value of this size costs at most: effects and bytes.
    pub(crate) fn cost(&self, name: &str, value_bytes: usize) -> (usize, usize) {
        let size = value_bytes + EVICTION_BYTES;
        let over =
            self.channels.get(name).map_or(0, |history| history.extent.len() + 1).saturating_sub(self.events_max);
        let all_over = self.bytes + size as u64 > self.bytes_max;
        let evictions = if all_over { EVICTIONS_MAX } else { EVICTIONS_MAX.min(over as usize) };
        // Beside them the event, and the mark of an event channel that begins or ends.
        (3 + evictions, size + (2 + evictions) * EVICTION_BYTES)
    }

    /// Stores an event, and forgets the oldest ones beyond the bounds.
    pub(crate) fn append(&mut self, channel: &Channel, budget: &mut Budget, name: &str, value: &[u8]) {
        if !self.channels.contains_key(name) {
            channel.kv().put(&mark_key(name), b"");
            budget.spend(1, EVICTION_BYTES);
            self.channels.insert(name.into(), History::new(Extent::EMPTY));
        }
        let Some(history) = self.channels.get_mut(name) else { return };
        let key = key(name, history.extent.next);
        channel.kv().put(&key, value);
        let size = key.len() + value.len();
        budget.spend(1, size);
        history.newer.push_back(size as u32);
        history.extent.next += 1;
        history.extent.bytes += size as u64;
        history.extent.written += size as u64;
        history.extent.last_ms = stored_at_ms(value).unwrap_or_default();
        self.bytes += size as u64;
        self.events += 1;
        self.evict(channel, budget, name);
    }

    /// Forgets the oldest events while there are too many of this event channel, or too many bytes: those of the event channel
    /// that has most of them, so that a noisy one does not take a quiet one's history.
    fn evict(&mut self, channel: &Channel, budget: &mut Budget, name: &str) {
        for _ in 0..EVICTIONS_MAX {
            if self.channels.get(name).is_some_and(|history| history.extent.len() > self.events_max) {
                self.drop_oldest(channel, budget, name);
            } else if self.bytes > self.bytes_max
                && let Some(largest) = self.largest()
            {
                self.drop_oldest(channel, budget, &largest);
            } else {
                return;
            }
        }
    }

    fn largest(&self) -> Option<Box<str>> {
        let largest = self.channels.iter().max_by_key(|(_, history)| history.extent.bytes)?;
        Some(largest.0.clone())
    }

    fn drop_oldest(&mut self, channel: &Channel, budget: &mut Budget, name: &str) {
        let Some(history) = self.channels.get_mut(name) else { return };
        let first = history.extent.first;
        let size = history.oldest_size(channel, budget, name);
        let key = key(name, first);
        channel.kv().delete(&key);
        budget.spend(1, key.len());
        history.extent.first += 1;
        history.extent.bytes = history.extent.bytes.saturating_sub(size);
        self.bytes = self.bytes.saturating_sub(size);
        self.events -= 1;
        if history.extent.len() == 0 {
            self.bytes = self.bytes.saturating_sub(history.extent.bytes);
            self.channels.remove(name);
            channel.kv().delete(&mark_key(name));
            budget.spend(1, EVICTION_BYTES);
        }
    }

    /// Forgets the history of an event channel; what it costs was checked by [`Histories::forget_cost`].
    pub(crate) fn forget(&mut self, channel: &Channel, budget: &mut Budget, name: &str) -> u64 {
        let Some(history) = self.channels.remove(name) else { return 0 };
        let Extent { first, next, bytes, .. } = history.extent;
        for position in first..next {
            channel.kv().delete(&key(name, position));
        }
        channel.kv().delete(&mark_key(name));
        budget.spend((next - first) as usize + 1, ((next - first) as usize + 1) * EVICTION_BYTES);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.events -= next - first;
        next - first
    }

    /// What forgetting a history costs at most: effects and bytes.
    pub(crate) fn forget_cost(&self, name: &str) -> (usize, usize) {
        let effects = self.extent(name).len() as usize + 1;
        (effects, effects * EVICTION_BYTES)
    }
}

impl History {
    /// The size of the oldest event, which then is no longer known.
    fn oldest_size(&mut self, channel: &Channel, budget: &mut Budget, name: &str) -> u64 {
        let Extent { first, next, .. } = self.extent;
        let newer_from = next - self.newer.len() as u64;
        if first >= newer_from {
            return self.newer.pop_front().map_or(0, u64::from);
        }
        if self.older.is_empty() {
            // The rest of a hundred, as far as one read goes.
            let entries = channel.kv().scan(&prefix(name, first, 2), Order::Ascending, 100);
            self.older.extend(entries.into_iter().map(|(key, value)| {
                budget.spend_read(value.len());
                (key.len() + value.len()) as u32
            }));
        }
        self.older.pop_front().map_or(0, u64::from)
    }
}

fn mark_key(name: &str) -> String {
    format!("c/{name}")
}

/// The key of an event.
pub(crate) fn key(name: &str, position: u64) -> String {
    format!("h/{name}:{position:016}")
}

/// What the keys of the ten (1), hundred (2) … events around this one have in common.
pub(crate) fn prefix(name: &str, position: u64, digits: usize) -> String {
    let mut prefix = key(name, position);
    prefix.truncate(prefix.len() - digits);
    prefix
}

/// When an event was stored, in milliseconds since the Unix epoch.
pub(crate) fn stored_at_ms(value: &[u8]) -> Option<u64> {
    number(value.get(8..HEADER_BYTES)?)
}

/// The frame of a stored event.
pub(crate) fn frame(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value.get(HEADER_BYTES..)?).ok()
}

fn number(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_le_bytes)
}

fn recover(channel: &Channel, name: &str) -> Option<Extent> {
    let prefix = format!("h/{name}:");
    let one = |order| {
        let (key, value) = channel.kv().scan(&prefix, order, 1).into_iter().next()?;
        let position: u64 = key.strip_prefix(&prefix)?.parse().ok()?;
        Some((position, number(value.get(..8)?)?, stored_at_ms(&value)?, (key.len() + value.len()) as u64))
    };
    let (first, before, ..) = one(Order::Ascending)?;
    let (last, before_last, last_ms, size) = one(Order::Descending)?;
    let written = before_last + size;
    Some(Extent { first, next: last + 1, bytes: written.saturating_sub(before), written, last_ms })
}
