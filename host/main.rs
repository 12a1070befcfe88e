//! Parse, configure, run.

use std::process::ExitCode;

use clap::Parser;
use hotbay::cli::Cli;
use hotbay::config::Environment;

/// The system's allocator searches for every piece of more than a kilobyte, as the futures of a busy channel are, and keeps more
/// memory for small ones: with it a durable message costs a sixth more processor time and an idle connection 200 bytes more.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    Cli::parse().run(&Environment::of_process())
}
