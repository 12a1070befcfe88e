//! A datasource in a Postgres server.

use std::str::FromStr;
use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgPoolOptions, PgRow, PgValueFormat, PgValueRef};
use sqlx::{
    Arguments, AssertSqlSafe, Column, ConnectOptions, Connection, PgConnection, PgPool, Row, TypeInfo, ValueRef,
};
use tokio::time::{Instant, timeout_at};

use super::backend::{Answer, Backend, Failure, Run, RunFuture};
use super::settings::ParameterType;
use crate::protocol::sql::{Rows, SqlError, Value};

/// How long connecting may take, and a look at whether the server is there.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);
/// Between the epoch of Postgres, 2000-01-01, and that of Unix, in milliseconds.
const EPOCH_MS: i64 = 946_684_800_000;
const DAY_MS: i64 = 86_400_000;

/// See the module.
pub(super) struct Postgres {
    statements: PgPool,
    /// One connection of its own: whether the server is there must not depend on how busy the others are.
    probe: PgPool,
}

/// Why rows end early.
enum End {
    /// The database, or the way to it, failed. What is left of the answer, sqlx knows.
    Broken(sqlx::Error),
    /// Nobody wants the rest of the answer, which is still on its way.
    Refused(Failure),
}

impl Postgres {
    /// Does not connect yet.
    ///
    /// # Errors
    /// If the URL is not one; without the URL, which may hold a password.
    pub(super) fn new(url: &str, connections_max: u32) -> Result<Self, String> {
        let options = PgConnectOptions::from_str(url).map_err(|_| "is no postgres:// URL".to_owned())?;
        // Each run is in a transaction that says so again, and that a statement cannot change.
        let options = options
            .application_name("hotbay")
            .options([("default_transaction_read_only", "on")])
            .disable_statement_logging();
        let pool = |connections_max| {
            PgPoolOptions::new()
                .max_connections(connections_max)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .idle_timeout(Duration::from_mins(5))
                .connect_lazy_with(options.clone())
        };
        Ok(Self { statements: pool(connections_max), probe: pool(1) })
    }

    async fn ask(pool: &PgPool, run: &Run) -> Result<Rows, Failure> {
        let deadline = Instant::now() + run.timeout;
        let late = || Failure::new(SqlError::Timeout, format!("no answer within {:?}", run.timeout));
        let mut connection = match timeout_at(deadline, pool.acquire()).await {
            Ok(connection) => connection.map_err(|error| failure(&error))?,
            Err(_) => return Err(late()),
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let failure = match timeout_at(deadline, fetch(&mut connection, run, left)).await {
            Ok(Ok(rows)) => return Ok(rows),
            Ok(Err(End::Broken(error))) => return Err(failure(&error)),
            Ok(Err(End::Refused(failure))) => failure,
            Err(_) => late(),
        };
        // The pool would wait for the end of the answer before it gave the connection to anybody else.
        connection.close_on_drop();
        Err(failure)
    }
}

/// Runs a statement in a transaction that reads. The server ends it after `timeout` as well, when nobody waits for it any more.
async fn fetch(connection: &mut PgConnection, run: &Run, timeout: Duration) -> Result<Rows, End> {
    let mut arguments = PgArguments::default();
    for (kind, value) in &run.values {
        let added = match value {
            Value::Null => match kind {
                ParameterType::Boolean => arguments.add(None::<bool>),
                ParameterType::Integer => arguments.add(None::<i64>),
                ParameterType::Real => arguments.add(None::<f64>),
                ParameterType::Text | ParameterType::Tenant | ParameterType::Channel => arguments.add(None::<&str>),
                ParameterType::Bytes => arguments.add(None::<&[u8]>),
            },
            Value::Boolean(value) => arguments.add(*value),
            Value::Integer(value) => arguments.add(*value),
            Value::Real(value) => arguments.add(*value),
            Value::Text(value) => arguments.add(value.as_str()),
            Value::Bytes(value) => arguments.add(value.as_slice()),
        };
        added.map_err(|error| End::Refused(Failure::new(SqlError::Failed, error.to_string())))?;
    }
    // A number of 32 bits; 0 would be no bound.
    let timeout_ms = timeout.as_millis().clamp(1, i32::MAX as u128);
    let begin = format!("BEGIN READ ONLY; SET LOCAL statement_timeout = {timeout_ms}");
    // Dropping it rolls back, with the next message to the server.
    let mut transaction = connection.begin_with(AssertSqlSafe(begin)).await.map_err(End::Broken)?;
    let mut answer = Answer::new(run);
    let mut found = sqlx::query_with(AssertSqlSafe(run.sql.clone()), arguments).fetch(&mut *transaction);
    while let Some(row) = found.try_next().await.map_err(End::Broken)? {
        let values = (0..row.len()).map(|index| value(&row, index)).collect::<Result<_, _>>();
        let columns = || row.columns().iter().map(|column| column.name().to_owned()).collect();
        values.and_then(|values| answer.push(columns, values)).map_err(End::Refused)?;
    }
    Ok(answer.into_rows())
}

impl Backend for Postgres {
    fn run<'a>(&'a self, run: &'a Run) -> RunFuture<'a, Rows> {
        Box::pin(Self::ask(&self.statements, run))
    }

    fn probe(&self) -> RunFuture<'_, ()> {
        Box::pin(async {
            let sql = "SELECT 1".to_owned();
            let run = Run { sql, values: Vec::new(), timeout: ACQUIRE_TIMEOUT, rows_max: 1, bytes_max: 1 << 10 };
            Self::ask(&self.probe, &run).await.map(drop)
        })
    }
}

/// What the plugin is told, and what the operator is: words of the server, but for those that quote the values it was given.
fn failure(error: &sqlx::Error) -> Failure {
    let failure = Failure::from_sqlx(error, kind);
    match error.as_database_error().and_then(sqlx::error::DatabaseError::code) {
        // Data exceptions, as in `invalid input syntax for type integer: "…"`.
        Some(code) if code.starts_with("22") => {
            Failure::new(failure.error, format!("SQLSTATE {code}: a value is not what the statement takes"))
        }
        _ => failure,
    }
}

/// From a SQLSTATE. <https://www.postgresql.org/docs/current/errcodes-appendix.html>
fn kind(code: &str) -> SqlError {
    match code {
        "57014" => SqlError::Timeout, // query_canceled, by statement_timeout
        // Connection exceptions, resources, operator intervention (shutdown), wrong password.
        _ if ["08", "53", "57", "28"].iter().any(|class| code.starts_with(class)) => SqlError::Unavailable,
        _ => SqlError::Failed,
    }
}

fn value(row: &PgRow, index: usize) -> Result<Value, Failure> {
    let failed = |error: sqlx::Error| Failure::new(SqlError::Failed, error.to_string());
    let found = row.try_get_raw(index).map_err(failed)?;
    if found.is_null() {
        return Ok(Value::Null);
    }
    let column = row.columns().get(index).map_or("", Column::name);
    let unsupported = |name: &str| {
        let cause =
            format!("column {column:?} has the type {name}, which is not supported: cast it, as in {column}::float8");
        Failure::new(SqlError::Failed, cause)
    };
    let kind = found.type_info().name().to_owned();
    Ok(match kind.as_str() {
        "BOOL" => Value::Boolean(row.try_get(index).map_err(failed)?),
        "INT2" => Value::Integer(row.try_get::<i16, _>(index).map_err(failed)?.into()),
        "INT4" => Value::Integer(row.try_get::<i32, _>(index).map_err(failed)?.into()),
        "INT8" => Value::Integer(row.try_get(index).map_err(failed)?),
        "FLOAT4" => Value::Real(row.try_get::<f32, _>(index).map_err(failed)?.into()),
        "FLOAT8" => Value::Real(row.try_get(index).map_err(failed)?),
        "TEXT" | "VARCHAR" | "CHAR" | "BPCHAR" | "NAME" => Value::Text(row.try_get(index).map_err(failed)?),
        "BYTEA" => Value::Bytes(row.try_get(index).map_err(failed)?),
        _ => return binary(&kind, &found).ok_or_else(|| unsupported(&kind)),
    })
}

/// Types that sqlx knows only together with other crates, from their binary form, as `pg_type.typsend` defines it.
fn binary(kind: &str, found: &PgValueRef<'_>) -> Option<Value> {
    let bytes = found.as_bytes().ok()?;
    if found.format() != PgValueFormat::Binary {
        return None;
    }
    match kind {
        // Microseconds since 2000-01-01; without a zone they are taken for UTC.
        "TIMESTAMPTZ" | "TIMESTAMP" => {
            Some(Value::Integer(i64::from_be_bytes(bytes.try_into().ok()?).div_euclid(1_000).saturating_add(EPOCH_MS)))
        }
        // Days since 2000-01-01.
        "DATE" => Some(Value::Integer(i64::from(i32::from_be_bytes(bytes.try_into().ok()?)) * DAY_MS + EPOCH_MS)),
        "UUID" if bytes.len() == 16 => {
            let digits = hex::encode(bytes);
            let groups = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
            Some(Value::Text(groups.join("-")))
        }
        "JSON" => Some(Value::Text(String::from_utf8(bytes.to_vec()).ok()?)),
        // A version byte, 1, then the text.
        "JSONB" => match bytes {
            [1, text @ ..] => Some(Value::Text(String::from_utf8(text.to_vec()).ok()?)),
            _ => None,
        },
        _ => None,
    }
}
