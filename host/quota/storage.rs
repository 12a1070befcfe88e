//! What a tenant keeps: bytes of state and of logs. The store counts them by channel, and tells with each commit; here they are summed.
//! Room for what a batch adds is taken before its commit, so that many channels at once do not pass the limit together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::quota::Quota;
use crate::quota::level::Level;
use crate::quota::limits::{Limit, Over};

/// What a channel keeps, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kept {
    /// Keys and values in its state.
    pub state: u64,
    /// Entries in its log.
    pub log: u64,
}

/// A tenant's state and logs.
#[derive(Debug)]
pub(super) struct Storage {
    pub(super) state: Stock,
    pub(super) log: Stock,
    /// What channels are counted with that are taken over. Also those that were given up after a commit that may have taken hold or not,
    /// until they are taken over again and tell; and those that were [reset](Quota::will_change).
    counted: Mutex<HashMap<i64, Counted>>,
}

/// What a channel is counted with.
#[derive(Debug)]
struct Counted {
    /// As of which commit: its epoch and its number in it. What comes later and is older is no news.
    at: (u64, u64),
    kept: Kept,
    /// Also when it is given up.
    stays: bool,
}

/// Bytes that are there, and with them those that are on the way.
#[derive(Debug)]
pub(super) struct Stock {
    kept: Level,
    /// The limit is for these.
    with_coming: Level,
}

impl Stock {
    fn new(limit: Limit) -> Self {
        Self { kept: Level::new(limit), with_coming: Level::new(limit) }
    }

    pub(super) fn kept(&self) -> u64 {
        self.kept.used()
    }

    pub(super) fn set_max(&self, max: Option<u64>) {
        self.with_coming.set_max(max);
    }

    fn becomes(&self, before: u64, after: u64) {
        for level in [&self.kept, &self.with_coming] {
            level.add(after.saturating_sub(before));
            level.sub(before.saturating_sub(after));
        }
    }
}

impl Storage {
    pub(super) fn new() -> Self {
        let (state, log) = (Stock::new(Limit::StateBytes), Stock::new(Limit::LogBytes));
        Self { state, log, counted: Mutex::default() }
    }

    fn becomes(&self, before: Kept, after: Kept) {
        self.state.becomes(before.state, after.state);
        self.log.becomes(before.log, after.log);
    }

    fn recount(&self, known: &mut Counted, at: (u64, u64), kept: Kept) {
        if known.at <= at {
            self.becomes(known.kept, kept);
            (known.at, known.kept) = (at, kept);
        }
    }
}

/// Room for what a batch adds, until this is dropped; by then its commit has told what there is.
#[derive(Debug)]
pub struct Room {
    quota: Arc<Quota>,
    more: Kept,
}

impl Drop for Room {
    fn drop(&mut self) {
        let storage = &self.quota.storage;
        storage.state.with_coming.sub(self.more.state);
        storage.log.with_coming.sub(self.more.log);
    }
}

impl Quota {
    /// Whether what its channels keep has a limit.
    pub fn limits_storage(&self) -> bool {
        self.storage.state.with_coming.max().or(self.storage.log.with_coming.max()).is_some()
    }

    /// Takes room for what a batch adds. What adds nothing always finds room.
    ///
    /// # Errors
    /// If there is not so much.
    pub fn make_room(self: &Arc<Self>, more: Kept) -> Result<Room, Over> {
        self.try_room(more).inspect_err(|over| self.count_refusal(over.limit))
    }

    /// The same for a first guess, which nobody is refused for.
    ///
    /// # Errors
    /// Likewise.
    pub fn try_room(self: &Arc<Self>, more: Kept) -> Result<Room, Over> {
        let (state, log) = (&self.storage.state.with_coming, &self.storage.log.with_coming);
        let add = |level: &Level, more: u64| if more == 0 { Ok(()) } else { level.try_add(more, u64::MAX) };
        add(state, more.state).and_then(|()| add(log, more.log).inspect_err(|_| state.sub(more.state)))?;
        Ok(Room { quota: Arc::clone(self), more })
    }

    /// What the channels of the tenant keep together when the node starts.
    pub fn keeps_at_start(&self, all: Kept) {
        self.storage.becomes(Kept::default(), all);
    }

    /// A channel was taken over, and keeps this. Until now, if it is not known otherwise, it was counted with the same.
    pub fn takes_over(&self, channel: i64, at: (u64, u64), kept: Kept) {
        let mut counted = self.known_channels();
        let known = counted.entry(channel).or_insert(Counted { at, kept, stays: false });
        self.storage.recount(known, at, kept);
    }

    /// A commit of a channel that is taken over told what it keeps.
    pub fn keeps(&self, channel: i64, at: (u64, u64), kept: Kept) {
        if let Some(known) = self.known_channels().get_mut(&channel) {
            self.storage.recount(known, at, kept);
        }
    }

    /// A channel was given up, and keeps what it is counted with.
    pub fn gives_up(&self, channel: i64) {
        let mut counted = self.known_channels();
        if counted.get(&channel).is_some_and(|known| !known.stays) {
            counted.remove(&channel);
        }
    }

    /// Somebody else than a commit is about to change what a channel keeps, which is this, and what it is counted with if nobody has it.
    ///
    /// From here on it is known for good what it is counted with: whoever takes it over or gives it up while it is changed, or took it
    /// over before and comes late, would else be believed to have been counted with what he says. It stays because nobody can say when the
    /// last of them came. That is some bytes for each channel that was ever reset, which only operators do, and seldom.
    pub fn will_change(&self, channel: i64, at: (u64, u64), kept: Kept) {
        self.known_channels().entry(channel).or_insert(Counted { at, kept, stays: true }).stays = true;
    }

    /// What was [about to change](Self::will_change) did. What is under way of whoever had the channel before that is no news any more.
    pub fn is_changed(&self, channel: i64, at: (u64, u64), kept: Kept) {
        self.keeps(channel, at, kept);
    }

    fn known_channels(&self) -> std::sync::MutexGuard<'_, HashMap<i64, Counted>> {
        self.storage.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
