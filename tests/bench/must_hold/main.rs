//! The figures a release must hold (`make bench`): latency, durable messages per second, memory, and what an endless loop in one
//! channel does to others. Starts real brokers with the configuration of `make run` and fresh data, drives them over sockets
//! on 127.0.0.1, and prints one table of medians. Broker and load share the machine's cores. Asserts nothing.
//!
//! `cargo bench --bench must_hold -- --quick` is a smoke run; `-- latency memory` runs only these parts; `--broker=PATH` measures
//! another build of the broker.
#![allow(clippy::disallowed_methods, reason = "the load's tasks are not the broker's")]
#![allow(clippy::cast_sign_loss, clippy::unchecked_time_subtraction, reason = "times and counts here only grow")]

#[path = "../support/mod.rs"]
mod bench;
mod chat;
mod endless;
mod memory;
#[path = "../../support/mod.rs"]
mod support;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::bench::bars::{self, Bar, Line, percentile_ms};
use crate::chat::{Throughput, closed_loop, join_rooms, open_loop};
use crate::support::broker::{Broker, Setup};

/// What the parts return.
pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// How much to do.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) quick: bool,
    /// The program to measure instead of the one built with the bench.
    program: Option<PathBuf>,
}

impl Load {
    fn runs(&self) -> usize {
        if self.quick { 1 } else { 3 }
    }

    /// Seconds of a full run, or one.
    pub(crate) fn time(&self, seconds: u64) -> Duration {
        Duration::from_secs(if self.quick { 1 } else { seconds })
    }

    /// Starts a broker on fresh data.
    pub(crate) fn start(&self, setup: Setup) -> Outcome<Broker> {
        let setup = match &self.program {
            Some(program) => setup.program(program),
            None => setup,
        };
        let folder = tempfile::TempDir::new_in(FOLDER)?;
        let data = folder.path().join("data");
        Ok(setup.start_in(folder, data))
    }
}

const PARTS: [&str; 6] = ["start", "latency", "throughput", "fan-out", "memory", "loop"];
/// The whole run ends after this time at the latest.
const TIME_MAX: Duration = Duration::from_mins(6);
/// On the disk of the build, because the folder for temporary files is in memory on many machines.
const FOLDER: &str = env!("CARGO_TARGET_TMPDIR");

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let value = |name: &str| arguments.iter().find_map(|argument| argument.strip_prefix(name));
    let load = &Load { quick: value("--quick").is_some(), program: value("--broker=").map(PathBuf::from) };
    let parts: Vec<&str> =
        arguments.iter().map(String::as_str).filter(|argument| !argument.starts_with("--")).collect();
    if let Some(unknown) = parts.iter().find(|part| !PARTS.contains(part)) {
        return Err(format!("{unknown}: the parts are {}", PARTS.join(", ")).into());
    }
    let chosen = |part: &&str| parts.is_empty() || parts.contains(part);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut lines = Vec::new();
        let run = async {
            print_conditions(load)?;
            for part in PARTS.iter().filter(|part| chosen(part)) {
                eprintln!("{part} …");
                match *part {
                    "start" => start(load, &mut lines)?,
                    "latency" => latency(load, &mut lines).await?,
                    "throughput" => throughput(load, &mut lines).await?,
                    "fan-out" => fan_out(load, &mut lines).await?,
                    "memory" => memory(load, &mut lines).await?,
                    _ => endless_loop(load, &mut lines).await?,
                }
            }
            Outcome::Ok(())
        };
        let ended = tokio::time::timeout(TIME_MAX, run).await;
        bars::print(&lines);
        ended.map_err(|_| format!("stopped after {TIME_MAX:?}"))?
    })
}

fn print_conditions(load: &Load) -> Outcome<()> {
    let cores = std::thread::available_parallelism()?;
    let sync = bench::disk::sync_time(Path::new(FOLDER))?;
    println!("{cores} cores for broker and load; writing 4 KiB to the disk and syncing takes {sync:.1?} (median)");
    println!(
        "broker: examples/hotbay.toml, fsync, with rate_per_connection raised to 1,000,000/s; a fresh one for each run"
    );
    println!("medians of {} run(s); messages of {} bytes of text with a clientId", load.runs(), chat::CONTENT_BYTES);
    Ok(())
}

/// From the start of the process until it accepts connections.
fn start(load: &Load, lines: &mut Vec<Line>) -> Outcome<()> {
    let (mut cold, mut cached) = (Vec::new(), Vec::new());
    for _ in 0..load.runs() {
        let begun = Instant::now();
        let mut broker = load.start(chat::setup())?;
        cold.push(begun.elapsed().as_secs_f64() * 1e3);
        broker.kill();
        let begun = Instant::now();
        broker.start();
        cached.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    lines.push(Line::new("start, plugin to be compiled", "ms", cold).bar(Bar::AtMost(3_000.0)));
    lines.push(Line::new("start, plugin compiled before", "ms", cached).bar(Bar::AtMost(300.0)));
    Ok(())
}

/// One room of 10, 100 messages per second.
async fn latency(load: &Load, lines: &mut Vec<Line>) -> Outcome<()> {
    let (mut p50, mut p99, mut max) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..load.runs() {
        let broker = load.start(chat::setup())?;
        let members = join_rooms(broker.address(), 1, 10).await?;
        let (members, _) = open_loop(members, 100, Duration::from_secs(1)).await?;
        let (_members, latencies) = open_loop(members, 100, load.time(10)).await?;
        p50.push(percentile_ms(&latencies, 50.0));
        p99.push(percentile_ms(&latencies, 99.0));
        max.push(percentile_ms(&latencies, 100.0));
    }
    let note = "1 room of 10, 100 messages/s, open loop, from the due time to the sender's own CHAT_MESSAGE";
    lines.push(Line::new("acknowledged message, p50", "ms", p50).bar(Bar::AtMost(3.0)).note(note));
    lines.push(Line::new("acknowledged message, p99", "ms", p99).bar(Bar::AtMost(15.0)));
    lines.push(Line::new("acknowledged message, slowest", "ms", max));
    Ok(())
}

/// 100 rooms of 5, each member with 4 messages under way.
async fn throughput(load: &Load, lines: &mut Vec<Line>) -> Outcome<()> {
    const ROOMS: usize = 100;
    const SIZE: usize = 5;
    const WINDOW: usize = 4;
    let mut runs = Vec::new();
    for _ in 0..load.runs() {
        let broker = load.start(chat::setup())?;
        let members = join_rooms(broker.address(), ROOMS, SIZE).await?;
        let (members, _) = closed_loop(&broker, members, SIZE as u64, Duration::from_secs(1), |_| WINDOW).await?;
        let (_members, run) = closed_loop(&broker, members, SIZE as u64, load.time(8), |_| WINDOW).await?;
        runs.push(run);
    }
    let of = |value: fn(&Throughput) -> f64| runs.iter().map(value).collect::<Vec<_>>();
    let note = format!("{ROOMS} rooms of {SIZE}, {WINDOW} under way per member, closed loop, one write each");
    let rate = Line::new("durable chat messages", "/s", of(|run| run.acked as f64 / run.seconds));
    lines.push(rate.bar(Bar::AtLeast(50_000.0)).note(note));
    lines.push(Line::new("  deliveries", "/s", of(|run| run.delivered as f64 / run.seconds)));
    lines.push(Line::new("  latency, p50", "ms", of(|run| percentile_ms(&run.latencies, 50.0))));
    lines.push(Line::new("  latency, p99", "ms", of(|run| percentile_ms(&run.latencies, 99.0))));
    lines.push(Line::new("  CPU of the broker", "cores", of(|run| run.broker_cpu_s / run.seconds)));
    lines.push(Line::new("  CPU of the load", "cores", of(|run| run.generator_cpu_s / run.seconds)));
    lines.push(Line::new("  CPU of the broker per message", "us", of(|run| run.broker_cpu_s * 1e6 / run.acked as f64)));
    Ok(())
}

/// 1 room of 200, of whom 8 talk.
async fn fan_out(load: &Load, lines: &mut Vec<Line>) -> Outcome<()> {
    const SIZE: usize = 200;
    const TALKERS: usize = 8;
    const WINDOW: usize = 8;
    let window = |seat: usize| if seat < TALKERS { WINDOW } else { 0 };
    let mut runs = Vec::new();
    for _ in 0..load.runs() {
        let broker = load.start(chat::setup())?;
        let members = join_rooms(broker.address(), 1, SIZE).await?;
        let (members, _) = closed_loop(&broker, members, SIZE as u64, Duration::from_secs(1), window).await?;
        let (_members, run) = closed_loop(&broker, members, SIZE as u64, load.time(5), window).await?;
        runs.push(run);
    }
    let of = |value: fn(&Throughput) -> f64| runs.iter().map(value).collect::<Vec<_>>();
    let note = format!("1 room of {SIZE}, {TALKERS} talk with {WINDOW} under way each, closed loop");
    lines.push(Line::new("fan-out, deliveries", "/s", of(|run| run.delivered as f64 / run.seconds)).note(note));
    lines.push(Line::new("  messages", "/s", of(|run| run.acked as f64 / run.seconds)));
    let per_delivery = of(|run| run.broker_cpu_s * 1e6 / run.delivered as f64);
    lines.push(Line::new("  CPU of the broker per delivery", "us", per_delivery));
    lines.push(Line::new("  CPU of the load", "cores", of(|run| run.generator_cpu_s / run.seconds)));
    Ok(())
}

async fn memory(load: &Load, lines: &mut Vec<Line>) -> Outcome<()> {
    let mut values: [Vec<f64>; 5] = Default::default();
    for _ in 0..load.runs() {
        let asleep = memory::per_sleeping_channel(load).await?;
        let run = [
            memory::per_connection(load, true).await?,
            memory::per_connection(load, false).await?,
            memory::per_awake_channel(load).await?,
            asleep.0,
            asleep.1,
        ];
        for (values, bytes) in values.iter_mut().zip(run) {
            values.push(bytes / 1024.0);
        }
    }
    let [connection, bare, awake, staying, gone] = values;
    let note = "5,000 added to 50 awake rooms, with their own sleeping user: channel each, as in make run";
    lines.push(Line::new("idle joined connection", "KB", connection).bar(Bar::AtMost(4.0)).note(note));
    let note = "the same without auto_join: no user: channel";
    lines.push(Line::new("  without its user: channel", "KB", bare).bar(Bar::AtMost(4.0)).note(note));
    let note = "1,000 rooms added, 1 member and 1 message each, over 10 connections";
    lines.push(Line::new("awake chat channel", "KB", awake).bar(Bar::AtMost(64.0)).note(note));
    let note = "16,000 rooms added in waves of 2,000, the member stays";
    lines.push(Line::new("sleeping channel, member stays", "KB", staying).bar(Bar::AtMost(1.0)).note(note));
    let note = "the same, the member left: such a channel is forgotten";
    lines.push(Line::new("sleeping channel, nobody there", "KB", gone).bar(Bar::AtMost(1.0)).note(note));
    Ok(())
}

async fn endless_loop(load: &Load, lines: &mut Vec<Line>) -> Outcome<()> {
    let mut runs = Vec::new();
    for _ in 0..load.runs() {
        runs.push(endless::run(load).await?);
    }
    let of = |value: fn(&endless::Endless) -> f64| runs.iter().map(value).collect::<Vec<_>>();
    let ratio =
        Line::new("p99 of others beside an endless loop, ratio", "x", of(|run| run.p99_with_ms / run.p99_without_ms));
    lines.push(ratio.bar(Bar::Below(2.0)).note("10 rooms of 2, 200 messages/s, open loop; the loop in another mount"));
    lines.push(Line::new("  p99 without", "ms", of(|run| run.p99_without_ms)));
    lines.push(Line::new("  p99 with", "ms", of(|run| run.p99_with_ms)));
    let told = Line::new("  loop stopped and told after, median", "ms", of(|run| percentile_ms(&run.told, 50.0)));
    lines.push(told.note(format!("its budget is {} ms of CPU time (cpu_ms_max)", endless::BUDGET_MS)));
    lines.push(Line::new("  loops stopped and told", "", of(|run| run.told.len() as f64)));
    lines.push(Line::new("  share of time with a call under way", "cores", of(|run| run.busy)));
    Ok(())
}
