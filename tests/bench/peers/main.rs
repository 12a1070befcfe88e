//! Hotbay beside other room servers, in one run (`make bench-peers`): `ws`, socket.io and tokio-tungstenite, which have no
//! plugins, no limits and no store: what they do, Hotbay does through a WebAssembly plugin. Servers take turns, each run with
//! a fresh process on core 0 and `hotbay bench` on core 1, so that figures of one run can be compared; figures of different
//! runs or machines cannot. Prints medians and ratios; asserts nothing.
//!
//! `cargo bench --bench peers -- --quick` is a smoke run; `-- fan-out idle` measures only these; `--peers=hotbay,ws` only
//! those; `--broker=PATH` adds another build of the broker.

mod report;
mod scenarios;
mod server;
#[path = "../support/mod.rs"]
mod support;
mod tungstenite;

use std::error::Error;
use std::path::PathBuf;

use crate::report::Results;
use crate::scenarios::SCENARIOS;
use crate::server::{Peer, Server};
use crate::support::arguments::Arguments;

/// What the parts return.
pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Starts this program as the server on tokio-tungstenite.
const SERVE: &str = "--serve-tungstenite";
const RUNS: usize = 3;

fn main() -> Outcome<()> {
    let arguments = Arguments::of_process();
    if arguments.has(SERVE) {
        return Ok(tungstenite::serve()?);
    }
    let quick = arguments.has("--quick");
    let scenarios = arguments.scenarios(SCENARIOS, |scenario| scenario.name)?;
    let mut peers = vec![Peer::Hotbay, Peer::Tungstenite, Peer::Ws, Peer::SocketIo];
    if let Some(program) = arguments.value("--broker") {
        peers.insert(1, Peer::OtherHotbay(PathBuf::from(program)));
    }
    if let Some(chosen) = arguments.value("--peers") {
        let chosen: Vec<&str> = chosen.split(',').collect();
        peers.retain(|peer| chosen.contains(&peer.name()));
    }
    if std::thread::available_parallelism()?.get() < 2 {
        return Err("two cores are needed: one for the server, one for the generator".into());
    }
    let runs = if quick { 1 } else { RUNS };
    let mut results = Results::new(runs);
    for run in 1..=runs {
        for scenario in &scenarios {
            for peer in &peers {
                eprintln!("run {run} of {runs}: {} on {} …", scenario.name, peer.name());
                let server = Server::start(peer)?;
                // One failure must not cost the others their figures.
                match scenario.measure(&server, quick) {
                    Ok(result) => results.add(peer.name(), scenario.name, result),
                    Err(error) => eprintln!("  no result: {error}"),
                }
            }
        }
    }
    results.print();
    results.write()
}
