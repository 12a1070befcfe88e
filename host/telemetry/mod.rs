//! Time, tasks, logs and metrics of the process.

mod clock;
mod follow;
pub mod hot;

use std::future::Future;
use std::io::IsTerminal;

use futures_util::FutureExt;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use serde::Deserialize;
use tokio::task::JoinHandle;
use tracing_subscriber::EnvFilter;

pub use crate::telemetry::clock::{now_ms, utc, wall_ms};
pub use crate::telemetry::follow::{PluginLine, follow_plugins, is_followed, tell};

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// Levels by module, as `tracing_subscriber::EnvFilter` reads them, for example `info,hotbay=debug`.
    pub filter: String,
    /// How lines look.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: LogFormat::Auto }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    #[default]
    Auto,
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}

/// Spawns a task and counts it under its name while it runs.
pub fn spawn<T, F>(name: &'static str, task: F) -> JoinHandle<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let count = metrics::gauge!("hotbay_tasks", "name" => name);
    count.increment(1.0);
    #[expect(clippy::disallowed_methods, reason = "this is the one place that spawns")]
    // Not an async block around the task: it would hold the task's state twice.
    tokio::spawn(task.map(move |result| {
        count.decrement(1.0);
        result
    }))
}

/// Refuses a word alone that is no level: a filter takes it for a module, and shows nothing of any other.
fn check_words(filter: &str) -> Result<(), String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let alone = filter.split(',').map(str::trim).filter(|word| !word.is_empty() && !word.contains(['=', '[']));
    match alone.into_iter().find(|word| !LEVELS.contains(&word.to_ascii_lowercase().as_str())) {
        None => Ok(()),
        Some(word) => Err(format!(
            "log.filter = {filter:?}: {word:?} is no level; there are {}; for a module write {word}=debug",
            LEVELS.join(", ")
        )),
    }
}

/// Starts logging to standard error: text on a terminal, else one JSON object per line, unless told otherwise.
///
/// # Errors
/// If the filter is not one.
pub fn start_logging(config: &LogConfig) -> Result<(), String> {
    check_words(&config.filter)?;
    let filter = EnvFilter::try_new(&config.filter).map_err(|e| format!("log.filter = {:?}: {e}", config.filter))?;
    let text = match config.format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Json => false,
        LogFormat::Text => true,
    };
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = if text { lines.try_init() } else { lines.json().flatten_event(true).try_init() };
    started.map_err(|e| e.to_string())
}

/// Starts showing what plugins log on standard error, and nothing else: for whoever tries a plugin out.
///
/// # Errors
/// If logging was started already.
pub fn start_plugin_logging() -> Result<(), String> {
    const FILTER: &str = "off,hotbay::plugin=debug,hotbay::plugin::compile=off";
    let lines = tracing_subscriber::fmt().compact().without_time().with_target(false).with_writer(std::io::stderr);
    let lines = lines.with_ansi(std::io::stderr().is_terminal()).with_env_filter(EnvFilter::new(FILTER));
    lines.try_init().map_err(|e| e.to_string())
}

/// Starts showing on standard error what goes wrong, and nothing else: for whoever runs a broker to try a plugin out. What plugins log is
/// not among it, see [`follow_plugins`].
///
/// # Errors
/// If logging was started already.
pub fn start_warnings() -> Result<(), String> {
    const FILTER: &str = "warn,hotbay::plugin=off,hotbay::plugin::compile=warn,hotbay::registry::queue=off";
    let lines = tracing_subscriber::fmt().compact().without_time().with_target(false).with_writer(std::io::stderr);
    let lines = lines.with_ansi(std::io::stderr().is_terminal()).with_env_filter(EnvFilter::new(FILTER));
    lines.try_init().map_err(|e| e.to_string())
}

/// Starts the metrics recorder, with the buckets of its histograms and the words of its metrics.
///
/// # Errors
/// If there is one already.
pub fn start_metrics() -> Result<PrometheusHandle, String> {
    const SECONDS: [f64; 12] = [0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0];
    const COUNTS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];
    // A minute to a week: how long people stay.
    const STAYS: [f64; 11] =
        [1.0, 10.0, 60.0, 300.0, 1_800.0, 3_600.0, 21_600.0, 43_200.0, 86_400.0, 259_200.0, 604_800.0];
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_events".into()), &COUNTS))
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_batches".into()), &COUNTS))
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Full("hotbay_connection_seconds".into()), &STAYS))
        .map_err(|e| e.to_string())?
        .install_recorder()
        .map_err(|e| e.to_string())?;
    describe_metrics();
    Ok(handle)
}

fn describe_metrics() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    metrics_process::Collector::default().describe();
    describe_gauge!("hotbay_sockets", "Open sockets, upgraded or not");
    describe_gauge!("hotbay_connections", "Open WebSocket connections");
    describe_histogram!("hotbay_connection_seconds", "How long WebSocket connections lasted that have ended");
    describe_gauge!("hotbay_http_requests_waiting", "HTTP requests on mounts that wait for their plugin");
    describe_gauge!("hotbay_channels_awake", "Channels with an actor");
    describe_gauge!("hotbay_tasks", "Tasks by name");
    describe_counter!("hotbay_bytes_in_total", "Bytes read from WebSocket connections");
    describe_counter!("hotbay_messages_in_total", "Messages received");
    describe_counter!("hotbay_frames_out_total", "Frames handed to members");
    describe_counter!("hotbay_bytes_out_total", "Bytes of those frames");
    describe_counter!("hotbay_batches_total", "Batches that ran");
    describe_histogram!("hotbay_batch_events", "Events in a batch");
    describe_histogram!("hotbay_batch_commit_seconds", "From handing a batch's writes over to their being durable");
    describe_counter!("hotbay_plugin_cpu_microseconds_total", "Time plugins ran");
    describe_counter!("hotbay_plugin_faults_total", "Calls into plugins that failed, by plugin and kind");
    describe_counter!("hotbay_plugin_log_lines_dropped_total", "Log lines of plugins over their rate");
    describe_counter!("hotbay_channel_start_failures_total", "Channels that could not be opened");
    describe_counter!("hotbay_channel_quarantines_total", "Channels quarantined because they faulted again and again");
    describe_counter!("hotbay_commits_given_up_total", "Batches whose writes could not be committed");
    describe_counter!("hotbay_refusals_total", "Events refused, by code");
    describe_counter!("hotbay_auth_refusals_total", "Requests refused for their token or origin, by reason");
    describe_counter!("hotbay_backpressure_total", "Times a socket was not read because a mailbox was full");
    describe_counter!("hotbay_outbox_conflated_total", "Frames replaced by a newer one for a slow reader");
    describe_counter!("hotbay_outbox_shed_total", "Frames dropped for a slow reader");
    describe_counter!("hotbay_slow_readers_closed_total", "Connections closed because they read too slowly");
    describe_counter!("hotbay_heartbeat_timeouts_total", "Connections ended for missing pongs");
    describe_counter!("hotbay_timers_skipped_total", "Times a timer was due in a channel whose name is damaged");
    describe_counter!("hotbay_publishes_dropped_total", "Publishes from channel to channel that went nowhere");
    describe_counter!("hotbay_publishes_refused_total", "Publishes over HTTP that were refused");
    describe_counter!("hotbay_wrong_api_keys_total", "Requests with an API key that is not known or was revoked");
    describe_counter!("hotbay_connections_refused_total", "Sockets closed because a limit was reached");
    describe_counter!("hotbay_accept_errors_total", "Sockets the system could not accept");
}
