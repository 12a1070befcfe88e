//! What members send.

use hotbay_sdk::harness::Outcome;
use hotbay_sdk::{Level, MemberId, Payload, Refusal, RefusalCode, Sender};
use serde_json::json;

use super::{Desk, desk, frames, join, lines};
use crate::HangarshareMetrics;
use crate::strikes::{STRIKES_MAX, WINDOW_MS};

#[test]
fn a_ping_is_answered_to_its_sender_with_its_timestamp() {
    let (mut desk, _) = desk();
    let (ann, _) = join(&mut desk, "ann");
    let (other, _) = join(&mut desk, "ann");
    let now = desk.now_ms();
    for (ping, timestamp) in [
        (r#"{"type":"ping","timestamp":1700000000123}"#, json!(1_700_000_000_123_u64)),
        (r#" {"timestamp" : -1.50 , "x":{"y":[1]}, "type" : "ping" } "#, json!(-1.5)),
        (r#"{"type":"\u0070ing","timestamp":"2024-01-01T00:00:00Z"}"#, json!("2024-01-01T00:00:00Z")),
        (r#"{"type":"ping"}"#, json!(null)),
        (r#"{"type":"ping","timestamp":null}"#, json!(null)),
        (r#"{"type":"ping","timestamp":{"a":1}}"#, json!(null)),
        (r#"{"type":"ping","timestamp":[1]}"#, json!(null)),
        (r#"{"type":"ping","timestamp":true}"#, json!(null)),
        (r#"{"type":"ping","timestamp":1e999}"#, json!(null)),
        (r#"{"type":"ping","timestamp":"\ud800"}"#, json!(null)),
        (&format!(r#"{{"type":"ping","timestamp":"{}"}}"#, "x".repeat(63)), json!(null)),
    ] {
        let outcome = desk.message(ann, ping);
        let pong = json!({"type": "pong", "data": {"timestamp": timestamp}, "timestamp": now});
        assert_eq!(frames(&outcome, ann), [pong], "{ping}");
        assert!(frames(&outcome, other).is_empty() && outcome.refusals.is_empty());
    }
    assert_eq!(lines(&desk, "Message from"), [""; 0], "pings are not logged");
}

const ODD: [&str; 14] = [
    "",
    " ",
    "x",
    "{",
    "[]",
    r#"["ping",1]"#,
    "null",
    "1",
    r#""ping""#,
    "{}",
    r#"{"type":1}"#,
    r#"{"type":null}"#,
    r#"{"type":"ping","type":"ping"}"#,
    r#"{"type":"ping"}{"type":"ping"}"#,
];

/// No reply, no effect, and the connection goes on.
#[test]
fn what_the_protocol_does_not_know_gets_no_reply_and_ends_nothing() {
    let (mut desk, _) = desk();
    let (ann, _) = join(&mut desk, "ann");
    let unknown =
        [r#"{"type":"pong"}"#, r#"{"type":"PING"}"#, r#"{"type":"","data":{}}"#, r#"{"type":"metrics_update"}"#];
    let mut messages: Vec<Payload> = ODD.iter().chain(&unknown).map(|text| (*text).into()).collect();
    messages.push(Payload::Binary(br#"{"type":"ping"}"#.to_vec()));
    messages.push("[".repeat(10_000).into());
    messages.push(format!(r#"{{"type":"x","data":{}"#, r#"{"a":"#.repeat(10_000)).into());
    for message in messages {
        let outcome = desk.message(ann, message.clone());
        assert_eq!((&outcome.received, &outcome.closed, &outcome.faults), (&vec![], &vec![], &vec![]), "{message:?}");
        assert_eq!(outcome.refusals[0].code, RefusalCode::BadRequest, "counted by the host: {message:?}");
    }
    assert_eq!(frames(&desk.message(ann, r#"{"type":"ping"}"#), ann).len(), 1);
}

#[test]
fn messages_are_logged_by_type_cut_and_escaped() {
    let (mut desk, _) = desk();
    let (ann, _) = join(&mut desk, "ann");
    for message in [
        r#"{"type":"subscribe"}"#.to_owned(),
        r#"{"type":"it's \"x\"\n[WebSocket] Client connected: bob\u0000\u001b[31m\u2028\u202e"}"#.to_owned(),
        format!(r#"{{"type":"{}"}}"#, "é".repeat(1_000)),
        "garbage".to_owned(),
    ] {
        desk.message(ann, message);
    }
    assert_eq!(
        lines(&desk, "Message from"),
        [
            "[WebSocket] Message from ann: subscribe".to_owned(),
            r#"[WebSocket] Message from ann: it's "x"\n[WebSocket] Client connected: bob\0\u{1b}[31m\u{2028}\u{202e}"#
                .to_owned(),
            format!("[WebSocket] Message from ann: {}", "é".repeat(64)),
            "[WebSocket] Message from ann: (malformed)".to_owned(),
        ]
    );
    assert!(
        desk.lines().iter().filter(|(_, line)| line.contains("Message from")).all(|(level, _)| *level == Level::Debug)
    );
}

/// Sends this many odd messages at once; the last outcome.
fn strike(desk: &mut Desk, id: MemberId, times: usize) -> Outcome {
    let mut outcome = Outcome::default();
    for at in 0..times {
        let odd = if at % 2 == 0 { "garbage" } else { r#"{"type":"unknown"}"# };
        outcome = desk.message(id, odd);
    }
    outcome
}

#[test]
fn a_hundred_odd_messages_in_a_minute_close_that_member_alone() {
    let (mut desk, _) = desk();
    let (ann, _) = join(&mut desk, "ann");
    let (other, _) = join(&mut desk, "ann");
    assert_eq!(strike(&mut desk, other, STRIKES_MAX - 1).closed, []);
    assert_eq!(strike(&mut desk, ann, STRIKES_MAX - 1).closed, []);
    desk.message(ann, r#"{"type":"ping"}"#);
    desk.advance_ms(WINDOW_MS - 1);
    let outcome = strike(&mut desk, ann, 1);
    assert_eq!(outcome.closed, [(ann, 1008, "Too many malformed or unknown messages".to_owned())]);
    assert_eq!(desk.members(), [other]);
    desk.advance_ms(1);
    assert_eq!(strike(&mut desk, other, STRIKES_MAX - 1).closed, [], "the first ones are too old");
}

/// The window slides: no hundred within any minute, no close.
#[test]
fn ninety_nine_in_every_minute_are_borne_for_ever() {
    let (mut desk, _) = desk();
    let (ann, _) = join(&mut desk, "ann");
    for _ in 0..1_000 {
        assert_eq!(strike(&mut desk, ann, 1).closed, []);
        desk.advance_ms(WINDOW_MS.div_ceil(STRIKES_MAX as u64 - 1));
    }
    // Half before and half after a minute's end count together.
    desk.advance_ms(WINDOW_MS);
    strike(&mut desk, ann, 50);
    desk.advance_ms(WINDOW_MS / 2);
    assert_eq!(strike(&mut desk, ann, 50).closed.len(), 1);
}

#[test]
fn strikes_outlive_sleep() {
    let (mut desk, _) = desk();
    let (ann, _) = join(&mut desk, "ann");
    strike(&mut desk, ann, STRIKES_MAX - 1);
    desk.sleep();
    assert_eq!(strike(&mut desk, ann, 1).closed.len(), 1);
}

/// What a member sends behind the message that closed it is not run; and it counts as gone.
#[test]
fn a_member_that_is_being_closed_is_deaf_and_dumb() {
    let (mut desk, _) = desk();
    let (ann, _) = join(&mut desk, "ann");
    strike(&mut desk, ann, STRIKES_MAX - 1);
    let events = vec![desk.sent(ann, "x"), desk.sent(ann, r#"{"type":"ping"}"#), desk.sent(ann, "y")];
    let outcome = desk.batch(events);
    assert_eq!((outcome.closed.len(), outcome.received.len(), outcome.refusals.len()), (1, 0, 3));
    assert_eq!((desk.timers(), desk.members()), (vec![], vec![]));
}

/// This protocol has no words for refusals, whoever refuses.
#[test]
fn refusals_are_never_told() {
    let sender = Sender { now_ms: 1, identity: hotbay_sdk::Identity::of("ann") };
    for code in [RefusalCode::RateLimited, RefusalCode::Fault, RefusalCode::Closing, RefusalCode::TooLarge] {
        let why = Refusal::new(code, "why");
        assert_eq!(<HangarshareMetrics as hotbay_sdk::Plugin>::refused(&sender, None, &why), None);
    }
}
