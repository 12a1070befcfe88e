//! System 1, HangarShare owner metrics, over real sockets and on its demo database. Items are those of system 1.
//!
//! Not here, because one node alone cannot fulfil them: 27 (Redis) and 37's parts for several servers. 26 is tested with the host's
//! compression, 31 with its metrics; 30 and 33 are clients' business, 34 is measured by `make bench`.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, SqliteConnection};
use tokio_tungstenite::tungstenite::Message;

use crate::support::broker::{Broker, Setup, token};
use crate::support::client::Client;
use crate::support::http;

const PATH: &str = "/api/ws";

/// The example's mount, with ticks so close that a test can wait for them.
fn setup() -> Setup {
    Setup::example().set("mount.metrics.settings.interval_ms", 200)
}

fn owner(id: &str) -> String {
    token("somebody", json!({ "ownerId": id }), 3_600)
}

async fn connect(broker: &Broker, id: &str) -> Client {
    broker.connect_with(PATH, &owner(id)).await
}

/// A client that has its welcome and its first figures; and those.
async fn welcomed(broker: &Broker, id: &str) -> (Client, Value, Value) {
    let mut client = connect(broker, id).await;
    let welcome = client.json().await;
    assert_eq!(welcome["type"], "connection_established", "{welcome}");
    let figures = client.json().await;
    assert_eq!(figures["type"], "metrics_update", "{figures}");
    (client, welcome, figures)
}

async fn database(broker: &Broker) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(broker.data().join("hangarshare.db"));
    options.connect().await.expect("the demo database")
}

async fn execute(database: &mut SqliteConnection, sql: &str) {
    let sql = sqlx::AssertSqlSafe(sql.to_owned());
    sqlx::raw_sql(sql).execute(database).await.expect("SQL");
}

/// Items 3 to 7: by header, query or subprotocol; anything else is 401 before the upgrade.
#[tokio::test]
async fn a_token_with_an_owner_is_needed_before_the_upgrade() {
    let broker = setup().start();
    let url = format!("ws://{}{PATH}", broker.address());
    let good = owner("ann");
    let bearer = format!("Bearer {good}");
    let offer = format!("bearer.{good}, metrics");
    for headers in [[("authorization", bearer.as_str())], [("sec-websocket-protocol", offer.as_str())]] {
        let mut client = Client::try_connect(&url, &headers).await.expect("an upgrade");
        assert_eq!(client.json().await["data"]["ownerId"], "ann");
        if headers[0].0 != "authorization" {
            assert_eq!(client.subprotocol(), Some("metrics"));
        }
    }
    let foreign = jsonwebtoken::encode(
        &jsonwebtoken::Header::default(),
        &json!({ "ownerId": "ann", "exp": 4_000_000_000_u64 }),
        &jsonwebtoken::EncodingKey::from_secret(b"another secret of at least 32 bytes!"),
    )
    .expect("a token");
    for bad in [
        String::new(),
        format!("?token={foreign}"),
        format!("?token={}", token("ann", json!({}), 60)),
        format!("?token={}", token("ann", json!({ "ownerId": null }), 60)),
        format!("?token={}", token("ann", json!({ "ownerId": "a:b" }), 60)),
        format!("?token={}", token("ann", json!({ "ownerId": "ann" }), -60)),
        "?token=nonsense".to_owned(),
    ] {
        assert_eq!(Client::refused_status(&format!("{url}{bad}"), &[]).await, 401, "{bad}");
        let plain = http::get(&broker.http(&format!("{PATH}{bad}")), &[]).await;
        assert_eq!(plain.status, 401, "{bad}");
        assert_eq!(plain.json()["success"], false);
        assert!(plain.json()["error"].is_string());
    }
}

/// Items 2 and 36: the plain GET says whose it is.
#[tokio::test]
async fn a_plain_get_validates_the_token() {
    let broker = setup().start();
    let (_ann, ..) = welcomed(&broker, "ann").await;

    let answer = http::get(&broker.http(&format!("{PATH}?token={}", owner("ann"))), &[]).await;

    assert_eq!(answer.status, 200);
    let body = answer.json();
    assert_eq!((&body["success"], &body["ownerId"], &body["connections"]), (&json!(true), &json!("ann"), &json!(1)));
    assert_eq!(body["wsUrl"], format!("ws://{}{PATH}", broker.address()));
    assert!(body["timestamp"].as_str().expect("ISO").ends_with('Z'), "{body}");
    let keys: BTreeSet<_> = body.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(keys, BTreeSet::from(["connections", "ownerId", "success", "timestamp", "wsUrl"]));
}

/// Items 8 to 13: the welcome, then the figures, as the frontends know them.
#[tokio::test]
async fn the_welcome_comes_first_and_then_the_figures() {
    let broker = setup().start();
    let mut database = database(&broker).await;
    execute(&mut database, "DELETE FROM bookings WHERE listing_id IN (SELECT id FROM listings WHERE owner_id = 'ann')")
        .await;
    execute(&mut database, "DELETE FROM listings WHERE owner_id = 'ann'").await;
    execute(
        &mut database,
        "INSERT INTO listings (id, owner_id, title, airport, capacity, daily_rate_cents, status, active, created_at_ms)
         VALUES ('l1', 'ann', 't', 'EDDM', 8, 100, 'published', TRUE, 0), ('l2', 'ann', 't', 'EDDM', 3, 100, 'draft', TRUE, 0)",
    )
    .await;
    let now = "CAST(strftime('%s', 'now') AS INTEGER) * 1000";
    let day = 86_400_000_u64;
    for (number, status, cents) in
        [(1, "confirmed", 12_345), (2, "confirmed", 100), (3, "pending", 999), (4, "completed", 55)]
    {
        execute(
            &mut database,
            &format!(
                "INSERT INTO bookings (id, listing_id, renter_id, status, starts_at_ms, ends_at_ms, total_cents, created_at_ms)
                 VALUES ('b{number}', 'l1', 'r', '{status}', {now} - {day}, {now} + {day}, {cents}, {now})"
            ),
        )
        .await;
    }

    let (_, welcome, figures) = welcomed(&broker, "ann").await;

    let data = &welcome["data"];
    assert_eq!((&data["ownerId"], &data["heartbeatInterval"]), (&json!("ann"), &json!(30_000)));
    assert!(data["connectionId"].is_string() && data["timestamp"].is_u64(), "{welcome}");
    assert!(figures["timestamp"].as_u64().expect("ms") > 1_600_000_000_000, "{figures}");
    assert_eq!(figures.get("stale"), None);
    let data = &figures["data"];
    assert_eq!(data["revenue"]["daily"].as_f64(), Some(125.0), "{figures}");
    assert_eq!(data["revenue"]["monthly"].as_f64(), Some(125.0));
    assert!(data["revenue"]["growth"].is_number());
    assert_eq!(data["bookings"], json!({ "pending": 1, "confirmed": 2, "total": 3 }));
    assert_eq!(data["listings"], json!({ "active": 1, "published": 1, "total": 2 }));
    assert_eq!(data["occupancy"]["percentage"].as_f64(), Some(25.0), "2 of 8 places: {figures}");
    assert_eq!((&data["occupancy"]["booked"], &data["occupancy"]["available"]), (&json!(2), &json!(8)));
}

/// Items 14 and 16: what changes in the database shows in the next update, what a server publishes at once.
#[tokio::test]
async fn a_change_shows_in_the_next_update_and_a_publication_at_once() {
    let broker = setup().start();
    let key = broker.api_key("shop");
    let (mut ann, _, first) = welcomed(&broker, "ann").await;
    let pending = |update: &Value| update["data"]["bookings"]["pending"].as_u64().expect("a number");
    let before = pending(&first);

    let mut database = database(&broker).await;
    execute(
        &mut database,
        "INSERT INTO bookings (id, listing_id, renter_id, status, starts_at_ms, ends_at_ms, total_cents, created_at_ms)
         SELECT 'new', id, 'r', 'pending', 1, 2, 1, 0 FROM listings WHERE owner_id = 'ann' LIMIT 1",
    )
    .await;
    ann.until(|update| update["type"] == "metrics_update" && pending(update) == before + 1).await;

    let event = json!({ "type": "booking_updated", "data": { "bookingId": "new", "status": "confirmed" } });
    assert_eq!(broker.publish(&key, "owner:ann", &event).await.status, 200);
    let event = ann.until_type("booking_updated").await;
    assert_eq!((&event["data"]["bookingId"], &event["data"]["status"]), (&json!("new"), &json!("confirmed")));
    assert!(event["data"]["timestamp"].is_u64(), "{event}");

    for bad in [json!([1]), json!({}), json!({ "type": "metrics_update", "data": {} }), json!({ "type": "" })] {
        let refused = broker.publish(&key, "owner:ann", &bad).await;
        assert_eq!(refused.status, 400, "{bad}");
        assert_eq!(refused.json()["success"], false);
    }
    let wrong = http::post(&broker.http("/v1/channels/owner:ann/publish"), &[], &event).await;
    assert_eq!(wrong.status, 401);
}

/// Items 17 and 35: all connections of the owner, and nobody else's.
#[tokio::test]
async fn an_event_reaches_every_connection_of_its_owner_and_no_other() {
    let broker = setup().start();
    let key = broker.api_key("shop");
    let (mut first, ..) = welcomed(&broker, "ann").await;
    let (mut second, ..) = welcomed(&broker, "ann").await;
    let (mut other, ..) = welcomed(&broker, "bob").await;

    broker.publish(&key, "owner:ann", &json!({ "type": "booking_updated", "data": { "bookingId": "a" } })).await;
    broker.publish(&key, "owner:bob", &json!({ "type": "booking_updated", "data": { "bookingId": "b" } })).await;

    for client in [&mut first, &mut second] {
        assert_eq!(client.until_type("booking_updated").await["data"]["bookingId"], "a");
    }
    assert_eq!(other.until_type("booking_updated").await["data"]["bookingId"], "b");
}

/// Items 18 and 19: `ping` is answered, everything else is swallowed, and nothing ends the connection but a hundred in a minute.
#[tokio::test]
async fn ping_is_answered_and_nonsense_is_not() {
    // The host's rate would close it first.
    let broker = setup()
        .set("mount.metrics.limits.rate_per_connection.per_second", 1_000)
        .set("mount.metrics.limits.rate_per_connection.burst", 1_000)
        .set("log.filter", "info,hotbay=debug")
        .start();
    let (mut ann, ..) = welcomed(&broker, "ann").await;
    let pong = async |client: &mut Client| {
        client.send(json!({ "type": "ping", "timestamp": 123 })).await;
        let next = client.until(|message| message["type"] != "metrics_update").await;
        assert_eq!((&next["type"], &next["data"]["timestamp"]), (&json!("pong"), &json!(123)), "{next}");
        assert!(next["timestamp"].as_u64().expect("ms") > 1_600_000_000_000);
    };
    pong(&mut ann).await;

    for text in ["", "{", "[]", "null", "{\"type\":1}", "{\"type\":\"hello\",\"x\":1}", "{\"data\":{}}", "\u{0}", "NaN"]
    {
        ann.send_text(text).await;
    }
    ann.send_message(Message::binary(vec![0xff, 0])).await;
    ann.send_text(&"[".repeat(5_000)).await;
    pong(&mut ann).await;
    broker.until_log("Message from ann: hello").await;

    ann.flood(&json!({ "type": "hello" }), 100).await;
    assert_eq!(ann.close_code().await, Some(1008));
}

/// Item 24: the fourth connection takes the place of the oldest, or is refused, as the mount says.
#[tokio::test]
async fn an_owner_has_three_connections() {
    let broker = setup().start();
    let (mut oldest, ..) = welcomed(&broker, "ann").await;
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(welcomed(&broker, "ann").await.0);
    }
    assert_eq!(oldest.close_code().await, Some(4501));
    for other in &mut others {
        other.send(json!({ "type": "ping" })).await;
        other.until_type("pong").await;
    }

    let strict = setup().set("mount.metrics.on_excess", "refuse").start();
    let mut three = Vec::new();
    for _ in 0..3 {
        three.push(welcomed(&strict, "ann").await.0);
    }
    let url = format!("ws://{}{PATH}?token={}", strict.address(), owner("ann"));
    assert_eq!(Client::refused_status(&url, &[]).await, 429);
}

/// Item 25.
#[tokio::test]
async fn a_client_that_writes_too_fast_is_closed() {
    let broker = setup().start();
    let (mut ann, ..) = welcomed(&broker, "ann").await;
    ann.flood(&json!({ "type": "ping" }), 40).await;
    assert_eq!(ann.closed().await, Some((1008, "Rate limit exceeded".to_owned())));
}

/// Item 23: what is published while the owner is away comes right after the welcome, in order, also after a crash, and once.
#[tokio::test]
async fn events_wait_for_an_owner_who_is_away() {
    let mut broker = setup().start();
    let key = broker.api_key("shop");
    for number in 0..105 {
        let event = json!({ "type": "booking_updated", "data": { "bookingId": number } });
        assert_eq!(broker.publish(&key, "owner:ann", &event).await.status, 200);
    }
    broker.kill();
    broker.start();

    let mut ann = connect(&broker, "ann").await;
    assert_eq!(ann.json().await["type"], "connection_established");
    for number in 5..105 {
        let event = ann.json().await;
        assert_eq!((&event["type"], &event["data"]["bookingId"]), (&json!("booking_updated"), &json!(number)));
    }
    assert_eq!(ann.json().await["type"], "metrics_update");
    let (_, welcome, _) = welcomed(&broker, "ann").await;
    assert_eq!(welcome["type"], "connection_established", "they come once");
}

/// Item 23: what is too much, or too old, is not kept, and the welcome says how many there were.
#[tokio::test]
async fn events_that_were_not_kept_are_counted() {
    let broker = setup().set("mount.metrics.settings.offline_events_max", 2).start();
    let key = broker.api_key("shop");
    let publish = async |broker: &Broker, key: &str, number: usize| {
        let event = json!({ "type": "booking_updated", "data": { "bookingId": number } });
        assert_eq!(broker.publish(key, "owner:ann", &event).await.status, 200);
    };
    for number in 0..5 {
        publish(&broker, &key, number).await;
    }
    let mut ann = connect(&broker, "ann").await;
    assert_eq!(ann.json().await["data"]["eventsDropped"], 3);
    for number in [3, 4] {
        assert_eq!(ann.json().await["data"]["bookingId"], number);
    }
    let (_, welcome, _) = welcomed(&broker, "ann").await;
    assert_eq!(welcome["data"].get("eventsDropped"), None, "they are told of once");

    // A day, shortened to nothing: what nobody waits for is old at once.
    let broker = setup().set("mount.metrics.settings.offline_ttl_ms", 0).start();
    let key = broker.api_key("shop");
    publish(&broker, &key, 0).await;
    let (_, welcome, figures) = welcomed(&broker, "ann").await;
    assert_eq!((&welcome["data"]["eventsDropped"], &figures["type"]), (&json!(1), &json!("metrics_update")));
}

/// Item 23: kept events are forgotten when their day, here a second, is over: while the broker runs, and while it does not.
#[tokio::test]
async fn kept_events_expire() {
    const TTL_MS: u64 = 1_000;
    let mut broker = setup().set("mount.metrics.settings.offline_ttl_ms", TTL_MS).start();
    let key = broker.api_key("shop");
    for crash in [false, true] {
        let event = json!({ "type": "booking_updated", "data": { "bookingId": 1 } });
        assert_eq!(broker.publish(&key, "owner:ann", &event).await.status, 200);
        let kept_at = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_millis() as u64;
        if crash {
            broker.kill();
            broker.start();
        }
        // Another owner's updates tell the broker's time.
        let (mut clock, ..) = welcomed(&broker, "bob").await;
        clock.until(|update| update["timestamp"].as_u64().expect("ms") >= kept_at + TTL_MS).await;

        let (ann, welcome, figures) = welcomed(&broker, "ann").await;

        assert_eq!(welcome["data"]["eventsDropped"], 1, "{welcome}");
        assert_eq!(figures["type"], "metrics_update");
        ann.close().await;
        broker.until_metric_is("hotbay_connections", 1.0).await;
        clock.close().await;
        broker.until_metric_is("hotbay_connections", 0.0).await;
    }
}

/// Item 15: a thousand owners at a time cost the database at most five statements a tick.
#[tokio::test]
async fn a_thousand_owners_are_asked_for_in_a_few_statements() {
    let broker = Setup::example().set("mount.metrics.settings.interval_ms", 2_000).start();
    let mut owners = Vec::new();
    for number in 1..=1_000 {
        owners.push(connect(&broker, &format!("owner-{number}")).await);
    }
    // Each has its welcome and one update or more; the next tick is common to all.
    for owner in &mut owners {
        owner.until_type("metrics_update").await;
    }
    let counts = async || {
        let statements = broker.metric("hotbay_sql_statements_total").await;
        (broker.metric("hotbay_sql_calls_total").await, statements)
    };
    let (calls_before, statements_before) = counts().await;
    let ticks = 3.0;
    broker.until_metric("hotbay_sql_calls_total", calls_before + 1_000.0 * ticks).await;
    let (calls, statements) = counts().await;

    let (calls, statements) = (calls - calls_before, statements - statements_before);
    println!("{calls} calls became {statements} statements");
    // A part of a tick may have come in at each end.
    assert!(statements <= 5.0 * (calls / 1_000.0 + 2.0).floor(), "{statements} statements for {calls} calls");
}

/// With the database away the last figures go on, marked; members stay; it recovers alone.
#[tokio::test]
async fn without_the_database_the_last_figures_go_on() {
    let broker = setup().start();
    let (mut ann, _, first) = welcomed(&broker, "ann").await;
    let file = broker.data().join("hangarshare.db");
    let away = broker.data().join("away.db");

    std::fs::rename(&file, &away).expect("a move");
    let stale = ann.until(|update| update["stale"] == true).await;
    assert_eq!(stale["data"]["bookings"], first["data"]["bookings"]);
    let (_, _, newcomers) = welcomed(&broker, "ann").await;
    assert_eq!((&newcomers["stale"], &newcomers["data"]["bookings"]), (&json!(true), &first["data"]["bookings"]));
    broker.until_metric_is("hotbay_datasource_up", 0.0).await;
    assert_eq!(http::get(&broker.http("/readyz"), &[]).await.json()["status"], "degraded");

    std::fs::rename(&away, &file).expect("a move");
    ann.until(|update| update["type"] == "metrics_update" && update.get("stale").is_none()).await;
    broker.until_metric_is("hotbay_datasource_up", 1.0).await;
    assert_eq!(http::get(&broker.http("/readyz"), &[]).await.json()["status"], "ready");
}

/// Items 20 to 22 and 32: protocol pings, a clean close, 1012 at the end, and the lines operators look for.
#[tokio::test]
async fn heartbeats_closes_and_log_lines() {
    let mut broker =
        setup().set("mount.metrics.heartbeat.interval_ms", 300).set("mount.metrics.heartbeat.timeout_ms", 700).start();
    let (ann, ..) = welcomed(&broker, "ann").await;
    broker.until_log("[WebSocket] Client connected: ann").await;
    ann.close().await;
    broker.until_log("[WebSocket] Client disconnected: conn-").await;

    // It never answers pings, because nobody polls it.
    let (silent, ..) = welcomed(&broker, "bob").await;
    broker.until_metric("hotbay_heartbeat_timeouts_total", 1.0).await;
    drop(silent);

    let (mut last, ..) = welcomed(&broker, "ann").await;
    let end = tokio::spawn(async move { broker.terminate().await });
    assert_eq!(last.close_code().await, Some(1012));
    last.close().await;
    assert_eq!(end.await.expect("an end"), Some(0));
}
