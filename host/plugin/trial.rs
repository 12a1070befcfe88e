//! A plugin that is tried out before it may run in the broker, in a process of its own: there is no folder of compiled code, and an engine
//! with room for a few instances.

use std::collections::BTreeSet;
use std::path::Path;

use crate::limits::MountLimits;
use crate::plugin::compile::{Digest, deserialize};
use crate::plugin::lane::Lane;
use crate::plugin::{Plugin, PluginError, engine};
use crate::protocol::capability::Capability;

/// Loads the code that the [compile worker](crate::plugin::compile::compile_file) made of a component. From then on starting instances of
/// it opens nothing: no file, no socket, no thread.
///
/// # Errors
/// If the component needs more than an instance may have, or does not fit the contract.
pub fn load(
    name: &str,
    digest: Digest,
    code: &[u8],
    grants: &BTreeSet<Capability>,
    limits: &MountLimits,
) -> Result<Plugin, PluginError> {
    let engine = engine::for_trying(limits.memory_bytes_max)?;
    let lane = Lane::start().map_err(|e| PluginError::Engine { cause: format!("no thread for long calls: {e}") })?;
    let compiled = deserialize(&engine, Path::new(name), code).map_err(|error| match error {
        // Of code that was just made for this very engine nothing else can be wrong.
        PluginError::Artifacts { cause, .. } => PluginError::DoesNotFit { cause },
        other => other,
    })?;
    // Otherwise the first instance would do that, with a file in memory for each of its memories.
    compiled.initialize_copy_on_write_image().map_err(|e| PluginError::DoesNotFit { cause: format!("{e:#}") })?;
    Plugin::link(name, digest, &compiled, grants, &lane)
}

/// Compiles a component here, for tests.
///
/// # Errors
/// If it does not compile.
#[cfg(test)]
pub fn compile(component: &[u8]) -> Result<Vec<u8>, PluginError> {
    let code = engine::for_compiling()?.precompile_component(component);
    code.map_err(|e| PluginError::Compile { cause: format!("{e:#}") })
}
