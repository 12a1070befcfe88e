//! Databases of the operator's, of which plugins may read by named statements: never a plugin's SQL, never a write.
//!
//! A [`Datasource`] is a SQLite file or a Postgres server, and knows whether it can be reached. A [`Statement`] checks what a plugin
//! gives it, gathers calls of many channels where it has a batch key ([`batch`]), and answers within its bounds. A plugin learns
//! what kind of failure it was; the cause goes to the log, now and then. Whoever asks, the database is asked on the runtime that
//! opened the datasource ([`Home`]).

mod backend;
mod batch;
mod postgres;
mod settings;
mod sql;
mod sqlite;
mod statement;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;

use crate::datasource::backend::{Backend, Failure, Run};
use crate::datasource::postgres::Postgres;
use crate::datasource::sqlite::Sqlite;
use crate::protocol::sql::{Rows, SqlError};
use crate::telemetry;

pub use crate::datasource::settings::{BATCH_KEYS_MAX, DatasourceSettings, ParameterType, StatementSettings};
pub use crate::datasource::sql::{Sql, SqlTextError};
pub use crate::datasource::statement::Statement;

/// Between two looks at whether a datasource can be reached.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Where a datasource is.
#[derive(Clone, PartialEq, Eq)]
pub enum Location {
    /// A SQLite file, and the SQL files that make it if it is missing.
    Sqlite {
        /// The file.
        path: PathBuf,
        /// In order; empty where nothing makes it.
        create_from: Vec<PathBuf>,
    },
    /// The URL of a Postgres server. May hold a password, hence no `Debug`.
    Postgres(String),
}

/// A datasource, checked: everything needed to open it.
#[derive(Clone)]
pub struct DatasourceConfig {
    /// Its name in the configuration.
    pub name: String,
    /// Where it is.
    pub location: Location,
    /// Connections to it.
    pub connections_max: u32,
    /// Its statements by name.
    pub statements: BTreeMap<String, StatementSettings>,
}

/// A database of the operator's.
pub struct Datasource {
    name: String,
    backend: Box<dyn Backend>,
    /// Why it cannot be reached; absent while it can.
    down: Mutex<Option<String>>,
    look_now: Notify,
    /// As many as there are. A run waits here for one, so that a backend that has none is one that cannot connect.
    connections: Semaphore,
    statements: BTreeMap<String, Arc<Statement>>,
}

/// The runtime that opened a datasource, on which the database is asked. A long call into a plugin goes on in a thread that gets only
/// the time nobody else wants: other channels must not wait for that thread, be it for a batch or for a connection.
#[derive(Clone)]
struct Home(Handle);

impl Home {
    fn spawn<T: Send + 'static>(
        &self,
        name: &'static str,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        let _home = self.0.enter();
        telemetry::spawn(name, task)
    }
}

/// Why a datasource cannot be opened. A server that cannot be reached is no reason: it may come.
#[derive(Debug, thiserror::Error)]
#[error("datasource {name:?}: {reason}")]
pub struct OpenError {
    /// Its name.
    pub name: String,
    /// What is wrong.
    pub reason: String,
}

impl Datasource {
    /// Opens it, and watches it for as long as it is held.
    ///
    /// # Errors
    /// If it cannot be made, or its settings are wrong.
    pub async fn open(config: &DatasourceConfig) -> Result<Arc<Self>, OpenError> {
        let refuse = |reason: String| OpenError { name: config.name.clone(), reason };
        let backend: Box<dyn Backend> = match &config.location {
            Location::Sqlite { path, create_from } => {
                create(path, create_from).await.map_err(refuse)?;
                Box::new(Sqlite::new(path, config.connections_max))
            }
            Location::Postgres(url) => Box::new(Postgres::new(url, config.connections_max).map_err(refuse)?),
        };
        let datasource = Self::new(config, backend)?;
        datasource.look().await;
        telemetry::spawn("datasource", watch(Arc::downgrade(&datasource)));
        Ok(datasource)
    }

    fn new(config: &DatasourceConfig, backend: Box<dyn Backend>) -> Result<Arc<Self>, OpenError> {
        let mut texts = BTreeMap::new();
        for (name, settings) in &config.statements {
            let sql = settings.parse().map_err(|error| OpenError {
                name: config.name.clone(),
                reason: format!("statement {name:?}: {error}"),
            })?;
            texts.insert(name.clone(), (settings.clone(), sql));
        }
        let home = Home(Handle::current());
        Ok(Arc::new_cyclic(|own: &Weak<Self>| {
            let statements = texts.into_iter().map(|(name, (settings, sql))| {
                let source = (config.name.as_str(), home.clone(), config.connections_max);
                (name.clone(), Arc::new(Statement::new(own.clone(), source, name, settings, sql)))
            });
            Self {
                name: config.name.clone(),
                backend,
                down: Mutex::default(),
                look_now: Notify::new(),
                connections: Semaphore::new(config.connections_max as usize),
                statements: statements.collect(),
            }
        }))
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// One of its statements.
    pub fn statement(&self, name: &str) -> Option<Arc<Statement>> {
        self.statements.get(name).cloned()
    }

    /// Why it cannot be reached, as of a second or two ago.
    pub fn outage(&self) -> Option<String> {
        self.down.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn look(&self) {
        let found = self.backend.probe().await;
        let now = found.err().map(|failure| failure.cause);
        let before = std::mem::replace(&mut *self.down.lock().unwrap_or_else(PoisonError::into_inner), now.clone());
        metrics::gauge!("hotbay_datasource_up", "datasource" => self.name.clone())
            .set(f64::from(u8::from(now.is_none())));
        match (before, now) {
            (None, Some(cause)) => tracing::warn!(datasource = self.name, cause, "the datasource cannot be reached"),
            (Some(_), None) => tracing::info!(datasource = self.name, "the datasource can be reached again"),
            _ => {}
        }
    }

    /// While it is known to be away nobody waits for it.
    fn reachable(&self) -> Result<(), Failure> {
        self.outage().map_or(Ok(()), |cause| Err(Failure::new(SqlError::Unavailable, cause)))
    }

    async fn run(&self, run: &Run) -> Result<Rows, Failure> {
        self.reachable()?;
        let result = self.backend.run(run).await;
        if let Err(Failure { error: SqlError::Unavailable | SqlError::Timeout, .. }) = &result {
            self.look_now.notify_one();
        }
        result
    }
}

async fn create(path: &Path, create_from: &[PathBuf]) -> Result<(), String> {
    if create_from.is_empty() {
        return Ok(());
    }
    let mut texts = Vec::new();
    for file in create_from {
        let text = std::fs::read_to_string(file);
        texts.push(text.map_err(|error| format!("{} cannot be read: {error}", file.display()))?);
    }
    Sqlite::create(path, &texts).await
}

async fn watch(datasource: Weak<Datasource>) {
    loop {
        let Some(strong) = datasource.upgrade() else { return };
        drop(tokio::time::timeout(PROBE_INTERVAL, strong.look_now.notified()).await);
        strong.look().await;
    }
}
