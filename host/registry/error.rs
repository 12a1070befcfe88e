//! Why the registry refuses something.

use crate::plugin::PluginError;
use crate::registry::manifest::ManifestError;
use crate::registry::strategy::StrategyError;
use crate::registry::vet::VetError;
use crate::store::StoreError;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// There is no such thing.
    #[error("there is no {what}")]
    NotFound {
        /// What, with its name.
        what: String,
    },
    /// It contradicts what is there.
    #[error("{0}")]
    Conflict(String),
    /// It does not take over the state that channels have.
    #[error(
        "{version} does not take over state of schema {schema}, which {current} has now; it says: accepts = {accepts:?}"
    )]
    Schema {
        /// Which version.
        version: String,
        /// The schema channels have.
        schema: u32,
        /// Of which plugin.
        current: String,
        /// What it takes over.
        accepts: Vec<u32>,
    },
    /// It is not allowed.
    #[error("{0}")]
    Forbidden(String),
    /// It makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// It is too large, or one too many.
    #[error("{0}")]
    TooMuch(String),
    /// The manifest.
    #[error("plugin.toml: {0}")]
    Manifest(#[from] ManifestError),
    /// The strategy.
    #[error(transparent)]
    Strategy(#[from] StrategyError),
    /// The component.
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The component did not pass vetting.
    #[error("it did not pass vetting: {0}")]
    Refused(String),
    /// It cannot be vetted.
    #[error(transparent)]
    Vetting(#[from] VetError),
    /// The folder of components.
    #[error("the folder of components cannot be used: {path}: {cause}")]
    Folder {
        /// Where.
        path: String,
        /// Why.
        cause: String,
    },
}

impl RegistryError {
    /// A version that is not there.
    pub(super) fn no_version(tenant: &str, named: &str) -> Self {
        let of = if tenant.is_empty() { "the platform".to_owned() } else { format!("the tenant {tenant:?}") };
        Self::NotFound { what: format!("version {named:?} of {of}; `hotbay plugin list` shows those there are") }
    }
}
