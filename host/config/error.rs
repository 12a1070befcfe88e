//! What can be wrong with a configuration. Every error says which key, which value, and where it was set.

use std::fmt;
use std::path::PathBuf;

/// Where a value was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// In the file, at this line, counted from 1.
    File {
        /// The file.
        path: PathBuf,
        /// The line of the key.
        line: usize,
    },
    /// By an environment variable.
    Environment {
        /// The variable.
        variable: String,
    },
    /// By a flag, for example `--listen` or `--set limits.connections_max`.
    Flag {
        /// The flag, without the value.
        flag: String,
    },
    /// Nowhere: this is the default.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment { variable } => write!(f, "set by {variable}"),
            Self::Flag { flag } => write!(f, "set by {flag}"),
            Self::Default => f.write_str("not set"),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// There is no configuration file where one was looked for.
    #[error("no configuration: there is no {path}; name a file with --config FILE or HOTBAY_CONFIG, for example examples/hotbay.toml", path = path.display())]
    NoFile {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("{path}: cannot be read: {reason}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        reason: String,
    },
    /// The file is not TOML.
    #[error("{origin}: not TOML: {reason}")]
    Syntax {
        /// Where.
        origin: Origin,
        /// What the parser says.
        reason: String,
    },
    /// A flag or variable is not `KEY=VALUE`, or names no place a value can have.
    #[error("{origin}: {reason}")]
    Override {
        /// Which.
        origin: Origin,
        /// Why, and how to write it.
        reason: String,
    },
    /// A key that does not exist. Its value is not shown: it could be a secret in the wrong place.
    #[error("{origin}: unknown key {key}{hint}")]
    UnknownKey {
        /// Where.
        origin: Origin,
        /// The key's path.
        key: String,
        /// `; did you mean …?` with the closest existing key, or the keys there are.
        hint: String,
    },
    /// A key without which nothing goes.
    #[error("{origin}: {key} is missing")]
    MissingKey {
        /// Where its table begins.
        origin: Origin,
        /// The key's path.
        key: String,
    },
    /// A value that is not allowed.
    #[error("{origin}: {key}{}: {reason}", value.as_ref().map(|value| format!(" = {value}")).unwrap_or_default())]
    Value {
        /// Where.
        origin: Origin,
        /// The key's path.
        key: String,
        /// The value as TOML, cut if long. Absent if the key is not set.
        value: Option<String>,
        /// What is wrong and what to do.
        reason: String,
    },
}

/// Everything that is wrong, at least one thing. The exit code is 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            fmt::Display::fmt(error, f)?;
        }
        Ok(())
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}
