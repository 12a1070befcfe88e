//! System 3, dashboard widget sync, over real sockets and HTTP. Items are those of system 3.
//!
//! Not here: 25 to 28 and 31 (the client, tested with its page in a browser), 29 and 33 (the life of a Node process; `hotbay serve`
//! has its own).

mod conflicts;

use serde_json::{Value, json};

use crate::support::broker::{Broker, Setup, token};
use crate::support::client::Client;
use crate::support::http::{self, Answer};

const PATH: &str = "/api/realtime";

fn setup() -> Setup {
    // Tests write faster than people do.
    let rate = "mount.widgets.limits.rate_per_connection";
    Setup::example().set(&format!("{rate}.per_second"), 10_000).set(&format!("{rate}.burst"), 10_000)
}

fn user(name: &str) -> String {
    token(name, json!({ "dashboards": ["team"] }), 3_600)
}

/// A member of the dashboard `team`, welcomed.
async fn join(broker: &Broker, name: &str) -> Client {
    let mut client = broker.connect_with(&format!("{PATH}?dashboardId=team"), &user(name)).await;
    let welcome = client.json().await;
    assert_eq!(welcome["type"], "CONNECT", "{welcome}");
    client
}

fn message(name: &str, id: &str, kind: &str, payload: Value) -> Value {
    json!({ "type": kind, "id": id, "timestamp": "2026-01-01T00:00:00.000Z", "userId": name, "payload": payload })
}

/// Sends a message and returns what answers it.
async fn ask(client: &mut Client, name: &str, kind: &str, payload: Value) -> Value {
    let id = format!("msg-{}", rand::random::<u32>());
    client.send(message(name, &id, kind, payload)).await;
    client.until(|answer| answer["correlationId"] == *id).await
}

async fn post(broker: &Broker, name: &str, body: &Value) -> Answer {
    let authorization = format!("Bearer {}", user(name));
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    http::post(&broker.http(&format!("{PATH}?dashboardId=team")), &headers, body).await
}

async fn get(broker: &Broker, name: &str, path: &str) -> Answer {
    http::get(
        &broker.http(&format!("{PATH}{path}?dashboardId=team")),
        &[("authorization", &format!("Bearer {}", user(name)))],
    )
    .await
}

fn is_iso(value: &Value) -> bool {
    // 2026-01-01T00:00:00.000Z
    value
        .as_str()
        .is_some_and(|text| text.len() == 24 && text.ends_with('Z') && &text[10..11] == "T" && &text[19..20] == ".")
}

/// Items 1, 2 and 17: by header, query or cookie; others get 401 before the upgrade, and plain ids count for nothing.
#[tokio::test]
async fn a_token_is_needed_and_a_plain_id_is_none() {
    let broker = setup().start();
    let url = format!("ws://{}{PATH}", broker.address());
    let good = token("someone", json!({ "userId": "ann" }), 60);
    let bearer = format!("Bearer {good}");
    let cookie = format!("token={good}");
    let origin = format!("http://{}", broker.address());
    for headers in [&[("authorization", bearer.as_str())][..], &[("cookie", &cookie), ("origin", &origin)]] {
        let mut client = Client::try_connect(&url, headers).await.expect("an upgrade");
        assert_eq!(client.json().await["userId"], "ann", "userId goes before sub");
    }
    for headers in [&[][..], &[("authorization", "Bearer ann")], &[("cookie", "userId=ann"), ("origin", &origin)]] {
        assert_eq!(Client::refused_status(&format!("{url}?userId=ann"), headers).await, 401);
    }

    let insecure = setup().set("mount.widgets.auth.insecure_user_id", true).start();
    insecure.until_log("insecure_user_id = true").await;
    let mut ann = Client::connect(&format!("ws://{}{PATH}?userId=ann", insecure.address())).await;
    assert_eq!(ann.json().await["userId"], "ann");
}

/// A dashboard is its user's, or listed in the claim `dashboards`.
#[tokio::test]
async fn another_users_dashboard_needs_a_claim() {
    let broker = setup().start();
    let foreign = token("bob", json!({ "dashboards": ["other"] }), 60);
    let mut bob = broker.connect_with(&format!("{PATH}?dashboardId=ann"), &foreign).await;
    assert_eq!(bob.close_code().await, Some(1008));
    let status = async |path: &str| {
        let headers = [("authorization", format!("Bearer {foreign}"))];
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        http::get(&broker.http(path), &headers).await.status
    };
    assert_eq!(status(&format!("{PATH}?dashboardId=ann")).await, 403);
    assert_eq!(status(&format!("{PATH}/stats?dashboardId=ann")).await, 403);
    assert_eq!(status(&format!("{PATH}?dashboardId=other")).await, 200);
    assert_eq!(status(PATH).await, 200, "one's own");
}

/// Items 3, 5, 7: the envelope, `CONNECT`, and `PING` in both directions.
#[tokio::test]
async fn the_envelope_has_its_fields() {
    let broker = setup().set("mount.widgets.settings.heartbeatIntervalMs", 1_000).start();
    let mut ann = broker.connect_with(&format!("{PATH}?dashboardId=team"), &user("ann")).await;
    let connect = ann.json().await;
    assert_eq!((&connect["type"], &connect["userId"]), (&json!("CONNECT"), &json!("ann")));
    assert!(is_iso(&connect["timestamp"]), "{connect}");
    assert!(connect["id"].as_str().expect("an id").starts_with("msg-"));
    assert!(connect["payload"]["clientId"].as_str().expect("a client id").starts_with("client-"), "{connect}");
    assert!(!connect["payload"]["version"].is_null(), "{connect}");

    let ping = ann.until_type("PING").await;
    assert!(is_iso(&ping["timestamp"]), "{ping}");
    ann.send(message("ann", "p1", "PONG", json!({}))).await;
    let pong = ask(&mut ann, "ann", "PING", json!({})).await;
    assert_eq!(pong["type"], "PONG");
}

/// Two application pings without an answer end the connection, after a `DISCONNECT`.
#[tokio::test]
async fn two_missed_pongs_close_with_a_disconnect() {
    let broker = setup().set("mount.widgets.settings.heartbeatIntervalMs", 1_000).start();
    let mut ann = join(&broker, "ann").await;
    let goodbye = ann.until_type("DISCONNECT").await;
    assert!(is_iso(&goodbye["timestamp"]), "{goodbye}");
    let code = ann.close_code().await.expect("a code");
    assert!((4_000..4_500).contains(&code), "{code} asks to reconnect");
}

/// Item 6: whatever ends the connection from the server's side, `DISCONNECT` comes before it.
#[tokio::test]
async fn a_server_that_stops_says_disconnect() {
    let mut broker = setup().start();
    let mut ann = join(&broker, "ann").await;
    let end = tokio::spawn(async move { broker.terminate().await });
    ann.until_type("DISCONNECT").await;
    assert_eq!(ann.close_code().await, Some(1012));
    ann.close().await;
    assert_eq!(end.await.expect("an end"), Some(0));
}

/// Items 13 to 15: an update is acknowledged, and told to the others as it was, under a new id.
#[tokio::test]
async fn an_update_is_acknowledged_and_told_to_the_others() {
    let broker = setup().start();
    let (mut ann, mut bob, mut stranger) =
        (join(&broker, "ann").await, join(&broker, "bob").await, join(&broker, "cleo").await);
    let payload = json!({ "widgetId": "w1", "data": { "title": "Sales", "value": 12_345_678_901_234_567_u64 } });

    let ack = ask(&mut ann, "ann", "WIDGET_UPDATE", payload.clone()).await;

    assert_eq!(
        (&ack["type"], &ack["userId"], &ack["payload"]["received"]),
        (&json!("ACK"), &json!("ann"), &json!(true))
    );
    assert_eq!(ack["payload"]["version"], 1);
    assert!(is_iso(&ack["timestamp"]), "{ack}");
    for other in [&mut bob, &mut stranger] {
        let told = other.json().await;
        assert_eq!(
            (&told["type"], &told["payload"], &told["userId"]),
            (&json!("WIDGET_UPDATE"), &payload, &json!("ann"))
        );
        assert_eq!(told.get("correlationId"), None);
        assert_ne!(told["id"], ack["id"]);
    }
    ann.nothing_before(message("ann", "after", "PING", json!({})), |answer| answer["type"] == "PONG").await;
}

/// Without `baseVersion` keys merge, the last writer wins; the state is durable.
#[tokio::test]
async fn keys_merge_and_survive_a_crash() {
    let mut broker = setup().start();
    let mut ann = join(&broker, "ann").await;
    ask(&mut ann, "ann", "WIDGET_UPDATE", json!({ "widgetId": "w", "data": { "a": 1, "b": { "x": 1 } } })).await;
    let second =
        ask(&mut ann, "ann", "WIDGET_UPDATE", json!({ "widgetId": "w", "data": { "b": { "y": 2 }, "c": null } })).await;
    assert_eq!(second["payload"]["version"], 2);

    broker.kill();
    broker.start();
    let mut ann = join(&broker, "ann").await;
    let sync = ask(&mut ann, "ann", "SYNC_REQUEST", json!({})).await;

    assert_eq!(sync["type"], "SYNC_RESPONSE");
    assert_eq!(
        sync["payload"]["widgets"]["w"],
        json!({ "version": 2, "data": { "a": 1, "b": { "y": 2 }, "c": null } })
    );
    assert!(sync["payload"]["version"].is_u64() && sync["payload"]["deleted"].is_array(), "{sync}");
}

/// Item 9: deletions are told, remembered, and conflict like updates; a batch happens as a whole or not at all.
#[tokio::test]
async fn deletions_and_batches() {
    let broker = setup().start();
    let (mut ann, mut bob) = (join(&broker, "ann").await, join(&broker, "bob").await);
    ask(&mut ann, "ann", "WIDGET_UPDATE", json!({ "widgetId": "w", "data": { "v": 1 } })).await;
    bob.until_type("WIDGET_UPDATE").await;

    let ack = ask(&mut ann, "ann", "WIDGET_DELETE", json!({ "widgetId": "w" })).await;
    assert_eq!(ack["type"], "ACK", "{ack}");
    assert_eq!(bob.until_type("WIDGET_DELETE").await["payload"]["widgetId"], "w");
    let unknown = ask(&mut ann, "ann", "WIDGET_DELETE", json!({ "widgetId": "never" })).await;
    assert_eq!((&unknown["type"], &unknown["payload"]["code"]), (&json!("NACK"), &json!("not_found")));
    let sync = ask(&mut ann, "ann", "SYNC_REQUEST", json!({ "since": 0 })).await;
    assert!(sync["payload"]["deleted"].to_string().contains("\"w\""), "{sync}");

    let operation = |kind: &str, payload: Value| json!({ "type": kind, "payload": payload });
    let good = operation("WIDGET_UPDATE", json!({ "widgetId": "b1", "data": { "v": 1 } }));
    let bad = operation("WIDGET_DELETE", json!({ "widgetId": "never" }));
    let failed = ask(&mut ann, "ann", "WIDGET_BATCH", json!({ "operations": [good, bad] })).await;
    assert_eq!(failed["type"], "NACK", "{failed}");
    let sync = ask(&mut ann, "ann", "SYNC_REQUEST", json!({})).await;
    assert_eq!(sync["payload"]["widgets"].get("b1"), None, "none of it happened");

    let other = operation("WIDGET_UPDATE", json!({ "widgetId": "b2", "data": { "v": 2 } }));
    let done = ask(&mut ann, "ann", "WIDGET_BATCH", json!({ "operations": [good, other] })).await;
    assert_eq!(done["type"], "ACK", "{done}");
    let told = bob.until_type("WIDGET_BATCH").await;
    assert_eq!(told["payload"]["operations"].as_array().map(Vec::len), Some(2), "{told}");
    let many: Vec<Value> =
        (0..101).map(|n| operation("WIDGET_UPDATE", json!({ "widgetId": format!("m{n}"), "data": {} }))).collect();
    let refused = ask(&mut ann, "ann", "WIDGET_BATCH", json!({ "operations": many })).await;
    assert_eq!(refused["payload"]["code"], "too_many_pending", "{refused}");
}

/// Item 10: layouts have versions, of which twenty are kept; a restored one is told as an update.
#[tokio::test]
async fn layouts_have_versions_and_can_be_restored() {
    let broker = setup().start();
    let (mut ann, mut bob) = (join(&broker, "ann").await, join(&broker, "bob").await);
    for number in 1..=25 {
        let ack = ask(&mut ann, "ann", "LAYOUT_UPDATE", json!({ "layout": { "n": number } })).await;
        assert_eq!(ack["payload"]["version"], number, "{ack}");
        assert_eq!(bob.until_type("LAYOUT_UPDATE").await["payload"]["layout"], json!({ "n": number }));
    }
    let stale = ask(&mut bob, "bob", "LAYOUT_UPDATE", json!({ "layout": { "n": 0 }, "baseVersion": 3 })).await;
    assert_eq!(stale["type"], "CONFLICT_DETECTED", "{stale}");

    let previous = ask(&mut ann, "ann", "LAYOUT_RESTORE", json!({})).await;
    assert_eq!(previous["type"], "ACK", "{previous}");
    assert_eq!(bob.until_type("LAYOUT_UPDATE").await["payload"]["layout"], json!({ "n": 24 }));
    let older = ask(&mut ann, "ann", "LAYOUT_RESTORE", json!({ "version": 10 })).await;
    assert_eq!(older["type"], "ACK", "{older}");
    let sync = ask(&mut ann, "ann", "SYNC_REQUEST", json!({})).await;
    assert!(sync["payload"]["layout"].to_string().contains("{\"n\":10}"), "{sync}");
    let gone = ask(&mut ann, "ann", "LAYOUT_RESTORE", json!({ "version": 1 })).await;
    assert_eq!((&gone["type"], &gone["payload"]["code"]), (&json!("NACK"), &json!("not_found")), "{gone}");
}

/// Items 8, 18 and 19: operations over HTTP and by `SYNC_UPDATE` are told to the sockets, and happen once.
#[tokio::test]
async fn operations_by_http_reach_the_sockets_and_happen_once() {
    let mut broker = setup().start();
    let mut bob = join(&broker, "bob").await;
    let operation =
        |id: &str, kind: &str, payload: Value| json!({ "operationId": id, "type": kind, "payload": payload });
    let body = json!({ "type": "SYNC", "operations": [
        operation("o1", "WIDGET_UPDATE", json!({ "widgetId": "w", "data": { "v": 1 } })),
        operation("o2", "WIDGET_DELETE", json!({ "widgetId": "never" })),
        operation("o3", "LAYOUT_UPDATE", json!({ "layout": [1] })),
    ]});

    let first = post(&broker, "ann", &body).await;

    assert_eq!(first.status, 200, "{}", first.text);
    let first = first.json();
    assert_eq!(first["success"], false, "one failed: {first}");
    assert!(is_iso(&first["timestamp"]), "{first}");
    let results = first["results"].as_array().expect("results");
    let outcome = |index: usize| (&results[index]["operationId"], &results[index]["success"]);
    assert_eq!(outcome(0), (&json!("o1"), &json!(true)));
    assert_eq!(outcome(1), (&json!("o2"), &json!(false)));
    assert!(!results[1]["error"].is_null(), "{first}");
    assert_eq!(outcome(2), (&json!("o3"), &json!(true)));
    assert_eq!(bob.until_type("WIDGET_UPDATE").await["userId"], "ann");
    assert_eq!(bob.until_type("LAYOUT_UPDATE").await["payload"]["layout"], json!([1]));

    broker.kill();
    broker.start();
    let mut bob = join(&broker, "bob").await;
    let again = post(&broker, "ann", &body).await.json();
    assert_eq!(again["results"][0], first["results"][0], "the first answer again");
    let update = json!({ "operations": [operation("o1", "WIDGET_UPDATE", json!({ "widgetId": "w", "data": { "v": 9 } })),
        operation("o4", "WIDGET_UPDATE", json!({ "widgetId": "x", "data": { "v": 4 } }))] });
    let mut ann = join(&broker, "ann").await;
    let ack = ask(&mut ann, "ann", "SYNC_UPDATE", update).await;
    assert_eq!(ack["type"], "ACK", "{ack}");
    assert_eq!(bob.until_type("WIDGET_UPDATE").await["payload"]["widgetId"], "x", "o1 is not told again");
    let sync = ask(&mut ann, "ann", "SYNC_REQUEST", json!({})).await;
    assert_eq!(sync["payload"]["widgets"]["w"], json!({ "version": 1, "data": { "v": 1 } }));
}

/// Item 27: what a client queued while it was away, up to 500 operations, goes in at once, over HTTP and over the socket.
#[tokio::test]
async fn a_whole_queue_is_synced_at_once() {
    let broker = setup().start();
    let mut ann = join(&broker, "ann").await;
    let queue = |name: &str, count: usize| -> Vec<Value> {
        let payload = |n| json!({ "widgetId": format!("{name}{}", n % 50), "data": { "n": n } });
        let one = |n| json!({ "operationId": format!("{name}-{n}"), "type": "WIDGET_UPDATE", "payload": payload(n) });
        (0..count).map(one).collect()
    };
    let posted = post(&broker, "ann", &json!({ "type": "SYNC", "operations": queue("h", 500) })).await;
    assert_eq!((posted.status, &posted.json()["success"]), (200, &json!(true)));
    assert_eq!(posted.json()["results"].as_array().map(Vec::len), Some(500));
    let ack = ask(&mut ann, "ann", "SYNC_UPDATE", json!({ "operations": queue("s", 500) })).await;
    assert_eq!((&ack["type"], &ack["payload"]["success"]), (&json!("ACK"), &json!(true)));
    assert_eq!(ack["payload"]["version"], 1_000);

    let too_many = post(&broker, "ann", &json!({ "type": "SYNC", "operations": queue("x", 501) })).await;
    assert_eq!(too_many.status, 400, "{}", too_many.text);
    let nack = ask(&mut ann, "ann", "SYNC_UPDATE", json!({ "operations": queue("x", 501) })).await;
    assert_eq!(nack["payload"]["code"], "too_many_pending", "{nack}");
}

/// Items 17 and 20: what the plain requests answer.
#[tokio::test]
async fn plain_requests_answer_what_frontends_expect() {
    let broker = setup().start();
    let mut ann = join(&broker, "ann").await;
    ask(&mut ann, "ann", "PING", json!({})).await;

    let ready = get(&broker, "ann", "").await.json();
    let stats = get(&broker, "ann", "/stats").await.json();

    assert_eq!((&ready["status"], &ready["userId"]), (&json!("ready"), &json!("ann")));
    assert_eq!(ready["wsUrl"], format!("ws://{}{PATH}", broker.address()));
    assert!(is_iso(&ready["timestamp"]), "{ready}");
    assert_eq!(stats["clientCount"], 1, "{stats}");
    let client = &stats["clients"][0];
    assert!(client["id"].as_str().expect("an id").starts_with("client-"), "{stats}");
    assert_eq!(
        (&client["userId"], &client["isAlive"], &client["messageCount"]),
        (&json!("ann"), &json!(true), &json!(1))
    );
    assert!(is_iso(&client["connectedAt"]) && is_iso(&stats["timestamp"]), "{stats}");
    assert!(stats["uptime"].is_number(), "{stats}");
    assert_eq!(http::get(&broker.http(PATH), &[]).await.status, 401);
    let method = http::send("DELETE", &broker.http(PATH), &[], String::new()).await;
    assert_eq!(method.status, 405);
}

/// Item 4: what is wrong is said in a `NACK`, and changes nothing.
#[tokio::test]
async fn bad_messages_get_a_nack() {
    let broker = setup().start();
    let mut ann = join(&broker, "ann").await;
    let mut bob = join(&broker, "bob").await;
    for (text, code) in [
        ("{".to_owned(), "bad_request"),
        ("[1]".to_owned(), "bad_request"),
        ("NaN".to_owned(), "bad_request"),
        (json!({ "id": "1", "userId": "ann", "payload": {} }).to_string(), "bad_request"),
        (json!({ "type": "WIDGET_UPDATE", "id": "1", "payload": {} }).to_string(), "bad_request"),
        (message("bob", "1", "WIDGET_UPDATE", json!({ "widgetId": "w", "data": {} })).to_string(), "forbidden"),
        (message("ann", "1", "WIDGET_UPDATE", json!({ "widgetId": 7, "data": {} })).to_string(), "bad_request"),
        (message("ann", "1", "WIDGET_UPDATE", json!({ "widgetId": "w", "data": [] })).to_string(), "bad_request"),
        (
            message("ann", "1", "WIDGET_UPDATE", json!({ "widgetId": "w".repeat(129), "data": {} })).to_string(),
            "bad_request",
        ),
        (
            message("ann", "1", "WIDGET_UPDATE", json!({ "widgetId": "w", "data": { "x": "x".repeat(70_000) } }))
                .to_string(),
            "too_large",
        ),
        (
            message("ann", "1", "CONFLICT_RESOLVED", json!({ "conflictId": "none", "resolution": "client" }))
                .to_string(),
            "not_found",
        ),
        (message("ann", "1", "DANCE", json!({})).to_string(), "bad_request"),
        (
            format!(
                "{{\"type\":\"WIDGET_UPDATE\",\"userId\":\"ann\",\"id\":\"1\",\"payload\":{}1{}}}",
                "[".repeat(4_000),
                "]".repeat(4_000)
            ),
            "bad_request",
        ),
    ] {
        ann.send_text(&text).await;
        let nack = ann.json().await;
        let shown: String = text.chars().take(120).collect();
        assert_eq!((&nack["type"], &nack["payload"]["code"]), (&json!("NACK"), &json!(code)), "{shown}: {nack}");
        assert!(nack["payload"]["message"].is_string(), "{nack}");
    }
    let sync = ask(&mut ann, "ann", "SYNC_REQUEST", json!({})).await;
    assert_eq!(sync["payload"]["widgets"], json!({}));
    bob.nothing_before(message("bob", "after", "PING", json!({})), |answer| answer["type"] == "PONG").await;

    for (body, status) in
        [("{", 400), ("[]", 400), ("{\"type\":\"SYNC\"}", 400), ("{\"type\":\"SYNC\",\"operations\":7}", 400)]
    {
        let bearer = format!("Bearer {}", user("ann"));
        let answer =
            http::post(&broker.http(&format!("{PATH}?dashboardId=team")), &[("authorization", &bearer)], body).await;
        assert_eq!((answer.status, &answer.json()["success"]), (status, &json!(false)), "{body}");
    }
}

/// Item 24.
#[tokio::test]
async fn a_client_that_writes_too_fast_is_closed() {
    let broker = Setup::example().start();
    let mut ann = join(&broker, "ann").await;
    ann.flood(&message("ann", "p", "PING", json!({})), 60).await;
    assert_eq!(ann.closed().await, Some((1008, "Rate limit exceeded".to_owned())));
}

/// Items 21 and 22: an application server publishes to a dashboard and follows what happens on it.
#[tokio::test]
async fn a_server_publishes_and_follows() {
    let broker = setup().set("mount.widgets.settings.serverEvents", true).start();
    let key = broker.api_key("app");
    let (mut ann, mut bob) = (join(&broker, "ann").await, join(&broker, "bob").await);
    let server = token("app", json!({ "dashboards": ["team"], "role": "server" }), 60);
    let mut server = broker.connect_with(&format!("{PATH}?dashboardId=team"), &server).await;
    server.until_type("CONNECT").await;

    let notice = json!({ "type": "NOTICE", "payload": { "text": "hello" } });
    assert_eq!(broker.publish(&key, "dashboard:team", &notice).await.status, 200);
    for client in [&mut ann, &mut bob] {
        assert_eq!(client.until_type("NOTICE").await["payload"]["text"], "hello");
    }
    let to_bob = json!({ "type": "SECRET", "payload": {}, "toUser": "bob" });
    assert_eq!(broker.publish(&key, "dashboard:team", &to_bob).await.status, 200);
    bob.until_type("SECRET").await;
    ann.nothing_before(message("ann", "after", "PING", json!({})), |answer| answer["type"] == "PONG").await;

    ask(&mut ann, "ann", "WIDGET_UPDATE", json!({ "widgetId": "w", "data": {} })).await;
    let updated = server.until_type("widget:updated").await;
    assert!(updated["payload"]["clientId"].as_str().expect("a client").starts_with("client-"), "{updated}");
    assert_eq!(updated["payload"]["message"]["payload"]["widgetId"], "w", "{updated}");
    let operation = |id: u64| json!({ "operationId": id, "type": "WIDGET_UPDATE", "payload": { "widgetId": "w", "data": { "v": id } } });
    ask(&mut ann, "ann", "SYNC_UPDATE", json!({ "operations": [operation(1)] })).await;
    let updated = server.until_type("widget:updated").await;
    assert_eq!(updated["payload"]["message"]["type"], "SYNC_UPDATE", "{updated}");
    assert_eq!(post(&broker, "ann", &json!({ "type": "SYNC", "operations": [operation(2)] })).await.status, 200);
    let updated = server.until_type("widget:updated").await;
    assert_eq!((&updated["payload"]["clientId"], &updated["userId"]), (&Value::Null, &json!("ann")), "{updated}");
    ask(&mut ann, "ann", "SYNC_REQUEST", json!({})).await;
    server.until_type("sync:requested").await;
}
