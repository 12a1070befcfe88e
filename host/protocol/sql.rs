//! Values and answers of statements on the operator's databases. Mirrors the interface `sql` of the WIT package.

use serde::{Deserialize, Serialize};

/// A value, as a parameter or in a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `NULL`.
    Null,
    /// Databases without the type give an integer.
    Boolean(bool),
    /// A whole number; points in time are milliseconds since the Unix epoch.
    Integer(i64),
    /// A floating-point number.
    Real(f64),
    /// Text; also UUIDs and JSON.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

impl Value {
    /// Bytes it counts against a bound.
    pub fn bytes(&self) -> usize {
        const FIXED: usize = 8;
        FIXED
            + match self {
                Self::Text(text) => text.len(),
                Self::Bytes(bytes) => bytes.len(),
                Self::Null | Self::Boolean(_) | Self::Integer(_) | Self::Real(_) => 0,
            }
    }
}

/// What a statement answers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rows {
    /// Names of the columns; empty without rows.
    pub columns: Vec<String>,
    /// Each has a value for each column.
    pub rows: Vec<Vec<Value>>,
}

/// Why there is no answer. Shown to plugins; what the database said is the operator's to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum SqlError {
    /// The mount has no statement of this name.
    #[error("the mount has no statement of this name")]
    NotGranted,
    /// Not the number or the types of parameters the statement takes, or too large.
    #[error("{0}")]
    BadParameters(String),
    /// The database took too long.
    #[error("the database took too long")]
    Timeout,
    /// The database cannot be reached.
    #[error("the database cannot be reached")]
    Unavailable,
    /// The answer is over a bound.
    #[error("the answer is over a bound of the statement")]
    TooLarge,
    /// The database refused the statement.
    #[error("the database refused the statement")]
    Failed,
}
