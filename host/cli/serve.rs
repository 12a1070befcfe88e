//! `hotbay serve`: runs the broker until SIGTERM or SIGINT.

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::welcome::Welcome;
use super::{ConfigArgs, Failure};
use crate::broker::Broker;
use crate::config::Environment;
use crate::{store, telemetry};

/// Runs the broker
#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    config: ConfigArgs,
}

impl Serve {
    pub(super) fn run(self, environment: &Environment) -> Result<(), Failure> {
        let config = self.config.load(environment)?;
        let welcome = config.development.then(|| Welcome::new(&config)).transpose()?;
        telemetry::start_logging(&config.log).map_err(Failure::usage)?;
        let metrics = telemetry::start_metrics().map_err(Failure::other)?;
        store::describe_metrics();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::other)?;
        runtime.block_on(async {
            // Before anything is promised, so that no signal is missed.
            let mut terminate = signal(SignalKind::terminate()).map_err(Failure::other)?;
            let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::other)?;
            let broker = Broker::build(config, metrics).await.map_err(Failure::other)?;
            println!("hotbay: listening on http://{}", broker.address());
            if let Some(welcome) = welcome {
                println!("{}", welcome.text(&format!("http://{}", broker.address())));
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
