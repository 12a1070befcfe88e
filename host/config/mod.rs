//! The configuration: `hotbay.toml`, then environment variables, then flags, each over the one before.
//!
//! One mechanism reads all three: they become a tree of values that remember where they were set (`tree`), which is
//! deserialized and checked as a whole, so that an error names the key, the value and the place, whichever it was.
//! This module alone reads environment variables. It opens the files the configuration names, but binds nothing and
//! starts nothing.

mod admin;
mod check;
mod de;
mod error;
mod mount;
mod secrets;
mod source;
mod tree;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

pub use admin::AdminConfig;
pub use error::{ConfigError, ConfigErrors, Origin};
pub use mount::{ErrorForm, Heartbeat, HttpMethod, HttpRoute, Mount, OnExcess, RefusalStyle, RequiredQuery, RouteAuth};
pub use secrets::{KeyConfig, KeyMaterial, SecretFileError};
pub use source::{Environment, FILE_DEFAULT, Overrides};

use crate::datasource::DatasourceConfig;
use crate::limits::NodeLimits;
use crate::protocol::capability::Capability;

pub use crate::telemetry::{LogConfig, LogFormat};

/// A checked configuration.
#[derive(Clone)]
pub struct Config {
    /// The file it came from.
    pub file: PathBuf,
    /// Where to listen.
    pub listen: SocketAddr,
    /// The database, compiled plugins and, in development, the secret. Relative to the working directory.
    pub data_dir: PathBuf,
    /// Serves demo pages, and makes a random secret if none is set.
    pub development: bool,
    /// Logging.
    pub log: LogConfig,
    /// Bounds of the process.
    pub limits: NodeLimits,
    /// Keys by name.
    pub keys: BTreeMap<String, KeyConfig>,
    /// Whose tokens administer, if any do.
    pub admin: Option<AdminConfig>,
    /// Plugins by name.
    pub plugins: BTreeMap<String, PluginConfig>,
    /// Databases of which plugins may read.
    pub datasources: Vec<DatasourceConfig>,
    /// In the order in which they are tried: of two mounts that fit a request, the closer one comes first.
    pub mounts: Vec<Mount>,
    /// What is allowed but should be known; to be logged at start.
    pub warnings: Vec<String>,
}

/// `[plugin.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PluginConfig {
    /// The component file. Relative to the configuration file in the file, absolute or relative to the working
    /// directory once loaded.
    pub path: PathBuf,
    /// Its manifest, `plugin.toml`. Without it, the file of that name beside the component, if there is one. Paths as above.
    pub manifest: Option<PathBuf>,
    /// What it may import beside `channel`, which every plugin may.
    #[serde(default)]
    pub grants: Vec<Capability>,
}

impl Config {
    /// Reads, overlays and checks the configuration. Writes nothing.
    ///
    /// # Errors
    /// Everything that is wrong, as far as it can be found at once.
    pub fn load(overrides: &Overrides, environment: &Environment) -> Result<Self, ConfigErrors> {
        let sources = source::read(overrides, environment)?;
        check::check(sources, environment)
    }
}

#[cfg(test)]
mod tests;
