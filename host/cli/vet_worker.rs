//! `hotbay vet-worker`: what the broker runs to vet a component; not for people.

use std::path::PathBuf;

use clap::Args;

use super::Failure;
use crate::registry::vet;

/// Vets the component on standard input, or its code, within limits
#[derive(Debug, Args)]
pub(super) struct VetWorker {
    /// What is to be done
    #[arg(long)]
    plan: PathBuf,
    /// Runs the code on standard input, instead of reading a component
    #[arg(long)]
    conformance: bool,
}

impl VetWorker {
    pub(super) fn run(self) -> Result<(), Failure> {
        let done = if self.conformance { vet::try_out(&self.plan) } else { vet::read(&self.plan) };
        // The broker tells this exit code from that of a worker that a component brought down.
        done.map_err(|error| Failure::usage(error.to_string()))
    }
}
