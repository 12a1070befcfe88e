//! What the configuration says of a datasource: where it is, and which statements there are. Checked here as far as that needs no
//! database.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::sql::{Sql, SqlTextError};
use crate::protocol::sql::Value;

/// `[datasource.NAME]`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasourceSettings {
    /// `sqlite:PATH` or `postgres://…`. May hold a password, hence no `Debug`.
    #[serde(default)]
    pub url: Option<String>,
    /// Variables that may hold it; the first that is set counts, before `url`.
    #[serde(default)]
    pub url_env: Vec<String>,
    /// SQL files that make a SQLite file which does not exist; in development only.
    #[serde(default)]
    pub create_from: Vec<std::path::PathBuf>,
    /// Connections for statements; one more sees whether it is there.
    #[serde(default = "connections_max")]
    pub connections_max: u32,
    /// Its statements by name.
    #[serde(default, rename = "statement")]
    pub statements: BTreeMap<String, StatementSettings>,
}

fn connections_max() -> u32 {
    4
}

/// `[datasource.NAME.statement.NAME]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatementSettings {
    /// The text, with `$1`, `$2`, … for the parameters. Either this or `sql_file`.
    #[serde(default)]
    pub sql: String,
    /// A file with the text.
    #[serde(default)]
    pub sql_file: Option<std::path::PathBuf>,
    /// The types of its parameters. Those of type `tenant` and `channel` are filled by the host.
    #[serde(default)]
    pub parameters: Vec<ParameterType>,
    /// The column that says whose row it is, if calls with different first parameters may become one: the text then has
    /// `IN ($1)`, and `$1` nowhere else.
    #[serde(default)]
    pub batch_key: Option<String>,
    /// Calls gathered while they come in, each less than this after the one before, in milliseconds: for at most 20 times as long, and a
    /// second.
    #[serde(default = "batch_wait_ms")]
    pub batch_wait_ms: u64,
    /// Most keys in one statement.
    #[serde(default = "batch_keys_max")]
    pub batch_keys_max: usize,
    /// Time for an answer, in milliseconds; a statement for several keys has half of it. A call into a plugin waits [no longer](crate::limits::SQL_WAIT_MS_MAX) for all its
    /// statements together.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u64,
    /// Rows of an answer.
    #[serde(default = "rows_max")]
    pub rows_max: usize,
    /// Bytes of an answer.
    #[serde(default = "bytes_max")]
    pub bytes_max: usize,
}

fn batch_wait_ms() -> u64 {
    5
}

fn batch_keys_max() -> usize {
    1_000
}

fn timeout_ms() -> u64 {
    2_000
}

fn rows_max() -> usize {
    1_000
}

fn bytes_max() -> usize {
    1 << 20
}

/// Most keys a statement may take: both databases allow some 32,000 parameters.
pub const BATCH_KEYS_MAX: usize = 16_384;

impl StatementSettings {
    /// The text with its parameters found.
    ///
    /// # Errors
    /// If it does not fit `parameters` or `batch_key`.
    pub fn parse(&self) -> Result<Sql, SqlTextError> {
        let sql = Sql::parse(&self.sql, self.parameters.len())?;
        if self.batch_key.is_some() {
            sql.check_key_places()?;
        }
        Ok(sql)
    }
}

/// What a parameter may be, beside `NULL`; or what the host says in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ParameterType {
    /// True or false.
    Boolean,
    /// A whole number.
    Integer,
    /// A floating-point number, or a whole one.
    Real,
    /// Text.
    Text,
    /// Bytes.
    Bytes,
    /// Text: the tenant of the channel that asks. The plugin neither gives nor sees it.
    Tenant,
    /// Text: the name of the channel that asks, within its tenant. The plugin does not give it.
    Channel,
}

impl ParameterType {
    /// Whether the host says it, and not the plugin.
    pub fn is_bound_by_host(self) -> bool {
        matches!(self, Self::Tenant | Self::Channel)
    }

    /// The value as this type, if it is one.
    pub(super) fn accept(self, value: Value) -> Result<Value, Value> {
        match (self, value) {
            (_, Value::Null) => Ok(Value::Null),
            (Self::Real, Value::Integer(number)) => Ok(Value::Real(number as f64)),
            (Self::Boolean, value @ Value::Boolean(_))
            | (Self::Integer, value @ Value::Integer(_))
            | (Self::Real, value @ Value::Real(_))
            | (Self::Text, value @ Value::Text(_))
            | (Self::Bytes, value @ Value::Bytes(_)) => Ok(value),
            (_, other) => Err(other),
        }
    }

    /// As it stands in the configuration.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Integer => "integer",
            Self::Real => "real",
            Self::Text => "text",
            Self::Bytes => "bytes",
            Self::Tenant => "tenant",
            Self::Channel => "channel",
        }
    }
}
