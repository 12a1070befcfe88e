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
    /// What channels were counted with whose last commit may have taken hold or not, until they are taken over again and tell.
    unsure: Mutex<HashMap<i64, Kept>>,
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
        Self { state, log, unsure: Mutex::default() }
    }

    fn becomes(&self, before: Kept, after: Kept) {
        self.state.becomes(before.state, after.state);
        self.log.becomes(before.log, after.log);
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

    /// A channel that was counted with `before` keeps `after`: a commit told so, or whoever wrote or deleted its rows.
    pub fn keeps(&self, before: Kept, after: Kept) {
        if before != after {
            self.storage.becomes(before, after);
        }
    }

    /// What the channels of the tenant keep together when the node starts.
    pub fn keeps_at_start(&self, all: Kept) {
        self.storage.becomes(Kept::default(), all);
    }

    /// Nobody knows whether the last commit of a channel took hold; it is counted with this.
    pub fn is_unsure_of(&self, channel: i64, counted: Kept) {
        self.unsure().insert(channel, counted);
    }

    /// A channel was taken over, and keeps this.
    pub fn is_sure_of(&self, channel: i64, kept: Kept) {
        let counted = self.unsure().remove(&channel);
        if let Some(counted) = counted {
            self.keeps(counted, kept);
        }
    }

    fn unsure(&self) -> std::sync::MutexGuard<'_, HashMap<i64, Kept>> {
        self.storage.unsure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
