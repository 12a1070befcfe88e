//! The store in an embedded SQLite file: the default, and all that a single node needs.
//!
//! Writes go through the [group committer](super::committer) to the one connection that writes ([`write`]), by the rules
//! in [`plan`]. Reads use a few connections of their own ([`read`]) and never wait for writes. After a failure of the
//! disk or the file the connections are opened anew ([`database`]), so the store works again when the cause is gone.

mod catalog;
mod database;
mod error;
mod plan;
mod read;
mod statement;
#[cfg(test)]
mod tests;
mod write;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use self::database::Database;
use self::read::Reader;
use self::write::SqliteWriter;
use super::committer::{self, Acquire, Queue};
use super::{
    Acquired, ApiKey, Catalog, ChannelKey, Commit, Committed, DueMark, DuePage, LogEntry, Order, Store, StoreError,
    StoreFuture,
};
use crate::protocol::name::ChannelName;
use crate::protocol::overlay::Page;

/// A store in a SQLite file. See [`Store`].
#[derive(Debug)]
pub struct SqliteStore {
    queue: Queue,
    reader: Reader,
}

impl SqliteStore {
    /// Opens the file, creates it and its folder if they are missing, and brings its schema up to date.
    ///
    /// # Errors
    /// `Schema` if a newer version of this program wrote the file, `Corrupt` if it is damaged or no database, `Busy`
    /// if another process holds a lock on it, `Full` or `Io` if it cannot be created, read or written.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let (database, writer) = Database::open(path).await?;
        let queue = committer::start(SqliteWriter::new(database.clone(), writer));
        Ok(Self { queue, reader: Reader::new(database) })
    }
}

#[cfg(test)]
impl SqliteStore {
    /// Pages the file may have, 0 for any number: the way of tests to a full disk.
    fn pages_max(&self) -> &std::sync::atomic::AtomicU32 {
        self.reader.pages_max()
    }
}

impl Store for SqliteStore {
    fn acquire<'a>(&'a self, channel: &'a ChannelName, owner: &'a str) -> StoreFuture<'a, Acquired> {
        let acquire = Acquire { channel: channel.clone(), owner: owner.to_owned() };
        Box::pin(self.queue.acquire(acquire))
    }

    fn commit(&self, commit: Arc<Commit>) -> StoreFuture<'_, Committed> {
        Box::pin(self.queue.commit(commit))
    }

    fn get<'a>(&'a self, channel: ChannelKey, key: &'a str) -> StoreFuture<'a, Option<Bytes>> {
        Box::pin(self.reader.get(channel, key))
    }

    fn scan<'a>(
        &'a self,
        channel: ChannelKey,
        prefix: &'a str,
        after: Option<&'a str>,
        order: Order,
        limit: u32,
    ) -> StoreFuture<'a, Page> {
        Box::pin(self.reader.scan(channel, prefix, after, order, limit))
    }

    fn read_log(&self, channel: ChannelKey, from: u64, before: u64, limit: u32) -> StoreFuture<'_, Vec<LogEntry>> {
        Box::pin(self.reader.read_log(channel, from, before, limit))
    }

    fn due_timers(&self, until_ms: u64, after: Option<DueMark>, limit: u32) -> StoreFuture<'_, DuePage> {
        Box::pin(self.reader.due_timers(until_ms, after, limit))
    }

    fn answer<'a>(
        &'a self,
        channel: &'a ChannelName,
        sender: &'a str,
        key: &'a str,
        now_ms: u64,
    ) -> StoreFuture<'a, Option<Bytes>> {
        Box::pin(self.reader.answer(channel, sender, key, now_ms))
    }

    fn find_key<'a>(&'a self, hash: &'a [u8; 32]) -> StoreFuture<'a, Option<ApiKey>> {
        Box::pin(self.key(hash))
    }

    fn catalog(&self) -> &dyn Catalog {
        self
    }

    fn check(&self) -> StoreFuture<'_, ()> {
        Box::pin(self.queue.check())
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        Box::pin(self.queue.close())
    }
}
