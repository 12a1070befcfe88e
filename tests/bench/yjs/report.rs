//! Medians and ratios, and a file for programs.

use serde_json::{Value, json};

use crate::Outcome;
use crate::load::Figures;
use crate::scenarios::SCENARIOS;
use crate::support::table::{self, distinct, number};

/// A figure in the table.
struct Row {
    unit: &'static str,
    of: fn(&Figures) -> f64,
    better: Better,
}

#[derive(PartialEq, Eq)]
enum Better {
    More,
    Less,
    Neither,
}

const ROWS: &[Row] = &[
    Row { unit: "deliveries/s", of: |figures| figures.deliveries_per_second, better: Better::More },
    Row { unit: "CPU us each", of: |figures| figures.cpu_us, better: Better::Less },
    Row { unit: "in a message", of: |figures| figures.merged, better: Better::Neither },
];

impl Row {
    /// A value, and how many times better the first server's is.
    fn cell(&self, value: Option<f64>, first: Option<f64>) -> String {
        let (Some(value), Some(first)) = (value, first) else {
            return value.map_or_else(|| "-".to_owned(), |value| format!("{} {:>7}", number(value), ""));
        };
        let ratio = match self.better {
            Better::More => format!("{:.2}x", first / value),
            Better::Less => format!("{:.2}x", value / first),
            Better::Neither => String::new(),
        };
        format!("{} {ratio:>7}", number(value))
    }
}

/// Above this share of its core the generator may be what limits a server.
const GENERATOR_SHARE_MAX: f64 = 0.9;

const NOTES: &str = "
An update counts as delivered to a member when its text has come, however it was merged with others.
hotbay has every update on disk (fsync) before anybody sees it, hotbay-os has handed it to the operating system; after each run
they were killed, and still had the document.
The others hold their documents in memory only, and lose them when they end.
N x: the first server is that many times better.";

/// All results.
pub(crate) struct Results {
    runs: usize,
    all: Vec<(&'static str, &'static str, Figures)>,
}

impl Results {
    pub(crate) fn new(runs: usize) -> Self {
        Self { runs, all: Vec::new() }
    }

    pub(crate) fn add(&mut self, peer: &'static str, scenario: &'static str, figures: Figures) {
        eprintln!(
            "  {} deliveries/s, {:.2} us each, {:.1} in a message; server {:.0} %, generator {:.0} % of a core",
            number(figures.deliveries_per_second),
            figures.cpu_us,
            figures.merged,
            figures.server_share * 100.0,
            figures.generator_share * 100.0,
        );
        self.all.push((peer, scenario, figures));
    }

    /// The table: for each server its medians, and how many times that the first server does.
    pub(crate) fn print(&self) {
        println!("\nserver on core 0, generator on core 1, loopback, medians of {} run(s)", self.runs);
        let peers = self.peers();
        let head: Vec<String> = peers.iter().map(|peer| format!("{peer:>19}")).collect();
        println!("\n{:<24}{}", "", head.join(" "));
        for scenario in self.scenarios() {
            for row in ROWS {
                let medians: Vec<Option<f64>> = peers.iter().map(|peer| self.median(peer, scenario, row.of)).collect();
                let first = medians.first().copied().flatten();
                let cell = |median: &Option<f64>| format!("{:>19}", row.cell(*median, first));
                let cells: Vec<String> = medians.iter().map(cell).collect();
                println!(
                    "{:<11}{:<13}{}",
                    if row.better == Better::More { scenario } else { "" },
                    row.unit,
                    cells.join(" ")
                );
            }
        }
        println!();
        for scenario in SCENARIOS.iter().filter(|scenario| self.scenarios().contains(&scenario.name)) {
            println!("{:<11}{}", scenario.name, scenario.what);
        }
        println!("{NOTES}");
        for (peer, scenario, figures) in &self.all {
            if figures.generator_share > GENERATOR_SHARE_MAX {
                let percent = figures.generator_share * 100.0;
                println!("{scenario} on {peer}: the generator used {percent:.0} % of its core and may be the limit");
            }
        }
    }

    /// `target/bench/yjs.json` with medians and every result.
    pub(crate) fn write(&self) -> Outcome<()> {
        let folder = table::folder()?;
        let mut medians = Vec::new();
        for scenario in self.scenarios() {
            for peer in self.peers() {
                let rate = self.median(peer, scenario, |figures| figures.deliveries_per_second);
                let cpu = self.median(peer, scenario, |figures| figures.cpu_us);
                medians.push(json!({
                    "server": peer, "scenario": scenario, "deliveries_per_second": rate, "cpu_us_per_delivery": cpu,
                }));
            }
        }
        let all: Vec<Value> = self
            .all
            .iter()
            .map(|(peer, scenario, figures)| {
                json!({
                    "server": peer,
                    "scenario": scenario,
                    "deliveries_per_second": figures.deliveries_per_second,
                    "cpu_us_per_delivery": figures.cpu_us,
                    "deliveries_per_message": figures.merged,
                    "server_cpu_share": figures.server_share,
                    "generator_cpu_share": figures.generator_share,
                    "seconds": figures.seconds,
                })
            })
            .collect();
        let file = folder.join("yjs.json");
        std::fs::write(&file, serde_json::to_string_pretty(&json!({ "medians": medians, "results": all }))?)?;
        println!("\n{}", file.display());
        Ok(())
    }

    /// In the order they were measured.
    fn peers(&self) -> Vec<&'static str> {
        distinct(self.all.iter().map(|(peer, _, _)| *peer))
    }

    fn scenarios(&self) -> Vec<&'static str> {
        distinct(self.all.iter().map(|(_, scenario, _)| *scenario))
    }

    fn median(&self, peer: &str, scenario: &str, of: impl Fn(&Figures) -> f64) -> Option<f64> {
        let of_both = self.all.iter().filter(|(p, s, _)| *p == peer && *s == scenario);
        table::median(of_both.map(|(_, _, figures)| of(figures)))
    }
}
