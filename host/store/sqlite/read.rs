//! Reads: each on a connection of its own, seeing what was committed when it began.

use std::collections::HashSet;

use bytes::Bytes;
use futures_util::TryStreamExt;
use futures_util::future::BoxFuture;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, Sqlite, SqliteConnection};
use tokio::runtime::Handle;

use super::database::Database;
use crate::limits::{IDEMPOTENCY_WINDOW_MS, READ_BYTES_MAX};
use crate::protocol::name::ChannelName;
use crate::protocol::overlay::Page;
use crate::store::{ChannelKey, DueMark, DuePage, DueTimer, LogEntry, Order, StoreError};
use crate::telemetry;

/// Reads from a SQLite file.
#[derive(Debug)]
pub(super) struct Reader {
    database: Database,
    /// The runtime that opened the store, where connections are held and given back. A long call into a plugin goes on in a thread
    /// that gets only the time nobody else wants: a connection it held would be kept from all other channels meanwhile.
    home: Handle,
}

pub(super) type Query = sqlx::query::Query<'static, Sqlite, sqlx::sqlite::SqliteArguments>;

impl Reader {
    /// Reads on the runtime that calls this.
    pub(super) fn new(database: Database) -> Self {
        Self { database, home: Handle::current() }
    }

    #[cfg(test)]
    pub(super) fn pages_max(&self) -> &std::sync::atomic::AtomicU32 {
        &self.database.pages_max
    }

    pub(super) async fn get(&self, channel: ChannelKey, key: &str) -> Result<Option<Bytes>, StoreError> {
        let query = sqlx::query("SELECT value FROM state WHERE channel = ? AND key = ?")
            .bind(channel.0)
            .bind(key.as_bytes().to_vec());
        self.one(query, |row| bytes(row, 0)).await
    }

    pub(super) async fn scan(
        &self,
        channel: ChannelKey,
        prefix: &str,
        after: Option<&str>,
        order: Order,
        limit: u32,
    ) -> Result<Page, StoreError> {
        let prefix = prefix.as_bytes();
        let after = after.map(str::as_bytes);
        // The keys asked for are those in [first, end), without `after` itself.
        let (mut first, mut end) = (prefix.to_vec(), end_of_prefix(prefix));
        let sql = match order {
            Order::Ascending => {
                if let Some(after) = after.filter(|after| *after >= prefix) {
                    // The next possible key.
                    first = [after, &[0]].concat();
                }
                "SELECT key, value FROM state WHERE channel = ? AND key >= ? AND key < ? ORDER BY key LIMIT ?"
            }
            Order::Descending => {
                if let Some(after) = after.filter(|after| *after < end.as_slice()) {
                    end = after.to_vec();
                }
                "SELECT key, value FROM state WHERE channel = ? AND key >= ? AND key < ? ORDER BY key DESC LIMIT ?"
            }
        };
        let query = sqlx::query(sql).bind(channel.0).bind(first).bind(end).bind(i64::from(limit));
        let entry = |row: &SqliteRow| {
            let key = String::from_utf8(row.try_get(0)?).map_err(|error| sqlx::Error::Decode(error.into()))?;
            Ok((key, bytes(row, 1)?))
        };
        let (entries, whole) = self.bounded(query, entry, |(key, value)| key.len() + value.len()).await?;
        let complete = whole && entries.len() < limit as usize;
        Ok(Page { entries, complete })
    }

    pub(super) async fn read_log(
        &self,
        channel: ChannelKey,
        from: u64,
        before: u64,
        limit: u32,
    ) -> Result<Vec<LogEntry>, StoreError> {
        // Entries that were trimmed may still be in the table.
        let query = sqlx::query(
            "SELECT offset, at_ms, data FROM log WHERE channel = ?1 \
             AND offset >= max(?2, (SELECT log_first FROM channel WHERE id = ?1)) AND offset < ?3 \
             ORDER BY offset LIMIT ?4",
        )
        .bind(channel.0)
        .bind(clamp(from))
        .bind(clamp(before))
        .bind(i64::from(limit));
        let entry =
            |row: &SqliteRow| Ok(LogEntry { offset: row.try_get(0)?, at_ms: row.try_get(1)?, data: bytes(row, 2)? });
        Ok(self.bounded(query, entry, |entry| entry.data.len()).await?.0)
    }

    pub(super) async fn due_timers(
        &self,
        until_ms: u64,
        after: Option<DueMark>,
        limit: u32,
    ) -> Result<DuePage, StoreError> {
        // In the order of an index, so that a page costs the same wherever it begins.
        let query = sqlx::query(
            "SELECT timer.due_ms, timer.channel, channel.tenant, channel.name FROM timer \
             CROSS JOIN channel ON channel.id = timer.channel \
             WHERE timer.due_ms <= ? AND (timer.due_ms, timer.channel) > (?, ?) \
             ORDER BY timer.due_ms, timer.channel LIMIT ?",
        )
        .bind(clamp(until_ms))
        .bind(after.map_or(-1, |after| clamp(after.due_ms)))
        .bind(after.map_or(-1, |after| after.channel.0))
        .bind(i64::from(limit));
        let rows = self
            .all(query, |row| {
                let mark = DueMark { due_ms: row.try_get(0)?, channel: ChannelKey(row.try_get(1)?) };
                // A name that cannot be one, or is not even text, must not keep the others from being woken.
                let text = |column| row.try_get::<String, _>(column).ok();
                let name = text(2).zip(text(3)).and_then(|(tenant, name)| ChannelName::new(&tenant, &name).ok());
                Ok((mark, name))
            })
            .await?;
        let next = rows.last().map(|(mark, _)| *mark).filter(|_| rows.len() >= limit as usize);
        let mut page = DuePage { next, ..DuePage::default() };
        let mut seen = HashSet::new();
        for (mark, name) in rows {
            match name {
                _ if !seen.insert(mark.channel) => {}
                Some(channel) => page.timers.push(DueTimer { channel, due_ms: mark.due_ms }),
                None => page.skipped += 1,
            }
        }
        Ok(page)
    }

    pub(super) async fn answer(
        &self,
        channel: &ChannelName,
        sender: &str,
        key: &str,
        now_ms: u64,
    ) -> Result<Option<Bytes>, StoreError> {
        let sql = "SELECT answer FROM answer WHERE channel = (SELECT id FROM channel WHERE tenant = ? AND name = ?) \
                   AND sender = ? AND key = ? AND at_ms > ?";
        let query = sqlx::query(sql)
            .bind(channel.tenant().to_owned())
            .bind(channel.name().to_owned())
            .bind(sender.to_owned())
            .bind(key.to_owned())
            // Younger than the window; at its end an answer may be deleted.
            .bind(clamp(now_ms).saturating_sub_unsigned(IDEMPOTENCY_WINDOW_MS));
        self.one(query, |row| bytes(row, 0)).await
    }

    pub(super) async fn one<T: Send + 'static>(
        &self,
        query: Query,
        decode: impl Fn(&SqliteRow) -> Result<T, sqlx::Error> + Send + Sync + 'static,
    ) -> Result<Option<T>, StoreError> {
        self.run(move |connection| {
            Box::pin(async move { query.fetch_optional(connection).await?.as_ref().map(&decode).transpose() })
        })
        .await
    }

    pub(super) async fn all<T: Send + 'static>(
        &self,
        query: Query,
        decode: impl Fn(&SqliteRow) -> Result<T, sqlx::Error> + Send + Sync + 'static,
    ) -> Result<Vec<T>, StoreError> {
        self.run(move |connection| {
            Box::pin(async move { query.fetch_all(connection).await?.iter().map(&decode).collect() })
        })
        .await
    }

    /// Rows until they are more than [`READ_BYTES_MAX`] together, but at least one if there is one; and whether these are all
    /// rows of the query.
    pub(super) async fn bounded<T: Send + 'static>(
        &self,
        query: Query,
        decode: impl Fn(&SqliteRow) -> Result<T, sqlx::Error> + Send + Sync + 'static,
        bytes: impl Fn(&T) -> usize + Send + Sync + 'static,
    ) -> Result<(Vec<T>, bool), StoreError> {
        self.run(move |connection| {
            Box::pin(async move {
                let mut rows = query.fetch(connection);
                let mut found = Vec::new();
                let mut total = 0;
                while let Some(row) = rows.try_next().await? {
                    let next = decode(&row)?;
                    total += bytes(&next);
                    if total > READ_BYTES_MAX && !found.is_empty() {
                        return Ok((found, false));
                    }
                    found.push(next);
                }
                Ok((found, true))
            })
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        read: impl for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, sqlx::Error>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let database = self.database.clone();
        let work = async move {
            let mut connection = database.readers().acquire().await.map_err(|error| failed(&database, &error))?;
            read(&mut connection).await.map_err(|error| {
                let error = failed(&database, &error);
                if error.retryable() && !matches!(error, StoreError::Busy { .. }) {
                    // The next read gets a new connection, which may find the file repaired.
                    connection.close_on_drop();
                }
                error
            })
        };
        if Handle::try_current().is_ok_and(|here| here.id() == self.home.id()) {
            return work.await;
        }
        let spawned = {
            let _home = self.home.enter();
            telemetry::spawn("store read", work)
        };
        match spawned.await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(StoreError::Closed),
            },
        }
    }
}

fn failed(database: &Database, error: &sqlx::Error) -> StoreError {
    let error = database.error(error);
    metrics::counter!("hotbay_store_errors_total", "kind" => error.kind()).increment(1);
    error
}

fn bytes(row: &SqliteRow, column: usize) -> Result<Bytes, sqlx::Error> {
    row.try_get::<Vec<u8>, _>(column).map(Bytes::from)
}

/// The first key after all that begin with `prefix`. UTF-8 has no byte 0xff, so the last byte can always grow.
fn end_of_prefix(prefix: &[u8]) -> Vec<u8> {
    match prefix.split_last() {
        Some((last, rest)) => [rest, &[last.saturating_add(1)]].concat(),
        None => vec![0xff],
    }
}

/// SQLite's numbers end at 63 bits, and so does everything it stores.
pub(super) fn clamp(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
