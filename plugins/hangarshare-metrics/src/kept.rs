//! Events kept for an owner who is away. They lie in the channel's log, so they outlive crashes; a durable timer forgets
//! them when their time is over. Memory holds only where they lie and how large they are.
//!
//! `kv` holds under [`DELIVERED`] the offset up to which events were delivered: what was forgotten behind it was lost to the
//! owner, and the next welcome says how many.

use std::collections::VecDeque;

use hotbay_sdk::{Channel, Entry, TimerKeep, log_debug};

use crate::settings::Settings;

/// Bytes of the events kept together, so that they fit a new connection's outbox (1 MiB unless the mount says otherwise).
pub(crate) const KEPT_BYTES_MAX: usize = 512 << 10;
/// The timer that forgets.
pub(crate) const EXPIRE_TIMER: &str = "expire";
/// Entries read from the log at once.
const CHUNK: u32 = 100;
/// The key of the offset up to which events were delivered.
const DELIVERED: &str = "delivered";

/// Where one lies.
#[derive(Debug, Clone, Copy)]
struct Place {
    offset: u64,
    at_ms: u64,
    bytes: usize,
}

/// The events kept for the owner.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// Oldest first. `None`: not read since the instance was opened.
    places: Option<VecDeque<Place>>,
    /// The offset up to which events were delivered. `None`: not read.
    delivered: Option<u64>,
}

/// What is handed to an owner who comes back.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// Oldest first.
    pub(crate) events: Vec<String>,
    /// Events since the last time that were too many, too large together or too old.
    pub(crate) dropped: u64,
}

impl Kept {
    /// Keeps an event; the oldest make room for it.
    pub(crate) fn add(&mut self, channel: &mut Channel, event: &str, settings: &Settings) {
        let now_ms = channel.now_ms();
        let places = self.places.get_or_insert_with(|| places(channel));
        if places.is_empty() {
            channel.set_timer(EXPIRE_TIMER, settings.offline_ttl_ms, TimerKeep::Durable);
        }
        let offset = channel.log().append(event.as_bytes());
        places.push_back(Place { offset, at_ms: now_ms, bytes: event.len() });
        let before = places.len();
        let mut bytes: usize = places.iter().map(|place| place.bytes).sum();
        while let Some(oldest) = places.front() {
            let old = is_old(oldest.at_ms, now_ms, settings);
            if !old && places.len() <= settings.offline_events_max && bytes <= KEPT_BYTES_MAX {
                break;
            }
            bytes -= oldest.bytes;
            places.pop_front();
        }
        if places.len() < before {
            forget(channel, places, offset + 1);
            log_debug!(channel, "kept events: {} had to go", before - places.len());
        }
        if places.is_empty() {
            channel.cancel_timer(EXPIRE_TIMER);
        }
    }

    /// Hands out all events, and keeps none of them.
    pub(crate) fn take(&mut self, channel: &mut Channel, settings: &Settings) -> Taken {
        let next = channel.log().bounds().next;
        // Nothing ever happened while this owner was away: true of most, and costs no read.
        if next == 1 {
            return Taken::default();
        }
        let since = *self.delivered.get_or_insert_with(|| delivered(channel));
        if since == next {
            return Taken::default();
        }
        let now_ms = channel.now_ms();
        let mut taken = Taken::default();
        each(channel, |event| {
            if !is_old(event.at_ms, now_ms, settings) {
                taken.events.push(String::from_utf8_lossy(&event.data).into_owned());
            }
        });
        taken.dropped = next.saturating_sub(since).saturating_sub(taken.events.len() as u64);
        channel.log().trim(next);
        channel.kv().put(DELIVERED, &next.to_le_bytes());
        channel.cancel_timer(EXPIRE_TIMER);
        self.delivered = Some(next);
        self.places = Some(VecDeque::new());
        taken
    }

    /// Forgets what is too old, and sets the timer for what is left.
    pub(crate) fn expire(&mut self, channel: &mut Channel, settings: &Settings) {
        let now_ms = channel.now_ms();
        let next = channel.log().bounds().next;
        let places = self.places.get_or_insert_with(|| places(channel));
        let before = places.len();
        while places.front().is_some_and(|oldest| is_old(oldest.at_ms, now_ms, settings)) {
            places.pop_front();
        }
        if places.len() < before {
            forget(channel, places, next);
        }
        if let Some(oldest) = places.front() {
            let due_ms = oldest.at_ms.saturating_add(settings.offline_ttl_ms);
            channel.set_timer(EXPIRE_TIMER, due_ms.saturating_sub(now_ms), TimerKeep::Durable);
        }
    }
}

fn is_old(at_ms: u64, now_ms: u64, settings: &Settings) -> bool {
    now_ms.saturating_sub(at_ms) >= settings.offline_ttl_ms
}

/// Forgets what lies before the first place; everything if there is none.
fn forget(channel: &Channel, places: &VecDeque<Place>, next: u64) {
    channel.log().trim(places.front().map_or(next, |oldest| oldest.offset));
}

/// The offset up to which events were delivered.
fn delivered(channel: &Channel) -> u64 {
    let stored = channel.kv().get(DELIVERED);
    stored.and_then(|bytes| bytes.try_into().ok()).map_or(1, u64::from_le_bytes)
}

/// Where the events in the log lie.
fn places(channel: &Channel) -> VecDeque<Place> {
    let mut places = VecDeque::new();
    each(channel, |event| {
        places.push_back(Place { offset: event.offset, at_ms: event.at_ms, bytes: event.data.len() });
    });
    places
}

/// Calls `see` with each event in the log, oldest first.
fn each(channel: &Channel, mut see: impl FnMut(&Entry)) {
    let extent = channel.log().bounds();
    let mut from = extent.first;
    while from < extent.next {
        let entries = channel.log().read(from, CHUNK);
        let Some(last) = entries.last() else { break };
        from = last.offset + 1;
        entries.iter().for_each(&mut see);
    }
}
