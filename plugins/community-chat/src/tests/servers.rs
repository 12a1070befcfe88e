//! What application servers publish, and the health answer.

use hotbay_sdk::{Link, LinkState, RefusalCode, Snapshot};
use serde_json::{Value, json};

use super::{Room, frames, kinds, only, recent, room_with, say, send, subscribe};

fn publish(room: &mut Room, body: &Value) -> hotbay_sdk::harness::Outcome {
    let outcome = room.publish(body.to_string());
    assert!(outcome.faults.is_empty(), "{body}");
    outcome
}

#[test]
fn a_server_can_make_every_type() {
    let (mut room, [ann]) = room_with(["ann"]);
    let now = room.now_ms();
    let mut check = |body: Value, payload: Value, user: Option<&str>| {
        let frame = only(&publish(&mut room, &body), ann);
        let mut expected = json!({"type": body["type"], "channel": "room:1", "payload": payload, "timestamp": now});
        if let Some(user) = user {
            expected["userId"] = json!(user);
        }
        assert_eq!(frame, expected);
    };
    check(
        json!({"type": "CHAT_MESSAGE", "payload": {"content": "hi", "x": 1}, "userId": "bot"}),
        json!({"id": "1", "userId": "bot", "content": "hi", "createdAt": now, "x": 1}),
        Some("bot"),
    );
    check(
        json!({"type": "CHAT_MESSAGE", "data": {"content": "ho", "userId": "cleo"}}),
        json!({"id": "2", "userId": "cleo", "content": "ho", "createdAt": now}),
        Some("cleo"),
    );
    check(
        json!({"type": "MESSAGE_EDIT", "payload": {"id": "1", "content": "HI"}}),
        json!({"id": "1", "userId": "bot", "content": "HI", "editedAt": now}),
        None,
    );
    check(
        json!({"type": "MESSAGE_DELETE", "payload": {"id": 1}, "userId": "mod"}),
        json!({"id": "1", "userId": "bot", "deletedAt": now}),
        Some("mod"),
    );
    check(
        json!({"type": "TYPING", "payload": {"isTyping": true}, "userId": "bot"}),
        json!({"userId": "bot", "isTyping": true}),
        Some("bot"),
    );
    check(
        json!({"type": "USER_JOINED", "payload": {"userId": "dan"}}),
        json!({"userId": "dan", "online": 1}),
        Some("dan"),
    );
    check(json!({"type": "USER_LEFT", "userId": "dan"}), json!({"userId": "dan", "online": 1}), Some("dan"));
    check(json!({"type": "PING"}), json!({}), None);
    check(json!({"type": "PONG", "payload": {"a": 1}}), json!({"a": 1}), None);
    check(json!({"type": "ANNOUNCEMENT", "data": [1, "two"], "userId": "bot"}), json!([1, "two"]), Some("bot"));
    check(json!({"type": "ANNOUNCEMENT", "data": 1, "payload": 2}), json!(2), None);
    assert_eq!(only(&room.advance_ms(5_000), ann)["payload"], json!({"userId": "bot", "isTyping": false}));
    assert_eq!(recent(&mut room, ann).len(), 1);
}

#[test]
fn a_server_can_address_one_user() {
    let (mut room, [ann, bob]) = room_with(["ann", "bob"]);
    let second = subscribe(&mut room, "ann");
    for body in [
        json!({"type": "NOTICE", "toUser": "ann"}),
        json!({"type": "TYPING", "toUser": "ann", "payload": {"isTyping": true}, "userId": "bot"}),
        json!({"type": "USER_JOINED", "toUser": "ann", "userId": "bot"}),
    ] {
        let outcome = publish(&mut room, &body);
        assert_eq!(
            (frames(&outcome, ann).len(), frames(&outcome, second).len(), frames(&outcome, bob).len()),
            (1, 1, 0)
        );
    }
}

#[test]
fn a_servers_retry_is_stored_and_sent_once() {
    let (mut room, [ann]) = room_with(["ann"]);
    let body = json!({"type": "CHAT_MESSAGE", "payload": {"content": "hi", "clientId": "k"}, "userId": "bot"});
    assert_eq!(kinds(&publish(&mut room, &body), ann), ["CHAT_MESSAGE"]);
    let again = publish(&mut room, &body);
    assert!(again.received.is_empty() && again.refusals.is_empty());
    assert_eq!(room.log().len(), 1);
}

#[test]
fn wrong_publications_are_rejected() {
    let (mut room, [ann]) = room_with(["ann"]);
    say(&mut room, ann, "x");
    let cases = [
        "",
        "[]",
        "{}",
        r#"{"type":1}"#,
        r#"{"type":""}"#,
        r#"{"type":"SUBSCRIBED"}"#,
        r#"{"type":"ERROR"}"#,
        r#"{"type":"CHAT_MESSAGE","payload":{"content":"x"}}"#,
        r#"{"type":"CHAT_MESSAGE","payload":{"content":""},"userId":"b"}"#,
        r#"{"type":"CHAT_MESSAGE","payload":{"content":"x"},"userId":""}"#,
        r#"{"type":"CHAT_MESSAGE","payload":{"content":"x"},"userId":"b","toUser":"a"}"#,
        r#"{"type":"TYPING","payload":{"isTyping":true}}"#,
        r#"{"type":"TYPING","userId":"b"}"#,
        r#"{"type":"USER_JOINED"}"#,
        r#"{"type":"MESSAGE_EDIT","payload":{"id":1}}"#,
        r#"{"type":"X","payload":"\ud800"}"#,
        r#"{"type":"X","toUser":1}"#,
    ];
    let before = room.log();
    for body in cases {
        let outcome = room.publish(body);
        assert!(outcome.faults.is_empty() && outcome.received.is_empty(), "{body}");
        assert_eq!(outcome.refusals[0].code, RefusalCode::BadRequest, "{body}");
    }
    let outcome = room.publish(r#"{"type":"MESSAGE_DELETE","payload":{"id":"77"}}"#);
    assert_eq!(outcome.refusals[0].code, RefusalCode::NotFound);
    assert_eq!(room.log(), before);
}

#[test]
fn health_tells_connections_and_links() {
    let (mut room, [_]) = room_with(["ann"]);
    room.advance_ms(7);
    let cases = [
        (LinkState::Disabled, LinkState::Disabled, "ok", "disabled", 4),
        (LinkState::Connected, LinkState::Connected, "ok", "connected", 9),
        (LinkState::Connected, LinkState::Disconnected, "degraded", "disconnected", 9),
    ];
    for (publisher, subscriber, status, word, channels) in cases {
        let cluster = Link { publisher, subscriber, subscribed: 9 };
        room.set_stats(Snapshot { uptime_ms: 1, connections: 10, users: 3, channels: 4, cluster });
        let outcome = room.request("GET", "/health");
        let response = outcome.responses()[0].clone();
        let body: Value = serde_json::from_slice(&response.body).unwrap();
        assert_eq!(
            (response.status, &body["status"], &body["pubsub"]["subscriber"]),
            (200, &json!(status), &json!(word))
        );
        assert_eq!(
            body["websocket"],
            json!({"totalConnections": 10, "uniqueUsers": 3, "averageConnectionsPerUser": 3.33})
        );
        assert_eq!(body["pubsub"]["channels"], channels);
        assert_eq!(body["timestamp"], "2023-11-14T22:13:20.007Z");
    }
}

#[test]
fn health_dates_are_right_at_leap_days_and_year_ends() {
    // Milliseconds and dates as of GNU date.
    for (ms, date) in [
        (951_782_400_000_u64, "2000-02-29T00:00:00.000Z"),
        (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
        (1_735_689_599_000, "2024-12-31T23:59:59.000Z"),
        (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
    ] {
        let (mut room, [ann]) = room_with(["ann"]);
        if let Some(by_ms) = ms.checked_sub(room.now_ms()) {
            room.advance_ms(by_ms);
            say(&mut room, ann, "x");
            let body: Value = serde_json::from_slice(&room.request("GET", "/health").responses()[0].body).unwrap();
            assert_eq!(body["timestamp"], date);
        } else {
            assert_eq!(hotbay_sdk::iso8601(ms), date);
        }
    }
}

#[test]
fn other_requests_are_refused() {
    let (mut room, [_]) = room_with(["ann"]);
    for (method, path, status) in
        [("GET", "/", 404), ("POST", "/health", 405), ("GET", "/health/", 200), ("HEAD", "/health", 200)]
    {
        assert_eq!(room.request(method, path).responses()[0].status, status, "{method} {path}");
    }
}

#[test]
fn a_servers_event_reaches_nobody_outside_the_channel() {
    let (mut room, [ann, bob]) = room_with(["ann", "bob"]);
    send(&mut room, bob, json!({"type": "UNSUBSCRIBE"}));
    let outcome = publish(&mut room, &json!({"type": "X"}));
    assert_eq!((frames(&outcome, ann).len(), frames(&outcome, bob).len()), (1, 0));
}
