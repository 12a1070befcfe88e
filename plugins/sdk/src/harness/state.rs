//! The harness's side of the door: members, store, timers and the effects of the running batch. A call that breaks a
//! limit panics, as it traps in a component. Knows nothing of plugins.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use super::Effect;
use crate::host::Host;
use crate::{
    Audience, Delivery, Entry, Event, Extent, HttpResponse, Identity, Level, Link, LinkState, Member, MemberId, Order,
    Payload, Refusal, Rows, Snapshot, SqlError, SqlValue, TimerKeep,
};

/// Longest key in the key-value state, in bytes.
pub const STATE_KEY_BYTES_MAX: usize = 512;
/// Largest value or log entry, in bytes.
pub const STATE_VALUE_BYTES_MAX: usize = 1 << 20;
/// Most entries one read answers.
pub const READ_ENTRIES_MAX: u32 = 1_000;
/// Most bytes one read answers, unless its first entry alone is larger.
pub const READ_BYTES_MAX: usize = 1 << 20;
/// Longest timer name, in bytes.
pub const TIMER_NAME_BYTES_MAX: usize = 128;
/// Most timers set at the same time.
pub const TIMERS_MAX: usize = 1_000;
/// Longest channel name, in bytes.
pub const CHANNEL_NAME_BYTES_MAX: usize = 200;
/// Most effects of one batch.
pub const EFFECTS_MAX: usize = 10_000;
/// Most bytes of the effects of one batch.
pub const EFFECT_BYTES_MAX: usize = 8 << 20;

/// A shared hold on the state; what a [`crate::Channel`] calls outside of WebAssembly.
#[derive(Clone)]
pub struct HostHandle(pub(super) Rc<RefCell<State>>);

/// What answers the statements of the mount.
pub(super) type Database = Box<dyn Fn(&str, &[SqlValue]) -> Result<Rows, SqlError>>;

/// A timer that is set.
#[derive(Clone, Copy)]
pub(super) struct Timer {
    pub(super) due_ms: u64,
    pub(super) keep: TimerKeep,
}

/// What undoes one write.
enum Undo {
    Value(String, Option<Vec<u8>>),
    Append,
    Replace(usize, Entry),
    Trim(Vec<Entry>),
    Timer(String, Option<Timer>),
}

/// Everything the harness keeps for its channel.
pub(super) struct State {
    pub(super) now_ms: u64,
    /// As they are after the joins and leaves of the running batch.
    pub(super) members: BTreeMap<MemberId, Identity>,
    pub(super) kv: BTreeMap<String, Vec<u8>>,
    pub(super) log: VecDeque<Entry>,
    pub(super) log_first: u64,
    pub(super) timers: BTreeMap<String, Timer>,
    pub(super) stats: Snapshot,
    pub(super) lines: Vec<(Level, String)>,
    /// Reads of the log, for tests of what a plugin spares.
    pub(super) log_reads: u64,
    /// The payloads of the running batch's events, for `forward`.
    pub(super) payloads: Vec<Option<Payload>>,
    pub(super) effects: Vec<Effect>,
    pub(super) effect_bytes_max: usize,
    pub(super) database: Database,
    effect_bytes: usize,
    undo: Vec<Undo>,
}

impl State {
    pub(super) fn new(now_ms: u64) -> Self {
        let link = Link { publisher: LinkState::Disabled, subscriber: LinkState::Disabled, subscribed: 0 };
        Self {
            now_ms,
            members: BTreeMap::new(),
            kv: BTreeMap::new(),
            log: VecDeque::new(),
            log_first: 1,
            timers: BTreeMap::new(),
            stats: Snapshot { uptime_ms: 0, connections: 0, users: 0, channels: 1, cluster: link },
            lines: Vec::new(),
            log_reads: 0,
            payloads: Vec::new(),
            effects: Vec::new(),
            effect_bytes_max: EFFECT_BYTES_MAX,
            database: Box::new(|_, _| Err(SqlError::NotGranted)),
            effect_bytes: 0,
            undo: Vec::new(),
        }
    }

    pub(super) fn begin(&mut self, events: &[Event]) {
        self.payloads = events
            .iter()
            .map(|event| match event {
                Event::Message(message) => Some(message.payload.clone()),
                Event::Publish(publication) => Some(publication.payload.clone()),
                _ => None,
            })
            .collect();
    }

    /// Makes the writes of the batch final and hands out its effects.
    pub(super) fn commit(&mut self) -> Vec<Effect> {
        self.undo.clear();
        self.effect_bytes = 0;
        std::mem::take(&mut self.effects)
    }

    /// Undoes all writes of the batch and forgets its effects.
    pub(super) fn roll_back(&mut self) {
        while let Some(undo) = self.undo.pop() {
            match undo {
                Undo::Value(key, Some(value)) => {
                    self.kv.insert(key, value);
                }
                Undo::Value(key, None) => {
                    self.kv.remove(&key);
                }
                Undo::Append => {
                    self.log.pop_back();
                }
                Undo::Replace(index, entry) => self.log[index] = entry,
                Undo::Trim(entries) => {
                    self.log_first -= entries.len() as u64;
                    for entry in entries.into_iter().rev() {
                        self.log.push_front(entry);
                    }
                }
                Undo::Timer(name, Some(timer)) => {
                    self.timers.insert(name, timer);
                }
                Undo::Timer(name, None) => {
                    self.timers.remove(&name);
                }
            }
        }
        self.effect_bytes = 0;
        self.effects.clear();
    }

    fn effect(&mut self, effect: Effect, bytes: usize) {
        self.effect_bytes += bytes;
        assert!(self.effects.len() < EFFECTS_MAX, "more than {EFFECTS_MAX} effects in a batch");
        let bytes_max = self.effect_bytes_max;
        assert!(self.effect_bytes <= bytes_max, "more than {bytes_max} bytes of effects in a batch");
        self.effects.push(effect);
    }

    fn put_value(&mut self, key: &str, value: Option<Vec<u8>>) {
        assert!(key.len() <= STATE_KEY_BYTES_MAX, "a key is longer than {STATE_KEY_BYTES_MAX} bytes");
        let old = match value {
            Some(value) => {
                check_value(&value);
                self.kv.insert(key.to_owned(), value)
            }
            None => self.kv.remove(key),
        };
        self.undo.push(Undo::Value(key.to_owned(), old));
    }

    fn index(&self, offset: u64) -> Option<usize> {
        let index = usize::try_from(offset.checked_sub(self.log_first)?).ok()?;
        (index < self.log.len()).then_some(index)
    }

    pub(super) fn next_offset(&self) -> u64 {
        self.log_first + self.log.len() as u64
    }
}

fn check_value(value: &[u8]) {
    assert!(value.len() <= STATE_VALUE_BYTES_MAX, "a value is larger than {STATE_VALUE_BYTES_MAX} bytes");
}

/// Stops before an entry that would make the answer too large, but never before the first.
fn within_bytes<T>(entries: impl Iterator<Item = T>, size: impl Fn(&T) -> usize) -> Vec<T> {
    let mut bytes = 0;
    let mut taken = Vec::new();
    for entry in entries {
        bytes += size(&entry);
        if bytes > READ_BYTES_MAX && !taken.is_empty() {
            break;
        }
        taken.push(entry);
    }
    taken
}

impl Host for HostHandle {
    fn broadcast(&self, event: u32, to: &Audience, what: &Payload, how: &Delivery) {
        let effect = Effect::Frame { event, to: to.clone(), what: what.clone(), how: how.clone() };
        self.0.borrow_mut().effect(effect, what.bytes().len());
    }

    fn forward(&self, event: u32, to: &Audience, how: &Delivery) {
        let mut state = self.0.borrow_mut();
        let Some(Some(what)) = state.payloads.get(event as usize).cloned() else {
            panic!("event {event} has no payload to forward");
        };
        let bytes = what.bytes().len();
        state.effect(Effect::Frame { event, to: to.clone(), what, how: how.clone() }, bytes);
    }

    fn close(&self, who: MemberId, code: u16, reason: &str) {
        assert!(matches!(code, 1000 | 1008 | 3000..=4999), "a plugin cannot close with {code}");
        self.0.borrow_mut().effect(Effect::Close { member: who, code, reason: reason.to_owned() }, reason.len());
    }

    fn reject(&self, event: u32, why: &Refusal) {
        self.0.borrow_mut().effect(Effect::Reject { event, why: why.clone() }, why.message.len());
    }

    fn publish(&self, channel: &str, what: &Payload) {
        let named = !channel.is_empty() && channel.len() <= CHANNEL_NAME_BYTES_MAX;
        assert!(named, "a channel name is empty or longer than {CHANNEL_NAME_BYTES_MAX} bytes");
        let effect = Effect::Publish { channel: channel.to_owned(), what: what.clone() };
        self.0.borrow_mut().effect(effect, what.bytes().len());
    }

    fn respond(&self, request: u64, response: &HttpResponse) {
        assert!((200..600).contains(&response.status), "{} is no status of an answer", response.status);
        let bytes = response.body.len();
        self.0.borrow_mut().effect(Effect::Respond { request, response: response.clone() }, bytes);
    }

    fn set_timer(&self, name: &str, after_ms: u64, keep: TimerKeep) {
        assert!(name.len() <= TIMER_NAME_BYTES_MAX, "a timer name is longer than {TIMER_NAME_BYTES_MAX} bytes");
        let mut state = self.0.borrow_mut();
        let timer = Timer { due_ms: state.now_ms.saturating_add(after_ms), keep };
        let old = state.timers.insert(name.to_owned(), timer);
        state.undo.push(Undo::Timer(name.to_owned(), old));
        assert!(state.timers.len() <= TIMERS_MAX, "more than {TIMERS_MAX} timers");
    }

    fn cancel_timer(&self, name: &str) {
        let mut state = self.0.borrow_mut();
        let old = state.timers.remove(name);
        state.undo.push(Undo::Timer(name.to_owned(), old));
    }

    fn members(&self) -> Vec<Member> {
        let state = self.0.borrow();
        state.members.iter().map(|(id, identity)| Member { id: *id, identity: identity.clone() }).collect()
    }

    fn find_member(&self, id: MemberId) -> Option<Member> {
        self.0.borrow().members.get(&id).map(|identity| Member { id, identity: identity.clone() })
    }

    fn kv_get(&self, key: &str) -> Option<Vec<u8>> {
        self.0.borrow().kv.get(key).cloned()
    }

    fn kv_put(&self, key: &str, value: &[u8]) {
        self.0.borrow_mut().put_value(key, Some(value.to_vec()));
    }

    fn kv_delete(&self, key: &str) {
        self.0.borrow_mut().put_value(key, None);
    }

    fn kv_scan(&self, prefix: &str, order: Order, limit: u32) -> Vec<(String, Vec<u8>)> {
        let state = self.0.borrow();
        let limit = limit.min(READ_ENTRIES_MAX) as usize;
        let found = state.kv.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        let found = found.map(|(key, value)| (key.clone(), value.clone()));
        let size = |(key, value): &(String, Vec<u8>)| key.len() + value.len();
        match order {
            Order::Ascending => within_bytes(found.take(limit), size),
            Order::Descending => {
                let mut found: Vec<_> = found.collect();
                found.reverse();
                within_bytes(found.into_iter().take(limit), size)
            }
        }
    }

    fn log_append(&self, data: &[u8]) -> u64 {
        check_value(data);
        let mut state = self.0.borrow_mut();
        let entry = Entry { offset: state.next_offset(), at_ms: state.now_ms, data: data.to_vec() };
        let offset = entry.offset;
        state.log.push_back(entry);
        state.undo.push(Undo::Append);
        offset
    }

    fn log_read(&self, from: u64, limit: u32) -> Vec<Entry> {
        let mut state = self.0.borrow_mut();
        state.log_reads += 1;
        let skip = usize::try_from(from.saturating_sub(state.log_first)).unwrap_or(usize::MAX);
        let limit = limit.min(READ_ENTRIES_MAX) as usize;
        within_bytes(state.log.iter().skip(skip).take(limit).cloned(), |entry| entry.data.len())
    }

    fn log_replace(&self, offset: u64, data: &[u8]) -> bool {
        check_value(data);
        let mut state = self.0.borrow_mut();
        let Some(index) = state.index(offset) else { return false };
        let old = std::mem::replace(&mut state.log[index].data, data.to_vec());
        let old = Entry { data: old, ..state.log[index].clone() };
        state.undo.push(Undo::Replace(index, old));
        true
    }

    fn log_trim(&self, before: u64) {
        let mut state = self.0.borrow_mut();
        let gone = before.min(state.next_offset()).saturating_sub(state.log_first);
        let entries: Vec<Entry> = state.log.drain(..gone as usize).collect();
        state.log_first += gone;
        state.undo.push(Undo::Trim(entries));
    }

    fn log_bounds(&self) -> Extent {
        let state = self.0.borrow();
        Extent { first: state.log_first, next: state.next_offset() }
    }

    fn log_line(&self, level: Level, line: &str) {
        self.0.borrow_mut().lines.push((level, line.to_owned()));
    }

    fn query(&self, statement: &str, parameters: &[SqlValue]) -> Result<Rows, SqlError> {
        (self.0.borrow().database)(statement, parameters)
    }

    fn stats(&self) -> Snapshot {
        self.0.borrow().stats
    }
}
