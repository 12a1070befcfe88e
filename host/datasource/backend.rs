//! What both kinds of database have in common: a statement with typed values goes in, bounded rows or a typed error come out.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use super::settings::ParameterType;
use crate::protocol::sql::{Rows, SqlError, Value};

/// One run of a statement.
#[derive(Debug, Clone)]
pub(super) struct Run {
    /// With `$1`, `$2`, ….
    pub(super) sql: String,
    /// As many as the text has. `NULL` has a type as well: a database prepares a text for the types it first came with.
    pub(super) values: Vec<(ParameterType, Value)>,
    /// Time for the whole run, connecting included.
    pub(super) timeout: Duration,
    /// Bounds of the answer.
    pub(super) rows_max: usize,
    pub(super) bytes_max: usize,
}

/// Why a run failed: what the plugin is told, and what the operator is.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) error: SqlError,
    pub(super) cause: String,
}

impl Failure {
    pub(super) fn new(error: SqlError, cause: impl Into<String>) -> Self {
        Self { error, cause: cause.into() }
    }

    /// What sqlx says, as far as both databases say it alike; `code` knows the rest.
    pub(super) fn from_sqlx(error: &sqlx::Error, code: impl Fn(&str) -> SqlError) -> Self {
        let kind = match error {
            sqlx::Error::Database(database) => database.code().map_or(SqlError::Failed, |found| code(&found)),
            // A pool that cannot connect goes on trying until its time is over. That its connections are in use is no reason: who
            // runs a statement waited for one before.
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => SqlError::Unavailable,
            _ => SqlError::Failed,
        };
        Self::new(kind, error.to_string())
    }
}

/// A future that a [`Backend`] returns.
pub(super) type RunFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send + 'a>>;

/// A database, as far as statements need it.
pub(super) trait Backend: Send + Sync {
    /// Runs a statement. Ends in its time. Never more at once than it has connections.
    fn run<'a>(&'a self, run: &'a Run) -> RunFuture<'a, Rows>;
    /// Whether it can be reached, however busy the connections for statements are. Ends in about two seconds.
    fn probe(&self) -> RunFuture<'_, ()>;
}

/// Collects rows within the bounds of a run.
pub(super) struct Answer<'r> {
    run: &'r Run,
    rows: Rows,
    bytes: usize,
}

impl<'r> Answer<'r> {
    pub(super) fn new(run: &'r Run) -> Self {
        Self { run, rows: Rows::default(), bytes: 0 }
    }

    /// Adds a row; `columns` names them once.
    pub(super) fn push(&mut self, columns: impl FnOnce() -> Vec<String>, row: Vec<Value>) -> Result<(), Failure> {
        if self.rows.rows.is_empty() {
            self.rows.columns = columns();
        }
        self.bytes += row.iter().map(Value::bytes).sum::<usize>();
        if self.rows.rows.len() >= self.run.rows_max {
            return Err(Failure::new(SqlError::TooLarge, format!("more than {} rows (rows_max)", self.run.rows_max)));
        }
        if self.bytes > self.run.bytes_max {
            return Err(Failure::new(
                SqlError::TooLarge,
                format!("more than {} bytes (bytes_max)", self.run.bytes_max),
            ));
        }
        self.rows.rows.push(row);
        Ok(())
    }

    pub(super) fn into_rows(self) -> Rows {
        self.rows
    }
}
