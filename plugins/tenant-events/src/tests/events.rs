//! What goes in and comes out: the form of events, who gets them, and what is refused.

use hotbay_sdk::{Priority, RefusalCode};
use serde_json::{Value, json};

use super::{assert_refused, audience, bus, bus_with, deliveries, emit, frames, identity, join, only, send, subscribe};
use crate::id;

fn is_uuid_v4(id: &str) -> bool {
    let form = id.bytes().enumerate().all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        14 => byte == b'4',
        19 => b"89ab".contains(&byte),
        _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
    });
    form && id.len() == 36
}

#[test]
fn a_client_is_welcomed() {
    let mut bus = bus();
    let ann = bus.connect_as(identity("ann", ""));
    let outcome = bus.join_connection(ann);
    let mut welcome = only(&outcome, ann);
    assert!(is_uuid_v4(welcome["id"].as_str().unwrap()), "{welcome}");
    welcome["id"].take();
    let expected = json!({
        "id": null, "eventType": "connection", "data": {"clientId": "client-1", "channels": ["tenant:acme"]},
        "timestamp": "2023-11-14T22:13:20.000Z", "source": "system", "priority": "normal", "tenantId": "acme", "userId": "ann",
    });
    assert_eq!(welcome, expected);
    assert_eq!(deliveries(&outcome, "connection"), [Priority::High]);
    assert!(bus.kv().is_empty(), "a connection alone must not cost a commit");
}

#[test]
fn an_event_reaches_all_with_the_fields_of_the_contract() {
    let (mut bus, [ann, bob]) = bus_with(["ann", "bob"]);
    let event =
        json!({"type": "idea_created", "data": {"a": [1, 2.5]}, "source": "idea_service", "priority": "high", "x": 1});
    let outcome = send(&mut bus, ann, event);
    assert_eq!(frames(&outcome, ann), frames(&outcome, bob));
    let mut frame = only(&outcome, bob);
    assert!(is_uuid_v4(frame["id"].as_str().unwrap()));
    frame["id"].take();
    let expected = json!({
        "id": null, "eventType": "idea_created", "data": {"a": [1, 2.5]}, "timestamp": "2023-11-14T22:13:20.000Z",
        "source": "idea_service", "priority": "high", "tenantId": "acme", "userId": "ann",
    });
    assert_eq!(frame, expected);
    let defaults = only(&send(&mut bus, ann, json!({"type": "x"})), bob);
    assert_eq!(
        (&defaults["data"], &defaults["source"], &defaults["priority"]),
        (&json!(null), &json!("client"), &json!("normal"))
    );
}

#[test]
fn data_passes_unchanged() {
    let (mut bus, [ann]) = bus_with(["ann"]);
    for data in [
        "1.0",
        "1e999",
        "-0.0",
        "123456789012345678901234567890.10",
        "\"\\ud83d\\ude00\"",
        "\"\\u0000 \\/ \u{1F600}\"",
        "[ 1 ,\n 2 ]",
        "{\"b\":1,\"a\":2,\"b\":3}",
        "true",
        "null",
    ] {
        let outcome = bus.message(ann, format!("{{\"type\":\"x\",\"data\":{data}}}"));
        assert_eq!(outcome.faults, [""; 0]);
        let frame = &outcome.texts(ann)[0];
        assert!(frame.contains(&format!(",\"data\":{data},")), "{frame}");
    }
}

#[test]
fn an_event_goes_to_those_subscribed_to_its_channel() {
    let (mut bus, [ann, bob, cleo]) = bus_with(["ann", "bob", "cleo"]);
    subscribe(&mut bus, bob, "ideas");
    for channel in ["ideas", "ideas:acme"] {
        // Also from one who is not subscribed.
        let outcome = send(&mut bus, ann, json!({"type": "idea_created", "channel": channel}));
        assert_eq!(audience(&outcome, &bus, "idea_created"), [bob]);
    }
    for channel in ["tenant", "tenant:acme"] {
        let outcome = send(&mut bus, ann, json!({"type": "x", "channel": channel}));
        assert_eq!(audience(&outcome, &bus, "x"), [ann, bob, cleo]);
    }
    let outcome = send(&mut bus, ann, json!({"type": "x", "channel": "nobody"}));
    assert!(outcome.effects.is_empty() && outcome.refusals.is_empty());
}

#[test]
fn priority_decides_what_a_slow_reader_loses() {
    let (mut bus, [ann]) = bus_with(["ann"]);
    let cases =
        [("low", Priority::Low), ("normal", Priority::Normal), ("high", Priority::High), ("critical", Priority::High)];
    for (name, expected) in cases {
        let outcome = send(&mut bus, ann, json!({"type": "x", "priority": name}));
        assert_eq!(only(&outcome, ann)["priority"], name);
        assert_eq!(deliveries(&outcome, "x"), [expected]);
    }
}

#[test]
fn nobody_can_speak_as_the_system() {
    let (mut bus, [ann, _bob]) = bus_with(["ann", "bob"]);
    for kind in ["connection", "filters_updated", "subscribed", "unsubscribed", "error"] {
        assert_refused(&mut bus, ann, json!({"type": kind, "data": {}}), "bad_request");
    }
    assert_refused(&mut bus, ann, json!({"type": "x", "source": "system"}), "bad_request");
    assert_refused(&mut bus, ann, json!({"type": "\u{65}rror"}), "bad_request");
    // Nor as another: these fields are the server's.
    let frame =
        json!({"type": "x", "userId": "bob", "tenantId": "evil", "id": "1", "timestamp": "2000", "eventType": "error"});
    let frame = only(&send(&mut bus, ann, frame), ann);
    assert_eq!(
        (&frame["userId"], &frame["tenantId"], &frame["eventType"]),
        (&json!("ann"), &json!("acme"), &json!("x"))
    );
    assert_eq!(frame["timestamp"], "2023-11-14T22:13:20.000Z");
}

#[test]
fn malformed_events_are_refused_with_the_reason() {
    let (mut bus, [ann, _bob]) = bus_with(["ann", "bob"]);
    let long = "x".repeat(129);
    for frame in [
        json!([]),
        json!("x"),
        json!({}),
        json!({"type": null}),
        json!({"type": 1}),
        json!({"type": ""}),
        json!({"type": "a\nb"}),
        json!({"type": "\u{85}"}),
        json!({"type": long}),
        json!({"type": "x", "source": ""}),
        json!({"type": "x", "source": "\u{0}"}),
        json!({"type": "x", "source": long}),
        json!({"type": "x", "source": 1}),
        json!({"type": "x", "priority": "urgent"}),
        json!({"type": "x", "priority": 3}),
        json!({"type": "x", "channel": 1}),
        json!({"type": "x", "channel": ""}),
        json!({"type": "x", "channel": "a\u{7}"}),
        json!({"type": "x", "channel": long}),
    ] {
        assert_refused(&mut bus, ann, frame, "bad_request");
    }
    assert_refused(&mut bus, ann, json!({"type": "x", "channel": "ideas:other"}), "forbidden");
    for raw in
        ["", "{", "nonsense", r#"["x"]"#, r#"{"type":"x","type":"y"}"#, r#"{"type":"\ud800"}"#, r#"{"type":"x"} x"#]
    {
        let outcome = bus.message(ann, raw);
        assert_eq!(outcome.refusals[0].code, RefusalCode::BadRequest, "{raw}");
    }
    assert_eq!(bus.message(ann, b"{}".to_vec()).refusals[0].code, RefusalCode::BadRequest);
    // The longest names pass.
    emit(&mut bus, ann, json!({"type": "x".repeat(128), "source": "y".repeat(128)}));
}

#[test]
fn data_has_a_bound_in_bytes_and_depth() {
    let (mut bus, [ann]) = bus_with(["ann"]);
    let nested = |depth: usize| format!("{{\"type\":\"x\",\"data\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    assert!(bus.message(ann, nested(100)).refusals.is_empty());
    assert_eq!(bus.message(ann, nested(101)).refusals[0].code, RefusalCode::BadRequest);
    assert_eq!(bus.message(ann, nested(20_000)).refusals[0].code, RefusalCode::BadRequest);
    let brackets = json!({"type": "x", "data": "[\"\\".repeat(500)});
    emit(&mut bus, ann, brackets);
    emit(&mut bus, ann, json!({"type": "x", "data": "y".repeat((64 << 10) - 2)}));
    assert_refused(&mut bus, ann, json!({"type": "x", "data": "y".repeat((64 << 10) - 1)}), "too_large");
}

#[test]
fn an_error_is_an_event_of_the_system_to_its_sender_alone() {
    let (mut bus, [ann, _bob]) = bus_with(["ann", "bob"]);
    let outcome = send(&mut bus, ann, json!({"type": "x", "source": ""}));
    assert_eq!(outcome.received.len(), 1);
    let mut error = only(&outcome, ann);
    assert!(is_uuid_v4(error["id"].as_str().unwrap()));
    error["id"].take();
    let expected = json!({
        "id": null, "eventType": "error",
        "data": {"code": "bad_request", "message": "`source` has 1 to 128 bytes and no control characters"},
        "timestamp": "2023-11-14T22:13:20.000Z", "source": "system", "priority": "normal", "tenantId": "acme", "userId": "ann",
    });
    assert_eq!(error, expected);
}

#[test]
fn refusals_of_the_host_are_errors_too_and_closing_says_nothing() {
    use hotbay_sdk::{Identity, Plugin as _, Refusal, Sender};
    let words = |code, claims: &str| {
        let identity = Identity { claims: claims.to_owned(), ..identity("ann", "") };
        let sender = Sender { now_ms: 1_700_000_000_123, identity };
        let words = crate::TenantEvents::refused(&sender, None, &Refusal::new(code, "because"));
        words.map(|words| serde_json::from_str::<Value>(words.text().unwrap()).unwrap())
    };
    for (code, name) in [
        (RefusalCode::RateLimited, "rate_limited"),
        (RefusalCode::TooLarge, "too_large"),
        (RefusalCode::Fault, "internal"),
        (RefusalCode::NotJoined, "not_subscribed"),
        (RefusalCode::Unavailable, "unavailable"),
        (RefusalCode::Lost, "lost"),
    ] {
        let error = words(code, r#"{"tenant":"acme"}"#).unwrap();
        assert_eq!(error["data"], json!({"code": name, "message": "because"}));
        assert_eq!((&error["tenantId"], &error["timestamp"]), (&json!("acme"), &json!("2023-11-14T22:13:20.123Z")));
    }
    assert_eq!(words(RefusalCode::Closing, "{}"), None);
    let tenant = |claims| words(RefusalCode::Fault, claims).unwrap()["tenantId"].clone();
    assert_eq!(tenant(r#"{"tenantId":"a","tenant":"b"}"#), "a");
    assert_eq!(tenant(r#"{"tenantId":7}"#), "7");
    assert_eq!(tenant("{}"), Value::Null);
    assert_eq!(tenant("nonsense"), Value::Null);
}

#[test]
fn ids_are_unique_and_tell_the_position() {
    let (mut bus, [ann]) = bus_with(["ann"]);
    let mut seen = std::collections::BTreeSet::new();
    for position in 1..=500 {
        let event = emit(&mut bus, ann, json!({"type": "x"}));
        assert!(is_uuid_v4(&event), "{event}");
        assert_eq!(id::position(&event, "tenant"), Some(position));
        assert!(seen.insert(event));
    }
    for wrong in
        ["", "x", "00000000-0000-0000-0000-000000000000", "zzzzzzzz-zzzz-4zzz-8zzz-zzzzzzzzzzzz", &"é".repeat(18)]
    {
        assert_eq!(id::position(wrong, "tenant"), None);
    }
}

#[test]
fn a_second_join_starts_a_member_afresh() {
    let (mut bus, [ann]) = bus_with(["ann"]);
    super::filter(&mut bus, ann, json!({"eventTypes": ["never"]}));
    subscribe(&mut bus, ann, "ideas");
    assert_eq!(bus.kv().len(), 1);
    let welcome = only(&bus.join_connection(ann), ann);
    assert_eq!(welcome["data"]["channels"], json!(["tenant:acme"]));
    assert!(bus.kv().is_empty());
    emit(&mut bus, ann, json!({"type": "x"}));
    let again = join(&mut bus, "ann");
    assert_eq!(audience(&send(&mut bus, again, json!({"type": "x", "channel": "ideas"})), &bus, "x"), [0; 0]);
}
