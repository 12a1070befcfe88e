//! `hotbay compile-worker`: what the broker runs to compile a component; not for people.

use std::path::PathBuf;

use clap::Args;

use super::Failure;
use crate::plugin::compile;

/// Compiles the component on standard input, within limits
#[derive(Debug, Args)]
pub(super) struct CompileWorker {
    /// Where the compiled code goes
    #[arg(long)]
    out: PathBuf,
    /// Address space, in bytes
    #[arg(long)]
    memory_bytes: u64,
    /// CPU time, in seconds
    #[arg(long)]
    cpu_s: u64,
}

impl CompileWorker {
    pub(super) fn run(self) -> Result<(), Failure> {
        compile::work(&self.out, self.memory_bytes, self.cpu_s).map_err(Failure::other)
    }
}
