//! `hotbay serve`: runs the broker until SIGTERM or SIGINT.

use std::io;
use std::path::Path;

use clap::Args;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use super::welcome::Welcome;
use super::{ConfigArgs, Failure, output};
use crate::broker::Broker;
use crate::config::{Environment, FILE_DEFAULT};
use crate::{store, telemetry};

/// Runs the broker
#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    config: ConfigArgs,
}

impl Serve {
    pub(super) fn run(self, environment: &Environment) -> Result<(), Failure> {
        let data_dir = self.config.data_dir.clone();
        let config = self.config.load(environment)?;
        let flags = flags(&config.file, data_dir.as_deref());
        let welcome = config.development.then(|| Welcome::new(&config, flags)).transpose()?;
        telemetry::start_logging(&config.log).map_err(Failure::usage)?;
        let metrics = telemetry::start_metrics().map_err(Failure::other)?;
        store::describe_metrics();
        let runtime = runtime().map_err(Failure::other)?;
        runtime.block_on(async {
            // Before anything is promised, so that no signal is missed.
            let mut terminate = signal(SignalKind::terminate()).map_err(Failure::other)?;
            let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::other)?;
            let broker = Broker::build(config, metrics).await.map_err(Failure::other)?;
            output::line(format_args!("hotbay: listening on http://{}", broker.address()));
            if let Some(welcome) = welcome {
                output::line(welcome.text(&format!("http://{}", broker.address())));
            }
            let stop = async {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            };
            if broker.serve(stop).await {
                Ok(())
            } else {
                Err(Failure::other("the broker did not stop cleanly, see its log"))
            }
        })
    }
}

/// What another subcommand has to be told to mean this broker: nothing, if it finds that out by itself.
fn flags(config: &Path, data_dir: Option<&str>) -> String {
    let quoted = |text: &str| {
        let is_plain = text.chars().all(|c| c.is_alphanumeric() || "/._-".contains(c));
        if is_plain { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
    };
    let config =
        (config != Path::new(FILE_DEFAULT)).then(|| format!(" --config {}", quoted(&config.display().to_string())));
    let data_dir = data_dir.map(|folder| format!(" --data-dir {}", quoted(folder)));
    config.into_iter().chain(data_dir).collect()
}

/// The threads that do the work: one for each core the process may use.
pub(super) fn runtime() -> io::Result<Runtime> {
    /// Every second task comes from the queue all threads share. A thread's own queue holds 256 tasks, and what does not fit goes
    /// to the shared one, which tokio by itself looks into only now and then: a thousand busy channels would wait for the few
    /// that stay in the own queue.
    const GLOBAL_QUEUE_INTERVAL: u32 = 2;
    let cores = std::thread::available_parallelism()?.get();
    let mut builder = match cores {
        // Alone, a thread needs no queue that others could steal from.
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder.worker_threads(cores).global_queue_interval(GLOBAL_QUEUE_INTERVAL).enable_all().build()
}
