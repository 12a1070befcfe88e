//! Reading the history: page by page, newest first, never more than the budget allows. Changes nothing.

use std::borrow::Cow;

use hotbay_sdk::{Channel, Order};
use serde::Deserialize;

use crate::budget::Budget;
use crate::filter::{Facts, Filter, Names, Priority};
use crate::history::{self, Extent};
use crate::id;

/// Events one page reads at most, and most events it can have.
pub(crate) const PAGE_EVENTS_MAX: usize = 1_000;
/// Bytes one page reads at most, unless its first event alone has more.
pub(crate) const PAGE_READ_BYTES_MAX: usize = 2 << 20;

/// Events of a page, oldest first.
pub(crate) struct Page<T> {
    pub(crate) events: Vec<T>,
    /// Whether there may be older ones.
    pub(crate) more: bool,
}

/// What a page may have.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) events: usize,
    /// Bytes, unless the first event alone has more.
    pub(crate) bytes: usize,
    /// Events from this position on are in the page beside those, whatever these bounds say, as far as one page reads.
    pub(crate) all_from: u64,
}

/// An event that passed a filter.
pub(crate) struct Passed {
    pub(crate) position: u64,
    pub(crate) frame: String,
    pub(crate) priority: Priority,
}

/// What filters look at, of a stored event.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored<'a> {
    #[serde(borrow)]
    event_type: Cow<'a, str>,
    #[serde(borrow)]
    source: Cow<'a, str>,
    priority: Priority,
    #[serde(borrow, default)]
    user_id: Option<Cow<'a, str>>,
}

/// The newest events before a position.
pub(crate) fn before(
    channel: &Channel,
    budget: &mut Budget,
    name: &str,
    extent: &Extent,
    position: u64,
    bounds: Bounds,
) -> Page<String> {
    let reading = Reading::new(name, extent, position);
    gather(channel, budget, reading, bounds, |_, frame| Some(frame.to_owned()), String::len)
}

/// The newest events that pass a filter and are of these types.
pub(crate) fn passing(
    channel: &Channel,
    budget: &mut Budget,
    name: &str,
    extent: &Extent,
    bounds: Bounds,
    (filter, types): (&Filter, &Names),
) -> Page<Passed> {
    let pick = |position, frame: &str| {
        let stored: Stored<'_> = serde_json::from_str(frame).ok()?;
        let facts = Facts {
            event_type: &stored.event_type,
            source: &stored.source,
            priority: stored.priority,
            user: stored.user_id.as_deref(),
        };
        let passes = types.allow(facts.event_type) && filter.allow(&facts);
        passes.then(|| Passed { position, frame: frame.to_owned(), priority: stored.priority })
    };
    let reading = Reading::new(name, extent, extent.next);
    gather(channel, budget, reading, bounds, pick, |passed| passed.frame.len())
}

/// The position before which everything is older than a time.
pub(crate) fn older_than(channel: &Channel, budget: &mut Budget, name: &str, extent: &Extent, time_ms: u64) -> u64 {
    let (mut low, mut high) = (extent.first, extent.next);
    while low < high {
        let middle = low + (high - low) / 2;
        let value = channel.kv().get(&history::key(name, middle)).unwrap_or_default();
        budget.spend_read(value.len());
        if history::stored_at_ms(&value).is_some_and(|at_ms| at_ms < time_ms) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

/// The position of the event with this id, in lower case. An event that is no longer kept counts as older than all that are.
pub(crate) fn find(channel: &Channel, budget: &mut Budget, name: &str, extent: &Extent, id: &str) -> Option<u64> {
    let position = id::position(id, name)?;
    if (1..extent.first).contains(&position) {
        return Some(extent.first);
    }
    let value = channel.kv().get(&history::key(name, position))?;
    budget.spend_read(value.len());
    history::frame(&value)?.strip_prefix("{\"id\":\"")?.starts_with(id).then_some(position)
}

fn gather<T>(
    channel: &Channel,
    budget: &mut Budget,
    mut reading: Reading<'_>,
    bounds: Bounds,
    mut pick: impl FnMut(u64, &str) -> Option<T>,
    size: impl Fn(&T) -> usize,
) -> Page<T> {
    let mut page = Page { events: Vec::new(), more: false };
    let wanted = bounds.events + reading.position.saturating_sub(bounds.all_from) as usize;
    let (mut older, mut bytes) = (0, 0);
    'reading: while older < bounds.events || reading.position > bounds.all_from {
        let Some(values) = reading.next(channel, budget, wanted) else { break };
        for (position, value) in values {
            let Some(picked) = history::frame(&value).and_then(|frame| pick(position, frame)) else { continue };
            bytes += size(&picked);
            if position < bounds.all_from {
                if older == bounds.events || (bytes > bounds.bytes && !page.events.is_empty()) {
                    reading.position = position + 1;
                    break 'reading;
                }
                older += 1;
            }
            page.events.push(picked);
        }
    }
    page.more = reading.position > reading.extent.first;
    page.events.reverse();
    page
}

/// Reads backwards from a position.
struct Reading<'a> {
    name: &'a str,
    extent: &'a Extent,
    /// Everything from here on was read.
    position: u64,
    events: usize,
    bytes: usize,
}

impl<'a> Reading<'a> {
    fn new(name: &'a str, extent: &'a Extent, position: u64) -> Self {
        Self { name, extent, position: position.min(extent.next), events: 0, bytes: 0 }
    }

    /// The next stored events, newest first; `None` at the end, and where enough was read.
    fn next(&mut self, channel: &Channel, budget: &mut Budget, wanted: usize) -> Option<Vec<(u64, Vec<u8>)>> {
        let Extent { first, next, .. } = *self.extent;
        if self.position <= first || self.events >= PAGE_EVENTS_MAX || self.bytes >= PAGE_READ_BYTES_MAX {
            return None;
        }
        let last = self.position - 1;
        // A scan has no beginning but its prefix: it reads a ten or a hundred from its end, or from the end of the history.
        let fits = |size: u64| self.position == next || self.position.is_multiple_of(size);
        let (size, digits) = if fits(100) { (100, 2) } else { (10, 1) };
        let values: Vec<(u64, Vec<u8>)> = if fits(size) {
            let from = (last / size * size).max(first);
            // No more than what is asked for, if everything that is read should pass.
            let wanted = if self.events == 0 { wanted as u64 } else { size };
            let count = (self.position - from).min(wanted.max(1));
            let prefix = history::prefix(self.name, last, digits);
            let found = channel.kv().scan(&prefix, Order::Descending, count as u32);
            (from..self.position).rev().zip(found).map(|(position, (_, value))| (position, value)).collect()
        } else {
            vec![(last, channel.kv().get(&history::key(self.name, last))?)]
        };
        self.position = values.last().map(|(position, _)| *position)?;
        for (_, value) in &values {
            self.events += 1;
            self.bytes += value.len();
            budget.spend_read(value.len());
        }
        Some(values)
    }
}
