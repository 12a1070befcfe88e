//! A named statement: checks what a plugin gives it, adds what only the host may say, and asks the database within its bounds.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::backend::{Failure, Run};
use super::batch::Gatherer;
use super::settings::{ParameterType, StatementSettings};
use super::sql::Sql;
use super::{Datasource, Home};
use crate::limits::{SQL_ANSWER_BYTES_MAX, SQL_KEY_BYTES_MAX, SQL_PARAMETER_BYTES_MAX};
use crate::protocol::name::ChannelName;
use crate::protocol::sql::{Rows, SqlError, Value};

/// Between two warnings about one statement.
const NOTE_INTERVAL: Duration = Duration::from_mins(1);

/// Time for a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Time {
    /// When all of it must have ended.
    pub(super) deadline: Instant,
    /// It may take one of so many parts of what is left until then when its turn comes: what runs after it needs some as well.
    pub(super) parts: u32,
}

impl Time {
    fn left(self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now()) / self.parts
    }
}

/// A named statement. Mounts grant it to their plugins.
pub struct Statement {
    datasource: Weak<Datasource>,
    source: String,
    pub(super) home: Home,
    pub(super) name: String,
    pub(super) settings: StatementSettings,
    pub(super) sql: Sql,
    pub(super) gatherer: Option<Gatherer>,
    /// Runs at once: one statement leaves a connection to the others.
    turns: Semaphore,
    notes: Mutex<Notes>,
}

impl Statement {
    pub(super) fn new(
        datasource: Weak<Datasource>,
        (source, home, connections_max): (&str, Home, u32),
        name: String,
        settings: StatementSettings,
        sql: Sql,
    ) -> Self {
        let gatherer = settings.batch_key.as_ref().map(|_| Gatherer::default());
        let turns = Semaphore::new(connections_max.saturating_sub(1).max(1) as usize);
        let source = source.to_owned();
        Self { datasource, source, home, name, settings, sql, gatherer, turns, notes: Mutex::default() }
    }

    /// Whether the host gives it the tenant whose channel asks, so that it can keep to what is that tenant's.
    pub fn is_bound_to_tenant(&self) -> bool {
        self.settings.parameters.contains(&ParameterType::Tenant)
    }

    /// Runs it with these parameters, for this channel.
    ///
    /// # Errors
    /// See [`SqlError`].
    pub async fn query(self: &Arc<Self>, channel: &ChannelName, parameters: Vec<Value>) -> Result<Rows, SqlError> {
        let parameters = self.check(channel, parameters)?;
        let answer = match &self.gatherer {
            Some(gatherer) => gatherer.query(self, parameters).await,
            None => self.query_alone(parameters).await,
        };
        let result = answer.as_ref().err().map_or("ok", label);
        metrics::counter!("hotbay_sql_calls_total", self.labels(Some(result))).increment(1);
        answer
    }

    async fn query_alone(self: &Arc<Self>, parameters: Vec<Value>) -> Result<Rows, SqlError> {
        let own = Arc::clone(self);
        let run = async move {
            let values = own.settings.parameters.iter().copied().zip(parameters).collect();
            own.run(own.sql.text().to_owned(), values, 1, Time { deadline: own.deadline(), parts: 1 }).await
        };
        // It does not end but with the broker.
        self.home.spawn("sql statement", run).await.unwrap_or(Err(SqlError::Unavailable))
    }

    /// All its parameters in order: what the plugin gave, and what it has no say in.
    fn check(&self, channel: &ChannelName, parameters: Vec<Value>) -> Result<Vec<Value>, SqlError> {
        let types = &self.settings.parameters;
        let expected = types.iter().filter(|kind| !kind.is_bound_by_host()).count();
        if expected != parameters.len() {
            let reason = format!("{} takes {expected} parameters, not {}", self.name, parameters.len());
            return Err(SqlError::BadParameters(reason));
        }
        let too_long = |what: &str, bytes_max: usize| {
            Err(SqlError::BadParameters(format!("{what} of {} must be at most {bytes_max} bytes", self.name)))
        };
        // They wait in memory, and those of a batch go to the database together.
        if parameters.iter().map(Value::bytes).sum::<usize>() > SQL_PARAMETER_BYTES_MAX {
            return too_long("the parameters", SQL_PARAMETER_BYTES_MAX);
        }
        let mut given = parameters.into_iter().zip(1..);
        let fill = |kind: &ParameterType| match kind {
            ParameterType::Tenant => Ok(Value::Text(channel.tenant().to_owned())),
            ParameterType::Channel => Ok(Value::Text(channel.name().to_owned())),
            kind => {
                let (value, number) = given.next().unwrap_or((Value::Null, 0));
                let bad = |what: String| SqlError::BadParameters(format!("parameter {number} of {} {what}", self.name));
                let value = kind.accept(value).map_err(|_| bad(format!("must be of type {}", kind.as_str())))?;
                // Postgres has no such text, and says so for a whole batch.
                if matches!(&value, Value::Text(text) if text.contains('\0')) {
                    return Err(bad("must not contain U+0000".to_owned()));
                }
                Ok(value)
            }
        };
        let parameters: Vec<Value> = types.iter().map(fill).collect::<Result<_, _>>()?;
        match parameters.first() {
            Some(Value::Text(key)) if self.gatherer.is_some() && key.len() > SQL_KEY_BYTES_MAX => {
                too_long("the batch key", SQL_KEY_BYTES_MAX)
            }
            _ => Ok(parameters),
        }
    }

    /// When a run that begins now must have ended.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + Duration::from_millis(self.settings.timeout_ms)
    }

    /// Sends it to the database, for this many keys.
    pub(super) async fn run(
        &self,
        sql: String,
        values: Vec<(ParameterType, Value)>,
        keys: usize,
        time: Time,
    ) -> Result<Rows, SqlError> {
        let Some(datasource) = self.datasource.upgrade() else { return Err(SqlError::Unavailable) };
        let began = std::time::Instant::now();
        let answer = self.ask(&datasource, sql, values, keys, time).await;
        let result = answer.as_ref().err().map_or("ok", |failure| label(&failure.error));
        metrics::counter!("hotbay_sql_statements_total", self.labels(Some(result))).increment(1);
        metrics::histogram!("hotbay_sql_statement_seconds", self.labels(None)).record(began.elapsed());
        self.note(answer.as_ref().err());
        answer.map_err(|failure| failure.error)
    }

    async fn ask(
        &self,
        datasource: &Datasource,
        sql: String,
        values: Vec<(ParameterType, Value)>,
        keys: usize,
        time: Time,
    ) -> Result<Rows, Failure> {
        datasource.reachable()?;
        let waiting = async { (self.turns.acquire().await, datasource.connections.acquire().await) };
        let turn = timeout_at(time.deadline, waiting).await;
        let timeout = time.left();
        if turn.is_err() || timeout.is_zero() {
            return Err(Failure::new(SqlError::Timeout, "all the connections it may have are in use"));
        }
        let run = Run {
            sql,
            values,
            timeout,
            rows_max: self.settings.rows_max.saturating_mul(keys),
            bytes_max: self.settings.bytes_max.saturating_mul(keys).min(SQL_ANSWER_BYTES_MAX),
        };
        datasource.run(&run).await
    }

    /// Names it in metrics.
    pub(super) fn labels(&self, result: Option<&'static str>) -> Vec<metrics::Label> {
        let mut labels = vec![
            metrics::Label::new("datasource", self.source.clone()),
            metrics::Label::new("statement", self.name.clone()),
        ];
        labels.extend(result.map(|result| metrics::Label::new("result", result)));
        labels
    }

    /// Says what the plugin must not know.
    fn note(&self, failure: Option<&Failure>) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let (datasource, statement) = (&self.source, &self.name);
        match failure {
            Some(Failure { error, cause }) => {
                if let Some(failures) = notes.failed(Instant::now()) {
                    tracing::warn!(datasource, statement, %error, cause, failures, "a statement fails");
                }
            }
            None if notes.worked() => tracing::info!(datasource, statement, "the statement works again"),
            None => {}
        }
    }
}

/// What was said about failures: a plugin can make a statement fail as often as it likes.
#[derive(Default)]
struct Notes {
    warned: Option<Instant>,
    /// Failures since then.
    unsaid: u64,
    /// The last that was said is that it fails.
    is_failing: bool,
}

impl Notes {
    /// How many failures to warn of now, if any.
    fn failed(&mut self, now: Instant) -> Option<u64> {
        self.unsaid += 1;
        if self.warned.is_some_and(|warned| now - warned < NOTE_INTERVAL) {
            return None;
        }
        (self.warned, self.is_failing) = (Some(now), true);
        Some(std::mem::take(&mut self.unsaid))
    }

    /// Whether to say that it works again.
    fn worked(&mut self) -> bool {
        std::mem::take(&mut self.is_failing)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A statement that fails for one plugin and works for another is no flood of lines.
    #[test]
    fn failures_are_said_once_in_a_while_with_their_number() {
        let begin = Instant::now();
        let mut notes = Notes::default();

        assert_eq!(notes.failed(begin), Some(1));
        assert!(notes.worked());
        for _ in 0..10 {
            assert_eq!(notes.failed(begin + NOTE_INTERVAL / 2), None);
            assert!(!notes.worked());
        }
        assert_eq!(notes.failed(begin + NOTE_INTERVAL), Some(11));
        assert!(notes.worked());
    }
}
