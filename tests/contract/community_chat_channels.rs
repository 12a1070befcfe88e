//! Items 5 to 12, 16 to 18, 31, 34: channels, who may join them, who is there, who types, and the rate limit.

use std::time::Instant;

use serde_json::{Value, json};

use crate::community_chat::{PATH, error_of, join, join_with, nothing_waits, say, send, subscribe};
use crate::support::broker::Setup;
use crate::support::client::Client;

/// Items 5 and 7: every frame is an envelope `{type, channel, payload, timestamp}` with the exact type names, and the
/// timestamp is the server's, in milliseconds.
#[tokio::test]
async fn item_05_the_types_are_exact_and_item_07_the_envelope_is_whole() {
    let broker = Setup::example().start();
    let mut alice = join(&broker, "alice", "room:1").await;
    let mut bob = broker.connect(PATH, "bob").await;
    let began_ms = now_ms();

    subscribe(&mut bob, "room:1").await;
    let joined = alice.json().await;
    send(&mut bob, "TYPING", "room:1", json!({"isTyping": true})).await;
    let typing = alice.json().await;
    let frame = json!({"type": "CHAT_MESSAGE", "channel": "room:1", "payload": {"content": "hi"}, "timestamp": 1});
    bob.send(frame).await;
    let message = alice.json().await;
    let id = message["payload"]["id"].clone();
    send(&mut bob, "MESSAGE_EDIT", "room:1", json!({"id": id, "content": "hi!"})).await;
    let edit = alice.json().await;
    send(&mut bob, "MESSAGE_DELETE", "room:1", json!({"id": id})).await;
    let delete = alice.json().await;
    bob.close().await;
    let end_of_typing = alice.json().await;
    let left = alice.json().await;

    let kinds: Vec<&Value> =
        [&joined, &typing, &message, &edit, &delete, &end_of_typing, &left].map(|frame| &frame["type"]).to_vec();
    let expected = ["USER_JOINED", "TYPING", "CHAT_MESSAGE", "MESSAGE_EDIT", "MESSAGE_DELETE", "TYPING", "USER_LEFT"];
    assert_eq!(kinds, expected);
    for frame in [joined, typing, message, edit, delete, left] {
        assert_eq!(frame["channel"], "room:1", "{frame}");
        assert_eq!(frame["userId"], "bob", "{frame}");
        assert!(frame["payload"].is_object(), "{frame}");
        let at_ms = frame["timestamp"].as_u64().expect("a timestamp");
        assert!((began_ms..=now_ms()).contains(&at_ms), "not the server's time in ms: {frame}");
    }
}

/// Item 6: `PING` is answered `PONG`, in and without a channel, with what names the question. A client's `PONG` is ignored.
#[tokio::test]
async fn item_06_ping_is_answered_pong() {
    let broker = Setup::example().start();
    let mut client = broker.connect(PATH, "alice").await;

    client.send(json!({"type": "PONG"})).await;
    client.send(json!({"type": "PING", "id": "p1", "payload": {}})).await;
    let answer = client.json().await;
    client.send(json!({"type": "PING", "channel": "room:1", "id": 7})).await;
    let second = client.json().await;

    assert_eq!((&answer["type"], &answer["correlationId"]), (&json!("PONG"), &json!("p1")));
    assert!(answer["timestamp"].is_u64());
    assert_eq!((&second["type"], &second["correlationId"]), (&json!("PONG"), &json!(7)));
}

/// Item 7: unknown extra fields are never an error: not in the envelope, and those of a message's payload pass through.
#[tokio::test]
async fn item_07_unknown_fields_pass_through() {
    let broker = Setup::example().start();
    let mut alice = join(&broker, "alice", "room:1").await;
    let payload = json!({"content": "hi", "replyTo": "12", "mood": {"emoji": "🙂"}});

    alice.send(json!({"type": "CHAT_MESSAGE", "channel": "room:1", "payload": payload, "app": "web", "v": [2]})).await;

    let message = alice.until_type("CHAT_MESSAGE").await;
    assert_eq!(message["payload"]["replyTo"], "12");
    assert_eq!(message["payload"]["mood"], json!({"emoji": "🙂"}));
}

/// Items 8 and 10, decided: who may join what. `room:*` is open to the tenant's users; `group:{id}` needs the id in the claim
/// `groups`; `dm:{a}:{b}`, ids sorted, is for those two; `user:{id}` for that user; nothing else exists.
#[tokio::test]
async fn item_08_and_10_the_matrix_of_channels_and_users() {
    let broker = Setup::example().start();
    let claims = json!({"groups": ["g1", 7], "role": "admin"});
    let mut alice = broker.connect_with(PATH, &broker.token("alice", claims)).await;
    for open in ["room:1", "room:x:y", "group:g1", "group:7", "dm:alice:bob", "dm:aaron:alice", "user:alice"] {
        subscribe(&mut alice, open).await;
    }
    for (closed, code) in [
        ("group:g2", "forbidden"),
        ("group:g", "forbidden"),
        ("group:g1:x", "forbidden"),
        ("dm:bob:alice", "bad_request"),
        ("dm:bob:carol", "forbidden"),
        ("dm:alice:alice", "bad_request"),
        ("dm:alice", "bad_request"),
        ("dm:alice:bob:carol", "bad_request"),
        ("user:bob", "forbidden"),
        ("status", "forbidden"),
        ("lobby", "forbidden"),
        ("tenant:x", "forbidden"),
        ("ROOM:1", "forbidden"),
        ("room:", "bad_request"),
        ("room", "bad_request"),
        ("", "forbidden"),
    ] {
        let error = error_of(&mut alice, json!({"type": "SUBSCRIBE", "channel": closed})).await;
        assert_eq!(error["code"], code, "{closed}: {error}");
        let error =
            error_of(&mut alice, json!({"type": "CHAT_MESSAGE", "channel": closed, "payload": {"content": "x"}})).await;
        assert_eq!(error["code"], "not_subscribed", "{closed}: {error}");
    }
    for odd in [&"r".repeat(300), "a b", "\u{0}", "\n", "*", "ü", ":x"] {
        let error = error_of(&mut alice, json!({"type": "SUBSCRIBE", "channel": format!("room:{odd}")})).await;
        assert_eq!(error["code"], "bad_request", "{odd:?}: {error}");
    }
    let mut without_claim = broker.connect(PATH, "bob").await;
    let error = error_of(&mut without_claim, json!({"type": "SUBSCRIBE", "channel": "group:g1"})).await;
    assert_eq!(error["code"], "forbidden");
}

/// Decided: a claim `groups` that is no list opens nothing, and a user's id never reaches into another one's channel.
#[tokio::test]
async fn item_10_odd_claims_open_no_group() {
    let broker = Setup::example().start();
    for groups in [json!("g1"), json!({"g1": true}), json!([["g1"]]), json!([null]), json!(["g1 "]), json!([7.0])] {
        let mut client = broker.connect_with(PATH, &broker.token("alice", json!({"groups": groups}))).await;
        for channel in ["group:g1", "group:7", "group:7.0"] {
            let error = error_of(&mut client, json!({"type": "SUBSCRIBE", "channel": channel})).await;
            assert_eq!(error["code"], "forbidden", "{groups} opened {channel}");
        }
    }
}

/// Decided ("of the tenant"): the same room of another tenant is another room.
#[tokio::test]
async fn item_10_tenants_do_not_meet() {
    let broker = Setup::example().start();
    let mut ours = join(&broker, "alice", "room:1").await;
    let mut theirs = join_with(&broker, "alice", json!({"tenant": "acme"}), "room:1").await;

    say(&mut ours, "room:1", "secret").await;

    nothing_waits(&mut theirs, "room:1").await;
    let mut late = broker.connect_with(PATH, &broker.token("bob", json!({"tenant": "acme"}))).await;
    let seen = subscribe(&mut late, "room:1").await;
    assert_eq!(seen["payload"]["online"], json!(["alice", "bob"]));
    assert_eq!(seen["payload"]["recent"].as_array().map(Vec::len), Some(1), "only the tenant's own fence: {seen}");
}

/// Item 10, decided: `SUBSCRIBED` has who is online and the last 50 messages, oldest first.
#[tokio::test]
async fn item_10_subscribed_has_online_and_the_last_fifty() {
    let broker = Setup::example().start();
    let mut alice = join(&broker, "alice", "room:1").await;
    for number in 0..60 {
        say(&mut alice, "room:1", &format!("m{number}")).await;
    }
    let mut bob = broker.connect(PATH, "bob").await;

    bob.send(json!({"type": "SUBSCRIBE", "channel": "room:1", "id": "s1"})).await;
    let subscribed = bob.json().await;

    assert_eq!((&subscribed["type"], &subscribed["channel"]), (&json!("SUBSCRIBED"), &json!("room:1")));
    assert_eq!(subscribed["correlationId"], "s1");
    assert_eq!(subscribed["payload"]["online"], json!(["alice", "bob"]));
    let expected: Vec<String> = (10..60).map(|number| format!("m{number}")).collect();
    assert_eq!(crate::community_chat::contents(&subscribed["payload"]["recent"]), expected);
}

/// Items 10 and 12: only members get a channel's messages, and they get all of them; after `UNSUBSCRIBED` nothing more comes.
#[tokio::test]
async fn item_12_a_channel_reaches_its_members_and_nobody_else() {
    let broker = Setup::example().start();
    let mut alice = join(&broker, "alice", "room:1").await;
    let mut bob = join(&broker, "bob", "room:1").await;
    let mut carol = join(&broker, "carol", "room:2").await;

    say(&mut alice, "room:1", "one").await;
    assert_eq!(bob.until_type("CHAT_MESSAGE").await["payload"]["content"], "one");
    bob.send(json!({"type": "UNSUBSCRIBE", "channel": "room:1", "id": "u1"})).await;
    let unsubscribed = bob.json().await;
    say(&mut alice, "room:1", "two").await;

    assert_eq!((&unsubscribed["type"], &unsubscribed["correlationId"]), (&json!("UNSUBSCRIBED"), &json!("u1")));
    let error =
        error_of(&mut bob, json!({"type": "CHAT_MESSAGE", "channel": "room:1", "payload": {"content": "x"}})).await;
    assert_eq!(error["code"], "not_subscribed");
    let again = error_of(&mut bob, json!({"type": "UNSUBSCRIBE", "channel": "room:1"})).await;
    assert_eq!(again["code"], "not_subscribed");
    subscribe(&mut bob, "room:2").await;
    nothing_waits(&mut bob, "room:2").await;
    carol.until_type("USER_JOINED").await;
    assert_eq!(carol.json().await["payload"]["content"], "fence");
}

/// Items 16 and 17, decided: `USER_JOINED` and `USER_LEFT` come with a user's first and last connection in the channel only,
/// and say how many users are online.
#[tokio::test]
async fn item_17_joined_and_left_only_with_the_first_and_last_connection() {
    let broker = Setup::example().start();
    let mut alice = join(&broker, "alice", "room:1").await;

    let mut phone = join(&broker, "bob", "room:1").await;
    assert_eq!(alice.json().await["payload"], json!({"userId": "bob", "online": 2}));
    let laptop = join(&broker, "bob", "room:1").await;
    // Subscribing again is no second join.
    subscribe(&mut phone, "room:1").await;
    nothing_waits(&mut alice, "room:1").await;
    laptop.close().await;
    phone.until_type("CHAT_MESSAGE").await;
    let mut carol = join(&broker, "carol", "room:1").await;
    let joined = alice.json().await;
    assert_eq!(
        (&joined["type"], &joined["payload"]),
        (&json!("USER_JOINED"), &json!({"userId": "carol", "online": 3}))
    );
    send(&mut phone, "UNSUBSCRIBE", "room:1", json!({})).await;

    let left = alice.json().await;
    assert_eq!((&left["type"], &left["payload"]), (&json!("USER_LEFT"), &json!({"userId": "bob", "online": 2})));
    carol.close().await;
    let left = alice.json().await;
    assert_eq!((&left["type"], &left["payload"]), (&json!("USER_LEFT"), &json!({"userId": "carol", "online": 1})));
}

/// Item 4: a client that gives no sign of life is a zombie: it is dropped after the time-out, and the others see it leave.
/// One that answers pings stays.
#[tokio::test]
async fn item_04_zombies_are_dropped_and_seen_to_leave() {
    let heartbeat = "{ interval_ms = 300, timeout_ms = 2000 }";
    let broker = Setup::example().set("mount.community.heartbeat", heartbeat).start();
    let mut alice = join(&broker, "alice", "room:1").await;

    // Nobody reads this socket, so no ping of the broker is answered.
    let _zombie = join(&broker, "zombie", "room:1").await;

    assert_eq!(alice.until_type("USER_JOINED").await["payload"]["userId"], "zombie");
    assert_eq!(alice.until_type("USER_LEFT").await["payload"], json!({"userId": "zombie", "online": 1}));
    nothing_waits(&mut alice, "room:1").await;
}

/// Item 18, decided: `TYPING` goes to the others and not to the sender, and without renewal `isTyping: false` follows 5 s
/// later.
#[tokio::test]
async fn item_18_typing_is_shown_to_others_and_ends_by_itself() {
    let broker = Setup::example().start();
    let mut alice = join(&broker, "alice", "room:1").await;
    let mut bob = join(&broker, "bob", "room:1").await;
    alice.until_type("USER_JOINED").await;

    send(&mut bob, "TYPING", "room:1", json!({"isTyping": true})).await;
    let begin = alice.json().await;
    nothing_waits(&mut bob, "room:1").await;
    alice.until_type("CHAT_MESSAGE").await;
    let end = alice.json().await;

    assert_eq!((&begin["type"], &begin["payload"]), (&json!("TYPING"), &json!({"userId": "bob", "isTyping": true})));
    assert_eq!((&end["type"], &end["payload"]), (&json!("TYPING"), &json!({"userId": "bob", "isTyping": false})));
    let lasted_ms = end["timestamp"].as_u64().expect("a time") - begin["timestamp"].as_u64().expect("a time");
    assert!(lasted_ms >= 5_000, "typing ended after {lasted_ms} ms");
    nothing_waits(&mut bob, "room:1").await;
}

/// Item 18: a user who stops, or leaves, types no longer.
#[tokio::test]
async fn item_18_typing_ends_with_a_word_or_with_the_member() {
    let broker = Setup::example().start();
    let mut alice = join(&broker, "alice", "room:1").await;
    let mut bob = join(&broker, "bob", "room:1").await;
    alice.until_type("USER_JOINED").await;

    send(&mut bob, "TYPING", "room:1", json!({"isTyping": true})).await;
    send(&mut bob, "TYPING", "room:1", json!({"isTyping": false})).await;
    let shown = [alice.json().await, alice.json().await].map(|frame| frame["payload"]["isTyping"].clone());
    send(&mut bob, "TYPING", "room:1", json!({"isTyping": true})).await;
    alice.until_type("TYPING").await;
    bob.close().await;

    assert_eq!(shown, [json!(true), json!(false)]);
    assert_eq!(alice.json().await["payload"], json!({"userId": "bob", "isTyping": false}));
    assert_eq!(alice.json().await["type"], "USER_LEFT");
}

/// Decided: `ERROR` codes for what a client does wrong, each with what names the frame; the connection goes on.
#[tokio::test]
async fn decided_errors_have_codes_and_do_not_end_the_connection() {
    let broker = Setup::example().start();
    let mut alice = join(&broker, "alice", "room:1").await;
    let chat = |payload: Value| json!({"type": "CHAT_MESSAGE", "channel": "room:1", "payload": payload});
    for (frame, code) in [
        (json!({"type": "NONSENSE", "channel": "room:1"}), "bad_request"),
        (json!({"type": "chat_message", "channel": "room:1"}), "bad_request"),
        (json!({"type": "CHAT_MESSAGE", "payload": {"content": "x"}}), "bad_request"),
        (json!({"type": "SUBSCRIBE"}), "bad_request"),
        (json!({"type": "SUBSCRIBE", "channel": "room:1", "payload": {"since": "x"}}), "bad_request"),
        (chat(json!({})), "bad_request"),
        (chat(json!({"content": 5})), "bad_request"),
        (chat(json!({"content": ""})), "bad_request"),
        (chat(json!("hi")), "bad_request"),
        (chat(json!([])), "bad_request"),
        (json!({"type": "TYPING", "channel": "room:1", "payload": {}}), "bad_request"),
        (json!({"type": "MESSAGE_EDIT", "channel": "room:1", "payload": {"id": "1"}}), "bad_request"),
        (json!({"type": "MESSAGE_EDIT", "channel": "room:1", "payload": {"id": "99", "content": "x"}}), "not_found"),
        (json!({"type": "MESSAGE_DELETE", "channel": "room:1", "payload": {"id": "99"}}), "not_found"),
        (json!({"type": "MESSAGE_DELETE", "channel": "room:1", "payload": {"id": "abc"}}), "not_found"),
        (json!({"type": "TYPING", "channel": "room:2", "payload": {"isTyping": true}}), "not_subscribed"),
        (json!({"type": "USER_JOINED", "channel": "room:1", "payload": {"userId": "bob"}}), "bad_request"),
        (chat(json!({"content": "x".repeat(4_001)})), "too_large"),
    ] {
        let shown: String = frame.to_string().chars().take(120).collect();
        let error = error_of(&mut alice, frame).await;
        assert_eq!(error["code"], code, "{shown}: {error}");
    }
    for garbage in ["", "hi", "{", "[]", "null", "{\"type\":5}", "{\"type\":\"PING\"", "\"PING\"", "{}"] {
        alice.send_text(garbage).await;
        let error = alice.json().await;
        assert_eq!(
            (&error["type"], &error["payload"]["code"]),
            (&json!("ERROR"), &json!("bad_request")),
            "{garbage:?}"
        );
    }
    alice.send_message(tokio_tungstenite::tungstenite::Message::binary(vec![0xFF, 0x00])).await;
    assert_eq!(alice.json().await["payload"]["code"], "bad_request");
    say(&mut alice, "room:1", "still here").await;
}

/// Item 31, decided: over 50 messages a second, after a burst of 100, a message is not processed and answered `rate_limited`.
#[tokio::test]
async fn item_31_a_message_over_the_rate_is_refused_and_not_processed() {
    const MESSAGES: usize = 220;
    let broker = Setup::example().start();
    let mut alice = broker.connect(PATH, "alice").await;

    let began = Instant::now();
    subscribe(&mut alice, "room:1").await;
    for number in 0..MESSAGES {
        let payload = json!({"content": "x"});
        alice.send(json!({"type": "CHAT_MESSAGE", "channel": "room:1", "payload": payload, "id": number})).await;
    }
    let (mut stored, mut refused) = (0, 0);
    for _ in 0..MESSAGES {
        let answer = alice.until(|message| message["correlationId"].is_u64()).await;
        match answer["type"].as_str() {
            Some("CHAT_MESSAGE") => stored += 1,
            _ => {
                assert_eq!(answer["payload"]["code"], "rate_limited", "{answer}");
                refused += 1;
            }
        }
    }
    let refilled = began.elapsed().as_secs_f64() * 50.0;

    assert_eq!(stored + refused, MESSAGES);
    assert!(stored >= 99, "the burst is 100 frames, the subscription among them; {stored} messages passed");
    assert!((stored as f64) <= 100.0 + refilled, "{stored} passed, but only {refilled:.0} were refilled");
    let mut reader = broker.connect(PATH, "bob").await;
    reader.send(json!({"type": "SUBSCRIBE", "channel": "room:1", "payload": {"since": 0}})).await;
    let subscribed = reader.json().await;
    assert_eq!(subscribed["payload"]["missed"].as_array().map(Vec::len), Some(stored), "a refused message was stored");
}

/// Decided: 500 messages over the rate within a minute close the connection with 1008; another connection goes on.
#[tokio::test]
async fn decided_five_hundred_over_the_rate_close_with_1008() {
    let broker =
        Setup::example().set("mount.community.limits.rate_per_connection", "{ per_second = 1, burst = 10 }").start();
    let mut calm = join(&broker, "bob", "room:1").await;
    let mut flood = broker.connect(PATH, "alice").await;

    let (mut refused, mut closed) = (0, None);
    // A minute's count begins anew with the clock's minute, so at most twice as many are needed.
    for _ in 0..120 {
        for _ in 0..10 {
            flood.try_send(json!({"type": "PING"})).await;
        }
        closed = count_refusals(&mut flood, 10, &mut refused).await;
        if closed.is_some() {
            break;
        }
    }

    assert_eq!(closed, Some(1008), "after {refused} refusals");
    assert!((499..=1_000).contains(&refused), "closed after {refused} refusals");
    say(&mut calm, "room:1", "calm").await;
}

/// Reads so many answers; returns the close code if the connection ends.
async fn count_refusals(client: &mut Client, answers: u32, refused: &mut u32) -> Option<u16> {
    for _ in 0..answers {
        match client.next_or_close().await {
            Ok(message) => *refused += u32::from(message.to_text().expect("text").contains("rate_limited")),
            Err(close) => return Some(close.map_or(0, |close| close.code.into())),
        }
    }
    None
}

/// Item 34: a direct channel is for its two users, and both get its messages.
#[tokio::test]
async fn item_34_direct_messages_are_between_two() {
    let broker = Setup::example().start();
    let mut alice = join(&broker, "alice", "dm:alice:bob").await;
    let mut bob = join(&broker, "bob", "dm:alice:bob").await;

    let said = say(&mut alice, "dm:alice:bob", "psst").await;

    assert_eq!(bob.until_type("CHAT_MESSAGE").await["payload"], said["payload"]);
    let mut eve = broker.connect(PATH, "eve").await;
    let error = error_of(&mut eve, json!({"type": "SUBSCRIBE", "channel": "dm:alice:bob"})).await;
    assert_eq!(error["code"], "forbidden");
}

fn now_ms() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_millis() as u64
}
