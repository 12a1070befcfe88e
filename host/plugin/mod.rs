//! Plugins: WebAssembly components that give a channel its meaning.
//!
//! A component comes in as bytes, is read ([`inspect`]), compiled in a child process ([`compile`]), linked with exactly
//! the capabilities it was granted ([`imports`]) and becomes a [`Plugin`], from which an [`Instance`] is started for
//! each awake channel. Calls take batches in and give effects out; they touch nothing outside. Only this module
//! knows `wasmtime`.

pub mod account;
mod bindings;
pub mod compile;
pub mod confine;
pub mod content;
mod convert;
mod effects;
mod engine;
mod fault;
mod imports;
pub mod inspect;
mod instance;
mod lane;
mod meter;
#[cfg(feature = "native-relay")]
mod native;
pub mod record;
mod router;
mod state;
pub mod tape;
pub mod trial;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wasmtime::Engine;
use wasmtime::component::Component;

use crate::limits::{MountLimits, NodeLimits};
use crate::plugin::bindings::PluginPre;
use crate::plugin::compile::{Artifacts, Digest};
use crate::plugin::lane::Lane;
use crate::plugin::state::State;
use crate::protocol::capability::Capability;
use crate::quota::Effort;

pub use crate::plugin::account::{Difference, Entry, account, differences};
pub use crate::plugin::effects::{Effects, Timer};
pub use crate::plugin::engine::{TICK, mappings_needed};
pub use crate::plugin::fault::Fault;
pub use crate::plugin::instance::{Instance, Opening};
pub use crate::plugin::record::{Playback, Reads, Recorder};
pub use crate::plugin::router::{Router, Routing};
pub use crate::plugin::state::{Channel, ReadFuture, Stats};

/// Loads plugins.
pub struct Runtime {
    engine: Engine,
    artifacts: Artifacts,
    limits: NodeLimits,
    lane: Arc<Lane>,
}

/// A version of a plugin, ready to be instantiated.
pub struct Plugin {
    name: String,
    digest: Digest,
    pre: PluginPre<State>,
    lane: Arc<Lane>,
    effort: Arc<Effort>,
}

impl Runtime {
    /// Starts the engine. `mounts` says how much memory an instance may need; `folder` keeps compiled code.
    ///
    /// # Errors
    /// If the engine cannot reserve its address space, or the folder cannot be used.
    pub fn new<'a>(
        limits: &NodeLimits,
        mounts: impl Iterator<Item = &'a MountLimits>,
        folder: PathBuf,
    ) -> Result<Self, PluginError> {
        let engine = engine::for_running(limits, engine::memory_slot_bytes(mounts))?;
        let lane =
            Lane::start().map_err(|e| PluginError::Engine { cause: format!("no thread for long calls: {e}") })?;
        Ok(Self { engine, artifacts: Artifacts::open(folder)?, limits: limits.clone(), lane })
    }

    /// Loads a plugin from its component. Blocks while it compiles, if it was not compiled before.
    ///
    /// # Errors
    /// If the component is refused: the error names the cause.
    pub fn load(&self, name: &str, component: &[u8], grants: &BTreeSet<Capability>) -> Result<Plugin, PluginError> {
        if component.len() > self.limits.plugin_bytes_max {
            return Err(PluginError::TooLarge { bytes: component.len(), bytes_max: self.limits.plugin_bytes_max });
        }
        inspect::inspect(component)?.check_grants(grants)?;
        let compiled = self.artifacts.load(&self.engine, component, &self.limits)?;
        Plugin::link(name, Digest::of(component), &compiled, grants, &self.lane)
    }

    /// Loads a plugin whose code is kept, without its component: it was vetted, and its code [adopted](Self::adopt). Blocks for as long
    /// as reading the code takes.
    ///
    /// # Errors
    /// [`PluginError::NotCompiled`] if its code is not there, as after an update of the engine: then it has to be compiled again.
    /// Others like [`Runtime::load`].
    pub fn load_vetted(
        &self,
        name: &str,
        digest: Digest,
        grants: &BTreeSet<Capability>,
    ) -> Result<Plugin, PluginError> {
        let compiled = self.artifacts.load_kept(&self.engine, digest)?;
        Plugin::link(name, digest, &compiled, grants, &self.lane)
    }

    /// Keeps the code that [a worker](compile::compile_file) made of a component, for [`Runtime::load_vetted`]. Blocks for as long as
    /// copying takes.
    ///
    /// # Errors
    /// If the code is too large, or the folder cannot be written.
    pub fn adopt(&self, digest: Digest, code: &Path) -> Result<(), PluginError> {
        self.artifacts.adopt(&self.engine, digest, code)
    }

    /// Copies the code that is kept of a component to a file that is not there yet, for a worker. Blocks for as long as copying takes.
    ///
    /// # Errors
    /// If there is none that can be used, or the file cannot be written.
    pub fn export(&self, digest: Digest, to: &Path) -> Result<(), PluginError> {
        self.artifacts.export(&self.engine, digest, to)
    }

    /// What was noted about a component under a name, if its code is kept here for this engine.
    pub fn note(&self, digest: Digest, name: &str) -> Option<Vec<u8>> {
        self.artifacts.has(&self.engine, digest).then(|| self.artifacts.note(digest, name)).flatten()
    }

    /// Notes something about a component whose code is kept. `name` is part of a file's name.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn keep_note(&self, digest: Digest, name: &str, words: &[u8]) -> Result<(), PluginError> {
        self.artifacts.keep_note(digest, name, words)
    }

    /// Reads a component from a file and loads it.
    ///
    /// # Errors
    /// Like [`Runtime::load`], and if the file cannot be read.
    pub fn load_file(&self, name: &str, path: &Path, grants: &BTreeSet<Capability>) -> Result<Plugin, PluginError> {
        let component =
            std::fs::read(path).map_err(|e| PluginError::File { path: path.to_owned(), cause: e.to_string() })?;
        self.load(name, &component, grants)
    }
}

impl Plugin {
    fn link(
        name: &str,
        digest: Digest,
        compiled: &Component,
        grants: &BTreeSet<Capability>,
        lane: &Arc<Lane>,
    ) -> Result<Self, PluginError> {
        let linker = imports::linker(compiled.engine(), grants)?;
        let pre = linker
            .instantiate_pre(compiled)
            .and_then(PluginPre::new)
            .map_err(|e| PluginError::Contract { cause: format!("{e:#}") })?;
        Ok(Self { name: name.to_owned(), digest, pre, lane: Arc::clone(lane), effort: Arc::default() })
    }

    /// The name it is configured under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Names this version.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What its instances did, all of them together.
    pub fn effort(&self) -> &Arc<Effort> {
        &self.effort
    }

    fn engine(&self) -> &Engine {
        self.pre.engine()
    }

    fn lane(&self) -> &Arc<Lane> {
        &self.lane
    }

    fn pre(&self) -> &PluginPre<State> {
        &self.pre
    }
}

/// A plugin as the rest of the host holds it.
pub type SharedPlugin = Arc<Plugin>;

/// Why a plugin cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PluginError {
    /// Compiled code instead of WebAssembly.
    #[error("this is precompiled machine code; upload the WebAssembly component it was made from")]
    Precompiled,
    /// A core module.
    #[error("this is a core WebAssembly module, not a component; build it for the target wasm32-wasip2")]
    CoreModule,
    /// Neither.
    #[error("this is not WebAssembly (it does not begin with \\0asm)")]
    NotWasm,
    /// Not valid WebAssembly.
    #[error("this is not a valid component: {cause}")]
    Invalid {
        /// Where and why.
        cause: String,
    },
    /// Over the size limit.
    #[error("the component has {bytes} bytes; the limit is {bytes_max} (limits.plugin_bytes_max)")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// Grows too large when instantiated.
    #[error("the component amounts to {instances} instances; the limit is {instances_max}")]
    TooManyInstances {
        /// What it amounts to.
        instances: u64,
        /// The bound.
        instances_max: u64,
    },
    /// Exports no handler.
    #[error("the component does not export {CONTRACT}/handler, it exports: {exports}", CONTRACT = inspect::CONTRACT)]
    NoHandler {
        /// What it exports.
        exports: String,
    },
    /// Built against another version of the contract.
    #[error("the component was built against {CONTRACT}@{found}; this host speaks {supported}", CONTRACT = inspect::CONTRACT)]
    ContractVersion {
        /// The component's.
        found: String,
        /// The host's.
        supported: &'static str,
    },
    /// Imports what it was not granted.
    #[error("the component imports {import}, which it was not granted (granted: {granted})")]
    NotGranted {
        /// The import.
        import: String,
        /// What it was granted.
        granted: String,
    },
    /// Imports what nobody is granted.
    #[error("the component imports {import}, which no plugin can be granted")]
    NeverGranted {
        /// The import.
        import: String,
    },
    /// Names fit, but types do not.
    #[error("the component does not fit the contract: {cause}")]
    Contract {
        /// Where and why.
        cause: String,
    },
    /// Did not compile within its limits.
    #[error("the component could not be compiled: {cause}")]
    Compile {
        /// Why.
        cause: String,
    },
    /// Its worker got too little processor time to end. That says nothing about the component.
    #[error(
        "compiling did not end within {wall_s} s (compile_wall_s_max), in which it got {cpu_ms} ms of processor time: it only gets what \
         nobody else wants"
    )]
    Starved {
        /// How long it had.
        wall_s: u64,
        /// What it got of that.
        cpu_ms: u64,
    },
    /// Needs more than an instance may have.
    #[error("the component needs more than an instance may have: {cause}")]
    DoesNotFit {
        /// What.
        cause: String,
    },
    /// There is no compiled code of it here.
    #[error("the component {digest} is not compiled for this host; have it vetted again")]
    NotCompiled {
        /// Which.
        digest: Digest,
    },
    /// The file cannot be read.
    #[error("the plugin file {} cannot be read: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// The folder of compiled code cannot be used.
    #[error("compiled code cannot be kept or read at {}: {cause}", path.display())]
    Artifacts {
        /// Where.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// The engine cannot start.
    #[error("the WebAssembly engine cannot start: {cause}")]
    Engine {
        /// Why.
        cause: String,
    },
}

impl PluginError {
    fn engine(error: &wasmtime::Error) -> Self {
        Self::Engine { cause: format!("{error:#}") }
    }
}
