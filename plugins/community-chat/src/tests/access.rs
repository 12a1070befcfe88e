//! Routing and authorisation.

use hotbay_sdk::{Identity, Payload, Plugin, Refusal, RefusalCode, Routing, Sender};
use serde_json::{Value, json};

use super::{assert_refused, frames, only, room, room_with, send};
use crate::CommunityChat;

fn route(user: &str, claims: &str, frame: &str) -> Routing {
    let identity = Identity { claims: claims.to_owned(), ..Identity::of(user) };
    CommunityChat::route(&Sender { now_ms: 7, identity }, frame.into())
}

fn refusal(routing: Routing) -> Option<RefusalCode> {
    match routing {
        Routing::Refuse(why) => Some(why.code),
        _ => None,
    }
}

#[test]
fn a_subscription_needs_the_right_claims() {
    use RefusalCode::{BadRequest, Forbidden};
    let groups = r#"{"groups":["a","b:c",7,-1,1.5,null,["x"]]}"#;
    let cases = [
        ("room:1", None),
        ("room:1:2", None),
        ("room:", Some(BadRequest)),
        ("room", Some(BadRequest)),
        ("group:a", None),
        ("group:b:c", None),
        ("group:7", None),
        ("group:-1", None),
        ("group:1.5", Some(Forbidden)),
        ("group:x", Some(Forbidden)),
        ("group:A", Some(Forbidden)),
        ("group:null", Some(Forbidden)),
        ("group:", Some(BadRequest)),
        ("dm:ann:bob", None),
        ("dm:aaa:ann", None),
        ("dm:bob:ann", Some(BadRequest)),
        ("dm:ann:ann", Some(BadRequest)),
        ("dm:bob:cleo", Some(Forbidden)),
        ("dm:ann", Some(BadRequest)),
        ("dm:ann:bob:cleo", Some(BadRequest)),
        ("dm::ann", Some(BadRequest)),
        ("dm:ann:", Some(BadRequest)),
        ("user:ann", None),
        ("user:bob", Some(Forbidden)),
        ("user:ann:x", Some(Forbidden)),
        ("lobby", Some(Forbidden)),
        ("tenant:x", Some(Forbidden)),
        ("ROOM:1", Some(Forbidden)),
        ("", Some(Forbidden)),
    ];
    for (channel, expected) in cases {
        let routing = route("ann", groups, &json!({"type": "SUBSCRIBE", "channel": channel}).to_string());
        if expected.is_none() {
            assert_eq!(routing, Routing::Join(channel.to_owned()));
        } else {
            assert_eq!(refusal(routing), expected, "{channel}");
        }
    }
    for claims in ["{}", r#"{"groups":"a"}"#, r#"{"groups":{"a":1}}"#, r#"{"groups":null}"#, "[]", "", "nonsense"] {
        let routing = route("ann", claims, r#"{"type":"SUBSCRIBE","channel":"group:a"}"#);
        assert_eq!(refusal(routing), Some(Forbidden), "{claims}");
    }
}

#[test]
fn frames_go_where_their_type_says() {
    for kind in ["CHAT_MESSAGE", "TYPING", "MESSAGE_EDIT", "MESSAGE_DELETE"] {
        let routing = route("ann", "{}", &json!({"type": kind, "channel": "x", "more": [1]}).to_string());
        assert_eq!(routing, Routing::Deliver("x".to_owned()), "{kind}");
    }
    assert_eq!(route("ann", "{}", r#"{"type":"UNSUBSCRIBE","channel":"x"}"#), Routing::Leave("x".to_owned()));
    assert_eq!(route("ann", "{}", r#"{"type":"PONG"}"#), Routing::Ignore);
}

#[test]
fn ping_is_answered_at_once() {
    for (id, expected) in [("\"p\\\"1\"", json!("p\"1")), ("-5", json!(-5)), ("18446744073709551615", json!(u64::MAX))]
    {
        let Routing::Reply(Payload::Text(pong)) = route("ann", "{}", &format!(r#"{{"type":"PING","id":{id}}}"#)) else {
            panic!("no reply");
        };
        let pong: Value = serde_json::from_str(&pong).unwrap();
        assert_eq!(pong, json!({"type": "PONG", "payload": {}, "correlationId": expected, "timestamp": 7}));
    }
}

#[test]
fn what_is_no_frame_is_refused() {
    let long = format!(r#"{{"type":"PING","id":"{}"}}"#, "x".repeat(129));
    let frames = [
        "",
        "{",
        "null",
        "[]",
        r#"["CHAT_MESSAGE","room:1",null,null]"#,
        "{}",
        r#"{"type":1}"#,
        r#"{"type":"NOPE","channel":"room:1"}"#,
        r#"{"type":"CHAT_MESSAGE"}"#,
        r#"{"type":"CHAT_MESSAGE","channel":1}"#,
        r#"{"type":"SUBSCRIBE","channel":null}"#,
        r#"{"type":"PING","id":{}}"#,
        r#"{"type":"PING","id":1.5}"#,
        r#"{"type":"PING","id":1e999}"#,
        r#"{"type":"PING","id":true}"#,
        r#"{"type":"PING","type":"PING"}"#,
        r#"{"type":"\ud800"}"#,
        r#"{"type":"PING"} x"#,
        r#"{"type":"PING","x":NaN}"#,
        &long,
        r#"{"type":"SUBSCRIBE","channel":"room:1","payload":{"since":"x"}}"#,
        r#"{"type":"SUBSCRIBE","channel":"room:1","payload":[]}"#,
        r#"{"type":"SUBSCRIBE","channel":"room:1","payload":{"since":-1}}"#,
        r#"{"type":"SUBSCRIBE","channel":"room:1","payload":{"since":{}}}"#,
    ];
    for frame in frames {
        assert_eq!(refusal(route("ann", "{}", frame)), Some(RefusalCode::BadRequest), "{frame}");
    }
    let identity = Identity::of("ann");
    let binary = CommunityChat::route(&Sender { now_ms: 0, identity }, vec![123_u8, 125].into());
    assert_eq!(refusal(binary), Some(RefusalCode::BadRequest));
}

#[test]
fn every_refusal_has_its_code() {
    let identity = Identity::of("ann");
    let sender = Sender { now_ms: 9, identity };
    let cases = [
        (RefusalCode::BadRequest, "bad_request"),
        (RefusalCode::Forbidden, "forbidden"),
        (RefusalCode::NotFound, "not_found"),
        (RefusalCode::NotJoined, "not_subscribed"),
        (RefusalCode::TooLarge, "too_large"),
        (RefusalCode::RateLimited, "rate_limited"),
        (RefusalCode::Conflict, "conflict"),
        (RefusalCode::Unavailable, "unavailable"),
        (RefusalCode::Fault, "internal"),
    ];
    for (code, expected) in cases {
        let frame = Payload::from(r#"{"type":"X","channel":"room:1","id":"c1"}"#);
        let error = CommunityChat::refused(&sender, Some(&frame), &Refusal::new(code, "a \"b\"\n")).unwrap();
        let error: Value = serde_json::from_str(error.text().unwrap()).unwrap();
        let payload = json!({"code": expected, "message": "a \"b\"\n"});
        let whole =
            json!({"type": "ERROR", "channel": "room:1", "payload": payload, "correlationId": "c1", "timestamp": 9});
        assert_eq!(error, whole);
    }
    for frame in [None, Some(Payload::from("garbage")), Some(Payload::from(vec![0_u8]))] {
        let error = CommunityChat::refused(&sender, frame.as_ref(), &Refusal::bad_request("m")).unwrap();
        let error: Value = serde_json::from_str(error.text().unwrap()).unwrap();
        assert_eq!(error, json!({"type": "ERROR", "payload": {"code": "bad_request", "message": "m"}, "timestamp": 9}));
    }
}

#[test]
fn who_has_not_subscribed_cannot_write() {
    let (mut room, [ann]) = room_with(["ann"]);
    let bob = room.connect("bob");
    for kind in ["CHAT_MESSAGE", "TYPING", "MESSAGE_EDIT", "MESSAGE_DELETE", "UNSUBSCRIBE"] {
        let frame = json!({"type": kind, "payload": {"content": "x", "isTyping": true, "id": "1"}});
        assert_refused(&send(&mut room, bob, frame), bob, "not_subscribed");
    }
    assert!(room.log().is_empty());
    assert_eq!(room.members(), [ann]);
}

#[test]
fn a_frame_to_another_channel_goes_there() {
    let mut room = room();
    let ann = room.connect("ann");
    let outcome = send(&mut room, ann, json!({"type": "SUBSCRIBE", "channel": "room:2"}));
    assert_eq!(outcome.routed_elsewhere.as_deref(), Some("room:2"));
    assert!(frames(&outcome, ann).is_empty());
}

#[test]
fn a_subscription_is_answered_with_who_is_there_and_the_frames_id() {
    let (mut room, [_, _]) = room_with(["bob", "ann"]);
    let cleo = room.connect("cleo");
    let outcome = send(&mut room, cleo, json!({"type": "SUBSCRIBE", "id": 5}));
    let expected = json!({
        "type": "SUBSCRIBED", "channel": "room:1", "correlationId": 5, "timestamp": room.now_ms(),
        "payload": {"online": ["ann", "bob", "cleo"], "onlineCount": 3, "recent": []},
    });
    assert_eq!(only(&outcome, cleo), expected);
}
