//! Items 11, 13, 20, 22 to 25: events of application servers, and health.

use serde_json::{Value, json};

use crate::community_chat::{PATH, contents, join, nothing_waits, say, subscribe};
use crate::support::broker::{Broker, Setup};
use crate::support::http;

/// Publishes and checks that it took hold.
async fn publish(broker: &Broker, key: &str, channel: &str, body: Value) -> Value {
    let answer = broker.publish(key, channel, &body).await;
    assert_eq!(answer.status, 200, "{body}: {}", answer.text);
    let answer = answer.json();
    assert_eq!((&answer["success"], &answer["channel"]), (&json!(true), &json!(channel)));
    answer
}

/// Item 13, decided: the publish API creates an event of every type.
#[tokio::test]
async fn item_13_every_type_can_be_published() {
    let broker = Setup::example().start();
    let key = broker.api_key("app");
    let mut alice = join(&broker, "alice", "room:1").await;

    publish(&broker, &key, "room:1", json!({"type": "USER_JOINED", "payload": {"userId": "bot"}})).await;
    let joined = alice.json().await;
    publish(&broker, &key, "room:1", json!({"type": "TYPING", "payload": {"userId": "bot", "isTyping": true}})).await;
    let typing = alice.json().await;
    publish(&broker, &key, "room:1", json!({"type": "CHAT_MESSAGE", "userId": "bot", "data": {"content": "hi"}})).await;
    let message = alice.json().await;
    let id = &message["payload"]["id"];
    publish(&broker, &key, "room:1", json!({"type": "MESSAGE_EDIT", "payload": {"id": id, "content": "hi!"}})).await;
    let edit = alice.json().await;
    publish(&broker, &key, "room:1", json!({"type": "MESSAGE_DELETE", "payload": {"id": id}})).await;
    let delete = alice.json().await;
    publish(&broker, &key, "room:1", json!({"type": "TYPING", "payload": {"userId": "bot", "isTyping": false}})).await;
    let typed = alice.json().await;
    publish(&broker, &key, "room:1", json!({"type": "USER_LEFT", "payload": {"userId": "bot"}})).await;
    let left = alice.json().await;
    publish(&broker, &key, "room:1", json!({"type": "PING", "payload": {}})).await;
    let ping = alice.json().await;
    publish(&broker, &key, "room:1", json!({"type": "PONG", "payload": {}})).await;
    let pong = alice.json().await;

    for (frame, kind) in [
        (&joined, "USER_JOINED"),
        (&typing, "TYPING"),
        (&message, "CHAT_MESSAGE"),
        (&edit, "MESSAGE_EDIT"),
        (&delete, "MESSAGE_DELETE"),
        (&typed, "TYPING"),
        (&left, "USER_LEFT"),
        (&ping, "PING"),
        (&pong, "PONG"),
    ] {
        assert_eq!((&frame["type"], &frame["channel"]), (&json!(kind), &json!("room:1")), "{frame}");
        assert!(frame["timestamp"].is_u64(), "{frame}");
    }
    assert_eq!(joined["payload"]["userId"], "bot");
    assert_eq!(typing["payload"], json!({"userId": "bot", "isTyping": true}));
    assert_eq!((&message["payload"]["userId"], &message["payload"]["content"]), (&json!("bot"), &json!("hi")));
    assert_eq!((&edit["payload"]["id"], &edit["payload"]["content"]), (id, &json!("hi!")));
    assert_eq!((&delete["payload"]["id"], &delete["payload"]["userId"]), (id, &json!("bot")));
    assert_eq!(typed["payload"], json!({"userId": "bot", "isTyping": false}));
    assert_eq!(left["payload"]["userId"], "bot");
}

/// Item 20: a published message is stored before it is answered, also in a channel nobody is in.
#[tokio::test]
async fn item_20_a_published_message_is_stored() {
    let mut broker = Setup::example().start();
    let key = broker.api_key("app");

    publish(
        &broker,
        &key,
        "room:quiet",
        json!({"type": "CHAT_MESSAGE", "userId": "bot", "payload": {"content": "hi"}}),
    )
    .await;
    broker.kill();
    broker.start();

    let mut alice = broker.connect(PATH, "alice").await;
    assert_eq!(contents(&subscribe(&mut alice, "room:quiet").await["payload"]["recent"]), ["hi"]);
}

/// Item 11: `broadcastToUser`: what is published to `user:{id}` reaches all of the user's connections, whatever they are
/// subscribed to, and nobody else's.
#[tokio::test]
async fn item_11_broadcast_to_user_reaches_all_of_its_connections() {
    let broker = Setup::example().start();
    let key = broker.api_key("app");
    let mut phone = broker.connect(PATH, "alice").await;
    let mut laptop = join(&broker, "alice", "room:1").await;
    let mut bob = join(&broker, "bob", "room:1").await;

    publish(&broker, &key, "user:alice", json!({"type": "NOTICE", "payload": {"text": "for you"}})).await;

    for client in [&mut phone, &mut laptop] {
        let notice = client.until_type("NOTICE").await;
        assert_eq!((&notice["channel"], &notice["payload"]), (&json!("user:alice"), &json!({"text": "for you"})));
    }
    nothing_waits(&mut bob, "room:1").await;
}

/// Item 11: with `toUser`, an event of a room reaches that user's connections in it, and no other member.
#[tokio::test]
async fn item_11_to_user_addresses_one_user_of_a_channel() {
    let broker = Setup::example().start();
    let key = broker.api_key("app");
    let mut first = join(&broker, "alice", "room:1").await;
    let mut second = join(&broker, "alice", "room:1").await;
    let mut bob = join(&broker, "bob", "room:1").await;
    first.until_type("USER_JOINED").await;
    second.until_type("USER_JOINED").await;

    publish(&broker, &key, "room:1", json!({"type": "NOTICE", "toUser": "alice", "payload": {"n": 1}})).await;
    let stored = json!({"type": "CHAT_MESSAGE", "userId": "bot", "toUser": "alice", "payload": {"content": "x"}});
    let refused = broker.publish(&key, "room:1", &stored).await;

    for client in [&mut first, &mut second] {
        assert_eq!(client.json().await["payload"], json!({"n": 1}));
    }
    assert_eq!(refused.status, 400, "{}", refused.text);
    nothing_waits(&mut bob, "room:1").await;
}

/// Item 13: the same `Idempotency-Key` publishes once and gets the first answer, also after a crash; another key, channel or
/// sender is another message.
#[tokio::test]
async fn item_13_an_idempotency_key_publishes_once_even_across_a_crash() {
    let mut broker = Setup::example().start();
    let (key, other_key) = (broker.api_key("app"), broker.api_key("other"));
    let body = json!({"type": "CHAT_MESSAGE", "userId": "bot", "payload": {"content": "once"}});
    let publish = async |broker: &Broker, key: &str, channel: &str, idempotency: &str| {
        let url = broker.http(&format!("/v1/channels/{channel}/publish"));
        let bearer = format!("Bearer {key}");
        let answer = http::post(&url, &[("authorization", &bearer), ("idempotency-key", idempotency)], &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.text
    };

    let first = publish(&broker, &key, "room:1", "k-1").await;
    let retries = [publish(&broker, &key, "room:1", "k-1").await, publish(&broker, &key, "room:1", "k-1").await];
    broker.kill();
    broker.start();
    let after_crash = publish(&broker, &key, "room:1", "k-1").await;
    let at_once = tokio::join!(
        publish(&broker, &key, "room:1", "k-2"),
        publish(&broker, &key, "room:1", "k-2"),
        publish(&broker, &key, "room:1", "k-2"),
    );
    publish(&broker, &other_key, "room:1", "k-1").await;
    publish(&broker, &key, "room:2", "k-1").await;

    assert_eq!(retries, [first.clone(), first.clone()]);
    assert_eq!(after_crash, first);
    assert!(at_once.0 == at_once.1 && at_once.1 == at_once.2, "{at_once:?}");
    let mut alice = broker.connect(PATH, "alice").await;
    assert_eq!(contents(&subscribe(&mut alice, "room:1").await["payload"]["recent"]), ["once"; 3]);
    assert_eq!(contents(&subscribe(&mut alice, "room:2").await["payload"]["recent"]), ["once"]);
}

/// Item 13: what cannot be published is refused with a status and a sentence, and changes nothing.
#[tokio::test]
async fn item_13_publishing_is_refused_with_a_status_that_says_why() {
    let broker = Setup::example().set("mount.community.limits.request_bytes_max", 20_000).start();
    let key = broker.api_key("app");
    let chat = |payload: Value| json!({"type": "CHAT_MESSAGE", "userId": "bot", "payload": payload}).to_string();
    let good = chat(json!({"content": "x"}));
    let (bearer, wrong) = (format!("Bearer {key}"), format!("Bearer {key}0"));
    let jwt = format!("Bearer {}", broker.token("alice", json!({"role": "admin"})));
    for (why, status, authorization, channel, body) in [
        ("no key", 401, "", "room:1", good.clone()),
        ("a wrong key", 401, &*wrong, "room:1", good.clone()),
        ("a user's token", 401, &*jwt, "room:1", good.clone()),
        ("a scheme of its own", 401, &*format!("Basic {key}"), "room:1", good.clone()),
        ("no such channel", 404, &*bearer, "lobby:1", good.clone()),
        ("a channel without an id", 404, &*bearer, "room", good.clone()),
        ("no JSON", 400, &*bearer, "room:1", "hi".to_owned()),
        ("no body", 400, &*bearer, "room:1", String::new()),
        ("no type", 400, &*bearer, "room:1", json!({"payload": {}}).to_string()),
        (
            "no author",
            400,
            &*bearer,
            "room:1",
            json!({"type": "CHAT_MESSAGE", "payload": {"content": "x"}}).to_string(),
        ),
        ("no content", 400, &*bearer, "room:1", chat(json!({}))),
        ("an answer's type", 400, &*bearer, "room:1", json!({"type": "SUBSCRIBED", "payload": {}}).to_string()),
        ("too long a content", 413, &*bearer, "room:1", chat(json!({"content": "x".repeat(4_001)}))),
        ("too long a body", 413, &*bearer, "room:1", chat(json!({"content": "x".repeat(30_000)}))),
        (
            "no such message",
            404,
            &*bearer,
            "room:1",
            json!({"type": "MESSAGE_DELETE", "payload": {"id": "9"}}).to_string(),
        ),
    ] {
        let url = broker.http(&format!("/v1/channels/{channel}/publish"));
        let answer = http::post(&url, &[("authorization", authorization)], body).await;

        assert_eq!(answer.status, status, "{why}: {}", answer.text);
        let body = answer.json();
        assert_eq!(body["success"], false, "{why}");
        assert!(body["error"].as_str().is_some_and(|error| !error.is_empty()), "{why}: {body}");
        assert!(!answer.text.contains(&key), "{why}: the key is shown");
    }
    let mut alice = broker.connect(PATH, "alice").await;
    assert_eq!(subscribe(&mut alice, "room:1").await["payload"]["recent"], json!([]));
}

/// Item 13: a key publishes for its own tenant only, and not any more once it is revoked.
#[tokio::test]
async fn item_13_a_key_is_of_one_tenant_and_can_be_revoked() {
    let broker = Setup::example().start();
    let acme = broker.run(&["key", "create", "--name", "app", "--tenant", "acme"]).trim().to_owned();
    let mut ours = join(&broker, "alice", "room:1").await;
    let mut theirs = broker.connect_with(PATH, &broker.token("bob", json!({"tenant": "acme"}))).await;
    subscribe(&mut theirs, "room:1").await;

    publish(&broker, &acme, "room:1", json!({"type": "NOTICE", "payload": {}})).await;
    broker.run(&["key", "revoke", "--name", "app", "--tenant", "acme"]);
    let after = broker.publish(&acme, "room:1", &json!({"type": "NOTICE", "payload": {}})).await;

    assert_eq!(theirs.json().await["type"], "NOTICE");
    assert_eq!(after.status, 401);
    nothing_waits(&mut ours, "room:1").await;
}

/// Items 22, 23, 24, 25, decided: health has exactly these keys and true numbers, and without Redis the broker runs alone and
/// says `disabled`. It needs no token and shows no names.
#[tokio::test]
async fn item_22_health_has_the_exact_keys_and_true_numbers() {
    let broker = Setup::example().start();
    let health = async || {
        let answer = http::get(&broker.http(&format!("{PATH}/health")), &[]).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{}", answer.text);
        let mut health = answer.json();
        let timestamp = health["timestamp"].take();
        let timestamp = timestamp.as_str().expect("a text");
        assert!(timestamp.len() == 24 && timestamp.ends_with('Z') && timestamp.starts_with("20"), "{timestamp}");
        health
    };
    let expected = |connections: u64, users: u64, average: f64, channels: u64| {
        json!({
            "status": "ok",
            "websocket": {"totalConnections": connections, "uniqueUsers": users, "averageConnectionsPerUser": average},
            "pubsub": {"publisher": "disabled", "subscriber": "disabled", "channels": channels},
            "timestamp": null,
        })
    };

    let empty = health().await;
    let mut alice = join(&broker, "alice", "room:1").await;
    let _phone = broker.connect(PATH, "alice").await;
    let _bob = join(&broker, "bob", "room:2").await;
    let three = health().await;
    say(&mut alice, "room:1", "hi").await;
    alice.close().await;
    let mut two = health().await;
    while two["websocket"]["totalConnections"] == 3 {
        two = health().await;
    }

    // The channel that answers is awake as well.
    assert_eq!(empty, expected(0, 0, 0.0, 1));
    assert_eq!(three, expected(3, 2, 1.5, 3));
    assert_eq!(two, expected(2, 2, 1.0, 3));
}

/// Item 22: only `GET` is answered, and only there.
#[tokio::test]
async fn item_22_health_answers_get_and_nothing_else() {
    let broker = Setup::example().start();
    let posted = http::post(&broker.http(&format!("{PATH}/health")), &[], "{}").await;
    let elsewhere = http::get(&broker.http(&format!("{PATH}/other")), &[]).await;

    assert_eq!((posted.status, posted.header("allow")), (405, Some("GET")));
    assert_eq!(elsewhere.status, 404);
}
