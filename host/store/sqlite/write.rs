//! The one connection that writes: a transaction per group, and a new connection when the old one is of no more use.

use std::collections::HashMap;

use sha2::{Digest, Sha256};
use sqlx::{Connection, Row as _, SqliteConnection};

use super::catalog::{self, digest_if_any};
use super::database::{Database, Synchronous};
use super::plan::{ChannelRow, Plan, Saved, Sizes, Sweep};
use super::statement::RowsStatement;
use crate::store::committer::{Acquire, Group, GroupWriter, Written};
use crate::store::{Acquired, ChannelKey, Commit, Committed, Fence, StoreError};

/// Old answers deleted by one group that adds some: more than it is likely to add.
const ANSWERS_PRUNED_MAX: i64 = 1_024;
/// Bytes of the SHA-256 kept with what an instance saved; it guards against damage, not against malice.
const CHECKSUM_BYTES: usize = 16;

/// Writes groups to a SQLite file.
pub(super) struct SqliteWriter {
    database: Database,
    /// None after a failure, until the next group opens it anew.
    connection: Option<Writer>,
    statements: Statements,
}

/// A connection, and the `synchronous` it runs with.
pub(super) struct Writer {
    pub(super) connection: SqliteConnection,
    pub(super) synchronous: Synchronous,
}

impl SqliteWriter {
    pub(super) fn new(database: Database, connection: Writer) -> Self {
        Self { database, connection: Some(connection), statements: Statements::new() }
    }
}

impl GroupWriter for SqliteWriter {
    async fn write(&mut self, group: &Group) -> Result<Written, StoreError> {
        let mut writer = match self.connection.take() {
            Some(writer) => writer,
            None => self.database.reopen().await?,
        };
        #[cfg(test)]
        self.database.limit_pages(&mut writer.connection).await;
        let result = transact(&self.statements, &mut writer, group).await;
        let error = match result {
            Ok(written) => {
                self.connection = Some(writer);
                return Ok(written);
            }
            Err(error) => self.database.error(&error),
        };
        // SQLite rolls back by itself on some errors; then there is no transaction to roll back any more.
        let rolled_back = match sqlx::query("ROLLBACK").execute(&mut writer.connection).await {
            Ok(_) => true,
            Err(sqlx::Error::Database(error)) => error.message().contains("no transaction is active"),
            Err(_) => false,
        };
        let sound = matches!(error, StoreError::Busy { .. } | StoreError::Full { .. } | StoreError::Constraint { .. });
        if rolled_back && sound {
            self.connection = Some(writer);
        } else if let Err(closing) = writer.connection.close().await {
            tracing::warn!(error = %closing, "the failed connection to the database did not close cleanly");
        }
        Err(error)
    }

    async fn close(self) {
        // Readers first: the last one to close merges the write-ahead log into the file, and must be able to write.
        self.database.close_readers().await;
        if let Some(writer) = self.connection
            && let Err(error) = writer.connection.close().await
        {
            tracing::warn!(%error, "the database did not close cleanly; the next start repairs it");
        }
    }
}

/// The statements over many rows. A table is always searched by the rows of the list, never walked through: `CROSS JOIN`
/// fixes that order, and a pair `IN (VALUES …)` without it would not use the index.
pub(super) struct Statements {
    rows: RowsStatement,
    state_sizes: RowsStatement,
    log_sizes: RowsStatement,
    sweep_sizes: RowsStatement,
    fence: RowsStatement,
    pin: RowsStatement,
    state_put: RowsStatement,
    state_delete: RowsStatement,
    log_append: RowsStatement,
    log_replace: RowsStatement,
    log_sweep: RowsStatement,
    timer_set: RowsStatement,
    timer_cancel: RowsStatement,
    answer_put: RowsStatement,
    acquire_before: RowsStatement,
    acquire: RowsStatement,
    saved_take: RowsStatement,
    timers_of: RowsStatement,
}

impl Statements {
    #[cfg(test)]
    pub(super) fn all(&self) -> [&RowsStatement; 18] {
        [
            &self.rows,
            &self.state_sizes,
            &self.log_sizes,
            &self.sweep_sizes,
            &self.fence,
            &self.pin,
            &self.state_put,
            &self.state_delete,
            &self.log_append,
            &self.log_replace,
            &self.log_sweep,
            &self.timer_set,
            &self.timer_cancel,
            &self.answer_put,
            &self.acquire_before,
            &self.acquire,
            &self.saved_take,
            &self.timers_of,
        ]
    }

    pub(super) fn new() -> Self {
        let sql = RowsStatement::new;
        Self {
            rows: sql(
                "SELECT id, epoch, seq, log_stored, log_first, log_next, state_bytes, log_bytes FROM channel \
                 WHERE id IN ($rows)",
                1,
            ),
            state_sizes: sql(
                "SELECT asked.column1, length(state.value) FROM (VALUES $rows) AS asked \
                 CROSS JOIN state ON state.channel = asked.column2 AND state.key = asked.column3",
                3,
            ),
            log_sizes: sql(
                "SELECT log.channel, log.offset, length(log.data) FROM (VALUES $rows) AS asked \
                 CROSS JOIN log ON log.channel = asked.column1 AND log.offset = asked.column2",
                2,
            ),
            // SQLite finds the length of a value without reading it.
            sweep_sizes: sql(
                "SELECT old.column1, sum(length(log.data)) FROM (VALUES $rows) AS old \
                 CROSS JOIN log ON log.channel = old.column1 AND log.offset >= old.column2 AND log.offset < old.column3 \
                 GROUP BY old.column1",
                3,
            ),
            fence: sql(
                "UPDATE channel SET seq = new.column4, log_stored = new.column5, log_first = new.column6, \
                 log_next = new.column7, state_bytes = new.column8, log_bytes = new.column9 FROM (VALUES $rows) AS new \
                 WHERE channel.id = new.column1 AND channel.epoch = new.column2 AND channel.seq = new.column3",
                9,
            ),
            // Apart from the fence, which every commit needs and which stays short without it.
            pin: sql(
                "UPDATE channel SET version = new.column2 FROM (VALUES $rows) AS new WHERE channel.id = new.column1",
                2,
            ),
            state_put: sql(
                "INSERT INTO state (channel, key, value) SELECT * FROM (VALUES $rows) WHERE column1 IS NOT NULL \
                 ON CONFLICT (channel, key) DO UPDATE SET value = excluded.value",
                3,
            ),
            state_delete: sql(
                "DELETE FROM state WHERE (channel, key) IN (SELECT state.channel, state.key FROM (VALUES $rows) AS gone \
                 CROSS JOIN state ON state.channel = gone.column1 AND state.key = gone.column2)",
                2,
            ),
            log_append: sql(
                "INSERT INTO log (channel, offset, at_ms, data) SELECT * FROM (VALUES $rows) WHERE column1 IS NOT NULL",
                4,
            ),
            log_replace: sql(
                "UPDATE log SET data = new.column3 FROM (VALUES $rows) AS new \
                 WHERE log.channel = new.column1 AND log.offset = new.column2",
                3,
            ),
            log_sweep: sql(
                "DELETE FROM log WHERE (channel, offset) IN (SELECT log.channel, log.offset FROM (VALUES $rows) AS old \
                 CROSS JOIN log ON log.channel = old.column1 AND log.offset >= old.column2 AND log.offset < old.column3)",
                3,
            ),
            timer_set: sql(
                "INSERT INTO timer (channel, name, due_ms) SELECT * FROM (VALUES $rows) WHERE column1 IS NOT NULL \
                 ON CONFLICT (channel, name) DO UPDATE SET due_ms = excluded.due_ms",
                3,
            ),
            timer_cancel: sql(
                "DELETE FROM timer WHERE (channel, name) IN (SELECT timer.channel, timer.name FROM (VALUES $rows) AS gone \
                 CROSS JOIN timer ON timer.channel = gone.column1 AND timer.name = gone.column2)",
                2,
            ),
            // REPLACE, so that an answer given anew after its time gets a new id, and with it its place by age.
            answer_put: sql(
                "INSERT OR REPLACE INTO answer (channel, sender, key, at_ms, answer) \
                 SELECT * FROM (VALUES $rows) WHERE column1 IS NOT NULL",
                5,
            ),
            acquire_before: sql(
                "SELECT channel.id, channel.epoch, channel.seq FROM (VALUES $rows) AS asked \
                 CROSS JOIN channel ON channel.tenant = asked.column1 AND channel.name = asked.column2",
                2,
            ),
            acquire: sql(
                "INSERT INTO channel (tenant, name, owner, epoch, acquired_ms) \
                 SELECT column1, column2, column3, 1, CAST(unixepoch('subsec') * 1000 AS INTEGER) \
                 FROM (VALUES $rows) WHERE column1 IS NOT NULL \
                 ON CONFLICT (tenant, name) DO UPDATE \
                 SET epoch = epoch + 1, seq = 0, owner = excluded.owner, acquired_ms = excluded.acquired_ms \
                 RETURNING id, tenant, name, epoch, log_first, log_next, state_bytes, version, log_bytes",
                3,
            ),
            saved_take: sql(
                "DELETE FROM saved WHERE channel IN ($rows) RETURNING channel, epoch, seq, checksum, data",
                1,
            ),
            timers_of: sql("SELECT channel, name, due_ms FROM timer WHERE channel IN ($rows) ORDER BY due_ms", 1),
        }
    }
}

async fn transact(statements: &Statements, writer: &mut Writer, group: &Group) -> Result<Written, sqlx::Error> {
    let synchronous = if group.fsync() { Synchronous::Full } else { Synchronous::Normal };
    let connection = &mut writer.connection;
    if writer.synchronous != synchronous {
        sqlx::query(synchronous.pragma()).execute(&mut *connection).await?;
        writer.synchronous = synchronous;
    }
    sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await?;
    let written = Written {
        commits: commit(statements, connection, &group.commits).await?,
        acquires: acquire(statements, connection, &group.acquires).await?,
        changes: catalog::make(connection, &group.changes).await?,
    };
    if group.check {
        sqlx::query(
            "INSERT INTO probe (id, at_ms) VALUES (1, unixepoch('subsec') * 1000) \
             ON CONFLICT (id) DO UPDATE SET at_ms = at_ms + 1",
        )
        .execute(&mut *connection)
        .await?;
    }
    sqlx::query("COMMIT").execute(&mut *connection).await?;
    Ok(written)
}

type CommitResults = Vec<Result<Committed, StoreError>>;

async fn commit(
    statements: &Statements,
    connection: &mut SqliteConnection,
    commits: &[std::sync::Arc<Commit>],
) -> Result<CommitResults, sqlx::Error> {
    if commits.is_empty() {
        return Ok(Vec::new());
    }
    let rows = channel_rows(statements, connection, commits).await?;
    let state = state_sizes(statements, connection, commits).await?;
    let log = log_sizes(statements, connection, commits).await?;
    let mut plan = Plan::new(rows, Sizes { state, log });
    let mut results: CommitResults = commits.iter().map(|commit| plan.add(commit)).collect();
    let swept = carry_out(statements, connection, plan).await?;
    if !swept.is_empty() {
        for (commit, result) in commits.iter().zip(&mut results) {
            if let (Ok(committed), Some(bytes)) = (result, swept.get(&commit.fence.channel.0)) {
                committed.log_bytes = committed.log_bytes.saturating_sub(*bytes);
            }
        }
    }
    Ok(results)
}

async fn channel_rows(
    statements: &Statements,
    connection: &mut SqliteConnection,
    commits: &[std::sync::Arc<Commit>],
) -> Result<HashMap<i64, ChannelRow>, sqlx::Error> {
    let mut channels: Vec<i64> = commits.iter().map(|commit| commit.fence.channel.0).collect();
    channels.sort_unstable();
    channels.dedup();
    let rows = statements.rows.fetch(connection, &channels, |row, &channel| row.int(channel)).await?;
    rows.iter()
        .map(|row| {
            let channel = ChannelRow {
                epoch: row.try_get(1)?,
                seq: row.try_get(2)?,
                log_stored: row.try_get(3)?,
                log_first: row.try_get(4)?,
                log_next: row.try_get(5)?,
                state_bytes: row.try_get(6)?,
                log_bytes: row.try_get(7)?,
            };
            Ok((row.try_get(0)?, channel))
        })
        .collect()
}

async fn state_sizes<'a>(
    statements: &Statements,
    connection: &mut SqliteConnection,
    commits: &'a [std::sync::Arc<Commit>],
) -> Result<HashMap<(i64, &'a str), u64>, sqlx::Error> {
    let keys: Vec<(i64, &str)> = commits
        .iter()
        .flat_map(|commit| commit.writes.state.iter().map(|(key, _)| (commit.fence.channel.0, key.as_str())))
        .collect();
    let mut index = 0;
    let rows = statements
        .state_sizes
        .fetch(connection, &keys, |row, (channel, key)| {
            index += 1;
            row.int(index - 1).int(*channel).blob(key.as_bytes())
        })
        .await?;
    let mut sizes = HashMap::with_capacity(rows.len());
    for row in rows {
        let index: i64 = row.try_get(0)?;
        if let Some(key) = usize::try_from(index).ok().and_then(|index| keys.get(index)) {
            sizes.insert(*key, row.try_get(1)?);
        }
    }
    Ok(sizes)
}

/// Lengths of the log entries that are written over.
async fn log_sizes(
    statements: &Statements,
    connection: &mut SqliteConnection,
    commits: &[std::sync::Arc<Commit>],
) -> Result<HashMap<(i64, u64), u64>, sqlx::Error> {
    let replaces = commits
        .iter()
        .flat_map(|commit| commit.writes.replaces.iter().map(|(offset, _)| (commit.fence.channel.0, *offset)));
    let replaces: Vec<(i64, u64)> = replaces.collect();
    let rows = statements
        .log_sizes
        .fetch(connection, &replaces, |row, (channel, offset)| row.int(*channel).count(*offset))
        .await?;
    rows.iter().map(|row| Ok(((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?))).collect()
}

/// Bytes of the log entries that are to be swept, by channel.
async fn sweep_sizes(
    statements: &Statements,
    connection: &mut SqliteConnection,
    sweeps: &[Sweep],
) -> Result<HashMap<i64, u64>, sqlx::Error> {
    let rows = statements
        .sweep_sizes
        .fetch(connection, sweeps, |row, sweep| row.int(sweep.channel).count(sweep.from).count(sweep.before));
    rows.await?.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Writes the sum of a group's commits. Returns the bytes of the log entries that were deleted, by channel.
async fn carry_out(
    statements: &Statements,
    connection: &mut SqliteConnection,
    mut plan: Plan<'_>,
) -> Result<HashMap<i64, u64>, sqlx::Error> {
    let (mut changed, sweeps) = plan.finish();
    statements
        .pin
        .execute(connection, &plan.versions(), |row, (channel, version)| row.int(*channel).blob(version.as_slice()))
        .await?;
    let (puts, deletes) = plan.state();
    statements
        .state_put
        .execute(connection, &puts, |row, (channel, key, value)| row.int(*channel).blob(key.as_bytes()).blob(value))
        .await?;
    statements
        .state_delete
        .execute(connection, &deletes, |row, (channel, key)| row.int(*channel).blob(key.as_bytes()))
        .await?;
    statements
        .log_append
        .execute(connection, &plan.appends, |row, (channel, entry)| {
            row.int(*channel).count(entry.offset).count(entry.at_ms).blob(&entry.data)
        })
        .await?;
    statements
        .log_replace
        .execute(connection, &plan.replaces(), |row, (channel, offset, data)| {
            row.int(*channel).count(*offset).blob(data)
        })
        .await?;
    let swept = sweep_sizes(statements, connection, &sweeps).await?;
    statements
        .log_sweep
        .execute(connection, &sweeps, |row, sweep| row.int(sweep.channel).count(sweep.from).count(sweep.before))
        .await?;
    let (set, cancel) = plan.timers();
    statements
        .timer_set
        .execute(connection, &set, |row, (channel, name, due_ms)| row.int(*channel).text(name).count(*due_ms))
        .await?;
    statements.timer_cancel.execute(connection, &cancel, |row, (channel, name)| row.int(*channel).text(name)).await?;
    keep_answers(statements, connection, &plan).await?;
    for saved in plan.saved() {
        save(connection, saved).await?;
    }
    for row in &mut changed {
        let bytes = swept.get(&row.channel).copied().unwrap_or(0);
        row.after.log_bytes = row.after.log_bytes.saturating_sub(bytes);
    }
    let hit = statements
        .fence
        .execute(connection, &changed, |row, changed| {
            let (before, after) = (changed.before, changed.after);
            row.int(changed.channel).count(before.epoch).count(before.seq).count(after.seq);
            row.count(after.log_stored).count(after.log_first).count(after.log_next).count(after.state_bytes);
            row.count(after.log_bytes)
        })
        .await?;
    if hit != changed.len() as u64 {
        // Cannot be: the rows were read under the write lock. Nothing of the group is worth keeping if it is.
        return Err(sqlx::Error::Decode(format!("{hit} of {} channels matched their fence", changed.len()).into()));
    }
    Ok(swept)
}

async fn keep_answers(
    statements: &Statements,
    connection: &mut SqliteConnection,
    plan: &Plan<'_>,
) -> Result<(), sqlx::Error> {
    let Some(expire_before_ms) = plan.answers_expire_before_ms() else {
        return Ok(());
    };
    statements
        .answer_put
        .execute(connection, &plan.answers, |row, (channel, answer)| {
            row.int(*channel).text(&answer.sender).text(&answer.key).count(answer.at_ms).blob(&answer.answer)
        })
        .await?;
    sqlx::query("DELETE FROM answer WHERE at_ms < ? AND id IN (SELECT id FROM answer ORDER BY id LIMIT ?)")
        .bind(expire_before_ms.cast_signed())
        .bind(ANSWERS_PRUNED_MAX)
        .execute(&mut *connection)
        .await?;
    Ok(())
}

async fn save(connection: &mut SqliteConnection, saved: Saved<'_>) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT OR REPLACE INTO saved (channel, epoch, seq, checksum, data) VALUES (?, ?, ?, ?, ?)")
        .bind(saved.channel)
        .bind(saved.epoch.cast_signed())
        .bind(saved.seq.cast_signed())
        .bind(checksum(saved.data))
        .bind(saved.data.as_ref())
        .execute(&mut *connection)
        .await?;
    Ok(())
}

fn checksum(data: &[u8]) -> Vec<u8> {
    Sha256::digest(data)[..CHECKSUM_BYTES].to_vec()
}

async fn acquire(
    statements: &Statements,
    connection: &mut SqliteConnection,
    acquires: &[Acquire],
) -> Result<Vec<Acquired>, sqlx::Error> {
    if acquires.is_empty() {
        return Ok(Vec::new());
    }
    let mut before = HashMap::<i64, (u64, u64)>::new();
    for row in statements
        .acquire_before
        .fetch(connection, acquires, |row, wanted| row.text(wanted.channel.tenant()).text(wanted.channel.name()))
        .await?
    {
        before.insert(row.try_get(0)?, (row.try_get(1)?, row.try_get(2)?));
    }
    let rows = statements
        .acquire
        .fetch(connection, acquires, |row, wanted| {
            row.text(wanted.channel.tenant()).text(wanted.channel.name()).text(&wanted.owner)
        })
        .await?;
    let mut found = HashMap::<i64, Acquired>::with_capacity(rows.len());
    let mut channels = HashMap::<(String, String), i64>::with_capacity(rows.len());
    for row in rows {
        let channel: i64 = row.try_get(0)?;
        channels.insert((row.try_get(1)?, row.try_get(2)?), channel);
        let fence = Fence { channel: ChannelKey(channel), epoch: row.try_get(3)?, seq: 0 };
        let log = (row.try_get(4)?, row.try_get(5)?);
        let state_bytes = row.try_get(6)?;
        let version = digest_if_any(&row, 7)?;
        let log_bytes = row.try_get(8)?;
        let (saved, timers) = (None, Vec::new());
        found.insert(channel, Acquired { fence, log, state_bytes, log_bytes, saved, timers, version });
    }
    let old: Vec<i64> = before.keys().copied().collect();
    for row in statements.saved_take.fetch(connection, &old, |row, &channel| row.int(channel)).await? {
        let channel: i64 = row.try_get(0)?;
        let fence: (u64, u64) = (row.try_get(1)?, row.try_get(2)?);
        let data: Vec<u8> = row.try_get(4)?;
        if row.try_get::<&[u8], _>(3)? != checksum(&data) {
            tracing::warn!(channel, "what the channel's instance saved is damaged in the database and not used");
        } else if before.get(&channel) == Some(&fence)
            && let Some(acquired) = found.get_mut(&channel)
        {
            acquired.saved = Some(data.into());
        }
    }
    for row in statements.timers_of.fetch(connection, &old, |row, &channel| row.int(channel)).await? {
        if let Some(acquired) = found.get_mut(&row.try_get(0)?) {
            acquired.timers.push((row.try_get(1)?, row.try_get(2)?));
        }
    }
    let mut in_order = acquires.iter().map(|wanted| {
        let name = (wanted.channel.tenant().to_owned(), wanted.channel.name().to_owned());
        channels.get(&name).and_then(|channel| found.remove(channel))
    });
    let answers: Option<Vec<Acquired>> = in_order.by_ref().collect();
    answers.ok_or_else(|| sqlx::Error::Decode("an acquired channel was not answered".into()))
}
