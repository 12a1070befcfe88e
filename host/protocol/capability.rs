//! What a plugin can be granted to import, beside the effects on its own channel, which every plugin may.

use serde::{Deserialize, Serialize};

/// An interface of the WIT package that a plugin imports only if it was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Capability {
    /// Durable key-value state.
    Kv,
    /// The durable log.
    Log,
    /// Lines for the operator.
    Logging,
    /// Statements on the operator's databases.
    Sql,
    /// Numbers about the mount.
    Stats,
}

impl Capability {
    /// All there are.
    pub const ALL: [Self; 5] = [Self::Kv, Self::Log, Self::Logging, Self::Sql, Self::Stats];

    /// The name of the interface in the WIT package.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kv => "kv",
            Self::Log => "log",
            Self::Logging => "logging",
            Self::Sql => "sql",
            Self::Stats => "stats",
        }
    }
}
