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
use crate::protocol::name::ChannelName;
use crate::protocol::overlay::Overlay;
use crate::protocol::sql::{Rows, SqlError, Value};
use crate::store::{Acquired, ChannelKey, Commit, LogEntry, Order, Store, StoreError, StoreFuture};

/// See the module.
pub(super) struct View {
    store: Arc<dyn Store>,
    logic: Arc<Logic>,
    name: ChannelName,
    key: ChannelKey,
    written: Arc<Mutex<State>>,
}

/// What is known without the store.
pub(super) struct State {
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
        name: &ChannelName,
        acquired: &Acquired,
        roster: Roster,
    ) -> Self {
        let state = State { pending: VecDeque::new(), log: acquired.log, kv_bytes: acquired.state_bytes, roster };
        let written = Arc::new(Mutex::new(state));
        logic.census.opened(name, &written);
        Self { store, logic, name: name.clone(), key: acquired.fence.channel, written }
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

impl State {
    /// The members.
    pub(super) fn roster(&self) -> &Roster {
        &self.roster
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.logic.census.closed(&self.name, &self.written);
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
            // Each deleted key may take one stored entry away.
            let ask = limit.saturating_add(written.values().filter(|value| value.is_none()).count() as u32);
            let mut answer = Overlay::new(descending, limit);
            let mut after = after.map(str::to_owned);
            loop {
                let stored = self.in_time(self.store.scan(self.key, prefix, after.as_deref(), order, ask)).await?;
                match answer.add(after.as_deref(), stored, written.iter().map(|(key, value)| (*key, *value))) {
                    Some(next) => after = Some(next),
                    None => return Ok(answer.into_entries()),
                }
            }
        })
    }

    fn read_log(&self, from: u64, before: u64, limit: u32) -> ReadFuture<'_, Vec<(u64, u64, Bytes)>> {
        Box::pin(async move {
            let pending = self.pending();
            let first_pending =
                pending.iter().find_map(|commit| commit.writes.appends.first()).map(|entry| entry.offset);
            let stored_before = first_pending.map_or(before, |first| first.min(before));
            let mut stored = Vec::new();
            if from < stored_before {
                stored = self.in_time(self.store.read_log(self.key, from, stored_before, limit)).await?;
            }
            Ok(lay_over_log(stored, (from, stored_before, before), &pending, limit))
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

    fn query<'a>(&'a self, statement: &'a str, parameters: Vec<Value>) -> ReadFuture<'a, Result<Rows, SqlError>> {
        Box::pin(async move {
            match self.logic.statements.get(statement) {
                Some(granted) => Ok(granted.query(&self.name, parameters).await),
                None => Ok(Err(SqlError::NotGranted)),
            }
        })
    }

    fn stats(&self) -> Stats {
        self.logic.census.stats(self.name.tenant())
    }
}

/// The log's entries with `from <= offset < before`, of which the store was asked for those before `stored_before`: what it
/// answered, overlaid with what is on its way. Its answer may end early, for its size; offsets have no gaps, so that shows.
fn lay_over_log(
    stored: Vec<LogEntry>,
    (from, stored_before, before): (u64, u64, u64),
    pending: &[Arc<Commit>],
    limit: u32,
) -> Vec<(u64, u64, Bytes)> {
    let mut entries: BTreeMap<u64, (u64, Bytes)> =
        stored.into_iter().map(|entry| (entry.offset, (entry.at_ms, entry.data))).collect();
    let complete = entries.last_key_value().map_or(from, |(offset, _)| offset + 1) >= stored_before;
    for commit in pending {
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
    entries.into_iter().take(limit as usize).map(|(offset, (at_ms, data))| (offset, at_ms, data)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::READ_BYTES_MAX;
    use crate::store::{Durability, Fence, Writes};

    /// An entry whose data says its offset and what wrote it.
    fn entry(offset: u64, by: u8, kib: usize) -> LogEntry {
        LogEntry { offset, at_ms: offset, data: Bytes::from([vec![by, offset as u8], vec![0; kib << 10]].concat()) }
    }

    fn commit(appends: Vec<LogEntry>, replaces: Vec<(u64, Bytes)>) -> Arc<Commit> {
        let fence = Fence { channel: ChannelKey(1), epoch: 1, seq: 0 };
        let writes = Writes { appends, replaces, ..Writes::default() };
        Arc::new(Commit { fence, durability: Durability::Fsync, writes })
    }

    /// Goal: entries on their way to the disk never follow an answer of the store that ended early, for bytes or for entries,
    /// wherever it begins and however much of what is on its way the store has already.
    #[test]
    fn a_log_has_no_gaps() {
        let replaced = entry(2, b'r', 300).data;
        let pending = [
            commit(vec![entry(5, b'p', 1), entry(6, b'p', 1)], vec![(2, replaced.clone())]),
            commit(vec![entry(7, b'p', 1)], Vec::new()),
        ];
        for from in 1..=8 {
            for before in from..=8 {
                for limit in [1, 2, 3, 100] {
                    let stored_before = 5.min(before);
                    let mut stored: Vec<LogEntry> = Vec::new();
                    for offset in from..stored_before {
                        let bytes: usize = stored.iter().map(|entry| entry.data.len()).sum();
                        let next = entry(offset, b's', 300);
                        if stored.len() < limit as usize && bytes + next.data.len() <= READ_BYTES_MAX {
                            stored.push(next);
                        }
                    }
                    let early = from + (stored.len() as u64) < stored_before;

                    let found = lay_over_log(stored, (from, stored_before, before), &pending, limit);

                    let offsets: Vec<u64> = found.iter().map(|(offset, ..)| *offset).collect();
                    let expected: Vec<u64> = (from..before).take(offsets.len()).collect();
                    assert_eq!(offsets, expected, "from {from} before {before} limit {limit}");
                    let end = if early { from + 3 } else { before };
                    let whole = (end - from).min(limit.into());
                    assert_eq!(offsets.len() as u64, whole, "from {from} before {before} limit {limit}");
                    assert!(found.iter().all(|(offset, _, data)| *offset != 2 || *data == replaced));
                }
            }
        }
    }
}
