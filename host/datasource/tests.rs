//! Laws of statements, checked on a database that is none: it answers as a test says, and keeps what it was asked.

use std::sync::{Mutex, PoisonError};
use std::task::{Context, Waker};

use tokio::time::Instant;

use super::backend::RunFuture;
use super::*;
use crate::protocol::name::ChannelName;
use crate::protocol::sql::Value;

/// What a database was asked, and when.
type Asked = (Instant, Vec<Value>);

struct Fake {
    asked: Mutex<Vec<Asked>>,
    answer: fn(&Run) -> Result<Rows, Failure>,
    /// What it never comes with an answer to in time.
    is_stuck: fn(&Run) -> bool,
}

/// How long an answer takes.
const LATENCY: Duration = Duration::from_millis(10);

impl Fake {
    fn new(answer: fn(&Run) -> Result<Rows, Failure>) -> Arc<Self> {
        Arc::new(Self { asked: Mutex::default(), answer, is_stuck: |_| false })
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Backend for Arc<Fake> {
    fn run<'a>(&'a self, run: &'a Run) -> RunFuture<'a, Rows> {
        let values = run.values.iter().map(|(_, value)| value.clone()).collect();
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), values));
        Box::pin(async {
            if (self.is_stuck)(run) || run.timeout < LATENCY {
                tokio::time::sleep(run.timeout).await;
                return Err(Failure::new(SqlError::Timeout, "it is stuck"));
            }
            tokio::time::sleep(LATENCY).await;
            (self.answer)(run)
        })
    }

    fn probe(&self) -> RunFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}

/// A datasource with the statement `stock`.
fn datasource(fake: &Arc<Fake>, statement: &str) -> Arc<Datasource> {
    let statement = format!("sql = \"SELECT owner, amount FROM stock WHERE owner IN ($1)\"\n{statement}");
    let config = DatasourceConfig {
        name: "shop".to_owned(),
        location: Location::Sqlite { path: PathBuf::new(), create_from: Vec::new() },
        connections_max: 4,
        statements: BTreeMap::from([("stock".to_owned(), toml::from_str(&statement).unwrap())]),
    };
    Datasource::new(&config, Box::new(Arc::clone(fake))).unwrap()
}

const BATCHED: &str = "parameters = [\"text\"]\nbatch_key = \"owner\"";

/// One row for each key, with its name.
#[expect(clippy::unnecessary_wraps, reason = "it is one of the answers a database may give")]
fn a_row_each(run: &Run) -> Result<Rows, Failure> {
    let mut keys: Vec<_> = run.values.iter().map(|(_, key)| vec![key.clone()]).collect();
    keys.dedup();
    Ok(Rows { columns: vec!["owner".to_owned()], rows: keys })
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

/// The answers to calls of as many channels at once, each with its key.
async fn ask(datasource: &Datasource, keys: &[&str]) -> Vec<Result<Rows, SqlError>> {
    let channel = ChannelName::new("acme", "room:1").unwrap();
    let statement = datasource.statement("stock").unwrap();
    let calls = keys.iter().map(|key| statement.query(&channel, vec![text(key)]));
    futures_util::future::join_all(calls).await
}

/// Law: a channel whose long call went to another runtime, and is not let run there, keeps nobody waiting.
#[tokio::test(start_paused = true)]
async fn calls_of_another_runtime_are_gathered_on_that_of_the_datasource() {
    let fake = Fake::new(a_row_each);
    let datasource = datasource(&fake, BATCHED);
    let elsewhere = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut begun = Box::pin(ask(&datasource, &["ann"]));
    {
        let _elsewhere = elsewhere.enter();
        assert!(begun.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }

    let bob = tokio::time::timeout(Duration::from_secs(1), ask(&datasource, &["bob"])).await;

    assert_eq!(bob.expect("an answer in time")[0].as_ref().unwrap().rows, [[text("bob")]]);
    assert_eq!(fake.asked().len(), 1);
    drop(begun);
    elsewhere.shutdown_background();
}

#[tokio::test(start_paused = true)]
async fn a_lone_call_waits_once_for_others() {
    let fake = Fake::new(a_row_each);
    let datasource = datasource(&fake, &format!("{BATCHED}\nbatch_wait_ms = 100"));
    let began = Instant::now();

    ask(&datasource, &["ann"]).await[0].as_ref().unwrap();

    let waited = fake.asked()[0].0 - began;
    assert!((Duration::from_millis(100)..Duration::from_millis(150)).contains(&waited), "{waited:?}");
}

/// Law: of what is run together, only what is at fault is refused.
#[tokio::test(start_paused = true)]
async fn a_key_that_fails_fails_alone() {
    let fake = Fake::new(|run| {
        let is_evil = run.values.iter().any(|(_, key)| *key == text("evil"));
        if is_evil { Err(Failure::new(SqlError::Failed, "evil")) } else { a_row_each(run) }
    });
    let datasource = datasource(&fake, BATCHED);
    let names: Vec<String> = (0..100).map(|number| format!("o{number}")).collect();
    let mut keys: Vec<&str> = names.iter().map(String::as_str).collect();
    keys.push("evil");

    let answers = ask(&datasource, &keys).await;

    assert_eq!(answers[100], Err(SqlError::Failed));
    for (key, answer) in keys.iter().zip(&answers[..100]) {
        assert_eq!(answer.as_ref().unwrap().rows, [[text(key)]]);
    }
    assert!(fake.asked().len() < 20, "{} statements", fake.asked().len());
}

/// Law: a key that takes its time takes none of the answers from those it is run with, wherever it stands among them.
#[tokio::test(start_paused = true)]
async fn a_key_that_is_slow_is_late_alone() {
    for slow in ["a slow one", "z slow one"] {
        let is_stuck =
            |run: &Run| run.values.iter().any(|(_, key)| matches!(key, Value::Text(key) if key.contains("slow")));
        let fake = Arc::new(Fake { asked: Mutex::default(), answer: a_row_each, is_stuck });
        let datasource = datasource(&fake, BATCHED);
        let names: Vec<String> = (1..1_000).map(|number| format!("o{number}")).collect();
        let mut keys: Vec<&str> = names.iter().map(String::as_str).collect();
        keys.push(slow);
        let began = Instant::now();

        let answers = ask(&datasource, &keys).await;

        assert_eq!(answers[999], Err(SqlError::Timeout));
        for (key, answer) in keys.iter().zip(&answers[..999]) {
            assert_eq!(answer.as_ref().expect(key).rows, [[text(key)]]);
        }
        assert!(began.elapsed() < Duration::from_millis(2_100), "{:?}", began.elapsed());
    }
}

/// Law: a run that waits for its turn has half of what is left when it comes, and is not run again for that it waited.
#[tokio::test(start_paused = true)]
async fn a_batch_that_waits_for_its_turn_is_not_split() {
    let fake = Fake::new(a_row_each);
    let datasource = datasource(&fake, BATCHED);
    let in_use = datasource.connections.acquire_many(4).await.unwrap();
    let free = async {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        drop(in_use);
    };

    let (answers, ()) = tokio::join!(ask(&datasource, &["ann", "bob"]), free);

    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(fake.asked().len(), 1);
}

/// Law: what always fails costs the database a few statements for a batch, and not two for each of its keys.
#[tokio::test(start_paused = true)]
async fn a_statement_that_always_fails_is_soon_given_up() {
    let fake = Fake::new(|_| Err(Failure::new(SqlError::Failed, "no such table")));
    let datasource = datasource(&fake, BATCHED);
    let names: Vec<String> = (0..1_000).map(|number| format!("o{number}")).collect();
    let keys: Vec<&str> = names.iter().map(String::as_str).collect();

    let answers = ask(&datasource, &keys).await;

    assert!(answers.iter().all(|answer| *answer == Err(SqlError::Failed)));
    assert_eq!(fake.asked().len(), 28);
}

/// Law: whoever comes first has an answer in time, however long others keep coming.
#[tokio::test(start_paused = true)]
async fn calls_are_gathered_for_a_second_at_most() {
    let fake = Fake::new(a_row_each);
    let datasource = datasource(&fake, &format!("{BATCHED}\nbatch_wait_ms = 500"));
    let began = Instant::now();
    let names: Vec<String> = (0..20).map(|number| format!("o{number}")).collect();
    let calls = names.iter().zip(0..).map(async |(name, number)| {
        tokio::time::sleep(number * Duration::from_millis(200)).await;
        ask(&datasource, &[name]).await
    });

    futures_util::future::join_all(calls).await;

    let waited = fake.asked()[0].0 - began;
    assert!((Duration::from_secs(1)..Duration::from_millis(1_050)).contains(&waited), "{waited:?}");
}

/// Law: what a call holds in memory, and a batch sends at once, has a bound.
#[tokio::test(start_paused = true)]
async fn the_bytes_of_parameters_are_bounded() {
    let fake = Fake::new(a_row_each);
    let (batched, alone) = (datasource(&fake, BATCHED), datasource(&fake, "parameters = [\"text\"]"));
    let of = |bytes: usize| "x".repeat(bytes);
    let refused = |what: &str| [Err(SqlError::BadParameters(what.to_owned()))];

    assert!(ask(&batched, &[&of(1_024)]).await[0].is_ok());
    assert_eq!(ask(&batched, &[&of(1_025)]).await, refused("the batch key of stock must be at most 1024 bytes"));
    // A value counts some bytes more than its text.
    assert!(ask(&alone, &[&of(65_528)]).await[0].is_ok());
    assert_eq!(ask(&alone, &[&of(65_529)]).await, refused("the parameters of stock must be at most 65536 bytes"));
    assert_eq!(fake.asked().len(), 2);
}

/// Nobody asks a database again at once that is away.
#[tokio::test(start_paused = true)]
async fn a_batch_that_finds_nobody_is_not_run_again() {
    let fake = Fake::new(|_| Err(Failure::new(SqlError::Unavailable, "away")));
    let datasource = datasource(&fake, BATCHED);

    let answers = ask(&datasource, &["ann", "bob"]).await;

    assert_eq!(answers, [Err(SqlError::Unavailable), Err(SqlError::Unavailable)]);
    assert_eq!(fake.asked().len(), 1);
}

/// Law: the bound of an answer is the caller's, in whatever batch it is.
#[tokio::test(start_paused = true)]
async fn the_bytes_of_each_caller_are_bounded() {
    let fake = Fake::new(|run| {
        let mut rows = a_row_each(run)?;
        for row in &mut rows.rows {
            let bytes = if row[0] == text("big") { 100 } else { 1 };
            row.push(Value::Bytes(vec![0; bytes]));
        }
        rows.columns.push("data".to_owned());
        Ok(rows)
    });
    let datasource = datasource(&fake, &format!("{BATCHED}\nbytes_max = 50"));

    let answers = ask(&datasource, &["ann", "big", "bob"]).await;

    assert_eq!(answers[1], Err(SqlError::TooLarge));
    assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");
}

/// Law: a statement that takes its time leaves a connection to the others.
#[tokio::test(start_paused = true)]
async fn a_statement_never_has_all_connections() {
    let fake = Arc::new(Fake { asked: Mutex::default(), answer: a_row_each, is_stuck: |_| true });
    let datasource = datasource(&fake, "parameters = [\"text\"]");

    let answers = ask(&datasource, &["a", "b", "c", "d", "e", "f"]).await;

    assert!(answers.iter().all(|answer| *answer == Err(SqlError::Timeout)), "{answers:?}");
    assert_eq!(fake.asked().len(), 3, "of 4 connections");
}

/// Law: a database all of whose connections are in use is late, and not away, however long that takes.
#[tokio::test]
async fn a_datasource_whose_connections_are_in_use_is_late_and_not_away() {
    let folder = tempfile::tempdir().unwrap();
    let schema = folder.path().join("schema.sql");
    std::fs::write(&schema, "CREATE TABLE t (x)").unwrap();
    let endless = "sql = \"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n\"\ntimeout_ms = 2600";
    let other = "sql = \"SELECT 1\"\ntimeout_ms = 2300";
    let statements = [("endless", endless), ("other", other)];
    let config = DatasourceConfig {
        name: "shop".to_owned(),
        location: Location::Sqlite { path: folder.path().join("shop.db"), create_from: vec![schema] },
        connections_max: 1,
        statements: statements.map(|(name, text)| (name.to_owned(), toml::from_str(text).unwrap())).into(),
    };
    let datasource = Datasource::open(&config).await.unwrap();
    let channel = ChannelName::new("acme", "room:1").unwrap();
    let [endless, other] = ["endless", "other"].map(|name| datasource.statement(name).unwrap());

    let (endless, other) = tokio::join!(endless.query(&channel, vec![]), other.query(&channel, vec![]));

    assert_eq!((endless, other), (Err(SqlError::Timeout), Err(SqlError::Timeout)));
    assert_eq!(datasource.outage(), None);
}

/// Law: nothing crosses tenants. What the host binds, a plugin can neither give nor leave out, and calls that differ in it are not
/// run together.
#[tokio::test(start_paused = true)]
async fn the_host_binds_tenant_and_channel() {
    let fake = Fake::new(a_row_each);
    let statement = "sql = \"SELECT owner FROM stock WHERE tenant = $2 AND room = $3 AND owner IN ($1)\"\n\
        parameters = [\"text\", \"tenant\", \"channel\"]\nbatch_key = \"owner\"";
    let config = DatasourceConfig {
        name: "shop".to_owned(),
        location: Location::Sqlite { path: PathBuf::new(), create_from: Vec::new() },
        connections_max: 4,
        statements: BTreeMap::from([("own".to_owned(), toml::from_str(statement).unwrap())]),
    };
    let datasource = Datasource::new(&config, Box::new(Arc::clone(&fake))).unwrap();
    let statement = datasource.statement("own").unwrap();
    let (acme, globex) = (ChannelName::new("acme", "r").unwrap(), ChannelName::new("globex", "r").unwrap());

    let refused = statement.query(&acme, vec![text("ann"), text("globex"), text("r")]).await;
    let asked = tokio::join!(statement.query(&acme, vec![text("ann")]), statement.query(&globex, vec![text("ann")]));

    assert_eq!(refused, Err(SqlError::BadParameters("own takes 1 parameters, not 3".to_owned())));
    assert!(asked.0.is_ok() && asked.1.is_ok());
    let asked: Vec<_> = fake.asked().into_iter().map(|(_, values)| values).collect();
    assert_eq!(asked, [[text("acme"), text("r"), text("ann")], [text("globex"), text("r"), text("ann")]]);
}
