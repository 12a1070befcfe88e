//! The command line: one file per subcommand. Results go to stdout, errors to stderr; exit code 2 means that the
//! configuration or the arguments are wrong, 1 that something else failed. All of it is printed by [`output`].

#![deny(clippy::print_stdout, clippy::print_stderr, reason = "these panic when nobody reads any more: cli::output")]

mod author;
mod bench;
mod check_config;
mod compile_worker;
mod key;
mod output;
mod plugin;
mod plugin_check;
mod remote;
mod serve;
mod tape;
mod token;
mod vet_worker;
mod welcome;

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};

use crate::config::{Config, Environment, Overrides};

/// Exit code for wrong arguments and configurations; clap uses the same.
const EXIT_USAGE: u8 = 2;

/// A WebSocket message broker whose channel logic is sandboxed WebAssembly.
#[derive(Debug, Parser)]
#[command(name = "hotbay", version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Bench(Box<bench::Bench>),
    CheckConfig(check_config::CheckConfig),
    Token(token::Token),
    #[command(subcommand)]
    Key(key::Key),
    #[command(subcommand)]
    Plugin(plugin::Plugin),
    #[command(subcommand)]
    Tenant(remote::tenant::Tenant),
    #[command(subcommand)]
    Channel(remote::channel::Channel),
    #[command(subcommand)]
    Connection(remote::connection::Connection),
    Audit(remote::audit::Audit),
    #[command(subcommand)]
    Tape(tape::Tape),
    #[command(hide = true)]
    CompileWorker(compile_worker::CompileWorker),
    #[command(hide = true)]
    VetWorker(vet_worker::VetWorker),
}

impl Cli {
    /// What was typed. Ends the process if that makes no sense, or asks for help.
    pub fn of_process() -> Self {
        Self::try_parse().unwrap_or_else(|error| {
            if error.kind() != ErrorKind::ValueValidation {
                error.exit();
            }
            let told = error.render();
            let told = if io::stderr().is_terminal() { told.ansi().to_string() } else { told.to_string() };
            output::progress(in_words(told));
            std::process::exit(i32::from(EXIT_USAGE));
        })
    }

    /// Runs the subcommand.
    pub fn run(self, environment: &Environment) -> ExitCode {
        let done = match self.command {
            Command::Serve(command) => command.run(environment),
            Command::Bench(command) => command.run(),
            Command::CheckConfig(command) => command.run(environment),
            Command::Key(command) => command.run(environment),
            Command::Plugin(command) => command.run(environment),
            Command::CompileWorker(command) => command.run(),
            Command::VetWorker(command) => command.run(),
            Command::Tape(command) => command.run(environment),
            Command::Tenant(command) => command.run(environment),
            Command::Channel(command) => command.run(environment),
            Command::Connection(command) => command.run(environment),
            Command::Audit(command) => command.run(environment),
            Command::Token(command) => command.run(environment),
        };
        let failure = match (&done, output::lost()) {
            (Ok(()), None) => return ExitCode::SUCCESS,
            (Err(failure), _) | (Ok(()), Some(failure)) => failure,
        };
        output::aside(output::without_numbers(&failure.message));
        ExitCode::from(failure.code)
    }
}

/// What the standard library says of numbers, for those who only want to know what to write.
fn in_words(told: String) -> String {
    let words = [
        ("invalid digit found in string", "write a whole number, such as 10"),
        ("number too large to fit in target type", "the number is too large"),
        ("invalid float literal", "write a number, such as 10 or 0.5"),
    ];
    words.into_iter().fold(told, |told, (its, ours)| told.replace(its, ours))
}

/// Why a subcommand ended early.
#[derive(Debug)]
struct Failure {
    message: String,
    code: u8,
    /// A broker says that there is no such thing.
    is_missing: bool,
}

impl Failure {
    /// The arguments or the configuration are wrong.
    fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: EXIT_USAGE, is_missing: false }
    }

    /// The same, with what else there is to say.
    fn and(mut self, more: &str) -> Self {
        self.message.push_str(more);
        self
    }

    /// Something else failed.
    fn other(cause: impl std::fmt::Display) -> Self {
        Self { message: cause.to_string(), code: 1, is_missing: false }
    }
}

/// Says that something was made that a broker may not know, which has its data elsewhere.
fn made_anew(what: &str, path: &Path, of_it: &str) {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    output::aside(format_args!(
        "note: there was no {what} yet, so it was made: {}; a broker that has its data elsewhere does not know this {of_it}: name its \
         configuration with --config, or its folder with --data-dir",
        path.display()
    ));
}

/// Flags of every subcommand that reads the configuration. They go before environment variables, these before the file.
#[derive(Debug, Args)]
struct ConfigArgs {
    /// The configuration file [default: $HOTBAY_CONFIG, else hotbay.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to listen, for example 127.0.0.1:3000 (HOTBAY_LISTEN)
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// The folder for the database and other state (HOTBAY_DATA_DIR)
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Sets any key, for example limits.connections_max=5; may be repeated (HOTBAY_LIMITS__CONNECTIONS_MAX)
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl ConfigArgs {
    fn load(self, environment: &Environment) -> Result<Config, Failure> {
        let Self { config, listen, data_dir, set } = self;
        let overrides = Overrides { config, listen, data_dir, set };
        Config::load(&overrides, environment).map_err(|errors| Failure::usage(errors.to_string()))
    }
}
