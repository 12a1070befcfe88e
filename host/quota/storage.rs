//! What a tenant keeps: bytes of state and of logs. The store counts them by channel, and tells with each commit; here they are summed.
//! Room for what a batch adds is taken before its commit, so that many channels at once do not pass the limit together.

use std::collections::{HashMap, HashSet};
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
    /// Channels that are taken over. Also those that were given up after a commit that may have taken hold or not,
    /// until they are taken over again and tell; and those that were [reset](Quota::stays_known).
    channels: Mutex<Channels>,
}

#[derive(Debug, Default)]
struct Channels {
    /// What they are counted with.
    counted: HashMap<i64, Counted>,
    /// Those that are known also when they are given up.
    stay: HashSet<i64>,
}

/// What a channel is counted with.
#[derive(Debug)]
struct Counted {
    /// As of which commit: its epoch and its number in it. What comes later and is older is no news.
    at: (u64, u64),
    kept: Kept,
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
        Self { state, log, channels: Mutex::default() }
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
        let mut channels = self.known_channels();
        let known = channels.counted.entry(channel).or_insert(Counted { at, kept });
        self.storage.recount(known, at, kept);
    }

    /// A commit of a channel that is taken over told what it keeps.
    pub fn keeps(&self, channel: i64, at: (u64, u64), kept: Kept) {
        if let Some(known) = self.known_channels().counted.get_mut(&channel) {
            self.storage.recount(known, at, kept);
        }
    }

    /// A channel was given up, and keeps what it is counted with.
    pub fn gives_up(&self, channel: i64) {
        let mut channels = self.known_channels();
        if !channels.stay.contains(&channel) {
            channels.counted.remove(&channel);
        }
    }

    /// Somebody else than a commit is about to change what a channel keeps: from here on whoever has it or takes it over is known for good.
    /// What the channel keeps is read after this, and [told](Self::will_change).
    ///
    /// Whoever takes it over or gives it up while it is changed, or took it over before and comes late, would else be believed to have been
    /// counted with what he says. Nobody can say when the last of them came, so this has no end. It is some bytes for each channel that was
    /// ever reset, which only operators do, and seldom.
    pub fn stays_known(&self, channel: i64) {
        self.known_channels().stay.insert(channel);
    }

    /// What a channel keeps that is about to be changed. It is counted with the same if nobody has had it since it [stays
    /// known](Self::stays_known).
    pub fn will_change(&self, channel: i64, at: (u64, u64), kept: Kept) {
        self.known_channels().counted.entry(channel).or_insert(Counted { at, kept });
    }

    /// What was [about to change](Self::will_change) did. What is under way of whoever had the channel before that is no news any more.
    pub fn is_changed(&self, channel: i64, at: (u64, u64), kept: Kept) {
        self.keeps(channel, at, kept);
    }

    fn known_channels(&self) -> std::sync::MutexGuard<'_, Channels> {
        self.storage.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
