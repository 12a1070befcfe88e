//! Parse, configure, run.

use std::process::ExitCode;

use hotbay::cli::Cli;
use hotbay::config::Environment;

fn main() -> ExitCode {
    Cli::of_process().run(&Environment::of_process())
}
