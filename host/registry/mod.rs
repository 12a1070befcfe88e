//! Plugins in production: which versions there are, what was found out about each before it ran, and which one runs where.
//!
//! A version comes in as a component and its [`manifest`], both from strangers. Nothing of it is parsed, compiled or run in the
//! broker before it passed vetting.
//!
//! uploaded → vetted → approved → deployed → retired. A version never changes; what happens to it is written down, in one transaction with
//! who did it and why. [`versions`] has its life, [`vet`] looks at it in a [`queue`], [`deploy`] says where it runs, [`watch`] lets canaries grow and rolls back what goes
//! wrong, and [`mounts`] makes of all that the plan each channel looks at. The plugins of the configuration come in at [`startup`], on the
//! same way.

mod channels;
mod chosen;
pub mod conformance;
mod deploy;
mod error;
mod intake;
mod keys;
mod line;
pub mod manifest;
mod mounts;
mod queue;
mod recordings;
mod revoke;
mod rollback;
pub mod scratch;
pub mod signature;
mod startup;
pub mod strategy;
mod tape_file;
mod tenants;
mod versions;
pub mod vet;
mod watch;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::channel::{Directory, Logic, Version};
use crate::limits::NodeLimits;
use crate::plugin::compile::Digest;
use crate::plugin::{Plugin, PluginError, Runtime};
use crate::registry::line::Line;
use crate::registry::manifest::Manifest;
use crate::registry::mounts::{Mounts, Owned};
use crate::registry::recordings::Studio;
use crate::store::Store;
use crate::store::catalog::{self, AuditEntry, Catalog, Status};
use crate::telemetry::wall_ms;

pub use crate::registry::channels::reset_channel;
pub use crate::registry::deploy::{Deploy, DeploymentStatus};
pub use crate::registry::error::RegistryError;
pub use crate::registry::keys::{KEY_PREFIX, NewKey, create_key, revoke_key};
pub use crate::registry::queue::Trial;
pub use crate::registry::recordings::{Record, RecordingStatus};
pub use crate::registry::revoke::Revoked;
pub use crate::registry::startup::{Configured, Entered};
pub use crate::registry::tenants::{Policy, Terms};
pub use crate::registry::versions::Upload;

/// Who does something, for the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// For people: `key ci`, `user ann`, `configuration`, `budget`.
    pub name: String,
    /// Why, in their words.
    pub reason: Option<String>,
}

impl Actor {
    /// Somebody, without a reason.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), reason: None }
    }

    /// The same with a reason.
    #[must_use]
    pub fn because(self, reason: impl Into<String>) -> Self {
        Self { reason: Some(reason.into()), ..self }
    }

    fn did(&self, action: &str, tenant: &str, subject: impl Into<String>, detail: &serde_json::Value) -> AuditEntry {
        AuditEntry {
            at_ms: wall_ms(),
            actor: self.name.clone(),
            tenant: tenant.to_owned(),
            action: action.to_owned(),
            subject: subject.into(),
            reason: self.reason.clone(),
            detail: detail.to_string(),
        }
    }
}

/// The registry of one broker.
pub struct Registry {
    store: Arc<dyn Store>,
    runtime: Arc<Runtime>,
    /// Components, by digest.
    folder: PathBuf,
    limits: NodeLimits,
    mounts: Mounts,
    studio: Arc<Studio>,
    /// Versions that wait to be vetted.
    queue: Line,
    directory: OnceLock<Arc<Directory>>,
    /// Each with the name and the grants of its owner's manifest.
    loaded: Mutex<HashMap<Owned, Arc<Plugin>>>,
    /// Held while a component becomes a version, or goes because none needs it any more.
    taking: tokio::sync::Mutex<()>,
    /// Held while deployments change, so that they do one after another.
    deploying: tokio::sync::Mutex<()>,
    /// The same for limits of tenants.
    limiting: tokio::sync::Mutex<()>,
    /// When tenants uploaded what took the place of a version that failed vetting, within a day: the store counts the last one alone.
    replaced: Mutex<HashMap<String, Vec<u64>>>,
}

/// The time in which a tenant's uploads are counted, in milliseconds.
pub const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

impl Registry {
    /// A registry over a store, with its components below the data folder.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn open(
        store: Arc<dyn Store>,
        runtime: Arc<Runtime>,
        folder: PathBuf,
        limits: NodeLimits,
    ) -> Result<Self, RegistryError> {
        use std::os::unix::fs::DirBuilderExt;
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|e| RegistryError::Folder { path: folder.display().to_string(), cause: e.to_string() })?;
        Ok(Self {
            store,
            runtime,
            studio: Arc::new(Studio::new(folder.with_file_name("tapes"))),
            folder,
            limits,
            mounts: Mounts::default(),
            queue: Line::default(),
            directory: OnceLock::new(),
            loaded: Mutex::default(),
            taking: tokio::sync::Mutex::default(),
            deploying: tokio::sync::Mutex::default(),
            limiting: tokio::sync::Mutex::default(),
            replaced: Mutex::default(),
        })
    }

    /// Adds a mount with the version its channels begin with.
    pub fn mount(&self, logic: Arc<Logic>, version: Arc<Version>) {
        self.mounts.add(logic, version);
    }

    fn catalog(&self) -> &dyn Catalog {
        self.store.catalog()
    }

    fn component(&self, digest: Digest) -> PathBuf {
        self.folder.join(format!("{digest}.wasm"))
    }

    /// A version that may run, ready to be instantiated.
    ///
    /// # Errors
    /// If it may not run, or cannot be loaded.
    async fn load(&self, row: &catalog::Version) -> Result<(Arc<Plugin>, Manifest), RegistryError> {
        let digest = Digest(row.digest);
        let named = format!("{} {}", row.name, row.version);
        if row.status != Status::Approved {
            let why = format!("{named} is {}; only approved versions run", row.status);
            return Err(RegistryError::Forbidden(why));
        }
        let manifest = Manifest::parse(&row.manifest)?;
        let owned: Owned = (row.tenant.clone(), digest);
        if let Some(loaded) = self.loaded.lock().unwrap_or_else(PoisonError::into_inner).get(&owned) {
            return Ok((Arc::clone(loaded), manifest));
        }
        let (runtime, path, name) = (Arc::clone(&self.runtime), self.component(digest), row.name.clone());
        let grants = manifest.capabilities.clone();
        // Its code is there since it was vetted; after an update of the engine, or if it is damaged, it has to be made again.
        let load = move || match runtime.load_vetted(&name, digest, &grants) {
            Err(PluginError::NotCompiled { .. } | PluginError::Artifacts { .. }) => {
                runtime.load_file(&name, &path, &grants)
            }
            loaded => loaded,
        };
        let loaded = tokio::task::spawn_blocking(load).await;
        let loaded = loaded.map_err(|e| PluginError::Compile { cause: e.to_string() })??;
        if loaded.digest() != digest {
            let cause = format!("it is not the component that was uploaded: its digest is {}", loaded.digest());
            return Err(RegistryError::Folder { path: self.component(digest).display().to_string(), cause });
        }
        let loaded = Arc::new(loaded);
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).insert(owned, Arc::clone(&loaded));
        Ok((loaded, manifest))
    }

    /// Writes the tapes to their end, when the broker stops. Blocks until that is done.
    pub fn finish(&self) {
        self.studio.finish();
    }

    /// Puts the plans of all mounts in place and tells awake channels.
    fn apply(&self) {
        self.mounts.plan();
        let in_use = self.mounts.in_use();
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.retain(|owned, _| in_use.contains(owned));
        if let Some(directory) = self.directory.get() {
            for ((owner, digest), plugin) in loaded.iter() {
                directory.quotas().list(owner, plugin.name(), digest.0, plugin.effort());
            }
            drop(loaded);
            directory.tell_of_versions();
        }
    }
}
