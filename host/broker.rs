//! The composition root: builds the parts in order, starts them, and stops them in the opposite order.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::{TcpListener, TcpSocket};

use crate::channel::{Census as ChannelCensus, Directory, Logic, Plan, Publisher, Rollout, Version};
use crate::config::{Config, Mount, OnExcess, PluginConfig, SecretFileError};
use crate::connection::{Clock, Endpoint, Hub, UserRates};
use crate::datasource::{Datasource, OpenError, Statement};
use crate::limits::LISTEN_BACKLOG;
use crate::plugin::{PluginError, Runtime, mappings_needed};
use crate::registry::{Configured, Entered, Registry, RegistryError, Trial};
use crate::server::{
    self, ApiKeys, Bodies, Census, DemoTokens, Followers, MountPoint, Operators, Readiness, Site, Uploads,
};
use crate::store::sqlite::SqliteStore;
use crate::store::{DataLock, DataLockError, Store, StoreError};
use crate::telemetry;

/// A broker that is built and listens, but does not serve yet.
pub struct Broker {
    site: Arc<Site>,
    listener: TcpListener,
    address: SocketAddr,
    drain: Duration,
    /// Held while it runs.
    _lock: DataLock,
}

/// Why the broker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder.
    #[error("{path}: {error}")]
    Data {
        /// The folder.
        path: String,
        /// Why.
        error: DataLockError,
    },
    /// A signing secret.
    #[error(transparent)]
    Secret(#[from] SecretFileError),
    /// The store.
    #[error("{path}: {error}")]
    Store {
        /// The database file.
        path: String,
        /// Why.
        error: StoreError,
    },
    /// A datasource.
    #[error(transparent)]
    Datasource(#[from] OpenError),
    /// The WebAssembly runtime.
    #[error(transparent)]
    Runtime(PluginError),
    /// A plugin.
    #[error("plugin {name:?} ({path}): {error}")]
    Plugin {
        /// Its name in the configuration.
        name: String,
        /// Its file.
        path: String,
        /// Why.
        error: Box<RegistryError>,
    },
    /// The registry.
    #[error("the registry of plugins: {0}")]
    Registry(Box<RegistryError>),
    /// The address.
    #[error("cannot listen on {address}: {error}; is another program using it?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
}

impl Broker {
    /// Builds everything and begins to listen.
    ///
    /// # Errors
    /// If any part cannot start; the error names it and the remedy.
    pub async fn build(config: Config, metrics: PrometheusHandle) -> Result<Self, StartError> {
        config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        check_mappings(&config);
        let lock = DataLock::take(&config.data_dir)
            .map_err(|error| StartError::Data { path: config.data_dir.display().to_string(), error })?;
        let keys = config.open_keys()?;
        let store = open_store(&config).await?;
        let datasources = open_datasources(&config).await?;
        let registry = Arc::new(open_registry(&config, &store)?);
        let plugins = enter_plugins(&config, &registry).await?;
        let mut mounts = Vec::new();
        let mut logics: BTreeMap<String, Arc<Logic>> = BTreeMap::new();
        let mut configured = Vec::new();
        for mount in &config.mounts {
            let Some(entered) = plugins.get(&mount.plugin) else { continue };
            let version = Arc::new(entered.version(&mount.limits));
            let logic = Arc::new(logic(mount, &version, &datasources));
            registry.mount(Arc::clone(&logic), version);
            configured.push((mount.name.clone(), entered.clone()));
            logics.insert(mount.name.clone(), Arc::clone(&logic));
            let gate = keys.gate(&mount.auth, mount.origins.as_deref(), &mount.subprotocols);
            let endpoint = Arc::new(endpoint(mount, logic));
            mounts.push(Arc::new(MountPoint::new(mount.clone(), gate, endpoint)));
        }
        let owner = format!("{:016x}", rand::random::<u64>());
        let logics = logics.into_values().collect();
        let directory = Directory::new(Arc::clone(&store), owner, &config.limits, logics);
        registry
            .restore(Arc::clone(&directory), &configured)
            .await
            .map_err(|error| StartError::Registry(Box::new(error)))?;
        let listen = |error| StartError::Listen { address: config.listen, error };
        let listener = bind(config.listen).map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let site = Arc::new(Site {
            hub: Arc::new(Hub::new(Arc::clone(&directory))),
            publisher: Publisher::new(directory),
            registry,
            api_keys: ApiKeys::new(Arc::clone(&store)),
            operators: Operators::new(config.admin.as_ref(), &keys),
            uploads: Uploads::default(),
            followers: Followers::default(),
            readiness: Readiness::default(),
            datasources: datasources.into_values().collect(),
            store,
            doors: server::doors(&mounts),
            metrics,
            bodies: Bodies::new(config.limits.request_bodies_bytes_max),
            limits: config.limits.clone(),
            census: Arc::default(),
            development: config.development,
            demo_tokens: DemoTokens::open(&config)?,
        });
        Ok(Self { site, listener, address, drain: Duration::from_millis(config.limits.drain_ms_max), _lock: lock })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its registry, for whoever runs it within another program.
    pub fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.site.registry)
    }

    /// Serves until `stop` resolves, then drains: no new connections, every channel finishes and commits what it has,
    /// clients are told to reconnect. Returns whether that was done in time.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> bool {
        let Self { site, listener, drain, .. } = self;
        let directory = Arc::clone(&site.hub.directory);
        let census: Arc<Census> = Arc::clone(&site.census);
        telemetry::spawn("timers", Arc::clone(&directory).run_timers());
        telemetry::spawn("deployments", Arc::clone(&site.registry).watch(directory.stop_signal()));
        telemetry::spawn("vetting", Arc::clone(&site.registry).run_vetting(directory.stop_signal()));
        telemetry::spawn("clock", Clock::run(Arc::clone(&site.hub.clock), directory.stop_signal()));
        let router = server::router(Arc::clone(&site));
        let accept = server::serve(listener, router, site.limits.clone(), census, directory.stop_signal());
        let accept = telemetry::spawn("accept", accept);
        stop.await;
        tracing::info!("draining");
        let drained = tokio::time::timeout(drain, async {
            directory.drain().await;
            site.hub.close_all().await;
            let registry = Arc::clone(&site.registry);
            drop(tokio::task::spawn_blocking(move || registry.finish()).await);
            drop(accept.await);
            site.store.close().await
        });
        match drained.await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::error!(%error, "the store did not close cleanly; everything acknowledged is committed");
                false
            }
            Err(_) => {
                tracing::error!(?drain, "not everything ended in time; everything acknowledged is committed");
                false
            }
        }
    }
}

async fn open_store(config: &Config) -> Result<Arc<dyn Store>, StartError> {
    let path = config.data_dir.join("hotbay.db");
    let store = SqliteStore::open(&path).await;
    let store = store.map_err(|error| StartError::Store { path: path.display().to_string(), error })?;
    Ok(Arc::new(store))
}

fn open_registry(config: &Config, store: &Arc<dyn Store>) -> Result<Registry, StartError> {
    let mounts = config.mounts.iter().map(|mount| &mount.limits);
    let runtime = Runtime::new(&config.limits, mounts, config.data_dir.join("artifacts"));
    let runtime = Arc::new(runtime.map_err(StartError::Runtime)?);
    let folder = config.data_dir.join("plugins");
    Registry::open(Arc::clone(store), runtime, folder, config.limits.clone())
        .map_err(|error| StartError::Registry(Box::new(error)))
}

/// Takes all plugins of the configuration in.
async fn enter_plugins(config: &Config, registry: &Registry) -> Result<BTreeMap<String, Entered>, StartError> {
    let mut plugins = BTreeMap::new();
    for (name, plugin) in &config.plugins {
        let configured = configured(config, name, plugin);
        let failed = |error| StartError::Plugin {
            name: name.clone(),
            path: plugin.path.display().to_string(),
            error: Box::new(error),
        };
        let entered = registry.enter(&configured).await.map_err(failed)?;
        let (version, digest) = (&entered.row.version, entered.plugin.digest());
        tracing::info!(plugin = name, version, %digest, "plugin loaded");
        plugins.insert(name.clone(), entered);
    }
    Ok(plugins)
}

/// A plugin of the configuration, for the registry.
pub fn configured(config: &Config, name: &str, plugin: &PluginConfig) -> Configured {
    Configured {
        name: name.to_owned(),
        path: plugin.path.clone(),
        manifest: plugin.manifest.clone(),
        grants: plugin.grants.iter().copied().collect(),
        trial: config.mounts.iter().find(|mount| mount.plugin == *name).map(trial),
    }
}

/// What a plugin is tried for when it is vetted.
fn trial(mount: &Mount) -> Trial {
    Trial {
        mount: mount.name.clone(),
        limits: mount.limits.clone(),
        patterns: mount.channels.clone(),
        settings: mount.settings.to_string(),
    }
}

async fn open_datasources(config: &Config) -> Result<BTreeMap<String, Arc<Datasource>>, StartError> {
    let mut datasources = BTreeMap::new();
    for datasource in &config.datasources {
        datasources.insert(datasource.name.clone(), Datasource::open(datasource).await?);
    }
    Ok(datasources)
}

/// The statements a mount grants, by the names its plugin knows them by. Those that are not there were found by the configuration.
fn statements(mount: &Mount, datasources: &BTreeMap<String, Arc<Datasource>>) -> BTreeMap<String, Arc<Statement>> {
    let find = |target: &str| {
        let (datasource, statement) = target.split_once('.')?;
        datasources.get(datasource)?.statement(statement)
    };
    mount.statements.iter().filter_map(|(name, target)| Some((name.clone(), find(target)?))).collect()
}

fn logic(mount: &Mount, version: &Arc<Version>, datasources: &BTreeMap<String, Arc<Datasource>>) -> Logic {
    let limits = Arc::new(mount.limits.clone());
    Logic {
        mount: mount.name.clone(),
        plugin: mount.plugin.clone(),
        rollout: Rollout::new(Plan::all(Arc::clone(version))),
        limits,
        settings: mount.settings.to_string(),
        durability: mount.durability,
        statements: statements(mount, datasources),
        patterns: mount.channels.clone(),
        census: ChannelCensus::default(),
    }
}

fn endpoint(mount: &Mount, logic: Arc<Logic>) -> Endpoint {
    Endpoint {
        route: mount.route,
        evict: mount.on_excess == OnExcess::Evict,
        heartbeat_interval_ms: mount.heartbeat.interval_ms,
        heartbeat_timeout_ms: mount.heartbeat.timeout_ms,
        compression: mount.compression,
        user_rates: UserRates::new(logic.limits.rate_per_user),
        logic,
    }
}

/// Awake channels take memory mappings, of which Linux allows a process so many.
fn check_mappings(config: &Config) {
    let allowed = std::fs::read_to_string("/proc/sys/vm/max_map_count");
    let Some(allowed) = allowed.ok().and_then(|text| text.trim().parse::<usize>().ok()) else { return };
    let needed = mappings_needed(&config.limits);
    if needed > allowed {
        tracing::warn!(
            needed,
            allowed,
            "limits.channels_awake_max channels may need more memory mappings than vm.max_map_count allows: lower the one or raise the other"
        );
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(LISTEN_BACKLOG)
}
