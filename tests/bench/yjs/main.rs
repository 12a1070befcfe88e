//! Hotbay's Yjs relay beside two JavaScript servers, in one run (`make bench-yjs`): Hocuspocus, and the server of y-websocket. The
//! members of one document get what others of them type; the updates were made by Yjs beforehand. Servers take turns, each run
//! with a fresh process on core 0 and the members on core 1, so that figures of one run can be compared; figures of different runs
//! or machines cannot. Prints medians and ratios; a run in which anything that was typed is missing anywhere gives no figure.
//!
//! `cargo bench --bench yjs -- --quick` is a smoke run, too short to compare; `-- words few` measures only these;
//! `--peers=hotbay,hotbay-os` only those (`hotbay-os` does not wait for the disk); `--broker=PATH` adds another build of the broker.

mod ledger;
mod load;
mod protocol;
mod report;
mod scenarios;
mod server;
mod socket;
#[path = "../support/mod.rs"]
mod support;
mod typing;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::thread::{CpuSet, sched_setaffinity};

use crate::load::Times;
use crate::report::Results;
use crate::scenarios::{SCENARIOS, Scenario, Script};
use crate::server::{FOLDER, Peer};
use crate::support::arguments::Arguments;
use crate::support::disk::sync_time;
use crate::typing::Typing;

/// What the parts return.
pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const RUNS: usize = 3;

fn main() -> Outcome<()> {
    let arguments = Arguments::of_process();
    let quick = arguments.has("--quick");
    let scenarios = arguments.scenarios(SCENARIOS, |scenario| scenario.name)?;
    let mut peers = vec![Peer::Hotbay, Peer::HotbayOs, Peer::Hocuspocus, Peer::YWebsocket];
    if let Some(program) = arguments.value("--broker") {
        peers.insert(1, Peer::OtherHotbay(PathBuf::from(program)));
    }
    match arguments.value("--peers") {
        Some(chosen) => peers.retain(|peer| chosen.split(',').any(|name| name == peer.name())),
        None => peers.retain(|peer| *peer != Peer::HotbayOs),
    }
    if std::thread::available_parallelism()?.get() < 2 {
        return Err("two cores are needed: one for the server, one for the generator".into());
    }
    stay_on_core_1()?;
    let runs = if quick { 1 } else { RUNS };
    let times = if quick {
        Times { warm_up: Duration::from_millis(300), measured: Duration::from_secs(1) }
    } else {
        // JavaScript is compiled while it runs: after less than a second a server is not yet as fast as it can be.
        Times { warm_up: Duration::from_secs(2), measured: Duration::from_secs(5) }
    };
    let scripts = prepare(&scenarios, if quick { 5 } else { 1 })?;
    eprintln!("the disk takes {:.2} ms to have 4 KiB", sync_time(Path::new(FOLDER))?.as_secs_f64() * 1_000.0);
    let mut results = Results::new(runs);
    let mut failed = false;
    for run in 1..=runs {
        for scenario in &scenarios {
            let (_, typings) =
                scripts.iter().find(|(script, _)| *script == scenario.script).ok_or("nothing to type")?;
            for peer in &peers {
                eprintln!("run {run} of {runs}: {} on {} …", scenario.name, peer.name());
                // One failure must not cost the others their figures.
                match scenario.measure(peer, typings, times) {
                    Ok(figures) => results.add(peer.name(), scenario.name, figures),
                    Err(error) => {
                        failed = true;
                        eprintln!("  no result: {error}");
                    }
                }
            }
        }
    }
    results.print();
    results.write()?;
    if failed { Err("some runs gave no result".into()) } else { Ok(()) }
}

/// What is typed, for each script there is; of each only a part, if that is not 1.
fn prepare(scenarios: &[&Scenario], part: usize) -> Outcome<Vec<(Script, Vec<Typing>)>> {
    let mut all: Vec<(Script, Vec<Typing>)> = Vec::new();
    for Scenario { script, .. } in scenarios {
        if all.iter().all(|(known, _)| known != script) {
            let updates = script.updates / part / script.typers;
            eprintln!("Yjs makes {updates} updates for each of {} …", script.typers);
            all.push((*script, Typing::prepare(script, updates)?));
        }
    }
    Ok(all)
}

fn stay_on_core_1() -> Outcome<()> {
    let mut core = CpuSet::new();
    core.set(1);
    Ok(sched_setaffinity(None, &core)?)
}
