//! Usage in the text format of Prometheus: a few tenants and plugins by their names, the others as one.
//!
//! There may be very many tenants, and a series for each of them would be a burden for whoever stores it. So the ones that used most
//! processor time have series of their own; what the others used is counted under `(other)`, which is no tenant's name. Each use is
//! counted in exactly one series, so that their sum is right, and none ever goes back while it is there: a tenant that comes among the
//! first begins at zero.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use crate::limits::{METRICS_PLUGINS_MAX, METRICS_TENANTS_MAX};
use crate::quota::{PluginUsage, Quota, Usage};

const OTHER: &str = "(other)";

/// Says what the metrics without a tenant mean. Call once, after the recorder is installed.
pub fn describe_metrics() {
    metrics::describe_counter!("hotbay_quota_waits_total", "Times something waited at a limit of its tenant, by limit");
    metrics::describe_counter!("hotbay_quota_refusals_total", "What was refused at a limit of its tenant, by limit");
}

/// A metric: its name, its kind, and its words.
type Metric = (&'static str, &'static str, &'static str);

/// Of a tenant; first those that go up and down.
const GAUGES: [Metric; 6] = [
    ("hotbay_tenant_connections", "gauge", "Open WebSocket connections"),
    ("hotbay_tenant_channels", "gauge", "Channels that are awake or have members"),
    ("hotbay_tenant_channels_awake", "gauge", "Channels with an instance"),
    ("hotbay_tenant_plugin_memory_bytes", "gauge", "Linear memory of plugins"),
    ("hotbay_tenant_state_bytes", "gauge", "State that is kept"),
    ("hotbay_tenant_log_bytes", "gauge", "Logs that are kept"),
];
const COUNTERS: [Metric; 6] = [
    ("hotbay_tenant_messages_in_total", "counter", "Messages, requests and publications received"),
    ("hotbay_tenant_bytes_in_total", "counter", "Bytes of those"),
    ("hotbay_tenant_bytes_out_total", "counter", "Bytes of frames handed to members"),
    ("hotbay_tenant_plugin_cpu_microseconds_total", "counter", "Time plugins ran"),
    ("hotbay_tenant_waits_total", "counter", "Times something waited at a limit"),
    ("hotbay_tenant_refusals_total", "counter", "What was refused at a limit"),
];
const OF_PLUGINS: [Metric; 3] = [
    ("hotbay_plugin_version_events_total", "counter", "Events given to a version of a plugin"),
    ("hotbay_plugin_version_cpu_microseconds_total", "counter", "Time a version of a plugin ran"),
    ("hotbay_plugin_version_faults_total", "counter", "Calls into a version of a plugin that failed"),
];

fn gauges(usage: &Usage) -> [u64; 6] {
    let Usage { connections, channels, channels_awake, plugin_memory_bytes, state_bytes, log_bytes, .. } = *usage;
    [connections, channels, channels_awake, plugin_memory_bytes, state_bytes, log_bytes]
}

fn counters(usage: &Usage) -> [u64; 6] {
    let Usage { messages, bytes_in, bytes_out, plugin_cpu_us, waits, refusals, .. } = *usage;
    [messages, bytes_in, bytes_out, plugin_cpu_us, waits, refusals]
}

/// What was told so far.
#[derive(Debug, Default)]
pub(super) struct Exposition(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    tenants: Family<Arc<str>, 6>,
    /// By owner, plugin and digest.
    plugins: Family<[Arc<str>; 3], 3>,
}

impl Exposition {
    /// An account is forgotten: what was not told of it yet is told with the others.
    pub(super) fn close(&self, quota: &Quota) {
        let usage = quota.usage();
        self.lock().tenants.close(&usage.tenant, &counters(&usage));
    }

    pub(super) fn text(&self, quotas: &[Arc<Quota>], plugins: &[PluginUsage]) -> String {
        let mut usage: Vec<Usage> = quotas.iter().map(|quota| quota.usage()).collect();
        // Those that share an account are the others.
        let shared = usage.iter().position(|usage| usage.tenant.is_empty()).map(|at| usage.swap_remove(at));
        usage.sort_by(|one, other| (other.plugin_cpu_us, &one.tenant).cmp(&(one.plugin_cpu_us, &other.tenant)));
        usage.extend(shared);
        let first = usage.len().min(METRICS_TENANTS_MAX);
        let first = if usage[..first].last().is_some_and(|usage| usage.tenant.is_empty()) { first - 1 } else { first };
        let mut told = self.lock();
        let mut text = String::new();
        let label = |tenant: &str| format!("{{tenant=\"{tenant}\"}}");
        for (at, metric) in GAUGES.iter().enumerate() {
            let series = usage[..first].iter().map(|usage| (label(&usage.tenant), gauges(usage)[at]));
            let others = usage[first..].iter().map(|usage| gauges(usage)[at]).sum();
            write(&mut text, *metric, METRICS_TENANTS_MAX, series, (label(OTHER), others));
        }
        told.tenants.update(usage.iter().map(|usage| (Arc::clone(&usage.tenant), counters(usage))), first);
        told.tenants.write(&mut text, &COUNTERS, METRICS_TENANTS_MAX, |tenant| label(tenant), &label(OTHER));
        // Another owner's version of the same name may be the same component.
        let label = |owner: &str, plugin: &str, digest: &str| match owner {
            "" => format!("{{plugin=\"{plugin}\",digest=\"{digest}\"}}"),
            owner => format!("{{plugin=\"{plugin}\",digest=\"{digest}\",owner=\"{owner}\"}}"),
        };
        let efforts = plugins.iter().map(|usage| {
            let name = [&usage.owner, &usage.plugin, &usage.digest].map(Arc::clone);
            (name, [usage.events, usage.cpu_us, usage.faults])
        });
        told.plugins.update(efforts, plugins.len().min(METRICS_PLUGINS_MAX));
        let of_plugin = |[owner, plugin, digest]: &[Arc<str>; 3]| label(owner, plugin, digest);
        told.plugins.write(&mut text, &OF_PLUGINS, METRICS_PLUGINS_MAX, of_plugin, &label("", OTHER, ""));
        text
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write(
    text: &mut String,
    (name, kind, words): Metric,
    first_max: usize,
    series: impl Iterator<Item = (String, u64)>,
    other: (String, u64),
) {
    let help =
        format!("# HELP {name} {words}; the {first_max} with most processor time by name, the rest as {OTHER}\n");
    text.push_str(&help);
    text.extend(["# TYPE ", name, " ", kind, "\n"]);
    for (label, value) in series.chain([other]) {
        text.extend([name, &label, " ", &value.to_string(), "\n"]);
    }
}

/// Counters of many, of which some have series of their own.
#[derive(Debug)]
struct Family<K, const N: usize> {
    /// What was counted so far, wherever.
    counted: HashMap<K, [u64; N]>,
    /// What was counted in their own series, in their order.
    first: Vec<(K, [u64; N])>,
    other: [u64; N],
}

impl<K, const N: usize> Default for Family<K, N> {
    fn default() -> Self {
        Self { counted: HashMap::new(), first: Vec::new(), other: [0; N] }
    }
}

impl<K: Clone + Eq + Hash, const N: usize> Family<K, N> {
    /// Takes in how things are now. The first so many have series of their own.
    fn update(&mut self, now: impl Iterator<Item = (K, [u64; N])>, first: usize) {
        let before = std::mem::take(&mut self.counted);
        let mut own: HashMap<K, [u64; N]> = std::mem::take(&mut self.first).into_iter().collect();
        for (at, (key, counts)) in now.enumerate() {
            let news = news(before.get(&key), &counts);
            if at < first {
                let mut series = own.remove(&key).unwrap_or([0; N]);
                add(&mut series, &news);
                self.first.push((key.clone(), series));
            } else {
                add(&mut self.other, &news);
            }
            self.counted.insert(key, counts);
        }
    }

    fn close(&mut self, key: &K, counts: &[u64; N]) {
        let before = self.counted.remove(key);
        add(&mut self.other, &news(before.as_ref(), counts));
    }

    fn write(
        &self,
        text: &mut String,
        metrics: &[Metric; N],
        first_max: usize,
        label: impl Fn(&K) -> String,
        other: &str,
    ) {
        for (at, metric) in metrics.iter().enumerate() {
            let series = self.first.iter().map(|(key, counts)| (label(key), counts[at]));
            write(text, *metric, first_max, series, (other.to_owned(), self.other[at]));
        }
    }
}

/// What was added since. An account that was forgotten in between began anew.
fn news<const N: usize>(before: Option<&[u64; N]>, now: &[u64; N]) -> [u64; N] {
    match before {
        Some(before) if before.iter().zip(now).all(|(before, now)| before <= now) => {
            std::array::from_fn(|at| now[at] - before[at])
        }
        _ => *now,
    }
}

fn add<const N: usize>(to: &mut [u64; N], more: &[u64; N]) {
    to.iter_mut().zip(more).for_each(|(to, more)| *to += more);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::{Effort, Quotas};

    fn value(text: &str, series: &str) -> Option<u64> {
        text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }

    /// Law: however many tenants there are, a bounded number has series of its own; nothing is counted twice, and no series goes back.
    #[test]
    fn the_first_have_names_and_the_rest_is_one() {
        let quotas = Quotas::new(100);
        let all: Vec<_> = (0..METRICS_TENANTS_MAX + 10).map(|number| quotas.of(&format!("t{number}"))).collect();
        let _open = all[0].connect().unwrap();
        for (number, quota) in all.iter().enumerate() {
            quota.charge_cpu(1_000 - number as u64, 0);
        }
        let cpu = |text: &str, tenant: &str| {
            value(text, &format!("hotbay_tenant_plugin_cpu_microseconds_total{{tenant=\"{tenant}\"}}"))
        };

        let before = quotas.expose();
        assert_eq!(cpu(&before, "t0"), Some(1_000));
        assert_eq!(value(&before, "hotbay_tenant_connections{tenant=\"t0\"}"), Some(1));
        let last = format!("t{}", METRICS_TENANTS_MAX + 9);
        assert_eq!(cpu(&before, &last), None);
        let others: u64 = (0..10).map(|more| 1_000 - (METRICS_TENANTS_MAX + more) as u64).sum();
        assert_eq!(cpu(&before, OTHER), Some(others));
        assert_eq!(
            before.lines().filter(|line| line.starts_with("hotbay_tenant_channels{")).count(),
            METRICS_TENANTS_MAX + 1
        );

        all[METRICS_TENANTS_MAX + 9].charge_cpu(5_000, 0);
        let after = quotas.expose();
        assert_eq!(cpu(&after, &last), Some(5_000), "a series of its own begins with what is new");
        assert_eq!(cpu(&after, OTHER), Some(others));
        assert_eq!(after.lines().count(), before.lines().count());
    }

    #[test]
    fn plugins_have_names_and_digests() {
        let quotas = Quotas::new(100);
        let effort = Arc::new(Effort::default());
        effort.count_events(3);
        effort.count_cpu(70);
        let theirs = Arc::new(Effort::default());
        theirs.count_events(5);
        for _ in 0..2 {
            quotas.list("", "chat", [7; 32], &effort);
            quotas.list("acme", "chat", [7; 32], &theirs);
        }
        let text = quotas.expose();
        let labels = format!("{{plugin=\"chat\",digest=\"{}\",owner=\"acme\"}}", "07".repeat(32));
        assert_eq!(value(&text, &format!("hotbay_plugin_version_events_total{labels}")), Some(5));
        let labels = format!("{{plugin=\"chat\",digest=\"{}\"}}", "07".repeat(32));
        assert_eq!(value(&text, &format!("hotbay_plugin_version_events_total{labels}")), Some(3));
        assert_eq!(value(&text, &format!("hotbay_plugin_version_cpu_microseconds_total{labels}")), Some(70));
    }
}
