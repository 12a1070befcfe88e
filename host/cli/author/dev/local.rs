//! The broker that a plugin is worked on with: that of `hotbay serve`, in this process, for this machine alone, and open to everybody on it.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::terminal::follow;
use crate::auth::{AuthMode, Policy, StatedSource};
use crate::broker::{Broker, StartError, configured};
use crate::cli::Failure;
use crate::cli::author::project::Project;
use crate::cli::author::templates::mount_alone;
use crate::config::{Config, Environment, Overrides};
use crate::plugin::compile::Digest;
use crate::protocol::capability::Capability;
use crate::registry::manifest::FILE_NAME;
use crate::registry::strategy::{Budget, Strategy};
use crate::registry::{Configured, Entered, Registry, RegistryError};
use crate::store::DataLock;
use crate::telemetry;

/// The configuration of a project.
const CONFIG: &str = "hotbay.toml";
/// What the broker keeps, in the project's own folder.
const FOLDER: &str = "dev";
/// In there: what was built last.
const COMPONENT: &str = "plugin.wasm";
/// In there: compiled code, which is kept even if channels begin with nothing. Compiling takes long.
const COMPILED: &str = "artifacts";
/// The query parameter by which somebody says who it is.
const USER: &str = "user";

/// How the broker is to be.
pub(super) struct Setup {
    config: Config,
    listen: SocketAddr,
    /// The plugin's name in the configuration.
    plugin: String,
}

impl Setup {
    /// As the project's configuration says; where it has none, there is one mount.
    ///
    /// # Errors
    /// If the configuration is wrong, does not have the plugin, or names an address that others can reach.
    pub(super) fn of(
        project: &Project,
        config: Option<PathBuf>,
        listen: Option<SocketAddr>,
        environment: &Environment,
    ) -> Result<Self, Failure> {
        let own = project.own_folder().map_err(Failure::other)?.join(FOLDER);
        std::fs::create_dir_all(&own).map_err(|e| Failure::other(format!("{}: {e}", own.display())))?;
        let component = project.component_path().map_err(|e| Failure::usage(e.to_string()))?;
        let file = match config {
            Some(file) => file,
            None if project.folder().join(CONFIG).exists() => project.folder().join(CONFIG),
            None => written(&own, project)?,
        };
        let overrides = Overrides {
            config: Some(file.clone()),
            listen: listen.map(|address| address.to_string()),
            data_dir: Some(own.display().to_string()),
            // A key that nothing is signed with needs no secret of anybody.
            set: vec!["development=true".to_owned()],
        };
        let mut config = Config::load(&overrides, environment).map_err(|errors| Failure::usage(errors.to_string()))?;
        let name = &project.manifest().name;
        let is_it = |path: &Path, named: &str| path == component || named == name;
        let found = config.plugins.iter_mut().find(|(named, plugin)| is_it(&plugin.path, named));
        let Some((plugin, found)) = found.map(|(named, plugin)| (named.clone(), plugin)) else {
            let file = file.display();
            return Err(Failure::usage(format!("{file}: no plugin has the path {}", component.display())));
        };
        found.path = own.join(COMPONENT);
        found.manifest = Some(project.folder().join(FILE_NAME));
        let listen = local(config.listen, listen.is_some())?;
        config.listen = (Ipv4Addr::LOCALHOST, 0).into();
        for mount in &mut config.mounts {
            mount.auth = open_to_all(&mount.auth);
            // The wire is shown as it is read.
            mount.compression = None;
            mount.limits.log_lines_per_second_max = 10_000;
        }
        config.warnings.clear();
        Ok(Self { config, listen, plugin })
    }

    /// Where clients connect.
    pub(super) fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Puts what was built where the broker takes it from.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub(super) fn put(&self, project: &Project) -> Result<Digest, String> {
        let mut component = project.component().map_err(|e| e.to_string())?;
        let manifest = project.folder().join(FILE_NAME);
        let manifest = std::fs::read(&manifest).map_err(|e| format!("{}: {e}", manifest.display()))?;
        mark(&mut component, Digest::of(&manifest));
        let path = self.config.data_dir.join(COMPONENT);
        std::fs::write(&path, &component).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Digest::of(&component))
    }

    /// Takes away what channels kept.
    ///
    /// # Errors
    /// If another broker has it, or it cannot be removed.
    pub(super) fn forget(&self) -> Result<(), Failure> {
        let folder = &self.config.data_dir;
        let failed = |e: &dyn std::fmt::Display| Failure::other(format!("{}: {e}", folder.display()));
        let _lock = DataLock::take(folder).map_err(|e| failed(&e))?;
        for entry in std::fs::read_dir(folder).map_err(|e| failed(&e))?.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let removed = match &*name {
                "plugins" | "tapes" => std::fs::remove_dir_all(entry.path()),
                name if name.starts_with("hotbay.db") => std::fs::remove_file(entry.path()),
                _ => continue,
            };
            removed.map_err(|e| failed(&e))?;
        }
        Ok(())
    }

    /// How to connect.
    pub(super) fn welcome(&self, address: SocketAddr) -> String {
        let mut lines =
            vec!["everybody is let in; `?user=NAME` says who it is, otherwise it is \"anonymous\"".to_owned()];
        for mount in self.mounts() {
            let paths: Vec<String> = mount.paths.iter().map(|path| format!("ws://{address}{path}")).collect();
            lines.extend(paths.iter().map(|path| format!("  socket   {path}")));
            if let Some(path) = paths.first() {
                lines.push(format!("  try it   npx wscat -c \"{}?{USER}=ann\"", filled(path)));
            }
        }
        lines.push(format!("  data     {}", self.config.data_dir.display()));
        lines.push("Edit the source and save it: connections stay. Ctrl-C ends it.".to_owned());
        lines.join("\n")
    }

    fn mounts(&self) -> impl Iterator<Item = &crate::config::Mount> {
        self.config.mounts.iter().filter(|mount| mount.plugin == self.plugin)
    }
}

/// Writes the manifest's digest into a section that nobody reads (component model, binary format). A version is named by its component alone;
/// while it is worked on, another manifest is to make another version, too.
fn mark(component: &mut Vec<u8>, manifest: Digest) {
    const CUSTOM_SECTION: u8 = 0;
    const NAME: &[u8] = b"plugin.toml";
    component.extend([CUSTOM_SECTION, (1 + NAME.len() + manifest.0.len()) as u8, NAME.len() as u8]);
    component.extend(NAME);
    component.extend(manifest.0);
}

/// A path with something in the place of each placeholder.
fn filled(path: &str) -> String {
    let mut parts = path.split('{');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + "lobby" + part.split_once('}').map_or("", |(_, rest)| rest))
}

/// An address of this machine. Others must not get in where nobody is asked.
fn local(address: SocketAddr, is_asked_for: bool) -> Result<SocketAddr, Failure> {
    match address.ip().is_loopback() {
        true => Ok(address),
        false if is_asked_for => {
            let why = "everybody is let in, so other machines must not reach it; write for example 127.0.0.1:3000";
            Err(Failure::usage(format!("--listen {address}: {why}")))
        }
        false => Ok((Ipv4Addr::LOCALHOST, address.port()).into()),
    }
}

/// Asks nobody who it is; whoever says so is believed.
fn open_to_all(configured: &Policy) -> Policy {
    Policy {
        mode: AuthMode::None,
        tenant: configured.tenant.clone(),
        insecure_user_id: true,
        user_id_sources: vec![StatedSource::Query(USER.to_owned())],
        ..Policy::default()
    }
}

/// A configuration for a project that has none.
fn written(own: &Path, project: &Project) -> Result<PathBuf, Failure> {
    let path = own.join(CONFIG);
    let text = mount_alone(&project.manifest().name, &Capability::ALL);
    std::fs::write(&path, text).map_err(|e| Failure::other(format!("{}: {e}", path.display())))?;
    Ok(path)
}

/// A broker that runs.
pub(super) struct Local {
    address: SocketAddr,
    registry: Arc<Registry>,
    plugin: Configured,
    mounts: Vec<String>,
    entered: Entered,
    data: PathBuf,
    /// Digests of the other plugins of the configuration.
    others: BTreeSet<String>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<bool>,
}

impl Local {
    /// Starts it.
    ///
    /// # Errors
    /// If the plugin is refused, or anything else keeps the broker from starting.
    pub(super) async fn start(setup: &Setup, metrics: PrometheusHandle) -> Result<Self, String> {
        let plugin = setup.config.plugins.get(&setup.plugin).map(|one| configured(&setup.config, &setup.plugin, one));
        let plugin = plugin.ok_or_else(|| format!("there is no plugin {:?}", setup.plugin))?;
        let lines = telemetry::follow_plugins();
        let broker = Broker::build(setup.config.clone(), metrics).await.map_err(|error| match error {
            StartError::Plugin { error, .. } | StartError::Registry(error) => refused(&error),
            error => error.to_string(),
        })?;
        let (address, registry) = (broker.address(), broker.registry());
        let mounts: Vec<String> = setup.mounts().map(|mount| mount.name.clone()).collect();
        // Again, for what it may do here before it is rolled back: as much as it likes.
        let entered = registry.renew(&plugin, &mounts, &strategy()).await.map_err(|error| refused(&error))?;
        let data = setup.config.data_dir.clone();
        let mut others: BTreeSet<String> = kept(&data).filter_map(|path| digest_of(&path)).collect();
        others.remove(&entered.plugin.digest().to_string());
        let (stop, stopped) = oneshot::channel();
        let served = telemetry::spawn("broker", broker.serve(async { drop(stopped.await) }));
        drop(telemetry::spawn("log lines", follow(lines)));
        Ok(Self { address, registry, plugin, mounts, entered, data, others, stop, served })
    }

    /// Where it listens, behind the wire.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it runs.
    pub(super) fn version(&self) -> String {
        format!("{} {}", self.entered.row.name, self.entered.row.version)
    }

    /// Takes in what was built, and swaps it into all channels. The way is that of every version: vetting, approval, deployment. Nearly all
    /// the time of vetting is that of compiling, which has to be done anyway: a second for Rust, some for JavaScript, half a minute for
    /// Python. The conformance run takes a fraction of that, and finds what would fail only later.
    ///
    /// # Errors
    /// If it is refused. Then what ran before goes on.
    pub(super) async fn renew(&mut self) -> Result<String, String> {
        let renewed = self.registry.renew(&self.plugin, &self.mounts, &strategy()).await;
        self.entered = renewed.map_err(|error| refused(&error))?;
        self.sweep();
        Ok(self.version())
    }

    /// Removes components and code of earlier builds, of which there would soon be many. Whatever channels still run of them is in memory.
    fn sweep(&self) {
        let current = self.entered.plugin.digest().to_string();
        let compiled = files(&self.data.join(COMPILED));
        for path in kept(&self.data).chain(compiled) {
            if digest_of(&path).is_some_and(|digest| digest != current && !self.others.contains(&digest)) {
                drop(std::fs::remove_file(path));
            }
        }
    }

    /// Stops it as any other. Whether that went well.
    pub(super) async fn end(self) -> bool {
        // Who does not listen any more has stopped by itself.
        self.stop.send(()).ok();
        self.served.await.unwrap_or(false)
    }
}

/// The components that a broker keeps.
fn kept(data: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    files(&data.join("plugins"))
}

fn files(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// The digest that a file's name begins with.
fn digest_of(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let digest = name.get(..2 * size_of::<Digest>())?;
    digest.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| digest.to_owned())
}

/// To all channels at once. An author wants to see the version fail that was just built, not the one before come back.
fn strategy() -> Strategy {
    const ANY: f64 = 1e9;
    let budget = Budget { traps_per_1000: ANY, deadlines_per_1000: ANY, refusals_per_1000: ANY, ..Budget::default() };
    Strategy { budget, ..Strategy::all() }
}

/// Why a version was not taken, and what to do about state that it does not take over.
fn refused(error: &RegistryError) -> String {
    match error {
        RegistryError::Schema { .. } => format!(
            "{error}\nlist that schema under [state] accepts in {FILE_NAME} and take it over in `open`; or end this with Ctrl-C and \
             start it again: without --keep, channels begin with nothing"
        ),
        error => error.to_string(),
    }
}
