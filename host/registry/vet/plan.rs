//! What a worker is told: everything but the component, which it is given as a file.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::limits::{MountLimits, TAPES_VETTED_MAX};
use crate::plugin::compile::Digest;
use crate::protocol::capability::Capability;
use crate::protocol::name::ChannelName;
use crate::registry::conformance::Conditions;
use crate::registry::vet::Vetting;

/// See the module.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Plan {
    /// The plugin's name, for its log lines.
    pub(super) name: String,
    /// Names the component, in hexadecimal.
    pub(super) digest: String,
    /// The most bytes a component may have.
    pub(super) component_bytes_max: u64,
    /// What its manifest says it may import.
    pub(super) capabilities: BTreeSet<Capability>,
    /// What its owner was granted.
    pub(super) grants: BTreeSet<Capability>,
    /// The limits of the mount, and its own.
    pub(super) limits: MountLimits,
    /// The tenant of the channels it is tried on.
    tenant: String,
    /// Their names.
    channels: Vec<String>,
    settings: String,
    seed: u64,
    settings_of_tapes: bool,
    /// Tapes it is played.
    pub(super) tapes: Vec<PathBuf>,
    /// The version it is compared with there; without one, with what was recorded.
    #[serde(default)]
    pub(super) deployed: Option<Deployed>,
}

/// The version that is deployed now.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Deployed {
    /// Names the component, in hexadecimal.
    pub(super) digest: String,
    /// Where its code is.
    pub(super) code: PathBuf,
    /// The limits of the mount.
    pub(super) limits: MountLimits,
}

impl Plan {
    pub(super) fn of(vetting: &Vetting<'_>, digest: Digest) -> Self {
        let names = &vetting.channels;
        Self {
            name: vetting.manifest.name.clone(),
            digest: digest.to_string(),
            component_bytes_max: vetting.node.plugin_bytes_max as u64,
            capabilities: vetting.manifest.capabilities.clone(),
            grants: vetting.grants.clone(),
            limits: vetting.manifest.limits(&vetting.limits),
            tenant: names.first().map_or("default", ChannelName::tenant).to_owned(),
            channels: names.iter().map(|name| name.name().to_owned()).collect(),
            settings: vetting.settings.clone(),
            settings_of_tapes: vetting.settings_of_tapes,
            seed: vetting.seed,
            tapes: vetting.tapes.iter().take(TAPES_VETTED_MAX).cloned().collect(),
            deployed: None,
        }
    }

    /// What it is told of settings while it is played a tape; absent if that is what the tape has.
    pub(super) fn settings_for_tapes(&self) -> Option<&str> {
        (!self.settings_of_tapes).then_some(&*self.settings)
    }

    /// The conditions of the conformance run.
    pub(super) fn conditions(&self) -> Conditions {
        let names = self.channels.iter().filter_map(|name| ChannelName::new(&self.tenant, name).ok());
        // Of what it logs the end is kept, and explains a failure: nothing of that must be left out before.
        let limits = MountLimits { log_lines_per_second_max: u32::MAX, ..self.limits.clone() };
        Conditions {
            channels: names.collect(),
            settings: self.settings.clone(),
            limits: Arc::new(limits),
            seed: self.seed,
        }
    }
}
