//! Ten thousand seeded frames, garbage and mutated valid ones: none makes the plugin panic, and what is refused changes nothing and
//! reaches nobody else.

use hotbay_sdk::harness::Rng;
use hotbay_sdk::{Event, HttpRequest, MemberId, Payload};
use serde_json::value::RawValue;

use super::{Bus, body, bus_with, emit, query, request};

const VALUES: [&str; 26] = [
    "null",
    "true",
    "1",
    "-1",
    "0",
    "1.5",
    "1e999",
    "18446744073709551616",
    "\"\"",
    "\"x\"",
    "\"ideas\"",
    "\"ideas:acme\"",
    "\"ideas:other\"",
    "\"a:b:acme\"",
    "\"system\"",
    "\"high\"",
    "\"\\ud800\"",
    "\"\\u0000\"",
    "[]",
    "{}",
    "[\"x\"]",
    "[\"x\",1]",
    "{\"eventTypes\":[\"x\"]}",
    "{\"priority\":[\"high\",\"low\"],\"users\":[\"ann\"]}",
    "[[[[[[[[[]]]]]]]]]",
    "NaN",
];
const KEYS: [&str; 14] = [
    "type",
    "channel",
    "data",
    "source",
    "priority",
    "filters",
    "eventTypes",
    "replay",
    "event",
    "payload",
    "userId",
    "user_id",
    "id",
    "x",
];
const TYPES: [&str; 12] = [
    "filters",
    "subscribe",
    "unsubscribe",
    "custom_event",
    "idea_created",
    "connection",
    "error",
    "subscribed",
    "",
    "ping",
    "Filters",
    "x",
];
const VALID: [&str; 9] = [
    r#"{"type":"custom_event","data":{"hello":"w\u00f6rld 😀","n":[1,2.50,-1e3]},"channel":"ideas","source":"s","priority":"low"}"#,
    r#"{"type":"filters","filters":{"eventTypes":["custom_event"],"sources":[],"priority":["low","high"],"users":null}}"#,
    r#"{"type":"filters","filters":{}}"#,
    r#"{"type":"subscribe","channel":"ideas","eventTypes":["custom_event","x"],"replay":5}"#,
    r#"{"type":"subscribe","channel":"orders:acme"}"#,
    r#"{"type":"unsubscribe","channel":"ideas"}"#,
    r#"{"event":"idea_created","payload":{"a":1},"channel":"ideas:acme","priority":"critical","userId":"zoe"}"#,
    r#"{"user_id":"ann","filters":{"eventTypes":["x"]}}"#,
    r#"{"type":"x"}"#,
];

fn frame(rng: &mut Rng) -> Payload {
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
            let mut fields = format!("\"type\":\"{}\"", rng.pick(&TYPES));
            for _ in 0..rng.below(5) {
                fields.extend([",\"", rng.pick(&KEYS), "\":", rng.pick(&VALUES)]);
            }
            format!("{{{fields}}}").into()
        }
        _ => rng.pick(&VALID).into(),
    }
}

fn asked(rng: &mut Rng, what: &Payload) -> HttpRequest {
    let method = rng.pick(&["GET", "POST", "PUT", "DELETE", "PATCH"]);
    let path = rng.pick(&["/", "/", "/", "/status", "/history", "/x"]);
    let mut asked = request(method, path, "ann", rng.pick(&["", "admin"]));
    if rng.below(8) == 0 {
        asked.headers.remove(rng.below(3));
    }
    let value = String::from_utf8_lossy(what.bytes()).into_owned();
    // Closing everybody would end the test.
    let names = ["channel", "limit", "before", "detailed", "userid"];
    let mut asked =
        query(asked, &[(rng.pick(&names), &value), (rng.pick(&names), rng.pick(&VALUES).trim_matches('"'))]);
    asked.body = what.bytes().to_vec();
    if asked.method == "DELETE" && rng.below(20) > 0 {
        asked = body(asked, &serde_json::json!({}));
        asked.query.clear();
    }
    asked
}

fn step(bus: &mut Bus, members: &[MemberId], rng: &mut Rng, context: &str) -> bool {
    let member = members[rng.below(members.len())];
    let what = frame(rng);
    let context = format!("{context}: {what:?}");
    let before = (bus.kv(), bus.timers(), bus.members());

    let (event, sender) = match rng.below(5) {
        0 => (
            Event::Publish(hotbay_sdk::Publication { source: hotbay_sdk::Source::Api("k".to_owned()), payload: what }),
            None,
        ),
        1 => (Event::Request(HttpRequest { id: 1, ..asked(rng, &what) }), None),
        _ => (bus.sent(member, what), Some(member)),
    };
    let outcome = bus.batch(vec![event]);

    assert!(outcome.faults.is_empty(), "{context}: {:?}", outcome.faults);
    for (_, payload) in &outcome.received {
        let parsed = payload.text().map(serde_json::from_str::<&RawValue>);
        assert!(matches!(parsed, Some(Ok(_))), "{context}: sent {payload:?}");
    }
    let failed = outcome.responses().iter().any(|response| response.status >= 400);
    if !outcome.refusals.is_empty() || failed {
        assert_eq!((bus.kv(), bus.timers(), bus.members()), before, "{context}");
        assert!(outcome.received.iter().all(|(to, _)| Some(*to) == sender), "{context}");
        assert_eq!(outcome.received.len(), usize::from(sender.is_some()), "{context}");
    }
    outcome.refusals.is_empty() && !failed
}

#[test]
fn ten_thousand_random_frames_never_trap_and_change_nothing_when_refused() {
    let mut accepted = 0;
    for seed in 0..20 {
        let (mut bus, members) = bus_with(["ann", "bob", "cleo"]);
        emit(&mut bus, members[0], serde_json::json!({"type": "x"}));
        let mut rng = Rng(seed);
        for turn in 0..500 {
            accepted += usize::from(step(&mut bus, &members, &mut rng, &format!("seed {seed}, turn {turn}")));
            match rng.below(50) {
                0 => bus.sleep(),
                1 => bus.crash(),
                2 => _ = bus.advance_ms(rng.next() % 6_000),
                _ => {}
            }
        }
    }
    // The test would prove little if nothing, or everything, were refused.
    assert!((2_000..8_000).contains(&accepted), "{accepted} of 10,000 accepted");
}
