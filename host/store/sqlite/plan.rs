//! What a group of commits means for the tables: pure rules, no IO.
//!
//! The writer reads the rows of the group's channels under the database's write lock, [`Plan::add`] applies the commits
//! to them in their order of arrival, and the writer carries out the sum. So two commits of one channel may be in one
//! group, and a refused commit leaves no trace in it.

use std::collections::HashMap;

use bytes::Bytes;

use crate::limits::IDEMPOTENCY_WINDOW_MS;
use crate::store::{Answer, Commit, Committed, LogEntry, StoreError, Writes};

/// Trimmed log entries of a channel that are left in the table until it is worth deleting them.
const SWEEP_ENTRIES_MIN: u64 = 64;
/// Trimmed log entries of a channel that one group deletes, beyond twice what it appends.
const SWEEP_ENTRIES_MAX: u64 = 1_000;

/// A row of the table `channel`, as far as commits change it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChannelRow {
    pub(super) epoch: u64,
    pub(super) seq: u64,
    /// Oldest entry in the table `log`.
    pub(super) log_stored: u64,
    /// Oldest entry that may be read.
    pub(super) log_first: u64,
    pub(super) log_next: u64,
    pub(super) state_bytes: u64,
    /// Data of the entries in the table `log`.
    pub(super) log_bytes: u64,
}

/// What is there of what the commits of a group write over.
#[derive(Debug, Default)]
pub(super) struct Sizes<'a> {
    /// Bytes of the state values, by channel and key.
    pub(super) state: HashMap<Named<'a>, u64>,
    /// Bytes of the log entries, by channel and offset.
    pub(super) log: HashMap<(i64, u64), u64>,
}

/// A state key or a timer of a channel.
pub(super) type Named<'a> = (i64, &'a str);

/// A changed row: how it was found and what it becomes.
#[derive(Debug)]
pub(super) struct Changed {
    pub(super) channel: i64,
    pub(super) before: ChannelRow,
    pub(super) after: ChannelRow,
}

/// The sum of the commits of a group.
#[derive(Debug, Default)]
pub(super) struct Plan<'a> {
    rows: HashMap<i64, (ChannelRow, ChannelRow)>,
    sizes: Sizes<'a>,
    state: HashMap<Named<'a>, Option<&'a Bytes>>,
    timers: HashMap<Named<'a>, Option<u64>>,
    replaces: HashMap<(i64, u64), &'a Bytes>,
    saved: HashMap<i64, Saved<'a>>,
    versions: HashMap<i64, &'a [u8; 32]>,
    pub(super) appends: Vec<(i64, &'a LogEntry)>,
    pub(super) answers: Vec<(i64, &'a Answer)>,
}

/// The memory of an instance, and the fence at which it is the memory of that channel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Saved<'a> {
    pub(super) channel: i64,
    pub(super) epoch: u64,
    pub(super) seq: u64,
    pub(super) data: &'a Bytes,
}

/// Log entries of a channel that are no longer read: `from <= offset < before`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sweep {
    pub(super) channel: i64,
    pub(super) from: u64,
    pub(super) before: u64,
}

impl ChannelRow {
    fn committed(&self) -> Committed {
        Committed { state_bytes: self.state_bytes, log_bytes: self.log_bytes }
    }
}

impl<'a> Plan<'a> {
    /// `rows` are the channels of the group's commits, `sizes` the bytes of what exists among that which the commits write.
    pub(super) fn new(rows: HashMap<i64, ChannelRow>, sizes: Sizes<'a>) -> Self {
        Self { rows: rows.into_iter().map(|(channel, row)| (channel, (row, row))).collect(), sizes, ..Self::default() }
    }

    /// Applies a commit, all of it or nothing.
    ///
    /// Only the home that acquired an epoch commits in it, and it sends one commit per sequence number. So a row
    /// of the same epoch with a higher sequence number says that this commit took hold before: its answer got lost.
    pub(super) fn add(&mut self, commit: &'a Commit) -> Result<Committed, StoreError> {
        let channel = commit.fence.channel.0;
        let Some((_, row)) = self.rows.get_mut(&channel) else {
            return Err(StoreError::Fenced);
        };
        if row.epoch != commit.fence.epoch {
            return Err(StoreError::Fenced);
        }
        if row.seq > commit.fence.seq {
            return Ok(row.committed());
        }
        if row.seq < commit.fence.seq {
            return Err(StoreError::OutOfOrder { expected: row.seq, found: commit.fence.seq });
        }
        check(&commit.writes, row.log_next)?;

        let writes = &commit.writes;
        row.seq += 1;
        for (key, value) in &writes.state {
            let before = match value {
                Some(value) => self.sizes.state.insert((channel, key), value.len() as u64),
                None => self.sizes.state.remove(&(channel, key.as_str())),
            };
            let size = |value: u64| key.len() as u64 + value;
            row.state_bytes += value.as_ref().map_or(0, |value| size(value.len() as u64));
            // Cannot go below zero unless the database is wrong; then it becomes right again by and by.
            row.state_bytes = row.state_bytes.saturating_sub(before.map_or(0, size));
            self.state.insert((channel, key), value.as_ref());
        }
        self.appends.extend(writes.appends.iter().map(|entry| (channel, entry)));
        row.log_next += writes.appends.len() as u64;
        row.log_bytes += writes.appends.iter().map(|entry| entry.data.len() as u64).sum::<u64>();
        for (offset, data) in &writes.replaces {
            if (row.log_first..row.log_next).contains(offset) {
                let appended = || self.appends.iter().find(|(of, entry)| (*of, entry.offset) == (channel, *offset));
                let before = self.sizes.log.insert((channel, *offset), data.len() as u64);
                let before = before.or_else(|| appended().map(|(_, entry)| entry.data.len() as u64));
                row.log_bytes = (row.log_bytes + data.len() as u64).saturating_sub(before.unwrap_or(0));
                self.replaces.insert((channel, *offset), data);
            }
        }
        if let Some(before) = writes.trim_before {
            row.log_first = before.clamp(row.log_first, row.log_next);
        }
        for (name, due_ms) in &writes.timers {
            self.timers.insert((channel, name), *due_ms);
        }
        self.answers.extend(writes.answers.iter().map(|answer| (channel, answer)));
        if let Some(version) = &writes.version {
            self.versions.insert(channel, version);
        }
        match &writes.saved {
            Some(data) => {
                self.saved.insert(channel, Saved { channel, epoch: row.epoch, seq: row.seq, data });
            }
            // It is behind this commit now.
            None => drop(self.saved.remove(&channel)),
        }
        Ok(row.committed())
    }

    /// The rows that change, and the log entries to delete. Call once, after the last commit.
    pub(super) fn finish(&mut self) -> (Vec<Changed>, Vec<Sweep>) {
        let mut appended = HashMap::<i64, u64>::new();
        for (channel, _) in &self.appends {
            *appended.entry(*channel).or_default() += 1;
        }
        let mut changed = Vec::new();
        let mut sweeps = Vec::new();
        for (&channel, &(before, mut after)) in self.rows.iter().filter(|(_, (before, after))| before.seq != after.seq)
        {
            let appended = appended.get(&channel).copied().unwrap_or(0);
            let waiting = after.log_first - after.log_stored;
            // Whoever trims and appends nothing makes room, and wants to see it.
            let makes_room = waiting > 0 && appended == 0 && before.log_first != after.log_first;
            if waiting >= SWEEP_ENTRIES_MIN || makes_room {
                let most = SWEEP_ENTRIES_MAX + 2 * appended;
                let from = after.log_stored;
                after.log_stored = after.log_first.min(from + most);
                sweeps.push(Sweep { channel, from, before: after.log_stored });
            }
            changed.push(Changed { channel, before, after });
        }
        // In the order of the tables, which spares SQLite's page cache.
        changed.sort_unstable_by_key(|row| row.channel);
        sweeps.sort_unstable_by_key(|sweep| sweep.channel);
        self.appends.sort_unstable_by_key(|(channel, entry)| (*channel, entry.offset));
        (changed, sweeps)
    }

    /// State values to write, and keys to delete, in the order of the table.
    pub(super) fn state(&self) -> (Vec<(i64, &'a str, &'a Bytes)>, Vec<Named<'a>>) {
        let values = self.state.iter();
        let mut puts: Vec<_> = values.filter_map(|(&(channel, key), value)| Some((channel, key, (*value)?))).collect();
        puts.sort_unstable_by_key(|&(channel, key, _)| (channel, key));
        (puts, sorted_absent(&self.state))
    }

    /// Timers to set and to cancel.
    pub(super) fn timers(&self) -> (Vec<(i64, &'a str, u64)>, Vec<Named<'a>>) {
        let set = self.timers.iter().filter_map(|(&(channel, name), due_ms)| Some((channel, name, (*due_ms)?)));
        (set.collect(), sorted_absent(&self.timers))
    }

    /// Log entries to write over.
    pub(super) fn replaces(&self) -> Vec<(i64, u64, &'a Bytes)> {
        self.replaces.iter().map(|(&(channel, offset), &data)| (channel, offset, data)).collect()
    }

    /// What instances saved.
    pub(super) fn saved(&self) -> Vec<Saved<'a>> {
        self.saved.values().copied().collect()
    }

    /// Channels that are pinned to a version, and its digest, in the order of the table.
    pub(super) fn versions(&self) -> Vec<(i64, &'a [u8; 32])> {
        let mut versions: Vec<_> = self.versions.iter().map(|(&channel, &version)| (channel, version)).collect();
        versions.sort_unstable_by_key(|(channel, _)| *channel);
        versions
    }

    /// Answers before this time are too old to be kept, by the newest answer of the group.
    pub(super) fn answers_expire_before_ms(&self) -> Option<u64> {
        let newest = self.answers.iter().map(|(_, answer)| answer.at_ms).max()?;
        Some(newest.saturating_sub(IDEMPOTENCY_WINDOW_MS))
    }
}

fn sorted_absent<'a, T>(entries: &HashMap<Named<'a>, Option<T>>) -> Vec<Named<'a>> {
    let mut keys: Vec<_> = entries.iter().filter(|(_, value)| value.is_none()).map(|(&key, _)| key).collect();
    keys.sort_unstable();
    keys
}

/// Whether the table can hold these writes: the log has no gaps, and numbers fit SQLite's 63 bits.
fn check(writes: &Writes, log_next: u64) -> Result<(), StoreError> {
    let refuse = |detail: String| Err(StoreError::Constraint { detail });
    for (entry, expected) in writes.appends.iter().zip(log_next..) {
        if entry.offset != expected {
            return refuse(format!("appending at offset {}, but the log goes on at {expected}", entry.offset));
        }
    }
    let times = writes.appends.iter().map(|entry| entry.at_ms);
    let times = times.chain(writes.timers.iter().filter_map(|(_, due_ms)| *due_ms));
    let mut times = times.chain(writes.answers.iter().map(|answer| answer.at_ms));
    match times.find(|&time| i64::try_from(time).is_err()) {
        Some(time) => refuse(format!("the time {time} ms is beyond all time")),
        None => Ok(()),
    }
}
