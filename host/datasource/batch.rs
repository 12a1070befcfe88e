//! Gathers the calls of many channels into one statement: those that differ in their first parameter alone, and come in soon
//! after each other. Each caller gets the rows that are its own, by the column of the batch key, within the bounds of its own. A
//! statement that fails or is late is run again for fewer keys at a time, so that only the key at fault fails: within the time of one
//! call, and not for as long as everything fails.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::statement::{Statement, Time};
use crate::protocol::sql::{Rows, SqlError, Value};

/// While calls keep coming in, they are gathered for at most this many times the statement's `batch_wait_ms`.
const WAITS_MAX: u32 = 20;
/// And no longer than this, however long that is.
const GATHER_MAX: Duration = Duration::from_secs(1);
/// In so many parts those are run again that failed together. As many statements as with halves, and half as many that fail: each takes
/// a share of the time left.
const PARTS: usize = 4;

/// A first parameter as text: a statement declares its type, so that none is mistaken for another.
type Key = Box<str>;
/// Where an answer goes.
type Caller = oneshot::Sender<Result<Rows, SqlError>>;
/// A key, and who asks for its rows.
type Asked = (Key, (Value, Vec<Caller>));

/// The calls that wait, by their other parameters: few, because what differs from channel to channel is the key.
#[derive(Default)]
pub(super) struct Gatherer {
    groups: Mutex<Vec<Group>>,
}

struct Group {
    /// Tells it from one that came after it with the same parameters.
    id: u64,
    others: Vec<Value>,
    keys: BTreeMap<Key, (Value, Vec<Caller>)>,
    calls: u64,
}

impl Gatherer {
    /// Waits for the answer of the statement that this call becomes part of.
    pub(super) async fn query(&self, statement: &Arc<Statement>, parameters: Vec<Value>) -> Result<Rows, SqlError> {
        let mut parameters = parameters.into_iter();
        let key = parameters.next().unwrap_or(Value::Null);
        let Some(text) = text(&key) else {
            return Err(SqlError::BadParameters("the first parameter is the batch key: text or a whole number".into()));
        };
        let others: Vec<Value> = parameters.collect();
        let (caller, answer) = oneshot::channel();
        let full = self.add(statement, text, key, others, caller);
        if let Some(group) = full {
            statement.home.spawn("sql batch", run(Arc::clone(statement), group));
        }
        answer.await.unwrap_or(Err(SqlError::Unavailable))
    }

    /// Adds a call; answers its group if that is full, and sees to a new one.
    fn add(
        &self,
        statement: &Arc<Statement>,
        text: Key,
        key: Value,
        others: Vec<Value>,
        caller: Caller,
    ) -> Option<Group> {
        let mut groups = self.lock();
        let at = groups.iter().position(|group| group.others == others).unwrap_or_else(|| {
            let id = rand::random();
            groups.push(Group { id, others, keys: BTreeMap::new(), calls: 0 });
            statement.home.spawn("sql gather", gather(Arc::clone(statement), id));
            groups.len() - 1
        });
        let group = &mut groups[at];
        group.calls += 1;
        group.keys.entry(text).or_insert_with(|| (key, Vec::new())).1.push(caller);
        (group.keys.len() >= statement.settings.batch_keys_max).then(|| groups.swap_remove(at))
    }

    fn calls(&self, id: u64) -> Option<u64> {
        self.lock().iter().find(|group| group.id == id).map(|group| group.calls)
    }

    fn take(&self, id: u64) -> Option<Group> {
        let mut groups = self.lock();
        let at = groups.iter().position(|group| group.id == id)?;
        Some(groups.swap_remove(at))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Group>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until no more calls come in, then runs the group. One that was full before is gone.
async fn gather(statement: Arc<Statement>, id: u64) {
    let Some(gatherer) = &statement.gatherer else { return };
    let wait = Duration::from_millis(statement.settings.batch_wait_ms);
    let end = Instant::now() + (wait * WAITS_MAX).min(GATHER_MAX);
    let mut calls = 1;
    while Instant::now() < end {
        tokio::time::sleep_until(end.min(Instant::now() + wait)).await;
        match gatherer.calls(id) {
            None => return,
            Some(now) if now == calls => break,
            Some(now) => calls = now,
        }
    }
    if let Some(group) = gatherer.take(id) {
        run(Arc::clone(&statement), group).await;
    }
}

async fn run(statement: Arc<Statement>, group: Group) {
    let deadline = statement.deadline();
    let callers: usize = group.keys.values().map(|(_, callers)| callers.len()).sum();
    metrics::histogram!("hotbay_sql_batch_calls", statement.labels(None)).record(callers as f64);
    let failures_max = failures_max(group.keys.len());
    let mut failures = 0;
    // The largest come first: what a key at fault takes of the time, it takes of few.
    let mut parts: VecDeque<Vec<Asked>> = VecDeque::from([group.keys.into_iter().collect()]);
    while let Some(part) = parts.pop_front() {
        let is_last = part.len() == 1 && parts.is_empty();
        let parts_of_time = match failures {
            _ if is_last => 1,
            0 => 2,
            // Several are to come, down to a single key.
            _ => 3,
        };
        let time = Time { deadline, parts: parts_of_time };
        let error = match ask(&statement, &group.others, &part, time).await {
            Ok(rows) => {
                hand_out(&statement, part, share(&statement, rows));
                continue;
            }
            Err(error) => error,
        };
        failures += 1;
        if error == SqlError::Unavailable || failures >= failures_max || Instant::now() >= deadline {
            let left = std::iter::once(part).chain(parts).flatten().collect();
            return hand_out(&statement, left, Err(error));
        }
        if part.len() == 1 {
            hand_out(&statement, part, Err(error));
        } else {
            // One of the keys may be at fault, or their rows are too many for one answer.
            split(part, &mut parts);
        }
    }
}

/// How many runs for a group may fail: some keys at fault are found, and a statement that always fails is soon known to.
fn failures_max(keys: usize) -> u32 {
    2 * keys.next_power_of_two().ilog2() + 8
}

fn split(mut part: Vec<Asked>, parts: &mut VecDeque<Vec<Asked>>) {
    let size = part.len().div_ceil(PARTS);
    while part.len() > size {
        let rest = part.split_off(size);
        parts.push_back(std::mem::replace(&mut part, rest));
    }
    parts.push_back(part);
}

async fn ask(statement: &Statement, others: &[Value], part: &[Asked], time: Time) -> Result<Rows, SqlError> {
    let types = &statement.settings.parameters;
    let Some(key_type) = types.first().copied() else { return Err(SqlError::Failed) };
    // In a few sizes, so that the database prepares a few texts and no more; a key that stands twice changes nothing.
    let size = part.len().next_power_of_two();
    let keys = part.iter().chain(std::iter::repeat_n(part.last(), size - part.len()).flatten());
    let mut values: Vec<_> = types.iter().skip(1).copied().zip(others.iter().cloned()).collect();
    values.extend(keys.map(|(_, (key, _))| (key_type, key.clone())));
    statement.run(statement.sql.for_keys(size, types.len()), values, part.len(), time).await
}

/// Gives each caller its rows, or what went wrong.
fn hand_out(statement: &Statement, part: Vec<Asked>, mut shares: Result<Shares, SqlError>) {
    for (text, (_, callers)) in part {
        let share = match &mut shares {
            Ok((columns, shares)) => {
                let rows = shares.remove(&text).unwrap_or_default();
                let columns = if rows.is_empty() { Vec::new() } else { columns.clone() };
                within_bounds(statement, Rows { columns, rows })
            }
            Err(error) => Err(error.clone()),
        };
        for caller in callers {
            // A caller that went away waits for nothing.
            drop(caller.send(share.clone()));
        }
    }
}

/// What holds for a call holds for it in a batch as well.
fn within_bounds(statement: &Statement, rows: Rows) -> Result<Rows, SqlError> {
    let bytes: usize = rows.rows.iter().flatten().map(Value::bytes).sum();
    let fits = rows.rows.len() <= statement.settings.rows_max && bytes <= statement.settings.bytes_max;
    if fits { Ok(rows) } else { Err(SqlError::TooLarge) }
}

/// The rows by key, with the names of their columns.
type Shares = (Vec<String>, BTreeMap<Key, Vec<Vec<Value>>>);

fn share(statement: &Statement, rows: Rows) -> Result<Shares, SqlError> {
    let mut shares: BTreeMap<Key, Vec<Vec<Value>>> = BTreeMap::new();
    if rows.rows.is_empty() {
        return Ok((rows.columns, shares));
    }
    let name = statement.settings.batch_key.as_deref().unwrap_or_default();
    let Some(at) = rows.columns.iter().position(|column| column == name) else {
        tracing::error!(statement = statement.name, "the answer has no column {name:?} (batch_key)");
        return Err(SqlError::Failed);
    };
    for row in rows.rows {
        if let Some(text) = row.get(at).and_then(text) {
            shares.entry(text).or_default().push(row);
        }
    }
    Ok((rows.columns, shares))
}

fn text(key: &Value) -> Option<Key> {
    match key {
        Value::Text(text) => Some(text.as_str().into()),
        Value::Integer(number) => Some(number.to_string().into()),
        Value::Null | Value::Boolean(_) | Value::Real(_) | Value::Bytes(_) => None,
    }
}
