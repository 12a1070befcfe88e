//! Databases of the operator's, of which plugins may read by named statements: never a plugin's SQL, never a write.
//!
//! A [`Datasource`] is a SQLite file or a Postgres server, and knows whether it can be reached. A [`Statement`] checks what a plugin
//! gives it, gathers calls of many channels where it has a batch key ([`batch`]), and answers within its bounds. A plugin learns
//! what kind of failure it was; the cause goes to the log, once for each change from good to bad.

mod backend;
mod batch;
mod postgres;
mod settings;
mod sql;
mod sqlite;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use crate::datasource::backend::{Backend, Failure, Run};
use crate::datasource::batch::Gatherer;
use crate::datasource::postgres::Postgres;
use crate::datasource::sqlite::Sqlite;
use crate::protocol::sql::{Rows, SqlError, Value};
use crate::telemetry;

pub use crate::datasource::settings::{BATCH_KEYS_MAX, DatasourceSettings, ParameterType, StatementSettings};
pub use crate::datasource::sql::{Sql, SqlTextError};

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
    statements: BTreeMap<String, Arc<Statement>>,
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
            Location::Postgres(url) => {
                let longest = config.statements.values().map(|statement| statement.timeout_ms).max().unwrap_or(1);
                let timeout = Duration::from_millis(longest);
                Box::new(Postgres::new(url, config.connections_max, timeout).map_err(refuse)?)
            }
        };
        let mut texts = BTreeMap::new();
        for (name, settings) in &config.statements {
            let sql = settings.parse().map_err(|error| refuse(format!("statement {name:?}: {error}")))?;
            texts.insert(name.clone(), (settings.clone(), sql));
        }
        let datasource = Arc::new_cyclic(|own: &Weak<Self>| {
            let statements = texts.into_iter().map(|(name, (settings, sql))| {
                (name.clone(), Arc::new(Statement::new(own.clone(), name, settings, sql)))
            });
            Self {
                name: config.name.clone(),
                backend,
                down: Mutex::default(),
                look_now: Notify::new(),
                statements: statements.collect(),
            }
        });
        datasource.look().await;
        telemetry::spawn("datasource", watch(Arc::downgrade(&datasource)));
        Ok(datasource)
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// One of its statements.
    pub fn statement(&self, name: &str) -> Option<Arc<Statement>> {
        self.statements.get(name).cloned()
    }

    /// Why it cannot be reached, as of about a second ago.
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
    async fn run(&self, run: &Run) -> Result<Rows, Failure> {
        if let Some(cause) = self.outage() {
            return Err(Failure::new(SqlError::Unavailable, cause));
        }
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

/// A named statement. Mounts grant it to their plugins.
pub struct Statement {
    datasource: Weak<Datasource>,
    name: String,
    settings: StatementSettings,
    sql: Sql,
    gatherer: Option<Gatherer>,
    /// Its last run failed: said once.
    failing: AtomicBool,
}

impl Statement {
    fn new(datasource: Weak<Datasource>, name: String, settings: StatementSettings, sql: Sql) -> Self {
        let gatherer = settings.batch_key.as_ref().map(|_| Gatherer::default());
        Self { datasource, name, settings, sql, gatherer, failing: AtomicBool::new(false) }
    }

    /// Runs it with these parameters.
    ///
    /// # Errors
    /// See [`SqlError`].
    pub async fn query(self: &Arc<Self>, parameters: Vec<Value>) -> Result<Rows, SqlError> {
        let parameters = self.check(parameters)?;
        let answer = match &self.gatherer {
            Some(gatherer) => gatherer.query(self, parameters).await,
            None => self.run(self.sql.text().to_owned(), parameters, 1).await,
        };
        let result = answer.as_ref().err().map_or("ok", label);
        metrics::counter!("hotbay_sql_calls_total", "statement" => self.name.clone(), "result" => result).increment(1);
        answer
    }

    fn check(&self, parameters: Vec<Value>) -> Result<Vec<Value>, SqlError> {
        let types = &self.settings.parameters;
        if types.len() != parameters.len() {
            let reason = format!("{} takes {} parameters, not {}", self.name, types.len(), parameters.len());
            return Err(SqlError::BadParameters(reason));
        }
        let accept = |(index, (kind, value)): (usize, (&ParameterType, Value))| {
            let reason = || format!("parameter {} of {} must be of type {}", index + 1, self.name, kind.as_str());
            kind.accept(value).map_err(|_| SqlError::BadParameters(reason()))
        };
        types.iter().zip(parameters).enumerate().map(accept).collect()
    }

    /// Sends it to the database, for this many callers.
    async fn run(&self, sql: String, values: Vec<Value>, callers: usize) -> Result<Rows, SqlError> {
        let Some(datasource) = self.datasource.upgrade() else { return Err(SqlError::Unavailable) };
        let run = Run {
            sql,
            values,
            timeout: Duration::from_millis(self.settings.timeout_ms),
            rows_max: self.settings.rows_max.saturating_mul(callers),
            bytes_max: self.settings.bytes_max.saturating_mul(callers),
        };
        let began = std::time::Instant::now();
        let answer = datasource.run(&run).await;
        let result = answer.as_ref().err().map_or("ok", |failure| label(&failure.error));
        let labels = [("statement", self.name.clone()), ("result", result.to_owned())];
        metrics::counter!("hotbay_sql_statements_total", &labels).increment(1);
        metrics::histogram!("hotbay_sql_statement_seconds", "statement" => self.name.clone()).record(began.elapsed());
        self.note(&datasource.name, answer.as_ref().err());
        answer.map_err(|failure| failure.error)
    }

    /// Says what the plugin must not know, once.
    fn note(&self, datasource: &str, failure: Option<&Failure>) {
        let before = self.failing.swap(failure.is_some(), Ordering::Relaxed);
        match failure {
            Some(Failure { error, cause }) if !before => {
                tracing::warn!(datasource, statement = self.name, %error, cause, "a statement fails");
            }
            None if before => tracing::info!(datasource, statement = self.name, "the statement works again"),
            _ => {}
        }
    }
}

fn label(error: &SqlError) -> &'static str {
    match error {
        SqlError::NotGranted => "not_granted",
        SqlError::BadParameters(_) => "bad_parameters",
        SqlError::Timeout => "timeout",
        SqlError::Unavailable => "unavailable",
        SqlError::TooLarge => "too_large",
        SqlError::Failed => "failed",
    }
}
