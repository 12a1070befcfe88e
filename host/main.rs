//! Parse, configure, run.

use std::process::ExitCode;

use clap::Parser;
use hotbay::cli::Cli;
use hotbay::config::Environment;

fn main() -> ExitCode {
    Cli::parse().run(&Environment::of_process())
}
