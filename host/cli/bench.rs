//! `hotbay bench`: measures a broker, this one or another.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::{Failure, output};
use crate::bench::{self, BenchError, Options, Protocol, Report, Scenario, TokenIn, plot};

/// Puts a running broker under load and reports how fast it is
///
/// The broker is another process, on this machine unless --remote is given. Best with a core for each:
///   taskset -c 0 hotbay serve --config examples/bench.toml &
///   hotbay bench fan-out --url ws://127.0.0.1:3001 --cpu 1 --pid $!
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Bench {
    /// What to measure: fan-out (a room with many members), echo (request and reply), rooms (many small rooms), idle (memory
    /// of members who only sit there), connect (handshakes), durable (messages acknowledged when stored)
    scenario: Scenario,
    /// The server; protocols have paths of their own if this has none
    #[arg(long, default_value = "ws://127.0.0.1:3000")]
    url: String,
    /// Allows a host that is not this machine
    #[arg(long)]
    remote: bool,
    /// raw (?room=NAME joins, messages go to all members as they are, /echo sends them back), chat (the community chat) or
    /// custom (--hello, --await, --publish)
    #[arg(long, default_value = "raw")]
    protocol: Protocol,
    #[command(flatten)]
    custom: Custom,
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
struct Custom {
    /// A token for every connection; visible to who can list processes, --tokens is not
    #[arg(long, conflicts_with = "tokens")]
    token: Option<String>,
    /// A file with a token per line; connections take turns
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
    /// Where the token travels: `Authorization: Bearer …`, or ?token=…
    #[arg(long, value_enum, default_value = "header")]
    token_in: Place,
    /// A header of the handshake, 'Name: value'; may be repeated. All texts may have {room} {conn} {token}
    #[arg(long, value_name = "TEXT")]
    header: Vec<String>,
    /// A message to send after the upgrade; may be repeated
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    hello: Vec<String>,
    /// What the answer to the first, second, … --hello contains, before which nothing else is sent
    #[arg(long = "await", value_name = "TEXT", allow_hyphen_values = true)]
    awaited: Vec<String>,
    /// The message to publish, with {ts} (by which it is recognised), {seq}, and {pad} (fills up to --bytes)
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    publish: Option<String>,
    /// How messages begin that refuse something
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    refusal: Option<String>,
    /// The server does not send messages back to their sender
    #[arg(long)]
    sender_excluded: bool,
}

#[derive(Debug, Args)]
struct Load {
    /// Connections in all [default: rooms × members; echo: 100]
    #[arg(long)]
    connections: Option<u32>,
    /// Rooms [default: fan-out 1, rooms 1000, else 100]
    #[arg(long)]
    rooms: Option<u32>,
    /// Members of each room [default: fan-out 1000, rooms 10, idle 100, connect 50, durable 1]
    #[arg(long)]
    members: Option<u32>,
    /// Members of each room who publish, taking turns [default: fan-out 8, else 1]
    #[arg(long)]
    publishers: Option<u32>,
    /// Closed loop: messages under way in each room [default: fan-out 32, else 1]
    #[arg(long)]
    window: Option<u32>,
    /// Open loop: messages (connect: handshakes) per second in all; latency counts from when they were due
    #[arg(long)]
    rate: Option<u32>,
    /// Bytes of a message
    #[arg(long, default_value_t = 128)]
    bytes: usize,
    /// How long to measure
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Load before that
    #[arg(long, default_value_t = 1.0)]
    warm_up_seconds: f64,
    /// How long to wait in the end for what is under way
    #[arg(long, default_value_t = 3.0)]
    drain_seconds: f64,
    /// Rest between joining and load
    #[arg(long, default_value_t = 0.5)]
    settle_seconds: f64,
    /// How long connecting may take
    #[arg(long, default_value_t = 60.0)]
    connect_seconds: f64,
    /// Handshakes under way
    #[arg(long, default_value_t = 128)]
    connecting: u32,
    /// Connects from 127.0.0.1, 127.0.0.2, … in turn; an address has about 28,000 ports
    #[arg(long, default_value_t = 1)]
    source_addresses: u32,
    /// Runs on this core only
    #[arg(long)]
    cpu: Option<usize>,
    /// The server's process, to report its CPU time and memory
    #[arg(long)]
    pid: Option<u32>,
}

#[derive(Debug, Args)]
struct Output {
    /// Writes the result as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draws the latency
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Place {
    Header,
    Query,
}

impl Bench {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Output { json, svg } = &self.output;
        let (json, svg) = (json.clone(), svg.clone());
        let options = self.options().map_err(failure)?;
        let report = bench::run(options, &mut |words| output::aside(words)).map_err(failure)?;
        output::text(report.table());
        write_files(&report, json.as_deref(), svg.as_deref()).map_err(failure)?;
        for warning in report.warnings() {
            output::aside(format_args!("warning: {warning}"));
        }
        if report.is_whole() {
            Ok(())
        } else {
            Err(Failure::other("something was lost, so the figures are not those of a server that works"))
        }
    }

    fn options(self) -> Result<Options, BenchError> {
        let Self { scenario, url, remote, protocol, custom, load, output: _ } = self;
        let tokens = match (custom.token, custom.tokens) {
            (Some(token), _) => vec![token],
            (None, Some(file)) => read_tokens(&file)?,
            (None, None) => Vec::new(),
        };
        let token_in = match custom.token_in {
            Place::Header => TokenIn::Header,
            Place::Query => TokenIn::Query,
        };
        Ok(Options {
            scenario,
            url,
            remote,
            protocol,
            tokens,
            token_in,
            headers: custom.header,
            hello: custom.hello,
            awaited: custom.awaited,
            publish: custom.publish,
            refusal: custom.refusal,
            sender_excluded: custom.sender_excluded,
            connections: load.connections,
            rooms: load.rooms,
            members: load.members,
            publishers: load.publishers,
            window: load.window,
            rate: load.rate,
            message_bytes: load.bytes,
            seconds: load.seconds,
            warm_up_seconds: load.warm_up_seconds,
            drain_seconds: load.drain_seconds,
            settle_seconds: load.settle_seconds,
            connect_seconds: load.connect_seconds,
            connecting: load.connecting,
            source_addresses: load.source_addresses,
            cpu: load.cpu,
            pid: load.pid,
        })
    }
}

fn failure(error: BenchError) -> Failure {
    if error.is_usage() { Failure::usage(error.to_string()) } else { Failure::other(error) }
}

fn read_tokens(file: &Path) -> Result<Vec<String>, BenchError> {
    let text = std::fs::read_to_string(file).map_err(|e| file_error(file, &e))?;
    let tokens: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if tokens.is_empty() {
        return Err(BenchError::File { path: file.to_owned(), reason: "it has no tokens".to_owned() });
    }
    Ok(tokens)
}

fn write_files(report: &Report, json: Option<&Path>, svg: Option<&Path>) -> Result<(), BenchError> {
    if let Some(file) = json {
        let mut text = serde_json::to_string_pretty(report)
            .map_err(|e| BenchError::File { path: file.to_owned(), reason: e.to_string() })?;
        text.push('\n');
        std::fs::write(file, text).map_err(|e| file_error(file, &e))?;
    }
    if let Some(file) = svg {
        let picture = plot::draw(&report.title(), &report.curves())?;
        std::fs::write(file, picture).map_err(|e| file_error(file, &e))?;
    }
    Ok(())
}

fn file_error(file: &Path, error: &std::io::Error) -> BenchError {
    BenchError::File { path: file.to_owned(), reason: error.to_string() }
}
