//! The capabilities, one file each: what a plugin may import, and the only ways out of its sandbox.

mod channel;
mod kv;
mod log;
mod logging;
mod sql;
mod stats;
pub(super) mod wasi;

use std::collections::BTreeSet;

use wasmtime::Engine;
use wasmtime::component::{HasSelf, Linker};

use crate::plugin::PluginError;
use crate::plugin::bindings::hotbay::channel as wit;
use crate::plugin::state::State;
use crate::protocol::capability::Capability;

/// A linker with exactly what was granted.
pub(super) fn linker(engine: &Engine, grants: &BTreeSet<Capability>) -> Result<Linker<State>, PluginError> {
    let mut linker = Linker::new(engine);
    let link = |linker: &mut Linker<State>| -> wasmtime::Result<()> {
        wasi::link(linker)?;
        wit::types::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
        wit::channel::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
        for grant in grants {
            match grant {
                Capability::Kv => wit::kv::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?,
                Capability::Log => wit::log::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?,
                Capability::Logging => wit::logging::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?,
                Capability::Sql => wit::sql::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?,
                Capability::Stats => wit::stats::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?,
            }
        }
        Ok(())
    };
    link(&mut linker).map_err(|e| PluginError::engine(&e))?;
    Ok(linker)
}
