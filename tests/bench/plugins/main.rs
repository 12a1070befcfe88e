//! What plugins in production must hold (`make bench-plugins`): versions swapped under load, what a shadow costs, a canary that traps, and
//! hostile uploads. Starts real brokers with fresh data and the fixture plugin, drives them over sockets on 127.0.0.1 and by the admin
//! API, and prints one table of medians. Broker and load share the machine's cores. Asserts nothing.
//!
//! `cargo bench --bench plugins -- --quick` is a smoke run; `-- swap shadow` runs only these parts; `--broker=PATH` measures another build
//! of the broker.
#![allow(clippy::disallowed_methods, reason = "the load's tasks are not the broker's")]
#![allow(clippy::cast_sign_loss, clippy::unchecked_time_subtraction, reason = "times and counts here only grow")]

#[path = "../support/mod.rs"]
mod bench;
mod canary;
mod components;
mod crowd;
mod diary;
mod hostile;
mod operator;
mod shadow;
#[path = "../../support/mod.rs"]
mod support;
mod swap;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::bench::arguments::Arguments;
use crate::bench::bars::{self, Bar, Line};
use crate::diary::Heard;
use crate::support::broker::{Broker, Setup};
use crate::support::{component, rebuilt};
use crate::swap::Scene;

/// What the parts return.
pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const PARTS: [&str; 4] = ["swap", "shadow", "canary", "hostile"];
/// The whole run ends after this time at the latest.
const TIME_MAX: Duration = Duration::from_mins(5);
/// On the disk of the build, because the folder for temporary files is in memory on many machines.
const FOLDER: &str = env!("CARGO_TARGET_TMPDIR");

/// How much to do.
pub(crate) struct Load {
    pub(crate) quick: bool,
    /// The program to measure instead of the one built with the bench.
    pub(crate) program: Option<PathBuf>,
    pub(crate) versions: Versions,
}

/// Components that the configuration names, so that each broker has vetted and approved them when it listens.
pub(crate) struct Versions {
    /// The fixture plugin: what all channels begin with.
    pub(crate) first: PathBuf,
    /// The same as another version.
    pub(crate) second: PathBuf,
    /// Sends everything on as it is.
    pub(crate) relay: PathBuf,
}

impl Load {
    /// A time of a full run, in milliseconds, or a part of it.
    pub(crate) fn time(&self, ms: u64) -> Duration {
        Duration::from_millis(if self.quick { ms / 3 } else { ms })
    }

    /// Windows without and with a shadow.
    pub(crate) fn pairs(&self) -> usize {
        if self.quick { 1 } else { 5 }
    }

    /// Canaries, one after the other.
    pub(crate) fn canaries(&self) -> usize {
        if self.quick { 1 } else { 5 }
    }

    /// A broker with the fixture plugin on a mount, and the others on mounts that nobody uses.
    pub(crate) fn setup(&self) -> Setup {
        let mut setup = Setup::fixture("");
        for (name, path, grants) in [
            ("second", &self.versions.second, "\"kv\", \"log\", \"logging\", \"sql\", \"stats\""),
            ("relay", &self.versions.relay, ""),
        ] {
            setup = setup.and(&format!(
                "[plugin.{name}]\npath = \"{}\"\ngrants = [{grants}]\n[mount.{name}]\npath = \"/{name}\"\nplugin = \"{name}\"\n\
                 channel = \"{name}:{{query.channel}}\"\nauth = {{ keys = [\"default\"], tokens = [\"query:token\"] }}\n",
                path.display()
            ));
        }
        match &self.program {
            Some(program) => setup.program(program),
            None => setup,
        }
    }

    /// Starts it on fresh data.
    pub(crate) fn start(&self) -> Outcome<Broker> {
        started(self.setup())
    }
}

/// Starts a broker on fresh data.
pub(crate) fn started(setup: Setup) -> Outcome<Broker> {
    let folder = tempfile::TempDir::new_in(FOLDER)?;
    let data = folder.path().join("data");
    Ok(setup.start_in(folder, data))
}

/// What most messages begin with: the fixture appends them to the channel's log and sends them to all.
pub(crate) fn plain(_channel: u32, _number: u32) -> &'static str {
    "say"
}

/// What must not be lost, as lines.
pub(crate) fn lost(lines: &mut Vec<Line>, heard: &Heard) {
    let losses = heard.losses();
    let (sent, came) = heard.totals();
    let zero = |what, value: u64| Line::new(what, "", vec![value as f64]).bar(Bar::AtMost(0.0));
    lines.push(zero("  connections closed", losses.closed).note(losses.how.unwrap_or_default()));
    let note = format!("{sent} sent, {came} came to {} members each", heard.size);
    lines.push(zero("  numbers missing, over all members", losses.missing).note(note));
    lines.push(zero("  numbers twice, out of order or elsewhere", losses.twice + losses.disordered + losses.foreign));
    lines.push(zero("  messages refused", losses.refused));
    if heard.sent.unsent > 0 {
        lines.push(zero("  messages the load could not send", heard.sent.unsent));
    }
    let late_ms = heard.sent.late_max.as_secs_f64() * 1e3;
    lines.push(Line::new("  sent late by the load itself, longest", "ms", vec![late_ms]));
}

fn main() -> Outcome<()> {
    let arguments = Arguments::of_process();
    let folder = tempfile::TempDir::new_in(FOLDER)?;
    let versions = Versions {
        first: component("fixture"),
        second: rebuilt("fixture", "second", folder.path()),
        relay: component("relay"),
    };
    let load =
        &Load { quick: arguments.has("--quick"), program: arguments.value("--broker").map(PathBuf::from), versions };
    let parts = arguments.scenarios(&PARTS, |part| *part)?;
    // Members are heard on a thread of their own: what this one does meanwhile, such as to build an upload of 100 MB, would count as delay.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let mut lines = Vec::new();
        let run = async {
            print_conditions(load)?;
            for part in parts {
                let busy = bench::busy::busy_cores().await?;
                eprintln!("{part} …");
                lines.push(Line::title(format!("{part}: others kept {busy:.2} cores busy just before")));
                match *part {
                    "swap" => swaps(load, &mut lines).await?,
                    "shadow" => shadow::measure(load, &mut lines).await?,
                    "canary" => canary::measure(load, &mut lines).await?,
                    _ => hostile::measure(load, &mut lines).await?,
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
    println!(
        "{cores} cores for broker and load; writing 4 KiB to the disk and syncing takes {sync:.1?} (median){}",
        if load.quick { "; a smoke run" } else { "" }
    );
    println!(
        "broker: the fixture plugin, fsync; a fresh one for each part; each message is appended to its channel's log"
    );
    Ok(())
}

/// Many channels with little state, and some with much.
async fn swaps(load: &Load, lines: &mut Vec<Line>) -> Outcome<()> {
    let swaps = if load.quick { 4 } else { 20 };
    let little = Scene { channels: 200, size: 20, per_second: 2_000, saved_bytes: 0, swaps };
    swap::measure(load, &little, lines).await?;
    let much = Scene { channels: 50, size: 20, per_second: 500, saved_bytes: 1 << 20, swaps };
    swap::measure(load, &much, lines).await
}
