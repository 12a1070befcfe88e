//! Where two accounts of one batch differ, and on account of which event.

use std::collections::{HashMap, VecDeque};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::plugin::account::Entry;
use crate::plugin::content::{Content, beside};
use crate::protocol::event::{Batch, Event, Source};

/// Largest table that the search for the longest common part of two accounts fills; beyond it they are compared side by side.
const TABLE_CELLS_MAX: usize = 1 << 20;

/// What effects are paired by where they differ: the kind, a number and a name.
type Slot<'a> = (u8, u64, &'a str);

/// Where two accounts of one batch differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The event it belongs to, by its index in the batch, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<u32>,
    /// The effect that was; absent if there is one more now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<Entry>,
    /// The effect that is; absent if it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<Entry>,
}

impl Difference {
    fn new(old: Option<&Entry>, new: Option<&Entry>) -> Self {
        let event = old.and_then(Entry::event).or_else(|| new.and_then(Entry::event));
        Self { event, old: old.cloned(), new: new.cloned() }
    }

    /// The same with the event of this batch it belongs to, where the batch tells.
    #[must_use]
    pub fn placed(mut self, batch: &Batch) -> Self {
        let request = [&self.old, &self.new].into_iter().flatten().find_map(|entry| match entry {
            Entry::Respond { request, .. } => Some(*request),
            _ => None,
        });
        let asked = |event: &Event| request.is_some() && event.request() == request;
        let asked = batch.events.iter().zip(0..).find_map(|(event, index)| asked(event).then_some(index));
        let only = (batch.events.len() == 1).then_some(0);
        self.event = self.event.or(asked).or(only);
        self
    }

    /// The sentence for people, with what the event was: "event 3 (message from ann): broadcast to all: old …, new …".
    pub fn told(&self, batch: Option<&Batch>) -> String {
        let event = self.event.and_then(|index| batch?.events.get(index as usize));
        self.told_with(&event.map(cause).unwrap_or_default())
    }

    /// The same for who knows what the event was.
    pub fn told_with(&self, cause: &str) -> String {
        let event = match self.event {
            Some(index) if cause.is_empty() => format!("event {index}: "),
            Some(index) => format!("event {index} ({cause}): "),
            None => String::new(),
        };
        format!("{event}{}", self.change())
    }

    fn change(&self) -> String {
        match (&self.old, &self.new) {
            (Some(old), Some(new)) => match (old.content(), new.content()) {
                (Some(old_content), Some(new_content)) if old.head() == new.head() => {
                    let (old_content, new_content) = beside(old_content, new_content);
                    format!("{}: old {old_content}, new {new_content}", old.head())
                }
                _ => format!("old: {old}; new: {new}"),
            },
            (Some(old), None) => format!("missing: {old}"),
            (None, Some(new)) => format!("extra: {new}"),
            (None, None) => String::new(),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.told(None))
    }
}

/// What an event was, in a few words.
pub fn cause(event: &Event) -> String {
    match event {
        Event::Join { identity, .. } => format!("join of {}", identity.user()),
        Event::Leave { identity, .. } => format!("leave of {}", identity.user()),
        Event::Message { identity, .. } => format!("message from {}", identity.user()),
        Event::Timer { name, .. } => format!("timer {name}"),
        Event::Publish { source: Source::Api(key), .. } => format!("publish by key {key}"),
        Event::Publish { source: Source::Channel(name), .. } => format!("publish from channel {name}"),
        Event::Request { http, .. } => format!("request {} {}", http.method, http.path),
    }
}

/// How two accounts of one batch differ; empty if and only if they are the same, bit for bit. Where a part of them is the same, what is around
/// it is compared; effects of one kind for one event, name or key are taken for each other.
pub fn differences(old: &[Entry], new: &[Entry]) -> Vec<Difference> {
    if old == new {
        return Vec::new();
    }
    let before = old.iter().zip(new).take_while(|(old, new)| old == new).count();
    let (old, new) = (&old[before..], &new[before..]);
    let after = old.iter().rev().zip(new.iter().rev()).take_while(|(old, new)| old == new).count();
    let (old, new) = (&old[..old.len() - after], &new[..new.len() - after]);
    let mut found = Vec::new();
    let (mut old_from, mut new_from) = (0, 0);
    for (old_at, new_at) in common(old, new) {
        compare(&old[old_from..old_at], &new[new_from..new_at], &mut found);
        (old_from, new_from) = (old_at + 1, new_at + 1);
    }
    compare(&old[old_from..], &new[new_from..], &mut found);
    if found.is_empty() {
        // Only their order differs, and they are too many to say how.
        found.push(Difference::new(old.first(), new.first()));
    }
    found
}

/// Compares what has no part in common: pairs first, then what is more now.
fn compare(old: &[Entry], new: &[Entry], found: &mut Vec<Difference>) {
    let mut free: HashMap<Slot<'_>, VecDeque<usize>> = HashMap::new();
    for (index, entry) in new.iter().enumerate() {
        free.entry(entry.slot()).or_default().push_back(index);
    }
    let mut paired = vec![false; new.len()];
    for entry in old {
        let pair = free.get_mut(&entry.slot()).and_then(VecDeque::pop_front);
        if let Some(index) = pair {
            paired[index] = true;
        }
        let other = pair.map(|index| &new[index]);
        if other != Some(entry) {
            found.push(Difference::new(Some(entry), other));
        }
    }
    let extra = new.iter().zip(paired).filter(|(_, paired)| !paired);
    found.extend(extra.map(|(entry, _)| Difference::new(None, Some(entry))));
}

/// The longest part two lists have in common, as pairs of indices.
fn common(old: &[Entry], new: &[Entry]) -> Vec<(usize, usize)> {
    let width = new.len() + 1;
    let cells = (old.len() + 1).saturating_mul(width);
    if cells > TABLE_CELLS_MAX {
        return Vec::new();
    }
    let classes = classes(old.iter().chain(new));
    let (old, new) = classes.split_at(old.len());
    // The length of what the lists have in common from here on. The shorter list has at most 1,023 entries, so that it fits.
    let mut lengths = vec![0_u16; cells];
    for old_at in (0..old.len()).rev() {
        for new_at in (0..new.len()).rev() {
            let here = old_at * width + new_at;
            lengths[here] = if old[old_at] == new[new_at] {
                lengths[here + width + 1] + 1
            } else {
                lengths[here + width].max(lengths[here + 1])
            };
        }
    }
    let (mut old_at, mut new_at, mut pairs) = (0, 0, Vec::new());
    while old_at < old.len() && new_at < new.len() {
        let here = old_at * width + new_at;
        if old[old_at] == new[new_at] {
            pairs.push((old_at, new_at));
            (old_at, new_at) = (old_at + 1, new_at + 1);
        } else if lengths[here + width] >= lengths[here + 1] {
            old_at += 1;
        } else {
            new_at += 1;
        }
    }
    pairs
}

/// Entries of one slot, and their numbers.
type Alike<'a> = Vec<(&'a Entry, usize)>;

/// A number for each entry, the same for those that are equal: each content is looked at once, not once for every other one.
fn classes<'a>(entries: impl Iterator<Item = &'a Entry> + Clone) -> Vec<usize> {
    let digested = entries.clone().any(|entry| matches!(entry.content(), Some(Content::Digest { .. })));
    let mut known: HashMap<(Slot<'a>, Option<u64>), Alike<'a>> = HashMap::new();
    let class = |(index, entry): (usize, &'a Entry)| {
        let alike = known.entry((entry.slot(), entry.content().map(|content| content.token(digested)))).or_default();
        if let Some((_, class)) = alike.iter().find(|(other, _)| *other == entry) {
            return *class;
        }
        alike.push((entry, index));
        index
    };
    entries.enumerate().map(class).collect()
}

impl Entry {
    fn slot(&self) -> Slot<'_> {
        match self {
            Self::Frame { event, .. } => (0, u64::from(*event), ""),
            Self::Reject { event, .. } => (1, u64::from(*event), ""),
            Self::Respond { request, .. } => (2, request.0, ""),
            Self::Close { member, .. } => (3, member.0, ""),
            Self::Publish { channel, .. } => (4, 0, channel),
            Self::SetTimer { name, .. } | Self::CancelTimer { name } => (5, 0, name),
            Self::Put { key, .. } | Self::Delete { key } => (6, 0, key),
            Self::Append { .. } => (7, 0, ""),
            Self::Replace { offset, .. } => (8, *offset, ""),
            Self::Trim { .. } => (9, 0, ""),
        }
    }
}
