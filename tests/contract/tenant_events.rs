//! System 4, the tenant event bus, over real sockets and HTTP. Items are those of system 4.
//!
//! Not here: 25 to 27 (the client and its page, tested in a browser), 28 (the roll-back of plugins), 32's servers and 35 (other
//! processes).

mod slow_readers;

use serde_json::{Value, json};

use crate::support::broker::{Broker, Setup, token};
use crate::support::client::Client;
use crate::support::http::{self, Answer};

fn setup() -> Setup {
    let rate = "mount.events.limits.rate_per_connection";
    Setup::example().set(&format!("{rate}.per_second"), 10_000).set(&format!("{rate}.burst"), 10_000)
}

fn user(name: &str, role: &str) -> String {
    token("somebody", json!({ "tenantId": "acme", "userId": name, "role": role }), 3_600)
}

fn path(name: &str) -> String {
    format!("/ws?tenant_id=acme&user_id={name}")
}

/// A connected client, past its `connection` event.
async fn join(broker: &Broker, name: &str) -> Client {
    let mut client = broker.connect_with(&path(name), &user(name, "")).await;
    let welcome = client.json().await;
    assert_eq!(welcome["eventType"], "connection", "{welcome}");
    client
}

/// Sends a message and returns the event of this type that answers it.
async fn ask(client: &mut Client, message: Value, kind: &str) -> Value {
    client.send(message).await;
    client.until(|event| event["eventType"] == *kind).await
}

async fn send(broker: &Broker, method: &str, path: &str, name: &str, role: &str, body: &Value) -> Answer {
    let bearer = format!("Bearer {}", user(name, role));
    let headers = [
        ("authorization", bearer.as_str()),
        ("x-tenant-id", "acme"),
        ("x-user-id", name),
        ("content-type", "application/json"),
    ];
    let body = if body.is_null() { String::new() } else { body.to_string() };
    http::send(method, &broker.http(&format!("/api/websocket{path}")), &headers, body).await
}

async fn close_of(broker: &Broker, path: &str) -> Option<(u16, String)> {
    Client::connect(&format!("ws://{}{path}", broker.address())).await.closed().await
}

/// Items 1, 2 and 10: the claims must be what the query says; then `connection` says who one is.
#[tokio::test]
async fn tenant_and_user_must_be_those_of_the_token() {
    let broker = setup().start();
    let good = user("ann", "");
    let mut ann = broker.connect_with(&path("ann"), &good).await;
    let welcome = ann.json().await;
    assert_eq!((&welcome["eventType"], &welcome["source"]), (&json!("connection"), &json!("system")));
    assert_eq!((&welcome["tenantId"], &welcome["userId"]), (&json!("acme"), &json!("ann")));
    assert!(welcome["data"]["clientId"].is_string(), "{welcome}");
    assert_eq!(welcome["data"]["channels"], json!(["tenant:acme"]));

    let plain = token("ann", json!({ "tenant": "acme" }), 60);
    let mut other = broker.connect_with(&path("ann"), &plain).await;
    assert_eq!(other.json().await["userId"], "ann", "tenant and sub do as well");
    for wrong in [
        format!("/ws?tenant_id=rival&user_id=ann&token={good}"),
        format!("/ws?tenant_id=acme&user_id=bob&token={good}"),
        format!("/ws?tenant_id=acme&token={good}"),
        format!("/ws?user_id=ann&token={good}"),
        "/ws?tenant_id=acme&user_id=ann".to_owned(),
        "/ws?tenant_id=acme&user_id=ann&token=a.b.c".to_owned(),
    ] {
        let (code, reason) = close_of(&broker, &wrong).await.expect("a close frame");
        assert_eq!(code, 1008, "{wrong}");
        assert!(!reason.is_empty(), "{wrong}");
    }

    let insecure = setup().set("mount.events.auth.insecure_query", true).start();
    let mut ann = Client::connect(&format!("ws://{}{}", insecure.address(), path("ann"))).await;
    assert_eq!(ann.json().await["tenantId"], "acme");
}

/// Items 6, 7 and 13: a client's event reaches everybody of the tenant, the sender too, with its fields.
#[tokio::test]
async fn an_event_reaches_the_tenant_with_its_fields() {
    let broker = setup().start();
    let (mut ann, mut bob) = (join(&broker, "ann").await, join(&broker, "bob").await);
    let data = json!({ "n": 12_345_678_901_234_567_u64, "nested": { "list": [1, null, "\u{1F600}"] } });

    ann.send(json!({ "type": "custom_event", "data": data })).await;

    for client in [&mut ann, &mut bob] {
        let event = client.until(|event| event["eventType"] == "custom_event").await;
        assert_eq!(event["data"], data);
        assert_eq!(
            (&event["priority"], &event["tenantId"], &event["userId"]),
            (&json!("normal"), &json!("acme"), &json!("ann"))
        );
        let id = event["id"].as_str().expect("an id");
        assert!(id.len() == 36 && id.as_bytes()[14] == b'4', "a UUID of version 4: {id}");
        let time = event["timestamp"].as_str().expect("ISO");
        assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
        assert!(event["source"].is_string(), "{event}");
    }
    for spoofed in ["connection", "filters_updated", "subscribed", "error"] {
        let error = ask(&mut ann, json!({ "type": spoofed, "data": {} }), "error").await;
        assert_eq!(error["data"]["code"], "bad_request", "{spoofed}: {error}");
    }
    let error = ask(&mut ann, json!({ "type": "x", "data": {}, "source": "system" }), "error").await;
    assert_eq!(error["data"]["code"], "bad_request", "{error}");
}

/// Items 3 and 4: values within a dimension are alternatives, dimensions must all fit, absent and empty ones always do.
#[tokio::test]
async fn filters_are_and_over_dimensions_and_or_within() {
    let broker = setup().start();
    let mut ann = join(&broker, "ann").await;
    let mut sender = join(&broker, "bob").await;
    // Whether ann gets an event of this type, source and priority; a marker that passes each filter ends the wait.
    let cases = [
        (json!({}), vec!["a/s/low", "b/t/high"], vec!["a/s/low", "b/t/high"]),
        (json!({ "eventTypes": [], "sources": [] }), vec!["a/s/low"], vec!["a/s/low"]),
        (
            json!({ "eventTypes": ["a", "c", "end"] }),
            vec!["a/s/low", "b/s/low", "c/t/high"],
            vec!["a/s/low", "c/t/high"],
        ),
        (
            json!({ "eventTypes": ["a", "end"], "sources": ["s"] }),
            vec!["a/s/low", "a/t/low", "b/s/low"],
            vec!["a/s/low"],
        ),
        (
            json!({ "priority": ["high", "critical"], "sources": ["s", "t"] }),
            vec!["a/s/low", "a/s/high", "a/u/high", "b/t/critical"],
            vec!["a/s/high", "b/t/critical"],
        ),
        (json!({ "users": ["nobody", "bob"] }), vec!["a/s/low"], vec!["a/s/low"]),
        (json!({ "users": ["nobody"], "eventTypes": ["a"] }), vec!["a/s/low"], vec![]),
    ];
    for (filters, sent, expected) in cases {
        let confirmed = ask(&mut ann, json!({ "type": "filters", "filters": filters }), "filters_updated").await;
        assert_eq!(confirmed["source"], "system");
        for event in sent {
            let [kind, source, priority] = event.split('/').collect::<Vec<_>>().try_into().expect("three parts");
            let message = json!({ "type": kind, "source": source, "priority": priority, "data": event });
            ask(&mut sender, message, kind).await;
        }
        // The next answer of the system comes after everything the filter let through.
        ann.send(json!({ "type": "filters", "filters": {} })).await;
        let mut seen = Vec::new();
        loop {
            let event = ann.json().await;
            if event["eventType"] == "filters_updated" {
                break;
            }
            seen.push(event["data"].as_str().expect("a text").to_owned());
        }
        assert_eq!(seen, expected, "{filters}");
    }
    for bad in
        [json!({ "eventTypes": "a" }), json!({ "priority": ["loud"] }), json!([]), json!(null), json!({ "users": [1] })]
    {
        let error = ask(&mut ann, json!({ "type": "filters", "filters": bad }), "error").await;
        assert_eq!(error["data"]["code"], "bad_request", "{bad}: {error}");
    }
}

/// Items 5, 11 and 21: channels by short or long name, event types within them, and replay before what is live.
#[tokio::test]
async fn channels_are_subscribed_and_replayed() {
    let mut broker = setup().start();
    let mut bob = join(&broker, "bob").await;
    ask(&mut bob, json!({ "type": "subscribe", "channel": "ideas" }), "subscribed").await;
    for number in 0..5 {
        let kind = if number % 2 == 0 { "idea_created" } else { "idea_updated" };
        ask(&mut bob, json!({ "type": kind, "channel": "ideas", "data": number }), kind).await;
    }
    broker.kill();
    broker.start();
    let mut ann = join(&broker, "ann").await;

    let subscribe = json!({ "type": "subscribe", "channel": "ideas", "eventTypes": ["idea_created"], "replay": 2 });
    let confirmed = ask(&mut ann, subscribe, "subscribed").await;

    assert_eq!(
        (&confirmed["source"], &confirmed["data"]["channel"]),
        (&json!("system"), &json!("ideas:acme")),
        "{confirmed}"
    );
    for number in [2, 4] {
        let event = ann.json().await;
        assert_eq!((&event["eventType"], &event["data"]), (&json!("idea_created"), &json!(number)), "{event}");
    }
    let mut bob = join(&broker, "bob").await;
    for (kind, channel) in [("idea_updated", "ideas"), ("idea_created", "other"), ("idea_created", "ideas:acme")] {
        bob.send(json!({ "type": kind, "channel": channel, "data": "live" })).await;
    }
    let event = ann.json().await;
    assert_eq!((&event["eventType"], &event["data"]), (&json!("idea_created"), &json!("live")), "{event}");
    ask(&mut ann, json!({ "type": "unsubscribe", "channel": "ideas:acme" }), "unsubscribed").await;
    ask(&mut bob, json!({ "type": "subscribe", "channel": "ideas" }), "subscribed").await;
    ask(&mut bob, json!({ "type": "idea_created", "channel": "ideas", "data": "unheard" }), "idea_created").await;
    ann.nothing_before(json!({ "type": "filters", "filters": {} }), |event| event["eventType"] == "filters_updated")
        .await;
    for (channel, code) in
        [("ideas:rival", "forbidden"), ("tenant:rival", "forbidden"), ("", "bad_request"), ("a:b:c", "bad_request")]
    {
        let error = ask(&mut ann, json!({ "type": "subscribe", "channel": channel }), "error").await;
        assert_eq!(error["data"]["code"], code, "{channel}: {error}");
    }
}

/// Items 14, 16, 17: what the plain requests answer, and what they lack.
#[tokio::test]
async fn the_http_api_answers_what_frontends_expect() {
    let broker = setup().start();
    let mut ann = join(&broker, "ann").await;

    let posted = send(&broker, "POST", "", "bob", "", &json!({ "channel": "tenant:acme", "event": "user_update", "payload": { "a": 1 }, "source": "user_service", "priority": "high" })).await;

    assert_eq!(posted.status, 200, "{}", posted.text);
    let posted = posted.json();
    assert_eq!(posted["success"], true);
    assert!(posted["timestamp"].is_string(), "{posted}");
    let event = ann.until(|event| event["eventType"] == "user_update").await;
    assert_eq!(event["id"], posted["message_id"]);
    assert_eq!(
        (&event["data"], &event["source"], &event["priority"], &event["userId"]),
        (&json!({ "a": 1 }), &json!("user_service"), &json!("high"), &json!("bob"))
    );

    let info = send(&broker, "GET", "", "ann", "", &Value::Null).await.json();
    assert_eq!(info["success"], true);
    let websocket = &info["websocket"];
    assert_eq!((&websocket["tenant_id"], &websocket["supabase"]["enabled"]), (&json!("acme"), &json!(false)), "{info}");
    assert_eq!(websocket["nextjs"]["url"], broker.http("/ws").replacen("http", "ws", 1), "{info}");
    assert!(websocket["nextjs"]["status"].is_string() && websocket["nextjs"]["metrics"].is_object(), "{info}");
    for (list, known) in [
        ("channels", "tenant:acme"),
        ("channels", "ideas:acme"),
        ("event_types", "idea_created"),
        ("event_types", "user_update"),
        ("sources", "idea_service"),
    ] {
        let list = websocket[list].as_array().unwrap_or_else(|| panic!("{list}: {info}"));
        assert!(list.contains(&json!(known)), "{known}: {info}");
    }

    let url = broker.http("/api/websocket");
    let bearer = format!("Bearer {}", user("ann", ""));
    let code = async |headers: &[(&str, &str)], method: &str| {
        let answer = http::send(method, &url, headers, "{}".to_owned()).await;
        let error = answer.json()["error"].clone();
        assert!(error["code"].is_string() && error["message"].is_string(), "{error}");
        answer.status
    };
    assert_eq!(code(&[("x-tenant-id", "acme")], "GET").await, 401);
    assert_eq!(code(&[("authorization", &bearer)], "GET").await, 400);
    assert_eq!(code(&[("authorization", &bearer), ("x-tenant-id", "rival")], "GET").await, 403);
    assert_eq!(code(&[("authorization", &bearer), ("x-tenant-id", "acme")], "POST").await, 400);
    assert_eq!(code(&[("authorization", &bearer), ("x-tenant-id", "acme"), ("x-user-id", "bob")], "POST").await, 403);
    for bad in [
        json!({}),
        json!([]),
        json!({ "event": "" , "payload": {} }),
        json!({ "event": "x", "channel": "ideas:rival" }),
        json!({ "event": "x", "priority": "loud" }),
    ] {
        let answer = send(&broker, "POST", "", "bob", "", &bad).await;
        assert!([400, 403].contains(&answer.status), "{bad}: {}", answer.status);
        assert_eq!(answer.json()["success"], false);
    }
}

/// Items 19, 20, 24: numbers about the bus.
#[tokio::test]
async fn the_status_counts() {
    let broker = setup().start();
    let mut ann = join(&broker, "ann").await;
    join(&broker, "bob").await.close().await;
    for _ in 0..3 {
        ask(&mut ann, json!({ "type": "custom_event", "data": {} }), "custom_event").await;
    }
    let status = async |path: &str| send(&broker, "GET", path, "ann", "", &Value::Null).await.json();
    let plain = loop {
        let plain = status("/status").await;
        if plain["websocket"]["metrics"]["client_count"] == 1 {
            break plain;
        }
    };
    let websocket = &plain["websocket"];
    assert_eq!((&plain["success"], &websocket["server_running"]), (&json!(true), &json!(true)));
    assert_eq!((&websocket["status"], &websocket["health"]), (&json!("active"), &json!("healthy")));
    let metrics = &websocket["metrics"];
    assert_eq!((&metrics["total_connections"], &metrics["active_connections"]), (&json!(2), &json!(1)), "{plain}");
    assert_eq!(metrics["event_history_size"], 3, "{plain}");
    assert!(metrics["events_sent"].as_u64().expect("a number") >= 3 && metrics["last_activity"].is_string(), "{plain}");
    let detailed = status("/status?detailed=true").await;
    assert!(detailed.to_string().len() > plain.to_string().len(), "{detailed}");
}

/// Items 5 and 21: on a channel it is subscribed to, as everybody is to `tenant`, a client that asks for the past gets it before what
/// comes live, and nothing twice.
#[tokio::test]
async fn a_replay_comes_before_what_is_live_and_nothing_comes_twice() {
    let broker = setup().start();
    let mut bob = join(&broker, "bob").await;
    for number in 0..20 {
        ask(&mut bob, json!({ "type": "e", "data": number }), "e").await;
    }
    let mut readers = Vec::new();
    for number in 0..10 {
        readers.push(join(&broker, &format!("reader-{number}")).await);
    }
    // Bob goes on while they ask; so some of his events come in between, wherever that is.
    for (number, reader) in readers.iter_mut().enumerate() {
        bob.send(json!({ "type": "e", "data": 20 + number })).await;
        reader.send(json!({ "type": "subscribe", "channel": "tenant", "replay": 5 })).await;
    }
    ask(&mut bob, json!({ "type": "last", "data": 30 }), "last").await;

    for mut reader in readers {
        while reader.json().await["eventType"] != "subscribed" {}
        let mut seen = Vec::new();
        while seen.last() != Some(&30) {
            seen.push(reader.json().await["data"].as_u64().expect("a number"));
        }
        assert!(seen.len() >= 6 && seen.is_sorted_by(|one, next| one + 1 == *next), "{seen:?}");
    }
}

/// Item 21: history is durable, bounded and paged.
#[tokio::test]
async fn history_is_durable_bounded_and_paged() {
    let mut broker = setup().set("mount.events.settings.historyMax", 10).start();
    for number in 0..15 {
        let body = json!({ "channel": "ideas", "event": "e", "payload": number });
        assert_eq!(send(&broker, "POST", "", "bob", "", &body).await.status, 200);
    }
    broker.kill();
    broker.start();
    let page = async |query: &str| {
        send(&broker, "GET", &format!("/history?channel=ideas{query}"), "ann", "", &Value::Null).await.json()
    };
    let numbers = |page: &Value| -> Vec<u64> {
        page["events"]
            .as_array()
            .unwrap_or_else(|| panic!("{page}"))
            .iter()
            .map(|event| event["data"].as_u64().expect("a number"))
            .collect()
    };
    assert_eq!(numbers(&page("").await), (5..15).collect::<Vec<_>>());
    let last = page("&limit=4").await;
    assert_eq!(numbers(&last), [11, 12, 13, 14]);
    let before = last["events"][0]["id"].as_str().expect("an id");
    assert_eq!(numbers(&page(&format!("&limit=4&before={before}")).await), [7, 8, 9, 10]);
    let bad = send(&broker, "GET", "/history?channel=ideas:rival", "ann", "", &Value::Null).await;
    assert_eq!((bad.status, &bad.json()["success"]), (403, &json!(false)));
    let bad = send(&broker, "GET", "/history?channel=ideas&limit=many", "ann", "", &Value::Null).await;
    assert_eq!(bad.status, 400);
}

/// Item 18: an admin forgets the history of a channel; who is subscribed stays so.
#[tokio::test]
async fn an_admin_forgets_a_history() {
    let mut broker = setup().start();
    let mut ann = join(&broker, "ann").await;
    ask(&mut ann, json!({ "type": "subscribe", "channel": "ideas" }), "subscribed").await;
    for channel in ["ideas", "ideas", "tenant"] {
        ask(&mut ann, json!({ "type": "idea_created", "channel": channel, "data": 1 }), "idea_created").await;
    }
    for query in ["?channel=ideas", "?channel=ideas:rival", "", "?channel=ideas&user_id=ann"] {
        let role = if query == "?channel=ideas" { "" } else { "admin" };
        let refused = send(&broker, "DELETE", query, "root", role, &Value::Null).await;
        assert!([400, 403].contains(&refused.status), "{query}: {}", refused.text);
    }

    let deleted = send(&broker, "DELETE", "?channel=ideas", "root", "admin", &Value::Null).await;

    assert_eq!(
        (deleted.status, deleted.json()),
        (200, json!({ "success": true, "channel": "ideas:acme", "deleted": 2 }))
    );
    let kept = async |broker: &Broker, channel: &str| {
        let page = send(broker, "GET", &format!("/history?channel={channel}"), "ann", "", &Value::Null).await.json();
        page["events"].as_array().expect("events").len()
    };
    ask(&mut ann, json!({ "type": "idea_updated", "channel": "ideas", "data": 2 }), "idea_updated").await;
    broker.kill();
    broker.start();
    assert_eq!((kept(&broker, "ideas").await, kept(&broker, "tenant").await), (1, 1));
}

/// Item 18: an admin changes the filters of a user's connections, and closes them.
#[tokio::test]
async fn an_admin_filters_and_closes() {
    let broker = setup().start();
    let (mut ann, mut bob) = (join(&broker, "ann").await, join(&broker, "bob").await);
    let filters = json!({ "user_id": "ann", "filters": { "eventTypes": ["wanted"] } });
    assert_eq!(send(&broker, "PUT", "", "bob", "", &filters).await.status, 403);
    assert_eq!(send(&broker, "DELETE", "?user_id=ann", "bob", "", &Value::Null).await.status, 403);

    let put = send(&broker, "PUT", "", "root", "admin", &filters).await;
    assert_eq!(put.status, 200, "{}", put.text);
    for kind in ["unwanted", "wanted"] {
        ask(&mut bob, json!({ "type": kind, "data": {} }), kind).await;
    }
    let event = ann.until(|event| event["source"] != "system").await;
    assert_eq!(event["eventType"], "wanted");

    let closed = send(&broker, "DELETE", "?user_id=ann", "root", "admin", &Value::Null).await;
    assert_eq!(closed.status, 200, "{}", closed.text);
    let code = ann.close_code().await.expect("a code");
    assert!((4_500..5_000).contains(&code), "{code} says not to reconnect");
    ask(&mut bob, json!({ "type": "still", "data": {} }), "still").await;
}

/// Item 23: too much is said in an `error` event, and does nothing.
#[tokio::test]
async fn too_many_messages_are_said() {
    let broker = Setup::example().start();
    let mut ann = join(&broker, "ann").await;
    for number in 0..140 {
        ann.send(json!({ "type": "e", "data": number })).await;
    }
    let error = ann.until(|event| event["eventType"] == "error").await;
    assert_eq!((&error["source"], &error["data"]["code"]), (&json!("system"), &json!("rate_limited")), "{error}");
}

/// An application server publishes, with an API key.
#[tokio::test]
async fn a_server_publishes() {
    let broker = setup().start();
    let key = broker.run(&["key", "create", "--tenant", "acme", "--name", "app"]);
    let mut ann = join(&broker, "ann").await;
    let event = json!({ "event": "user_update", "payload": { "a": 1 }, "source": "user_service" });
    assert_eq!(broker.publish(key.trim(), "tenant:acme", &event).await.status, 200);
    let event = ann.until(|event| event["eventType"] == "user_update").await;
    assert_eq!(
        (&event["data"], &event["source"], &event["userId"]),
        (&json!({ "a": 1 }), &json!("user_service"), &json!(null))
    );

    // In the name of a user, whom filters look at as well.
    ask(&mut ann, json!({ "type": "filters", "filters": { "users": ["zoe"] } }), "filters_updated").await;
    for user in ["yan", "zoe"] {
        let event = json!({ "event": "user_update", "type": "SERVER_EVENT", "userId": user });
        assert_eq!(broker.publish(key.trim(), "tenant:acme", &event).await.status, 200);
    }
    let event = ann.json().await;
    assert_eq!((&event["eventType"], &event["userId"]), (&json!("user_update"), &json!("zoe")), "{event}");
    let nobody = json!({ "event": "user_update", "userId": "" });
    assert_eq!(broker.publish(key.trim(), "tenant:acme", &nobody).await.status, 400);
}

/// What is wrong is said in an `error` event, and nobody else hears of it.
#[tokio::test]
async fn bad_messages_get_an_error_event() {
    let broker = setup().start();
    let (mut ann, mut bob) = (join(&broker, "ann").await, join(&broker, "bob").await);
    for text in [
        "",
        "{",
        "[]",
        "null",
        "NaN",
        "{\"type\":7}",
        "{\"data\":{}}",
        "{\"type\":\"\"}",
        "{\"type\":\"a\\u0000b\",\"data\":{}}",
        "{\"type\":\"x\",\"priority\":\"loud\"}",
        "{\"type\":\"x\",\"channel\":7}",
        "{\"type\":\"x\",\"data\":\"\\ud800\"}",
        "{\"type\":\"subscribe\"}",
        "{\"type\":\"subscribe\",\"channel\":\"ideas\",\"replay\":-1}",
    ] {
        ann.send_text(text).await;
        let error = ann.json().await;
        assert_eq!(error["eventType"], "error", "{text}: {error}");
        assert!(error["data"]["code"].is_string() && error["data"]["message"].is_string(), "{error}");
    }
    let deep = format!("{{\"type\":\"x\",\"data\":{}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
    ann.send_text(&deep).await;
    assert_eq!(ann.json().await["eventType"], "error");
    bob.nothing_before(json!({ "type": "filters", "filters": {} }), |event| event["eventType"] == "filters_updated")
        .await;
}
