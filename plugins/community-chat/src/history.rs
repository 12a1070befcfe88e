//! The messages of a channel. They live in the channel's log: a message's id is its offset. What memory holds of them
//! (the newest ones, and what recognises retries) is a cache, read from the log when first needed.

use std::collections::VecDeque;

use hotbay_sdk::{Channel, Entry, hash};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Messages in `recent`.
pub(crate) const RECENT_MAX: usize = 50;
/// Messages in `missed`.
pub(crate) const MISSED_MAX: usize = 500;
/// Messages among which a retry is recognised.
pub(crate) const RETRY_WINDOW: usize = 500;
/// Bytes of the messages in `recent`, and of those in `missed`, unless one alone has more.
pub(crate) const REPLAY_BYTES_MAX: usize = 256 << 10;
/// Log entries read at most for one `recent` or `missed`, so that a desert of deleted messages ends.
const SCAN_MAX: u64 = 2_000;
/// Log entries read at once: few, so that memory stays small.
const CHUNK: u64 = 50;

/// A message as it stands in the log. Fields of clients come last, in the order of their names.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stored {
    /// The author.
    pub(crate) user_id: String,
    /// Absent once deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) content: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) client_id: Option<String>,
    pub(crate) created_at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) edited_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) deleted_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) deleted_by: Option<String>,
    #[serde(flatten)]
    pub(crate) extra: Map<String, Value>,
}

impl Stored {
    fn parse(data: &[u8]) -> Option<Self> {
        serde_json::from_slice(data).ok()
    }
}

/// The messages after a certain one.
#[derive(Default)]
pub(crate) struct Missed {
    /// Ids and stored messages, oldest first.
    pub(crate) messages: Vec<(u64, String)>,
    /// Where to go on, if there is more.
    pub(crate) next: Option<u64>,
    /// Messages in between are no longer stored.
    pub(crate) gap: bool,
}

/// The messages of a channel.
#[derive(Default)]
pub(crate) struct History {
    /// The newest messages that are not deleted, oldest first. `None`: not read, or out of date.
    recent: Option<VecDeque<(u64, String)>>,
    /// What recognises retries. `None`: not read.
    retries: Option<Retries>,
}

/// A mark for each of the newest messages of the log, without gaps, so that the index gives the id.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Retries {
    /// Id of the newest message; 0 if there is none.
    pub(crate) last: u64,
    /// Oldest first; 0 for a message without `clientId`.
    pub(crate) marks: VecDeque<u64>,
    /// How many marks there are by their lowest bits: most new messages need no search.
    buckets: Vec<u16>,
}

/// Buckets of marks; a power of two, a few times [`RETRY_WINDOW`].
const BUCKETS: usize = 2_048;

fn bucket(mark: u64) -> usize {
    mark as usize & (BUCKETS - 1)
}

impl Retries {
    /// The newest message and the marks up to it, oldest first.
    pub(crate) fn new(last: u64, marks: impl IntoIterator<Item = u64>) -> Self {
        let mut retries = Self { last, marks: VecDeque::new(), buckets: vec![0; BUCKETS] };
        marks.into_iter().for_each(|mark| retries.push(last, mark));
        retries
    }

    fn push(&mut self, id: u64, mark: u64) {
        self.last = id;
        if self.marks.len() == RETRY_WINDOW
            && let Some(oldest) = self.marks.pop_front()
        {
            self.buckets[bucket(oldest)] -= 1;
        }
        self.marks.push_back(mark);
        self.buckets[bucket(mark)] += 1;
    }

    /// The newest message with this mark.
    fn find(&self, mark: u64) -> Option<u64> {
        if self.buckets[bucket(mark)] == 0 {
            return None;
        }
        let found = self.marks.iter().rposition(|other| *other == mark)?;
        (self.last + 1 + found as u64).checked_sub(self.marks.len() as u64)
    }
}

/// A mark of the pair (FNV-1a); never 0. Two pairs may share one, so a match must be checked.
fn mark(user: &str, client_id: &str) -> u64 {
    let bytes = user.bytes().chain([0xFF]).chain(client_id.bytes());
    hash(bytes).max(1)
}

impl History {
    /// Takes over what the instance before knew.
    pub(crate) fn resume(retries: Option<Retries>) -> Self {
        Self { recent: None, retries }
    }

    /// What the next instance should know.
    pub(crate) fn retries(&self) -> Option<&Retries> {
        self.retries.as_ref()
    }

    /// Stores a message and returns its id.
    pub(crate) fn append(&mut self, channel: &mut Channel, user: &str, client_id: Option<&str>, stored: &str) -> u64 {
        let id = channel.log().append(stored.as_bytes());
        match &mut self.retries {
            Some(retries) if retries.last + 1 == id => {
                retries.push(id, client_id.map_or(0, |client_id| mark(user, client_id)));
            }
            // Handed over by an instance that did not see the newest messages: to be read anew.
            stale => *stale = None,
        }
        if let Some(recent) = &mut self.recent {
            recent.push_back((id, stored.to_owned()));
            trim(recent);
        }
        id
    }

    /// The message this user already sent with this `clientId`, if it is among the newest.
    pub(crate) fn sent_before(&mut self, channel: &mut Channel, user: &str, client_id: &str) -> Option<(u64, Stored)> {
        let retries = match &mut self.retries {
            Some(retries) => retries,
            none => none.insert(read_retries(channel)),
        };
        let id = retries.find(mark(user, client_id))?;
        let stored = Self::get(channel, id)?;
        (stored.user_id == user && stored.client_id.as_deref() == Some(client_id)).then_some((id, stored))
    }

    /// One message, deleted or not.
    pub(crate) fn get(channel: &mut Channel, id: u64) -> Option<Stored> {
        channel.log().get(id).and_then(|entry| Stored::parse(&entry.data))
    }

    /// Writes over a message.
    pub(crate) fn replace(&mut self, channel: &mut Channel, id: u64, stored: &Stored) {
        let json = serde_json::to_string(stored).unwrap_or_default();
        channel.log().replace(id, json.as_bytes());
        let Some(recent) = &mut self.recent else { return };
        if let Some((_, cached)) = recent.iter_mut().find(|(other, _)| *other == id) {
            if stored.deleted_at.is_some() {
                // An older message moves up: the next reader looks for it.
                self.recent = None;
            } else {
                *cached = json;
            }
        }
    }

    /// The newest messages that are not deleted, oldest first.
    pub(crate) fn recent(&mut self, channel: &mut Channel) -> &VecDeque<(u64, String)> {
        match &mut self.recent {
            Some(recent) => recent,
            none => none.insert(read_recent(channel)),
        }
    }

    /// The messages after `since`, oldest first, without deleted ones.
    pub(crate) fn missed(channel: &mut Channel, since: u64) -> Missed {
        let bounds = channel.log().bounds();
        let mut missed = Missed { gap: since.saturating_add(1) < bounds.first, ..Missed::default() };
        let mut from = since.saturating_add(1).max(bounds.first);
        let end = bounds.next.min(from.saturating_add(SCAN_MAX));
        let mut bytes = 0;
        while from < end {
            let entries = channel.log().read(from, (end - from).min(CHUNK) as u32);
            if entries.is_empty() {
                break;
            }
            for entry in entries {
                let offset = entry.offset;
                if let Some(stored) = live(entry) {
                    bytes += stored.len();
                    let full = missed.messages.len() == MISSED_MAX || bytes > REPLAY_BYTES_MAX;
                    if full && !missed.messages.is_empty() {
                        missed.next = Some(offset - 1);
                        return missed;
                    }
                    missed.messages.push((offset, stored));
                }
                from = offset + 1;
            }
        }
        missed.next = (from < bounds.next).then_some(from - 1);
        missed
    }
}

/// The text of an entry, unless the message was deleted.
fn live(entry: Entry) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Deleted {
        deleted_at: Option<u64>,
    }
    let text = String::from_utf8(entry.data).ok()?;
    let deleted: Deleted = serde_json::from_str(&text).ok()?;
    deleted.deleted_at.is_none().then_some(text)
}

/// Drops the oldest messages beyond the bounds.
fn trim(recent: &mut VecDeque<(u64, String)>) {
    let mut bytes: usize = recent.iter().map(|(_, stored)| stored.len()).sum();
    while recent.len() > RECENT_MAX || (bytes > REPLAY_BYTES_MAX && recent.len() > 1) {
        bytes -= recent.pop_front().map_or(0, |(_, stored)| stored.len());
    }
}

fn read_recent(channel: &mut Channel) -> VecDeque<(u64, String)> {
    let bounds = channel.log().bounds();
    let oldest = bounds.first.max(bounds.next.saturating_sub(SCAN_MAX));
    let mut recent = VecDeque::new();
    let mut before = bounds.next;
    let mut bytes = 0;
    while before > oldest && recent.len() < RECENT_MAX && bytes < REPLAY_BYTES_MAX {
        let from = before.saturating_sub(CHUNK).max(oldest);
        for entry in read_range(channel, from, before).into_iter().rev() {
            let offset = entry.offset;
            if let Some(stored) = live(entry) {
                bytes += stored.len();
                recent.push_front((offset, stored));
            }
        }
        before = from;
    }
    trim(&mut recent);
    recent
}

fn read_retries(channel: &mut Channel) -> Retries {
    let bounds = channel.log().bounds();
    let mut retries = Retries::new(bounds.next - 1, []);
    let mut from = bounds.first.max(bounds.next.saturating_sub(RETRY_WINDOW as u64));
    while from < bounds.next {
        let to = bounds.next.min(from + CHUNK);
        for entry in read_range(channel, from, to) {
            let stored = Stored::parse(&entry.data);
            let mark = stored.and_then(|stored| Some(mark(&stored.user_id, stored.client_id.as_deref()?)));
            retries.push(entry.offset, mark.unwrap_or(0));
        }
        from = to;
    }
    retries
}

/// All entries with `from <= offset < before`: a read may answer fewer at once.
fn read_range(channel: &mut Channel, from: u64, before: u64) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let next = entries.last().map_or(from, |entry| entry.offset + 1);
        if next >= before {
            return entries;
        }
        let more = channel.log().read(next, (before - next) as u32);
        if more.is_empty() {
            return entries;
        }
        entries.extend(more);
    }
}
