//! The channel as its plugin reads it: what is committed, overlaid with what its batches wrote that is still on its way to
//! the disk.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::channel::logic::Logic;
use crate::fanout::Roster;
use crate::plugin::{Channel, Fault, ReadFuture, Stats};
use crate::protocol::event::MemberId;
use crate::protocol::identity::Identity;
use crate::store::{Acquired, ChannelKey, Commit, Order, Store, StoreError, StoreFuture};

/// See the module.
pub(super) struct View {
    store: Arc<dyn Store>,
    logic: Arc<Logic>,
    tenant: Arc<str>,
    key: ChannelKey,
    written: Mutex<State>,
}

struct State {
    /// Oldest first.
    pending: VecDeque<Arc<Commit>>,
    log: (u64, u64),
    kv_bytes: u64,
    roster: Roster,
}

impl View {
    /// A channel that was just taken over.
    pub(super) fn new(
        store: Arc<dyn Store>,
        logic: Arc<Logic>,
        tenant: &str,
        acquired: &Acquired,
        roster: Roster,
    ) -> Self {
        let state = State { pending: VecDeque::new(), log: acquired.log, kv_bytes: acquired.state_bytes, roster };
        Self { store, logic, tenant: tenant.into(), key: acquired.fence.channel, written: Mutex::new(state) }
    }

    /// Works on the members.
    pub(super) fn with_roster<T>(&self, work: impl FnOnce(&mut Roster) -> T) -> T {
        work(&mut self.lock().roster)
    }

    /// A batch's writes are on their way; `log` is the end of the log after them.
    pub(super) fn submitted(&self, commit: &Arc<Commit>) {
        let mut state = self.lock();
        if let Some(before) = commit.writes.trim_before {
            state.log.0 = state.log.0.max(before);
        }
        state.log.1 += commit.writes.appends.len() as u64;
        state.pending.push_back(Arc::clone(commit));
    }

    /// The oldest writes on their way are committed.
    pub(super) fn committed(&self, state_bytes: u64) {
        let mut state = self.lock();
        state.pending.pop_front();
        state.kv_bytes = state_bytes;
    }

    /// Oldest first, as they are now: what is read from the store afterwards may already contain the first of them,
    /// and laying it over again changes nothing.
    fn pending(&self) -> Vec<Arc<Commit>> {
        self.lock().pending.iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A read that is not answered in time ends the batch.
    async fn in_time<T>(&self, read: StoreFuture<'_, T>) -> Result<T, Fault> {
        let limit = Duration::from_millis(self.logic.limits.read_ms_max);
        match tokio::time::timeout(limit, read).await {
            Ok(result) => result.map_err(|error: StoreError| Fault::Unavailable { cause: error.to_string() }),
            Err(_) => Err(Fault::Unavailable { cause: format!("no answer within {limit:?} (read_ms_max)") }),
        }
    }
}

impl Channel for View {
    fn get<'a>(&'a self, key: &'a str) -> ReadFuture<'a, Option<Bytes>> {
        Box::pin(async move {
            for commit in self.pending().iter().rev() {
                if let Some((_, value)) = commit.writes.state.iter().find(|(written, _)| written == key) {
                    return Ok(value.clone());
                }
            }
            self.in_time(self.store.get(self.key, key)).await
        })
    }

    fn scan<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        descending: bool,
        limit: u32,
    ) -> ReadFuture<'a, Vec<(String, Bytes)>> {
        Box::pin(async move {
            let pending = self.pending();
            let written: BTreeMap<&str, Option<&Bytes>> = pending
                .iter()
                .flat_map(|commit| &commit.writes.state)
                .filter(|(key, _)| key.starts_with(prefix))
                .map(|(key, value)| (key.as_str(), value.as_ref()))
                .collect();
            let order = if descending { Order::Descending } else { Order::Ascending };
            let ask = limit.saturating_add(written.values().filter(|value| value.is_none()).count() as u32);
            let stored = self.in_time(self.store.scan(self.key, prefix, after, order, ask)).await?;
            // Beyond a full answer the store may have more, which the overlay must not overtake.
            let horizon = (stored.len() as u32 >= ask).then(|| stored.last().map(|(key, _)| key.clone())).flatten();
            let past = |key: &str, mark: &str| if descending { key < mark } else { key > mark };
            let mut entries: BTreeMap<String, Bytes> = stored.into_iter().collect();
            for (key, value) in written {
                let outside = after.is_some_and(|after| !past(key, after))
                    || horizon.as_deref().is_some_and(|horizon| past(key, horizon));
                match value {
                    _ if outside => {}
                    Some(value) => drop(entries.insert(key.to_owned(), value.clone())),
                    None => drop(entries.remove(key)),
                }
            }
            let limit = limit as usize;
            Ok(if descending {
                entries.into_iter().rev().take(limit).collect()
            } else {
                entries.into_iter().take(limit).collect()
            })
        })
    }

    fn read_log(&self, from: u64, before: u64, limit: u32) -> ReadFuture<'_, Vec<(u64, u64, Bytes)>> {
        Box::pin(async move {
            let pending = self.pending();
            let first_pending =
                pending.iter().find_map(|commit| commit.writes.appends.first()).map(|entry| entry.offset);
            let mut entries: BTreeMap<u64, (u64, Bytes)> = BTreeMap::new();
            let stored_before = first_pending.map_or(before, |first| first.min(before));
            if from < stored_before {
                let stored = self.in_time(self.store.read_log(self.key, from, stored_before, limit)).await?;
                entries.extend(stored.into_iter().map(|entry| (entry.offset, (entry.at_ms, entry.data))));
            }
            // A store's answer may end early, for its size: entries that are on their way must not leave a gap.
            let complete = entries.last_key_value().map_or(from, |(offset, _)| offset + 1) >= stored_before;
            for commit in &pending {
                if complete {
                    let appends = commit.writes.appends.iter().filter(|entry| (from..before).contains(&entry.offset));
                    entries.extend(appends.map(|entry| (entry.offset, (entry.at_ms, entry.data.clone()))));
                }
                for (offset, data) in &commit.writes.replaces {
                    if let Some(entry) = entries.get_mut(offset) {
                        entry.1 = data.clone();
                    }
                }
            }
            Ok(entries.into_iter().take(limit as usize).map(|(offset, (at_ms, data))| (offset, at_ms, data)).collect())
        })
    }

    fn log_bounds(&self) -> (u64, u64) {
        self.lock().log
    }

    fn state_bytes(&self) -> u64 {
        self.lock().kv_bytes
    }

    fn members(&self) -> Vec<(MemberId, Identity)> {
        self.lock().roster.iter().map(|recipient| (recipient.member, recipient.identity.clone())).collect()
    }

    fn member(&self, id: MemberId) -> Option<Identity> {
        self.lock().roster.find(id).map(|recipient| recipient.identity.clone())
    }

    fn stats(&self) -> Stats {
        self.logic.census.stats(&self.tenant)
    }
}
