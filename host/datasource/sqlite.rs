//! A datasource in a SQLite file that somebody else writes.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqlitePoolOptions, SqliteRow};
use sqlx::{
    Arguments, AssertSqlSafe, Column, ConnectOptions, Executor, Row, SqlitePool, TypeInfo, Value as _, ValueRef,
};
use tokio::task::JoinHandle;

use super::backend::{Answer, Backend, Failure, Run, RunFuture};
use crate::protocol::sql::{Rows, SqlError, Value};

/// How long a reader waits for a writer's lock.
const BUSY_TIMEOUT: Duration = Duration::from_millis(500);
/// How long opening a connection may take.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);
/// Virtual-machine instructions between two looks at the clock.
const STEPS: i32 = 10_000;
/// How long a look at whether it is there may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Sqlite {
    path: PathBuf,
    connections_max: u32,
    opened: Mutex<Option<Opened>>,
    /// A question for the file that is not answered yet: some file systems let one wait for ever, and a thread with it.
    asked: tokio::sync::Mutex<Option<JoinHandle<io::Result<FileId>>>>,
}

/// Device and inode.
type FileId = (u64, u64);

/// Pools of the file as it was found last: one that was moved away stays readable through them for ever.
#[derive(Clone)]
struct Opened {
    file: FileId,
    statements: SqlitePool,
    /// One connection of its own: whether the file is there must not depend on how busy the others are.
    probe: SqlitePool,
}

impl Sqlite {
    pub(super) fn new(path: &Path, connections_max: u32) -> Self {
        Self { path: path.to_owned(), connections_max, opened: Mutex::default(), asked: tokio::sync::Mutex::default() }
    }

    /// Makes the file from SQL texts, if there is none.
    ///
    /// # Errors
    /// What went wrong, in words.
    pub(super) async fn create(path: &Path, texts: &[String]) -> Result<(), String> {
        if path.exists() {
            return Ok(());
        }
        // Complete or not at all: a file half made would be taken for a whole one the next time.
        let unfinished = path.with_extension("unfinished");
        let made = async {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            drop(std::fs::remove_file(&unfinished));
            let options = SqliteConnectOptions::new().filename(&unfinished).create_if_missing(true);
            let mut connection = options.connect().await.map_err(std::io::Error::other)?;
            for text in texts {
                let run = (&mut connection).execute(sqlx::raw_sql(AssertSqlSafe(text.clone())));
                run.await.map_err(std::io::Error::other)?;
            }
            sqlx::Connection::close(connection).await.map_err(std::io::Error::other)?;
            std::fs::rename(&unfinished, path)
        };
        made.await.map_err(|error| format!("{} cannot be made: {error}", path.display()))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Opened>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks whether the file is there, and still the same one.
    async fn look(&self) -> Result<SqlitePool, Failure> {
        let gone = |error: io::Error| Failure::new(SqlError::Unavailable, format!("{}: {error}", self.path.display()));
        let mut asked = self.asked.lock().await;
        let path = self.path.clone();
        let ask = || tokio::task::spawn_blocking(|| std::fs::metadata(path).map(|found| (found.dev(), found.ino())));
        let file = asked.get_or_insert_with(ask).await.unwrap_or_else(|error| Err(error.into()));
        *asked = None;
        let file = file.map_err(gone)?;
        let mut opened = self.lock();
        if let Some(opened) = opened.as_ref().filter(|opened| opened.file == file) {
            return Ok(opened.probe.clone());
        }
        let fresh = Opened { file, statements: self.pool(self.connections_max), probe: self.pool(1) };
        Ok(opened.insert(fresh).probe.clone())
    }

    fn pool(&self, connections_max: u32) -> SqlitePool {
        let options = SqliteConnectOptions::new()
            .filename(&self.path)
            .read_only(true)
            .pragma("query_only", "ON")
            .busy_timeout(BUSY_TIMEOUT)
            .disable_statement_logging();
        SqlitePoolOptions::new()
            .max_connections(connections_max)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .idle_timeout(Duration::from_mins(1))
            .connect_lazy_with(options)
    }

    async fn fetch(pool: SqlitePool, run: &Run) -> Result<Rows, Failure> {
        let failed = |error: sqlx::Error| Failure::from_sqlx(&error, kind);
        let deadline = Instant::now() + run.timeout;
        let mut connection = pool.acquire().await.map_err(failed)?;
        // Who hangs up does not end a statement of SQLite: it has to be told.
        let watch = move || Instant::now() < deadline;
        connection.lock_handle().await.map_err(failed)?.set_progress_handler(STEPS, watch);
        let mut arguments = SqliteArguments::default();
        for (_, value) in &run.values {
            let added = match value {
                Value::Null => arguments.add(None::<i64>),
                Value::Boolean(value) => arguments.add(*value),
                Value::Integer(value) => arguments.add(*value),
                Value::Real(value) => arguments.add(*value),
                Value::Text(value) => arguments.add(value.clone()),
                Value::Bytes(value) => arguments.add(value.clone()),
            };
            added.map_err(|error| Failure::new(SqlError::Failed, error.to_string()))?;
        }
        let mut answer = Answer::new(run);
        let mut found = sqlx::query_with(AssertSqlSafe(run.sql.clone()), arguments).fetch(&mut *connection);
        while let Some(row) = found.try_next().await.map_err(failed)? {
            let values = (0..row.len()).map(|index| value(&row, index)).collect::<Result<_, _>>()?;
            answer.push(|| row.columns().iter().map(|column| column.name().to_owned()).collect(), values)?;
        }
        Ok(answer.into_rows())
    }
}

impl Backend for Sqlite {
    fn run<'a>(&'a self, run: &'a Run) -> RunFuture<'a, Rows> {
        Box::pin(async {
            let opened = self.lock().as_ref().map(|opened| opened.statements.clone());
            let Some(pool) = opened else { return Err(Failure::new(SqlError::Unavailable, "was never there")) };
            match tokio::time::timeout(run.timeout, Self::fetch(pool, run)).await {
                Ok(result) => result,
                Err(_) => Err(Failure::new(SqlError::Timeout, format!("no answer within {:?}", run.timeout))),
            }
        })
    }

    fn probe(&self) -> RunFuture<'_, ()> {
        Box::pin(async {
            let sql = "SELECT count(*) FROM sqlite_schema".to_owned();
            let run = Run { sql, values: Vec::new(), timeout: PROBE_TIMEOUT, rows_max: 1, bytes_max: 1 << 10 };
            let probe = async { Self::fetch(self.look().await?, &run).await.map(drop) };
            match tokio::time::timeout(PROBE_TIMEOUT, probe).await {
                Ok(result) => result,
                Err(_) => Err(Failure::new(SqlError::Unavailable, format!("no answer within {PROBE_TIMEOUT:?}"))),
            }
        })
    }
}

/// From a result code; its low byte is the primary one. <https://www.sqlite.org/rescode.html>
fn kind(code: &str) -> SqlError {
    match code.parse::<i32>().map(|code| code & 0xff) {
        Ok(9) => SqlError::Timeout,                             // INTERRUPT
        Ok(5 | 6 | 10 | 11 | 14 | 26) => SqlError::Unavailable, // BUSY, LOCKED, IOERR, CORRUPT, CANTOPEN, NOTADB
        _ => SqlError::Failed,
    }
}

/// A value by what it is, whatever its column was declared as.
fn value(row: &SqliteRow, index: usize) -> Result<Value, Failure> {
    let failed = |error: sqlx::Error| Failure::new(SqlError::Failed, error.to_string());
    let found = row.try_get_raw(index).map_err(failed)?;
    if found.is_null() {
        return Ok(Value::Null);
    }
    let found = found.to_owned();
    let decoded = |error: sqlx::error::BoxDynError| Failure::new(SqlError::Failed, error.to_string());
    Ok(match found.type_info().name() {
        "REAL" => Value::Real(found.try_decode_unchecked().map_err(failed)?),
        "BLOB" => Value::Bytes(found.try_decode_unchecked().map_err(failed)?),
        "TEXT" => Value::Text(found.try_decode_unchecked().map_err(failed)?),
        "INTEGER" | "BOOLEAN" => Value::Integer(found.try_decode_unchecked().map_err(failed)?),
        other => return Err(decoded(format!("column {index} has the type {other}, which is not supported").into())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(timeout_ms: u64) -> Run {
        let timeout = Duration::from_millis(timeout_ms);
        Run { sql: "SELECT 1".to_owned(), values: Vec::new(), timeout, rows_max: 1, bytes_max: 1 << 10 }
    }

    /// Law: who waits has a bound; and a database all of whose connections are in use is not one that is away.
    #[tokio::test]
    async fn a_busy_file_is_late_and_not_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.db");
        Sqlite::create(&path, &["CREATE TABLE t (x)".to_owned()]).await.unwrap();
        let sqlite = Sqlite::new(&path, 1);
        sqlite.probe().await.unwrap();
        assert!(sqlite.run(&run(60_000)).await.is_ok());
        let statements = sqlite.lock().as_ref().unwrap().statements.clone();
        let in_use = statements.acquire().await.unwrap();

        let late = sqlite.run(&run(50)).await.unwrap_err();
        let busy = sqlite.probe().await;

        assert_eq!(late.error, SqlError::Timeout);
        assert!(busy.is_ok(), "{busy:?}");
        drop(in_use);
    }
}
