//! Checks of the whole: what types alone cannot say. Everything that is wrong is collected, nothing is corrected.

mod admin;
mod datasources;
mod keys;
mod limits;
mod mounts;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tracing_subscriber::EnvFilter;

use self::keys::KeySettings;
use super::error::{ConfigError, ConfigErrors, Origin};
use super::mount::MountSettings;
use super::source::{Environment, Sources};
use super::tree::{KeyPath, Node, Value};
use super::{AdminConfig, Config, LogConfig, PluginConfig, de};
use crate::auth::AuthMode;
use crate::datasource::DatasourceSettings;
use crate::limits::NodeLimits;

/// Longest name of a mount, plugin or key, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// The file's tables and keys, as they are written.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    listen: SocketAddr,
    data_dir: PathBuf,
    development: bool,
    log: LogConfig,
    limits: NodeLimits,
    admin: Option<AdminConfig>,
    key: BTreeMap<String, KeySettings>,
    plugin: BTreeMap<String, PluginConfig>,
    datasource: BTreeMap<String, DatasourceSettings>,
    mount: BTreeMap<String, MountSettings>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 3000)),
            data_dir: PathBuf::from("data"),
            development: false,
            log: LogConfig::default(),
            limits: NodeLimits::default(),
            admin: None,
            key: BTreeMap::new(),
            plugin: BTreeMap::new(),
            datasource: BTreeMap::new(),
            mount: BTreeMap::new(),
        }
    }
}

/// What checks share: the tree, to say where things were set, and what was found.
struct Check<'s> {
    tree: &'s Node,
    file: &'s Path,
    environment: &'s Environment,
    errors: Vec<ConfigError>,
    warnings: Vec<String>,
}

/// Deserializes and checks all sources.
///
/// # Errors
/// Everything that is wrong.
pub(super) fn check(sources: Sources, environment: &Environment) -> Result<Config, ConfigErrors> {
    let Sources { file, tree, mut errors } = sources;
    let Some(settings) = de::deserialize::<Settings>(&tree, &mut errors) else { return Err(ConfigErrors(errors)) };
    let mut check = Check { tree: &tree, file: &file, environment, errors, warnings: Vec::new() };

    check.names();
    check.log(&settings.log);
    check.node_limits(&settings.limits);
    let plugins = check.plugins(settings.plugin);
    let with_tokens = settings.mount.values().filter(|mount| mount.auth.mode == AuthMode::Jwt);
    let named = with_tokens.flat_map(|mount| &mount.auth.keys);
    let named = named.chain(settings.admin.iter().flat_map(|admin| &admin.keys));
    let keys = check.keys(settings.key, named, settings.development.then_some(&*settings.data_dir));
    let datasources = check.datasources(settings.datasource, &settings.data_dir, settings.development);
    let mounts = check.mounts(settings.mount, settings.listen);
    if let Some(admin) = &settings.admin {
        check.admin(admin);
    }
    if settings.development && !settings.listen.ip().is_loopback() {
        check
            .warnings
            .push(format!("development = true while listening on {}, which other machines can reach", settings.listen));
    }

    let Check { errors, warnings, .. } = check;
    if !errors.is_empty() {
        return Err(ConfigErrors(errors));
    }
    let Settings { listen, data_dir, development, log, limits, admin, .. } = settings;
    Ok(Config { file, listen, data_dir, development, log, limits, keys, admin, plugins, datasources, mounts, warnings })
}

impl Check<'_> {
    /// Notes that the value at a path is wrong.
    fn refuse(&mut self, path: &KeyPath, reason: impl Into<String>) {
        let value = self.tree.get(path).filter(|node| !matches!(node.value, Value::Table(_))).map(Node::shown);
        let origin = self.tree.locate(path).clone();
        self.errors.push(ConfigError::Value { origin, key: path.to_string(), value, reason: reason.into() });
    }

    /// The names there are in a table of the file, also of those that were not understood: what refers to them is
    /// not wrong.
    fn known(&self, table: &str) -> Vec<String> {
        let node = self.tree.get(&KeyPath::new([table]));
        node.into_iter().flat_map(Node::keys).map(str::to_owned).collect()
    }

    /// A path in the file is meant from the file's folder; one in a variable or flag from the working directory.
    fn resolve(&self, path: &Path, key: &KeyPath) -> PathBuf {
        match (self.tree.locate(key), self.file.parent()) {
            (Origin::File { .. }, Some(folder)) => folder.join(path),
            _ => path.to_owned(),
        }
    }

    fn names(&mut self) {
        for table in ["mount", "plugin", "key", "datasource"] {
            for name in self.known(table) {
                let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
                if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(allowed) {
                    let reason = format!("a name has 1 to {NAME_BYTES_MAX} of A-Z a-z 0-9 _ -");
                    self.refuse(&KeyPath::new([table, &name]), reason);
                }
            }
        }
    }

    fn log(&mut self, log: &LogConfig) {
        if let Err(error) = EnvFilter::builder().parse(&log.filter) {
            self.refuse(&KeyPath::new(["log", "filter"]), format!("{error}; write it like info or info,hotbay=debug"));
        }
    }

    fn plugins(&mut self, plugins: BTreeMap<String, PluginConfig>) -> BTreeMap<String, PluginConfig> {
        let mut resolved = BTreeMap::new();
        for (name, plugin) in plugins {
            let key = KeyPath::new(["plugin", &name, "path"]);
            if plugin.path.as_os_str().is_empty() {
                self.refuse(&key, "must name a component file");
            }
            let path = self.resolve(&plugin.path, &key);
            let key = KeyPath::new(["plugin", &name, "manifest"]);
            let manifest = plugin.manifest.as_ref().map(|manifest| self.resolve(manifest, &key));
            resolved.insert(name, PluginConfig { path, manifest, ..plugin });
        }
        resolved
    }
}
