//! Medians, ratios, a file for programs and a picture.

use hotbay::bench::Point;
use hotbay::bench::plot::{self, Series};
use serde_json::{Value, json};

use crate::Outcome;
use crate::scenarios::SCENARIOS;
use crate::support::table::{self, distinct, number};

/// A figure of a scenario: a column.
struct Figure {
    scenario: &'static str,
    name: &'static str,
    unit: &'static str,
    of: fn(&Value) -> Option<f64>,
}

const FIGURES: &[Figure] = &[
    Figure { scenario: "fan-out", name: "fan-out", unit: "deliveries/s", of: deliveries },
    Figure { scenario: "fan-out", name: "", unit: "CPU us each", of: cpu },
    Figure { scenario: "fan-out-1", name: "fan-out-1", unit: "deliveries/s", of: deliveries },
    Figure { scenario: "fan-out-1", name: "", unit: "CPU us each", of: cpu },
    Figure { scenario: "rooms", name: "rooms", unit: "deliveries/s", of: deliveries },
    Figure { scenario: "rooms", name: "", unit: "CPU us each", of: cpu },
    Figure { scenario: "latency", name: "latency", unit: "p50 ms", of: |r| r["load"]["delivery"]["p50_ms"].as_f64() },
    Figure { scenario: "latency", name: "", unit: "p99 ms", of: |r| r["load"]["delivery"]["p99_ms"].as_f64() },
    Figure { scenario: "echo", name: "echo", unit: "replies/s", of: deliveries },
    Figure { scenario: "idle", name: "idle", unit: "KB each", of: memory },
    Figure { scenario: "idle", name: "", unit: "accepts/s", of: |r| r["handshakes"]["per_second"].as_f64() },
];

fn deliveries(result: &Value) -> Option<f64> {
    result["load"]["deliveries_per_second"].as_f64()
}

fn cpu(result: &Value) -> Option<f64> {
    result["server"]["cpu_us_per_delivery"].as_f64()
}

fn memory(result: &Value) -> Option<f64> {
    result["server"]["rss_bytes_per_connection"].as_f64().map(|bytes| bytes / 1_024.0)
}

/// All results: peer, scenario, JSON of each run.
pub(crate) struct Results {
    runs: usize,
    all: Vec<(&'static str, &'static str, Value)>,
}

impl Results {
    pub(crate) fn new(runs: usize) -> Self {
        Self { runs, all: Vec::new() }
    }

    pub(crate) fn add(&mut self, peer: &'static str, scenario: &'static str, result: Value) {
        self.all.push((peer, scenario, result));
    }

    /// The table: a row for each figure, and for each server its median, and how many times the first server's it is.
    pub(crate) fn print(&self) {
        println!("\nserver on core 0, generator on core 1, loopback, 128 bytes, medians of {} run(s)", self.runs);
        let peers = self.peers();
        let head: Vec<String> = peers.iter().map(|peer| format!("{peer:>19}")).collect();
        println!("\n{:<24}{}", "", head.join(" "));
        for figure in FIGURES {
            let medians: Vec<Option<f64>> = peers.iter().map(|peer| self.median(peer, figure)).collect();
            if medians.iter().all(Option::is_none) {
                continue;
            }
            let first = medians.first().copied().flatten();
            let cells: Vec<String> = medians.iter().map(|median| format!("{:>19}", cell(*median, first))).collect();
            println!("{:<11}{:<13}{}", figure.name, figure.unit, cells.join(" "));
        }
        println!();
        for scenario in SCENARIOS.iter().filter(|scenario| self.all.iter().any(|(_, name, _)| *name == scenario.name)) {
            println!("{:<11}{}", scenario.name, scenario.what);
        }
    }

    /// In the order they were measured.
    fn peers(&self) -> Vec<&'static str> {
        distinct(self.all.iter().map(|(peer, _, _)| *peer))
    }

    fn results<'a>(&'a self, peer: &'a str, scenario: &'a str) -> impl Iterator<Item = &'a Value> {
        self.all.iter().filter(move |(p, s, _)| *p == peer && *s == scenario).map(|(_, _, result)| result)
    }

    fn median(&self, peer: &str, figure: &Figure) -> Option<f64> {
        table::median(self.results(peer, figure.scenario).filter_map(figure.of))
    }

    /// `target/bench/peers.json` with medians and every result, and `target/bench/peers.svg` with the latencies.
    pub(crate) fn write(&self) -> Outcome<()> {
        let folder = table::folder()?;
        let medians: Vec<Value> = FIGURES
            .iter()
            .flat_map(|figure| self.peers().into_iter().map(move |peer| (peer, figure)))
            .filter_map(|(peer, figure)| {
                let median = self.median(peer, figure)?;
                Some(json!({ "server": peer, "scenario": figure.scenario, "figure": figure.unit, "median": median }))
            })
            .collect();
        let all: Vec<Value> = self
            .all
            .iter()
            .map(|(server, scenario, result)| json!({ "server": server, "scenario": scenario, "result": result }))
            .collect();
        let file = folder.join("peers.json");
        std::fs::write(&file, serde_json::to_string_pretty(&json!({ "medians": medians, "results": all }))?)?;
        println!("\n{}", file.display());
        let curves: Vec<Series> = self.peers().into_iter().filter_map(|peer| self.curve(peer)).collect();
        if !curves.is_empty() {
            let file = folder.join("peers.svg");
            std::fs::write(&file, plot::draw("1 room × 1,000, 50 messages/s: until a member has it", &curves)?)?;
            println!("{}", file.display());
        }
        Ok(())
    }

    /// The latencies of the run in the middle.
    fn curve(&self, peer: &str) -> Option<Series> {
        let p99 = |result: &&Value| result["load"]["delivery"]["p99_ms"].as_f64().unwrap_or(f64::INFINITY);
        let mut results: Vec<&Value> = self.results(peer, "latency").collect();
        results.sort_by(|a, b| p99(a).total_cmp(&p99(b)));
        let points = results.get(results.len() / 2)?["load"]["delivery"]["points"].as_array()?;
        let point = |point: &Value| Some(Point { share: point["share"].as_f64()?, ms: point["ms"].as_f64()? });
        Some(Series { name: peer.to_owned(), points: points.iter().filter_map(point).collect() })
    }
}

/// A value, and what multiple of the first server's it is.
fn cell(value: Option<f64>, first: Option<f64>) -> String {
    match (value, first) {
        (Some(value), Some(first)) => format!("{} {:>7}", number(value), format!("{:.2}x", value / first)),
        (Some(value), None) => format!("{} {:>7}", number(value), ""),
        (None, _) => "-".to_owned(),
    }
}
