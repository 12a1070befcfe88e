//! Ten thousand seeded frames, garbage and mutated valid ones: none makes the plugin panic, and what is refused changes
//! nothing and is told to nobody else.

use hotbay_sdk::harness::Rng;
use hotbay_sdk::{HttpRequest, MemberId, Payload};
use serde_json::json;

use super::{Board, ack, board_with, identity, send};

const VALUES: [&str; 26] = [
    "null",
    "true",
    "1",
    "-1",
    "0",
    "2",
    "1.5",
    "1e999",
    "18446744073709551616",
    "\"\"",
    "\"x\"",
    "\"w\"",
    "\"a\"",
    "\"client\"",
    "\"merge\"",
    "\"\\ud800\"",
    "\"\\u0000\"",
    "[]",
    "{}",
    "[[[[[[[[[]]]]]]]]]",
    "{\"x\":1}",
    "[{\"type\":\"WIDGET_UPDATE\",\"operationId\":\"1\",\"payload\":{\"widgetId\":\"w\",\"data\":{\"q\":1}}}]",
    "[{\"type\":\"WIDGET_DELETE\",\"payload\":{\"widgetId\":\"w\"}},{\"type\":\"LAYOUT_RESTORE\"}]",
    "[{\"type\":\"LAYOUT_UPDATE\",\"operationId\":2,\"payload\":{\"layout\":[1]}},1]",
    "NaN",
    "{\"\\ud800\":{}}",
];
const KEYS: [&str; 14] = [
    "type",
    "payload",
    "id",
    "userId",
    "widgetId",
    "data",
    "baseVersion",
    "layout",
    "version",
    "operations",
    "since",
    "conflictId",
    "resolution",
    "operationId",
];
const TYPES: [&str; 18] = [
    "CONNECT",
    "DISCONNECT",
    "PING",
    "PONG",
    "SYNC_REQUEST",
    "SYNC_RESPONSE",
    "SYNC_UPDATE",
    "WIDGET_UPDATE",
    "WIDGET_DELETE",
    "WIDGET_BATCH",
    "LAYOUT_UPDATE",
    "LAYOUT_RESTORE",
    "CONFLICT_DETECTED",
    "CONFLICT_RESOLVED",
    "ACK",
    "NACK",
    "",
    "SYNC",
];
const VALID: [&str; 10] = [
    r#"{"type":"WIDGET_UPDATE","id":"f","userId":"ann","payload":{"widgetId":"w","data":{"a":"w\u00f6rld 😀","b":[1,{"c":-0}]}}}"#,
    r#"{"type":"WIDGET_UPDATE","userId":"ann","payload":{"widgetId":"w","data":{"a":1},"baseVersion":1}}"#,
    r#"{"type":"WIDGET_DELETE","userId":"ann","payload":{"widgetId":"w"}}"#,
    r#"{"type":"WIDGET_BATCH","userId":"ann","payload":{"operations":[{"type":"WIDGET_UPDATE","payload":{"widgetId":"a","data":{}}},{"type":"WIDGET_DELETE","payload":{"widgetId":"w"}}]}}"#,
    r#"{"type":"SYNC_UPDATE","userId":"ann","payload":{"operations":[{"operationId":"1","type":"LAYOUT_UPDATE","payload":{"layout":{"a":1}}},{"operationId":"2","type":"LAYOUT_RESTORE"}]}}"#,
    r#"{"type":"LAYOUT_UPDATE","userId":"ann","payload":{"layout":[{"i":"w","x":0}],"baseVersion":1},"id":7}"#,
    r#"{"type":"LAYOUT_RESTORE","userId":"ann","payload":{"version":1}}"#,
    r#"{"type":"SYNC_REQUEST","userId":"ann","payload":{"since":3}}"#,
    r#"{"type":"CONFLICT_RESOLVED","userId":"ann","payload":{"conflictId":"conflict-1700000000000000001","resolution":"merge","data":{"z":1}}}"#,
    r#"{"type":"SYNC","operations":[{"operationId":"9","type":"WIDGET_UPDATE","payload":{"widgetId":"h","data":{"x":1}}}]}"#,
];

fn garbage(rng: &mut Rng) -> Payload {
    match rng.below(4) {
        0 => {
            let bytes: Vec<u8> = (0..rng.below(80)).map(|_| rng.next() as u8).collect();
            if rng.below(2) == 0 { bytes.into() } else { String::from_utf8_lossy(&bytes).into_owned().into() }
        }
        1 => {
            let mut bytes = rng.pick(&VALID).as_bytes().to_vec();
            for _ in 0..=rng.below(4) {
                let at = rng.below(bytes.len().max(1));
                if at >= bytes.len() {
                    break;
                }
                match rng.below(4) {
                    0 => bytes[at] = rng.next() as u8,
                    1 => drop(bytes.remove(at)),
                    2 => bytes.insert(at, b"{}[]\",:\\0e"[rng.below(10)]),
                    _ => bytes.truncate(at.max(1)),
                }
            }
            String::from_utf8_lossy(&bytes).into_owned().into()
        }
        2 => {
            let fields: Vec<String> =
                (0..rng.below(4)).map(|_| format!("\"{}\":{}", rng.pick(&KEYS), rng.pick(&VALUES))).collect();
            let (kind, value) = (rng.pick(&TYPES), rng.pick(&VALUES));
            let payload = if rng.below(4) == 0 { value.to_owned() } else { format!("{{{}}}", fields.join(",")) };
            format!(r#"{{"type":"{kind}","userId":"ann","payload":{payload}}}"#).into()
        }
        _ => rng.pick(&VALID).into(),
    }
}

fn step(board: &mut Board, members: &[MemberId], seed: u64, turn: usize, rng: &mut Rng) -> bool {
    let member = members[rng.below(2)];
    let what = garbage(rng);
    let context = format!("seed {seed}, turn {turn}: {what:?}");
    let before = (board.log(), board.kv(), board.members());

    let (mut from, mut status) = (Some(member), 200);
    let outcome = match rng.below(5) {
        0 => {
            from = None;
            board.publish(what)
        }
        1 => {
            from = None;
            let body = what.bytes().to_vec();
            let outcome = board.request_with(HttpRequest {
                body,
                identity: Some(identity("ann")),
                ..HttpRequest::new("POST", "/")
            });
            status = outcome.responses()[0].status;
            outcome
        }
        _ => board.message(member, what),
    };

    assert!(outcome.faults.is_empty(), "{context}: {:?}", outcome.faults);
    assert!(outcome.closed.is_empty(), "{context}");
    for (_, payload) in &outcome.received {
        let text = payload.text().unwrap_or_default();
        // A value may be more than a parser's number holds: such text goes through as it came.
        let valid = serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok();
        assert!(valid, "{context}: sent {payload:?}");
    }
    let refused = !outcome.refusals.is_empty() || status != 200;
    if refused {
        assert!((board.log(), board.kv(), board.members()) == before, "{context}: changed the store");
        assert!(outcome.received.iter().all(|(to, _)| Some(*to) == from), "{context}: told others");
    }
    !refused
}

#[test]
fn ten_thousand_random_frames_never_trap_and_change_nothing_when_refused() {
    let mut accepted = 0;
    for seed in 0..20 {
        let (mut board, members) = board_with(["ann", "ann", "bob"]);
        ack(&mut board, members[0], "ann", "WIDGET_UPDATE", json!({"widgetId": "w", "data": {"a": 1}}));
        let mut rng = Rng(seed);
        for turn in 0..500 {
            accepted += usize::from(step(&mut board, &members, seed, turn, &mut rng));
            match rng.below(50) {
                0 => board.sleep(),
                1 => board.crash(),
                2 => _ = board.advance_ms(rng.next() % 20_000),
                _ => {}
            }
            for (id, user) in [(members[0], "ann"), (members[1], "ann"), (members[2], "bob")] {
                send(&mut board, id, user, "PONG", json!({}));
            }
        }
        // What memory believes is what the store says.
        let believed = super::snapshot(&mut board, members[0], "ann");
        board.crash();
        assert!(super::snapshot(&mut board, members[0], "ann") == believed, "seed {seed}");
    }
    // The test would prove little if nothing, or everything, were refused.
    assert!((1_000..9_000).contains(&accepted), "{accepted} of 10,000 accepted");
}

#[test]
fn any_memory_handed_over_is_taken_or_left() {
    for seed in 0..300 {
        let mut rng = Rng(seed);
        let (mut board, [ann]) = board_with(["ann"]);
        ack(&mut board, ann, "ann", "WIDGET_UPDATE", json!({"widgetId": "w", "data": {"a": 1}}));
        send(&mut board, ann, "ann", "WIDGET_UPDATE", json!({"widgetId": "w", "data": {"a": 1}, "baseVersion": 7}));
        board.sleep();
        let mut saved = board.saved().unwrap().to_vec();
        for _ in 0..=rng.below(3) {
            let at = rng.below(saved.len());
            match rng.below(3) {
                0 => saved[at] = rng.next() as u8,
                1 => saved[at] = b'0' + rng.below(10) as u8,
                _ => saved.truncate(at.max(1)),
            }
        }
        let read = crate::saved::Saved::read(&saved);
        drop(crate::conflicts::Conflicts::resume(read.conflicts));
    }
}
