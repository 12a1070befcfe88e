//! The laws of the store, checked on real files.

mod failures;
mod kept;
mod laws;
mod lists;
mod registry;
mod reset;
mod rows;
mod state;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, SqliteConnection};

use super::SqliteStore;
use crate::protocol::name::ChannelName;
use crate::store::{Acquired, Commit, Committed, Durability, Fence, LogEntry, Store, StoreError, Writes};

/// A store in a folder that goes away with it.
struct Fixture {
    folder: tempfile::TempDir,
    store: SqliteStore,
}

impl Fixture {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("test.sqlite")).await.unwrap();
        Self { folder, store }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("test.sqlite")
    }

    async fn acquire(&self, channel: &str) -> Acquired {
        self.store.acquire(&name(channel), "test").await.unwrap()
    }

    async fn commit(&self, fence: Fence, writes: Writes) -> Result<Committed, StoreError> {
        self.store.commit(commit(fence, writes)).await
    }

    /// The offsets and entries that can be read.
    async fn log(&self, acquired: &Acquired) -> Vec<(u64, Bytes)> {
        let log = self.store.read_log(acquired.fence.channel, 0, u64::MAX, 1_000).await.unwrap();
        log.into_iter().map(|entry| (entry.offset, entry.data)).collect()
    }

    /// Another program's connection to the file.
    async fn stranger(&self) -> SqliteConnection {
        SqliteConnectOptions::new().filename(self.path()).connect().await.unwrap()
    }

    /// Bytes in the table of log entries.
    async fn log_bytes(&self) -> u64 {
        self.count("SELECT coalesce(sum(length(data)), 0) FROM log").await.unsigned_abs()
    }

    /// Bytes of state and of logs, as the channels say.
    async fn kept(&self) -> (u64, u64) {
        let kept = self.store.catalog().kept("", u32::MAX).await.unwrap();
        kept.iter().fold((0, 0), |sum, kept| (sum.0 + kept.state_bytes, sum.1 + kept.log_bytes))
    }

    async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&mut self.stranger().await).await.unwrap()
    }
}

fn name(channel: &str) -> ChannelName {
    ChannelName::new("default", channel).unwrap()
}

/// The fence `seq` commits after `acquired`.
fn after(acquired: &Acquired, seq: u64) -> Fence {
    Fence { seq, ..acquired.fence }
}

fn commit(fence: Fence, writes: Writes) -> Arc<Commit> {
    Arc::new(Commit { fence, durability: Durability::Fsync, writes })
}

fn entry(offset: u64) -> LogEntry {
    LogEntry { offset, at_ms: 1_000 + offset, data: Bytes::from(format!("entry {offset}")) }
}

fn appends(offsets: std::ops::RangeInclusive<u64>) -> Writes {
    Writes { appends: offsets.map(entry).collect(), ..Writes::default() }
}

fn put(key: &str, value: &'static str) -> Writes {
    Writes { state: vec![(key.to_owned(), Some(Bytes::from(value)))], ..Writes::default() }
}

fn offsets(log: &[(u64, Bytes)]) -> Vec<u64> {
    log.iter().map(|(offset, _)| *offset).collect()
}

/// SplitMix64: a seed makes a test run the same again.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % end as u64).unwrap()
    }
}
