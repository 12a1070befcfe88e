//! `hotbay plugin dev`: builds a project, runs it in a broker of its own, and swaps each new build into it while sockets stay open.

mod local;
mod sources;
mod tap;
mod terminal;
mod wire;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use self::local::{Local, Setup};
use self::sources::{Sources, Tree};
use self::terminal::{Terminal, say};
use self::wire::Wire;
use super::project::{Project, ProjectError};
use crate::cli::remote::show::Look;
use crate::cli::{Failure, serve};
use crate::config::Environment;
use crate::plugin::compile::Digest;
use crate::{store, telemetry};

/// Builds a plugin, runs it on this machine, and swaps each new build in while you edit
#[derive(Debug, Args)]
pub(in crate::cli) struct Dev {
    /// The plugin's folder
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Where to listen, on this machine alone [default: as in the configuration, else 127.0.0.1:3000]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// The configuration [default: hotbay.toml in the folder, else a mount for this plugin]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Goes on with what channels kept the last time, instead of beginning with nothing
    #[arg(long)]
    keep: bool,
}

impl Dev {
    pub(in crate::cli) fn run(self, environment: &Environment) -> Result<(), Failure> {
        let project = Project::open(&self.dir).map_err(|e| Failure::usage(e.to_string()))?;
        let setup = Setup::of(&project, self.config, self.listen, environment)?;
        if !self.keep {
            setup.forget()?;
        }
        telemetry::start_warnings().map_err(Failure::other)?;
        let metrics = telemetry::start_metrics().map_err(Failure::other)?;
        store::describe_metrics();
        let runtime = serve::runtime().map_err(Failure::other)?;
        runtime.block_on(run(project, setup, metrics))
    }
}

/// Works until it is told to stop; then the broker ends as any other.
async fn run(project: Project, setup: Setup, metrics: PrometheusHandle) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::other)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::other)?;
    let listen = setup.listen();
    let taken = |e| Failure::other(format!("cannot listen on {listen}: {e}; --listen names another address"));
    let listener = TcpListener::bind(listen).await.map_err(taken)?;
    let mut workshop = Workshop {
        sources: Sources::watch(&project).map_err(Failure::other)?,
        project,
        setup,
        metrics,
        terminal: Arc::new(Terminal::default()),
        listener: Some(listener),
        running: None,
    };
    let stopped = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    tokio::select! {
        biased;
        // A build or a vetting under way goes with it.
        () = stopped => {}
        () = workshop.work() => {}
    }
    match workshop.running.take() {
        Some(Running { local, wire, .. }) => {
            let ended = local.end().await;
            wire.end().await;
            if ended { Ok(()) } else { Err(Failure::other("the broker did not stop cleanly")) }
        }
        None => Ok(()),
    }
}

/// A project that is worked on.
struct Workshop {
    project: Project,
    setup: Setup,
    metrics: PrometheusHandle,
    sources: Sources,
    terminal: Arc<Terminal>,
    /// Until the wire has it.
    listener: Option<TcpListener>,
    running: Option<Running>,
}

/// The broker, and what it runs.
struct Running {
    local: Local,
    wire: Wire,
    digest: Digest,
}

impl Workshop {
    /// Builds, runs, waits for a change; again and again.
    async fn work(&mut self) {
        loop {
            // Before the build, so that what changes meanwhile is built next.
            let tree = self.sources.tree();
            if let Err(why) = self.round().await {
                let goes_on = if self.running.is_some() { "\nwhat ran before goes on" } else { "" };
                say(Look::Red, &format!("✗ {why}{goes_on}"));
            }
            self.wait(&tree).await;
        }
    }

    async fn wait(&mut self, tree: &Tree) {
        if self.running.is_none() {
            say(Look::Faint, "waiting for a change; Ctrl-C ends it");
        }
        let changed = self.sources.changed(tree).await;
        say(Look::Faint, &format!("changed: {changed}"));
    }

    /// One build, and what becomes of it.
    async fn round(&mut self) -> Result<(), String> {
        self.project.reopen().map_err(|e| e.to_string())?;
        let begun = Instant::now();
        build(&self.project).await.map_err(|e| e.to_string())?;
        let built = begun.elapsed().as_secs_f64();
        let digest = self.setup.put(&self.project)?;
        let begun = Instant::now();
        match &mut self.running {
            Some(running) if running.digest == digest => {
                say(Look::Faint, "the build made the same again");
            }
            Some(running) => {
                let version = running.local.renew().await?;
                running.digest = digest;
                let runs = begun.elapsed().as_secs_f64();
                let line = format!("✓ {version} runs: built in {built:.1} s, vetted and swapped in {runs:.1} s");
                say(Look::Green, &line);
            }
            None => {
                let local = Local::start(&self.setup, self.metrics.clone()).await?;
                let Some(listener) = self.listener.take() else { return Ok(()) };
                let address = listener.local_addr().map_err(|e| e.to_string())?;
                let runs = begun.elapsed().as_secs_f64();
                let line = format!("✓ {} runs: built in {built:.1} s, vetted in {runs:.1} s", local.version());
                say(Look::Green, &line);
                say(Look::Plain, &self.setup.welcome(address));
                let wire = Wire::open(listener, local.address(), Arc::clone(&self.terminal));
                self.running = Some(Running { local, wire, digest });
            }
        }
        Ok(())
    }
}

/// Runs the build command, which ends with this.
async fn build(project: &Project) -> Result<(), ProjectError> {
    let (words, command) = project.command()?;
    let status = Command::from(command).kill_on_drop(true).status().await;
    project.built(words, status)
}
