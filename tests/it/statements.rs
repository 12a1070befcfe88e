//! Statements on the operator's databases: who may run them, what comes back, how failures are told apart, and how many reach the
//! database.

use std::path::Path;

use serde_json::json;
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use tempfile::TempDir;

use crate::support::broker::{Broker, Setup};
use crate::support::http;
use crate::support::postgres::Postgres;

/// Statements that both databases understand.
const STATEMENTS: &str = r#"
[datasource.shop.statement.types]
sql = "SELECT $1 AS i, $2 AS t, $3 AS n"
parameters = ["integer", "text", "text"]

[datasource.shop.statement.stock]
sql = "SELECT owner, amount FROM stock WHERE owner IN ($1) AND amount >= $2 ORDER BY amount"
parameters = ["text", "integer"]
batch_key = "owner"

[datasource.shop.statement.all]
sql = "SELECT owner FROM stock"
rows_max = 2

[datasource.shop.statement.slow]
sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000000000) SELECT count(*) FROM n"
timeout_ms = 300

[datasource.shop.statement.write]
sql = "INSERT INTO stock (owner, amount) VALUES ('eve', 1) RETURNING owner"

[datasource.shop.statement.wrong]
sql = "SELECT amount FROM nowhere"

[datasource.shop.statement.secret]
sql = "SELECT 1"
"#;

const GRANTED: &str = r#"
channel = "fixture:{query.channel}"
[mount.fixture.statements]
types = "shop.types"
stock = "shop.stock"
all = "shop.all"
slow = "shop.slow"
write = "shop.write"
wrong = "shop.wrong"
"#;

const SCHEMA: &str = "CREATE TABLE stock (owner TEXT, amount BIGINT);
    INSERT INTO stock VALUES ('ann', 3), ('ann', 1), ('bob', 2);";

fn setup(url: &str) -> Setup {
    let key = "[key.default]\nalgorithm = \"HS256\"\nsecret_env = [\"JWT_SECRET\"]\n";
    let datasource = format!("[datasource.shop]\nurl = \"{url}\"\n{STATEMENTS}");
    Setup::config(&format!("listen = \"127.0.0.1:0\"\n{key}{datasource}")).and_fixture("/ws", GRANTED)
}

async fn sqlite(folder: &TempDir) -> std::path::PathBuf {
    let path = folder.path().join("shop.db");
    execute(&path, SCHEMA).await;
    path
}

async fn execute(path: &Path, sql: &str) {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let mut database = options.connect().await.expect("a database");
    let sql = sqlx::AssertSqlSafe(sql.to_owned());
    sqlx::raw_sql(sql).execute(&mut database).await.expect("SQL");
    sqlx::Connection::close(database).await.expect("an end");
}

/// Typed values come back, failures are told apart, and nothing can be written, in both kinds of database.
async fn answers(broker: &Broker) {
    let mut ann = broker.connect("/ws?channel=a", "ann").await;
    let mut ask = async |question: &str| {
        ann.send_text(question).await;
        ann.text().await
    };

    assert_eq!(
        ask("sql types 7 x null").await,
        r#"rows ["i", "t", "n"] [[Value::Integer(7), Value::Text("x"), Value::Null]]"#
    );
    assert_eq!(
        ask("sql stock ann 0").await,
        r#"rows ["owner", "amount"] [[Value::Text("ann"), Value::Integer(1)], [Value::Text("ann"), Value::Integer(3)]]"#
    );
    assert_eq!(ask("sql stock cleo 0").await, "rows [] []");
    assert_eq!(ask("sql secret").await, "error Error::NotGranted");
    assert_eq!(ask("sql stock ann").await, r#"error Error::BadParameters("stock takes 2 parameters, not 1")"#);
    assert_eq!(
        ask("sql stock ann x").await,
        r#"error Error::BadParameters("parameter 2 of stock must be of type integer")"#
    );
    assert_eq!(ask("sql all").await, "error Error::TooLarge");
    assert_eq!(ask("sql wrong").await, "error Error::Failed");
    assert_eq!(ask("sql slow").await, "error Error::Timeout");
    assert_eq!(ask("sql write").await, "error Error::Failed");
    // What the database said is the operator's to know.
    let log = broker.until_log("a statement fails").await;
    assert!(log.contains("nowhere"), "{log}");
}

#[tokio::test]
async fn statements_read_a_sqlite_file() {
    let folder = TempDir::new().expect("a folder");
    let path = sqlite(&folder).await;
    let broker = setup(&format!("sqlite:{}", path.display())).start();

    answers(&broker).await;

    let mut database = SqliteConnectOptions::new().filename(&path).connect().await.expect("the database");
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM stock").fetch_one(&mut database).await.expect("a count");
    assert_eq!(rows, 3);
}

#[tokio::test]
async fn statements_read_a_postgres_server() {
    let server = Postgres::start().await;
    server.execute(SCHEMA).await;
    let broker = setup(&server.url()).start();

    answers(&broker).await;

    server.execute("DO $$ BEGIN ASSERT (SELECT count(*) FROM stock) = 3; END $$").await;
}

/// Postgres has types that SQLite has not; they come as what the contract says.
#[tokio::test]
async fn the_types_of_postgres_come_as_the_closest_of_the_contract() {
    let server = Postgres::start().await;
    let sql = "SELECT true AS b, 1::int2 AS s, 2::int4 AS i, 1.5::float4 AS f, '2024-02-29 12:00:00.25+02'::timestamptz AS at, \
        '1999-12-31'::date AS d, '\\\\x0102'::bytea AS y, 'a1b2c3d4-0000-4000-8000-00000000000f'::uuid AS u, \
        '{\\\"a\\\": [1]}'::jsonb AS j, NULL::int AS n";
    let config = format!(
        "[datasource.shop.statement.all_types]\nsql = \"{sql}\"\n[datasource.shop.statement.numeric]\nsql = \"SELECT 1.5 AS x\"\n"
    );
    let broker = setup(&server.url())
        .replace("[datasource.shop.statement.secret]", &format!("{config}[datasource.shop.statement.secret]"))
        .replace(
            "types = \"shop.types\"",
            "types = \"shop.types\"\nall_types = \"shop.all_types\"\nnumeric = \"shop.numeric\"",
        )
        .start();
    let mut ann = broker.connect("/ws?channel=a", "ann").await;

    ann.send_text("sql all_types").await;
    let answer = ann.text().await;
    ann.send_text("sql numeric").await;

    let expected = "[[Value::Boolean(true), Value::Integer(1), Value::Integer(2), Value::Real(1.5), \
        Value::Integer(1709200800250), Value::Integer(946598400000), Value::Bytes([1, 2]), \
        Value::Text(\"a1b2c3d4-0000-4000-8000-00000000000f\"), Value::Text(\"{\\\"a\\\": [1]}\"), Value::Null]]";
    assert!(answer.ends_with(expected), "{answer}");
    assert_eq!(ann.text().await, "error Error::Failed");
    assert!(broker.until_log("NUMERIC").await.contains("cast it"), "the remedy is logged");
}

/// Goal: channels that ask at the same time cost the database a few statements, and each gets its own rows.
#[tokio::test]
async fn the_calls_of_a_thousand_channels_become_a_few_statements() {
    let folder = TempDir::new().expect("a folder");
    let path = sqlite(&folder).await;
    let rows: Vec<String> = (0..1_000).map(|owner| format!("('o{owner}', {owner})")).collect();
    execute(&path, &format!("INSERT INTO stock VALUES {}", rows.join(","))).await;
    let broker = setup(&format!("sqlite:{}", path.display())).start();
    let key = broker.api_key("test");
    let mut owners = Vec::new();
    for owner in 0..1_000 {
        owners.push(broker.connect(&format!("/ws?channel=o{owner}"), "ann").await);
    }
    drop(key);
    let before = broker.metric("hotbay_sql_statements_total").await;

    for (number, owner) in owners.iter_mut().enumerate() {
        owner.send_text(&format!("sql stock o{number} 0")).await;
    }
    for (number, owner) in owners.iter_mut().enumerate() {
        let expected = format!("rows [\"owner\", \"amount\"] [[Value::Text(\"o{number}\"), Value::Integer({number})]]");
        assert_eq!(owner.text().await, expected);
    }

    let statements = broker.metric("hotbay_sql_statements_total").await - before;
    println!("1,000 calls, {statements} statements");
    assert!((1.0..=5.0).contains(&statements), "{statements} statements");
}

/// A datasource that is away is told as `unavailable` at once, shows in `/readyz` and comes back alone; everything else goes on.
#[tokio::test]
async fn a_datasource_that_goes_away_comes_back_alone() {
    let folder = TempDir::new().expect("a folder");
    let path = sqlite(&folder).await;
    let away = folder.path().join("away.db");
    let broker = setup(&format!("sqlite:{}", path.display())).start();
    goes_and_comes(
        &broker,
        async || std::fs::rename(&path, &away).expect("a move"),
        async || std::fs::rename(&away, &path).expect("a move"),
    )
    .await;
}

#[tokio::test]
async fn a_postgres_server_that_stops_comes_back_alone() {
    let server = Postgres::start().await;
    server.execute(SCHEMA).await;
    let broker = setup(&server.url()).start();
    let server = tokio::sync::Mutex::new(server);
    goes_and_comes(&broker, async || server.lock().await.stop(), async || server.lock().await.resume().await).await;
}

async fn goes_and_comes(broker: &Broker, leave: impl AsyncFnOnce(), come_back: impl AsyncFnOnce()) {
    let mut ann = broker.connect("/ws?channel=a", "ann").await;
    let ready = async || http::get(&broker.http("/readyz"), &[]).await;
    let first = ready().await.json();
    assert_eq!((&first["status"], &first["datasources"]["shop"]), (&json!("ready"), &json!("ok")));

    leave().await;
    broker.until_metric_is("hotbay_datasource_up", 0.0).await;

    let degraded = ready().await;
    assert_eq!(degraded.status, 200, "the node still serves everything else");
    let degraded = degraded.json();
    assert_eq!((&degraded["status"], &degraded["datasources"]["shop"]), (&json!("degraded"), &json!("unavailable")));
    ann.send_text("sql stock bob 0").await;
    assert_eq!(ann.text().await, "error Error::Unavailable");
    ann.send_text("put key value").await;
    assert_eq!(ann.text().await, "ok");

    come_back().await;
    broker.until_metric_is("hotbay_datasource_up", 1.0).await;
    ann.send_text("sql stock bob 0").await;
    assert!(ann.text().await.starts_with("rows"));
    assert_eq!(ready().await.json()["status"], "ready");
}

/// In development a SQLite file that is missing is made from SQL files, whole or not at all.
#[tokio::test]
async fn a_demo_database_is_made_when_it_is_missing() {
    let folder = TempDir::new().expect("a folder");
    let schema = folder.path().join("schema.sql");
    std::fs::write(&schema, SCHEMA).expect("a file");
    let create = format!("url = \"sqlite:{{data_dir}}/demo/shop.db\"\ncreate_from = [\"{}\"]", schema.display());
    let setup = setup("sqlite:x").replace("url = \"sqlite:x\"", &create);
    let production = setup.fail_to_start();
    assert!(String::from_utf8_lossy(&production.stderr).contains("only with development = true"));

    let setup = super::statements::setup("sqlite:x").replace("url = \"sqlite:x\"", &create).set("development", true);
    let mut broker = setup.start();
    let mut ann = broker.connect("/ws?channel=a", "ann").await;
    ann.send_text("sql stock bob 0").await;
    assert!(ann.text().await.starts_with("rows"));
    execute(&broker.data().join("demo/shop.db"), "UPDATE stock SET amount = 9 WHERE owner = 'bob'").await;
    assert_eq!(broker.terminate().await, Some(0));

    broker.start();
    let mut ann = broker.connect("/ws?channel=a", "ann").await;
    ann.send_text("sql stock bob 0").await;
    assert!(ann.text().await.contains("Integer(9)"), "what was there is kept");
}
