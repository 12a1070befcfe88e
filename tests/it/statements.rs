//! Statements on the operator's databases: who may run them, what comes back, how failures are told apart, and how many reach the
//! database.

use std::path::Path;

use serde_json::json;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};
use tempfile::TempDir;

use crate::support::broker::{Broker, Setup};
use crate::support::client::{Client, DEADLINE};
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

/// The same with one more statement, which its mount grants: its name, and its settings.
fn setup_with(url: &str, (name, settings): (&str, &str)) -> Setup {
    let table = "[datasource.shop.statement.secret]";
    setup(url)
        .replace(table, &format!("[datasource.shop.statement.{name}]\n{settings}\n{table}"))
        .replace("types = \"shop.types\"", &format!("types = \"shop.types\"\n{name} = \"shop.{name}\""))
}

/// The same with no more connections than this.
fn with_connections(setup: Setup, connections: u32) -> Setup {
    setup.replace("[datasource.shop]\n", &format!("[datasource.shop]\nconnections_max = {connections}\n"))
}

async fn ask(client: &mut Client, question: &str) -> String {
    client.send_text(question).await;
    client.text().await
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
    database.close().await.expect("an end");
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
    assert_eq!(
        ask("sql stock an\0n 0").await,
        r#"error Error::BadParameters("parameter 1 of stock must not contain U+0000")"#
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

/// Law: a statement that ends early leaves its connection, and the server, to others.
#[tokio::test]
async fn what_nobody_waits_for_any_more_keeps_no_connection_to_postgres() {
    let server = Postgres::start().await;
    server.execute(SCHEMA).await;
    // A year, which is more than the setting of Postgres can hold.
    let endless = "sql = \"SELECT generate_series(1, 2000000000) AS n\"\ntimeout_ms = 31536000000\nrows_max = 2";
    let broker = with_connections(setup_with(&server.url(), ("endless", endless)), 1).start();
    let mut ann = broker.connect("/ws?channel=a", "ann").await;

    for _ in 0..3 {
        assert_eq!(ask(&mut ann, "sql slow").await, "error Error::Timeout");
        assert!(ask(&mut ann, "sql types 7 x null").await.starts_with("rows"));
        assert_eq!(ask(&mut ann, "sql endless").await, "error Error::TooLarge");
        assert!(ask(&mut ann, "sql types 7 x null").await.starts_with("rows"));
    }

    let mut own = PgConnection::connect(&server.url()).await.expect("a connection");
    let busy = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'hotbay' AND state = 'active'";
    let none_is_busy = async {
        while sqlx::query_scalar::<_, i64>(busy).fetch_one(&mut own).await.expect("a count") > 0 {
            tokio::task::yield_now().await;
        }
    };
    assert!(
        tokio::time::timeout(DEADLINE, none_is_busy).await.is_ok(),
        "the server goes on with what nobody waits for"
    );
}

/// Law: a database all of whose connections are in use is not one that is away.
#[tokio::test]
async fn a_busy_postgres_server_is_not_taken_for_one_that_is_away() {
    let server = Postgres::start().await;
    server.execute(SCHEMA).await;
    let nap = "sql = \"SELECT pg_sleep(4)::text AS nap\"\ntimeout_ms = 10000";
    let broker = with_connections(setup_with(&server.url(), ("nap", nap)), 1).start();
    let mut ann = broker.connect("/ws?channel=a", "ann").await;

    assert!(ask(&mut ann, "sql nap").await.starts_with("rows"));

    assert!(!broker.log().contains("the datasource cannot be reached"), "{}", broker.log());
}

/// Law: who finds all connections in use is told that it is late, however long they are.
#[tokio::test]
async fn a_postgres_server_whose_connections_are_in_use_is_late_and_not_away() {
    let server = Postgres::start().await;
    server.execute(SCHEMA).await;
    let nap = "sql = \"SELECT pg_sleep(20)::text AS nap\"\ntimeout_ms = 8000\n\
        [datasource.shop.statement.other]\nsql = \"SELECT 1 AS n\"\ntimeout_ms = 2500";
    let setup = setup_with(&server.url(), ("nap", nap)).replace("nap = \"shop", "other = \"shop.other\"\nnap = \"shop");
    let broker = with_connections(setup, 1).start();
    let mut ann = broker.connect("/ws?channel=a", "ann").await;
    let mut bob = broker.connect("/ws?channel=b", "bob").await;
    ann.send_text("sql nap").await;
    let mut own = PgConnection::connect(&server.url()).await.expect("a connection");
    let naps = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'hotbay' AND wait_event = 'PgSleep'";
    let sleeps = async {
        while sqlx::query_scalar::<_, i64>(naps).fetch_one(&mut own).await.expect("a count") == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, sleeps).await.expect("a nap");

    assert_eq!(ask(&mut bob, "sql other").await, "error Error::Timeout");
    assert_eq!(ask(&mut ann, "anything").await, "error Error::Timeout");
}

/// Law: what a plugin hands to the host in one batch has a bound, also as parameters.
#[tokio::test]
async fn parameters_count_as_bytes_of_effects() {
    let folder = TempDir::new().expect("a folder");
    let path = sqlite(&folder).await;
    let limits = "[mount.fixture.limits]\neffect_bytes_max = 1000";
    let broker = setup(&format!("sqlite:{}", path.display())).and(limits).start();
    let mut ann = broker.connect("/ws?channel=a", "ann").await;

    let fits = ask(&mut ann, &format!("sql stock {} 0", "x".repeat(900))).await;
    let refused = ask(&mut ann, &format!("sql stock {} 0", "x".repeat(1_000))).await;

    assert_eq!(fits, "rows [] []");
    assert!(refused.starts_with("refused fault"), "{refused}");
}

/// A text is prepared for the types of the parameters it first comes with: `NULL` has that of its parameter.
#[tokio::test]
async fn null_has_the_type_of_its_parameter() {
    let server = Postgres::start().await;
    let sum = "sql = \"SELECT $1 + 1 AS i, $2 * 2.0::float8 AS r, $3 AND true AS b\"\nparameters = [\"integer\", \"real\", \"boolean\"]";
    let broker = with_connections(setup_with(&server.url(), ("sum", sum)), 1).start();
    let mut ann = broker.connect("/ws?channel=a", "ann").await;

    let nothing = ask(&mut ann, "sql sum null null null").await;
    let something = ask(&mut ann, "sql sum 41 21 null").await;

    assert_eq!(nothing, r#"rows ["i", "r", "b"] [[Value::Null, Value::Null, Value::Null]]"#);
    assert_eq!(something, r#"rows ["i", "r", "b"] [[Value::Integer(42), Value::Real(42.0), Value::Null]]"#);
}

/// Law: never payloads in the log, also not where Postgres quotes them. And what says it again and again is said once.
#[tokio::test]
async fn what_postgres_quotes_of_parameters_is_not_logged() {
    let server = Postgres::start().await;
    let number =
        "sql = \"SELECT CASE WHEN $1 = 'fine' THEN 2 ELSE $1::text::integer END AS n\"\nparameters = [\"text\"]";
    let broker = setup_with(&server.url(), ("number", number)).start();
    let mut ann = broker.connect("/ws?channel=a", "ann").await;

    for _ in 0..5 {
        assert_eq!(ask(&mut ann, "sql number hunter2").await, "error Error::Failed");
        assert!(ask(&mut ann, "sql number fine").await.starts_with("rows"));
    }

    let log = broker.until_log("22P02").await;
    assert!(!log.contains("hunter2"), "{log}");
    assert_eq!(log.matches("a statement fails").count(), 1, "{log}");
}

/// Law: of calls that are run together, only the one at fault is refused.
async fn one_fails_alone(setup: Setup) {
    let broker = setup.start();
    let mut clients = Vec::new();
    for owner in ["ann", "bob", "evil"] {
        clients.push((broker.connect(&format!("/ws?channel={owner}"), owner).await, owner));
    }

    for (client, owner) in &mut clients {
        client.send_text(&format!("sql positive {owner}")).await;
    }

    for (mut client, owner) in clients {
        let answer = client.text().await;
        assert!(if owner == "evil" { answer == "error Error::Failed" } else { answer.starts_with("rows") }, "{answer}");
    }
    assert!(
        broker.metric("hotbay_sql_batch_calls_sum").await > 2.5
            && broker.metric("hotbay_sql_batch_calls_count").await < 1.5
    );
}

/// The smallest number has no positive one.
const POSITIVE: (&str, &str) = (
    "positive",
    "sql = \"SELECT owner, abs(amount) AS amount FROM stock WHERE owner IN ($1)\"\nparameters = [\"text\"]\nbatch_key = \"owner\"\nbatch_wait_ms = 1000",
);
const EVIL: &str = "INSERT INTO stock VALUES ('evil', -9223372036854775807 - 1)";

#[tokio::test]
async fn a_call_that_fails_does_not_fail_its_batch_in_sqlite() {
    let folder = TempDir::new().expect("a folder");
    let path = sqlite(&folder).await;
    execute(&path, EVIL).await;
    one_fails_alone(setup_with(&format!("sqlite:{}", path.display()), POSITIVE)).await;
}

#[tokio::test]
async fn a_call_that_fails_does_not_fail_its_batch_in_postgres() {
    let server = Postgres::start().await;
    server.execute(&format!("{SCHEMA}; {EVIL}")).await;
    one_fails_alone(setup_with(&server.url(), POSITIVE)).await;
}

/// Law: nothing crosses tenants. Two tenants with the same plugin, statement and owner read rows of their own, in both kinds of
/// database; and a plugin cannot name another tenant.
async fn tenants_are_apart(url: &str) {
    let own = "sql = \"SELECT owner, amount FROM orders WHERE owner IN ($1) AND tenant = $2 AND channel = $3\"\n\
        parameters = [\"text\", \"tenant\", \"channel\"]\nbatch_key = \"owner\"\nbatch_wait_ms = 200";
    let broker = setup_with(url, ("own", own))
        .replace("tokens = [\"query:token\"]", "tokens = [\"query:token\"], tenant_claims = [\"tenant\"]")
        .start();
    let mut members = Vec::new();
    for (tenant, channel, amount) in [("acme", "a", 1), ("globex", "a", 2), ("acme", "b", 3)] {
        let token = broker.token("ann", json!({ "tenant": tenant }));
        members.push((broker.connect_with(&format!("/ws?channel={channel}"), &token).await, amount));
    }

    for (member, _) in &mut members {
        member.send_text("sql own ann").await;
    }

    for (member, amount) in &mut members {
        let expected = format!("rows [\"owner\", \"amount\"] [[Value::Text(\"ann\"), Value::Integer({amount})]]");
        assert_eq!(member.text().await, expected);
    }
    let refused = ask(&mut members[0].0, "sql own ann globex fixture:a").await;
    assert_eq!(refused, r#"error Error::BadParameters("own takes 1 parameters, not 3")"#);
}

const ORDERS: &str = "CREATE TABLE orders (tenant TEXT, channel TEXT, owner TEXT, amount BIGINT);
    INSERT INTO orders VALUES ('acme', 'fixture:a', 'ann', 1), ('globex', 'fixture:a', 'ann', 2), ('acme', 'fixture:b', 'ann', 3);";

#[tokio::test]
async fn tenants_read_their_own_rows_of_a_sqlite_file() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("shop.db");
    execute(&path, ORDERS).await;
    tenants_are_apart(&format!("sqlite:{}", path.display())).await;
}

#[tokio::test]
async fn tenants_read_their_own_rows_of_a_postgres_server() {
    let server = Postgres::start().await;
    server.execute(ORDERS).await;
    tenants_are_apart(&server.url()).await;
}

/// A key that stands elsewhere would be a wrong question for many keys: the configuration says so.
#[test]
fn a_key_that_is_no_list_is_refused_at_the_start() {
    let one = "sql = \"SELECT owner FROM stock WHERE owner = $1\"\nparameters = [\"text\"]\nbatch_key = \"owner\"";

    let refused = setup_with("sqlite:x", ("one", one)).fail_to_start();

    let errors = String::from_utf8_lossy(&refused.stderr);
    assert!(errors.contains("with batch_key, $1 must stand as IN ($1)"), "{errors}");
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
