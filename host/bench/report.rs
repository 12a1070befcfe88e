//! What a measurement found: as a table for people, as JSON for programs.

use serde::Serialize;

use super::latency::Latency;
use super::plan::Plan;
use super::plot::Series;
use super::procfs::Memory;
use super::run::{Measured, ServerUse};
use super::scenario::Scenario;
use super::tally::Tally;

/// Above this share of a core the generator, not the server, may be what limits.
const BUSY_CORES: f64 = 0.95;

/// The result.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Report {
    pub conditions: Conditions,
    pub handshakes: Handshakes,
    /// Only of scenarios that publish.
    pub load: Option<Load>,
    pub losses: Losses,
    /// Only if the process was named.
    pub server: Option<Server>,
    pub generator: Generator,
}

/// What was asked for.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Conditions {
    pub scenario: &'static str,
    pub protocol: &'static str,
    pub url: String,
    pub connections: u32,
    pub rooms: u32,
    pub members: u32,
    pub publishers: u32,
    pub window: u32,
    /// Publishes, or handshakes, per second in all; none is a closed loop.
    pub rate_per_second: Option<u32>,
    pub message_bytes: usize,
}

/// How connecting went.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Handshakes {
    pub count: u64,
    pub seconds: f64,
    pub per_second: f64,
    /// From the beginning of a connection until it has joined.
    pub latency: Option<Latency>,
}

/// How publishing went, within the measurement.
#[derive(Debug, Clone, Serialize)]
pub struct Load {
    /// How long it was measured.
    pub seconds: f64,
    /// Messages sent.
    pub published: u64,
    /// Messages that all members received.
    pub finished: u64,
    /// The same per second.
    pub finished_per_second: f64,
    /// Messages received, each once for each member.
    pub deliveries: u64,
    /// The same per second.
    pub deliveries_per_second: f64,
    /// Until a member has a message.
    pub delivery: Option<Latency>,
    /// Until all members have it.
    pub finish: Option<Latency>,
}

/// What went wrong, from the first connection to the end.
#[derive(Debug, Clone, Serialize)]
pub struct Losses {
    /// Deliveries that did not come.
    pub missing: u64,
    /// Deliveries that came twice, too late, or were not asked for.
    pub stray: u64,
    /// Messages that refused something.
    pub refusals: u64,
    /// Connections that ended.
    pub closed: u64,
    /// Seconds in which nothing came though something was awaited.
    pub stalls: u64,
    /// The first of these, in words.
    pub first: Option<String>,
}

/// What the server used.
#[derive(Debug, Clone, Serialize)]
pub struct Server {
    /// Cores that were busy while measuring.
    pub cores: f64,
    /// CPU time for each delivery, in microseconds.
    pub cpu_us_per_delivery: Option<f64>,
    /// CPU time for each handshake, in microseconds.
    pub cpu_us_per_handshake: f64,
    /// Resident memory for each connection, in bytes.
    pub rss_bytes_per_connection: f64,
    /// Proportional memory for each connection, in bytes.
    pub pss_bytes_per_connection: f64,
    /// Resident memory when all had joined, in bytes.
    pub rss_joined_bytes: u64,
    /// Resident memory at the end, in bytes.
    pub rss_end_bytes: u64,
}

/// What the generator used.
#[derive(Debug, Clone, Serialize)]
pub struct Generator {
    /// Cores it was busy on, of one.
    pub cores: f64,
    /// How many deliveries one read brought: how well the server gathers.
    pub deliveries_per_read: f64,
    /// How late it sent what was due, at most, in microseconds.
    pub late_us_max: f64,
}

impl Report {
    pub(super) fn new(plan: &Plan, tally: &Tally, measured: &Measured) -> Self {
        let counts = &measured.counts;
        let seconds = measured.measure_ns.max(1) as f64 / 1e9;
        let connect_seconds = measured.connect_ns.max(1) as f64 / 1e9;
        let count = u64::from(plan.connections);
        let handshakes = Handshakes {
            count,
            seconds: connect_seconds,
            per_second: count as f64 / connect_seconds,
            latency: tally.handshakes.latency(),
        };
        let load = plan.scenario.publishes().then(|| Load {
            seconds,
            published: counts.published,
            finished: counts.finished,
            finished_per_second: counts.finished as f64 / seconds,
            deliveries: counts.delivered,
            deliveries_per_second: counts.delivered as f64 / seconds,
            delivery: tally.deliveries.latency(),
            finish: tally.finishes.latency(),
        });
        let all = &tally.counts;
        let losses = Losses {
            missing: all.missing,
            stray: all.stray,
            refusals: all.refusals,
            closed: all.lost,
            stalls: all.stalls,
            first: tally.first_loss.clone(),
        };
        let server = measured.server.as_ref().map(|used| server(used, measured, load.as_ref(), count));
        let generator = Generator {
            cores: measured.own_cpu_ns as f64 / measured.measure_ns.max(1) as f64,
            deliveries_per_read: counts.delivered as f64 / counts.reads.max(1) as f64,
            late_us_max: measured.late_ns_max as f64 / 1e3,
        };
        Self { conditions: Conditions::new(plan), handshakes, load, losses, server, generator }
    }

    /// Whether everything that was awaited came, and nothing ended.
    pub fn is_whole(&self) -> bool {
        let Losses { missing, refusals, closed, .. } = self.losses;
        missing == 0 && refusals == 0 && closed == 0
    }

    /// What a reader must know before trusting the figures.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.is_whole() {
            let Losses { missing, refusals, closed, first, .. } = &self.losses;
            let first = first.as_deref().unwrap_or("nothing was said");
            warnings.push(format!(
                "{missing} deliveries are missing, {refusals} messages were refused, {closed} connections ended; first: {first}"
            ));
        }
        if self.losses.stalls > 0 {
            warnings.push(format!("the server stood still for {} s", self.losses.stalls));
        }
        if self.generator.cores > BUSY_CORES {
            warnings.push("the generator used a whole core: the server may be faster than this".to_owned());
        }
        if self.conditions.rate_per_second.is_some() && self.generator.late_us_max > 10_000.0 {
            let late_ms = self.generator.late_us_max / 1e3;
            warnings.push(format!(
                "the generator sent up to {late_ms:.0} ms late: the rate is too high for it or the server"
            ));
        }
        warnings
    }

    /// The curves there are, for a plot.
    pub fn curves(&self) -> Vec<Series> {
        let series = |name: &str, latency: &Option<Latency>| {
            latency.as_ref().map(|latency| Series { name: name.to_owned(), points: latency.points.clone() })
        };
        let load = self.load.as_ref();
        let curves = match load {
            Some(load) if self.conditions.members > 1 => {
                vec![series("a member has it", &load.delivery), series("all members have it", &load.finish)]
            }
            Some(load) => vec![series("answered", &load.delivery)],
            None => vec![series("joined", &self.handshakes.latency)],
        };
        curves.into_iter().flatten().collect()
    }

    /// What was measured, in one line.
    pub fn title(&self) -> String {
        let Conditions {
            scenario, protocol, connections, rooms, members, window, rate_per_second, message_bytes, ..
        } = &self.conditions;
        let connections = grouped(f64::from(*connections));
        let who = match (*scenario, rooms) {
            ("echo" | "connect", _) => format!("{connections} connections"),
            ("idle", _) => format!("{connections} members"),
            (_, 1) => format!("1 room × {}", grouped(f64::from(*members))),
            _ => format!("{} rooms × {members}", grouped(f64::from(*rooms))),
        };
        let how = match rate_per_second {
            Some(rate) => format!(", {}/s", grouped(f64::from(*rate))),
            None if self.load.is_some() => format!(", {window} under way, {message_bytes} bytes"),
            None => String::new(),
        };
        format!("{scenario} ({protocol}): {who}{how}")
    }

    /// The result for people.
    pub fn table(&self) -> String {
        let mut table = Table(vec![self.title()]);
        if let Some(load) = &self.load {
            table.line("deliveries", &grouped(load.deliveries_per_second), "/s");
            table.line("published messages, received by all", &grouped(load.finished_per_second), "/s");
            table.latency("until a member has it", load.delivery.as_ref());
            if self.conditions.members > 1 {
                table.latency("until all members have it", load.finish.as_ref());
            }
        }
        table.line("handshakes", &grouped(self.handshakes.per_second), "/s");
        table.latency("until joined", self.handshakes.latency.as_ref());
        if let Some(server) = &self.server {
            if let Some(us) = server.cpu_us_per_delivery {
                table.line("server: CPU per delivery", &format!("{us:.3}"), "us");
            }
            table.line("server: CPU per handshake", &format!("{:.1}", server.cpu_us_per_handshake), "us");
            table.line("server: busy", &format!("{:.2}", server.cores), "cores");
            if self.conditions.scenario == Scenario::Idle.as_str() {
                table.line("server: memory per connection", &kilobytes(server.rss_bytes_per_connection), "KB");
            }
            table.line("server: memory", &kilobytes(server.rss_end_bytes as f64), "KB");
        }
        table.line("generator: busy", &format!("{:.2}", self.generator.cores), "cores");
        if let Some(load) = &self.load {
            table.line("deliveries per read", &format!("{:.1}", self.generator.deliveries_per_read), "");
            if self.conditions.rate_per_second.is_some() {
                table.line("generator: late, at most", &format!("{:.0}", self.generator.late_us_max), "us");
            }
            let Losses { missing, stray, closed, stalls, .. } = self.losses;
            let words = format!("{missing} missing, {stray} stray, {closed} closed, {stalls} s stalled");
            let published = grouped(load.published as f64);
            table.text("losses", &format!("{words} ({published} published)"));
        }
        table.0.join("\n") + "\n"
    }
}

impl Conditions {
    fn new(plan: &Plan) -> Self {
        Self {
            scenario: plan.scenario.as_str(),
            protocol: plan.protocol.as_str(),
            url: plan.url.clone(),
            connections: plan.connections,
            rooms: plan.rooms,
            members: plan.members(),
            publishers: plan.publishers,
            window: plan.window,
            rate_per_second: plan.rate,
            message_bytes: plan.message_bytes,
        }
    }
}

fn server(used: &ServerUse, measured: &Measured, load: Option<&Load>, handshakes: u64) -> Server {
    let per_connection = |of: fn(&Memory) -> u64| {
        (of(&used.joined) as f64 - of(&used.before) as f64) / f64::from(used.connections.max(1))
    };
    let (cpu_ns, elapsed_ns) = match load {
        Some(_) => (used.measure_cpu_ns, measured.measure_ns),
        None => (used.connect_cpu_ns, measured.connect_ns),
    };
    let per_delivery = |load: &Load| used.measure_cpu_ns as f64 / 1e3 / load.deliveries as f64;
    Server {
        cores: cpu_ns as f64 / elapsed_ns.max(1) as f64,
        cpu_us_per_delivery: load.filter(|load| load.deliveries > 0).map(per_delivery),
        cpu_us_per_handshake: used.connect_cpu_ns as f64 / 1e3 / handshakes.max(1) as f64,
        rss_bytes_per_connection: per_connection(|memory| memory.rss),
        pss_bytes_per_connection: per_connection(|memory| memory.pss),
        rss_joined_bytes: used.joined.rss,
        rss_end_bytes: used.after.rss,
    }
}

/// Lines.
struct Table(Vec<String>);

impl Table {
    fn line(&mut self, what: &str, value: &str, unit: &str) {
        self.text(what, &format!("{value:>12} {unit}"));
    }

    fn latency(&mut self, what: &str, latency: Option<&Latency>) {
        let Some(latency) = latency else { return };
        let Latency { p50_ms, p90_ms, p99_ms, p999_ms, max_ms, .. } = latency;
        let figures = [("p50", p50_ms), ("p90", p90_ms), ("p99", p99_ms), ("p99.9", p999_ms), ("max", max_ms)];
        let figures: Vec<String> = figures.iter().map(|(name, ms)| format!("{name} {}", digits(**ms))).collect();
        self.text(what, &format!("{} ms", figures.join("  ")));
    }

    fn text(&mut self, what: &str, text: &str) {
        self.0.push(format!("  {what:<38} {}", text.trim_end()));
    }
}

/// Three digits that count.
fn digits(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value if value >= 1.0 => format!("{value:.2}"),
        value => format!("{value:.3}"),
    }
}

fn kilobytes(bytes: f64) -> String {
    let kilobytes = bytes / 1_024.0;
    if kilobytes.abs() < 100.0 { format!("{kilobytes:.1}") } else { grouped(kilobytes) }
}

/// `1,234,567`.
fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.max(0.0));
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|group| str::from_utf8(group).ok()).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_easy_to_read() {
        assert_eq!([0.0, 999.4, 1_000.0, 1_234_567.0].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0.123_4, 1.234, 12.34, 1_234.5].map(digits), ["0.123", "1.23", "12.3", "1234"]);
        assert_eq!(kilobytes(1_536.0), "1.5");
    }

    fn report(losses: Losses) -> Report {
        let conditions = Conditions {
            scenario: "fan-out",
            protocol: "raw",
            url: String::new(),
            connections: 1_000,
            rooms: 1,
            members: 1_000,
            publishers: 8,
            window: 32,
            rate_per_second: None,
            message_bytes: 128,
        };
        let handshakes = Handshakes { count: 1_000, seconds: 0.1, per_second: 10_000.0, latency: None };
        let generator = Generator { cores: 0.5, deliveries_per_read: 7.0, late_us_max: 0.0 };
        Report { conditions, handshakes, load: None, losses, server: None, generator }
    }

    #[test]
    fn losses_are_not_passed_over() {
        let none = Losses { missing: 0, stray: 0, refusals: 0, closed: 0, stalls: 0, first: None };
        assert!(report(none.clone()).is_whole() && report(none.clone()).warnings().is_empty());
        for some in [
            Losses { missing: 1, ..none.clone() },
            Losses { refusals: 1, ..none.clone() },
            Losses { closed: 1, first: Some("close code 4408".to_owned()), ..none },
        ] {
            let report = report(some);
            assert!(!report.is_whole());
            assert!(report.warnings()[0].contains('1'), "{:?}", report.warnings());
        }
    }
}
