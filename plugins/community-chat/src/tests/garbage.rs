//! Ten thousand seeded frames, garbage and mutated valid ones: none makes the plugin panic, and what is refused changes
//! nothing.

use hotbay_sdk::harness::Rng;
use hotbay_sdk::{MemberId, Payload};

use super::{Room, room_with, say};

const VALUES: [&str; 22] = [
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
    "\"1\"",
    "\"3\"",
    "\"\\ud800\"",
    "\"\\u0000\"",
    "\"room:1\"",
    "[]",
    "{}",
    "[[[[[[[[[]]]]]]]]]",
    "{\"content\":\"x\"}",
    "{\"id\":1,\"content\":\"y\"}",
    "{\"isTyping\":true}",
    "NaN",
];
const KEYS: [&str; 10] =
    ["type", "channel", "payload", "id", "content", "clientId", "isTyping", "since", "userId", "x"];
const TYPES: [&str; 10] = [
    "CHAT_MESSAGE",
    "TYPING",
    "MESSAGE_EDIT",
    "MESSAGE_DELETE",
    "SUBSCRIBE",
    "PING",
    "PONG",
    "ERROR",
    "USER_JOINED",
    "chat_message",
];
const VALID: [&str; 6] = [
    r#"{"type":"CHAT_MESSAGE","channel":"room:1","payload":{"content":"hello \"w\u00f6rld\" 😀","clientId":"c1","x":{"y":[1,2]}},"id":"f"}"#,
    r#"{"type":"TYPING","channel":"room:1","payload":{"isTyping":true}}"#,
    r#"{"type":"MESSAGE_EDIT","channel":"room:1","payload":{"id":"1","content":"edited"},"id":7}"#,
    r#"{"type":"MESSAGE_DELETE","channel":"room:1","payload":{"id":2}}"#,
    r#"{"type":"SUBSCRIBE","channel":"room:1","payload":{"since":"1"}}"#,
    r#"{"type":"PING","id":"p"}"#,
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
            let fields: Vec<String> =
                (0..rng.below(4)).map(|_| format!("\"{}\":{}", rng.pick(&KEYS), rng.pick(&VALUES))).collect();
            let (kind, value) = (rng.pick(&TYPES), rng.pick(&VALUES));
            let payload = if rng.below(3) == 0 { value.to_owned() } else { format!("{{{}}}", fields.join(",")) };
            format!(r#"{{"type":"{kind}","channel":"room:1","payload":{payload}}}"#).into()
        }
        _ => rng.pick(&VALID).into(),
    }
}

fn step(room: &mut Room, members: &[MemberId], seed: u64, turn: usize, rng: &mut Rng) -> bool {
    let member = members[rng.below(members.len())];
    let what = frame(rng);
    let context = format!("seed {seed}, turn {turn}: {what:?}");
    let before = (room.log(), room.kv(), room.timers(), room.members());

    // Past the router too: a plugin must not rely on the host having asked it.
    let outcome = match rng.below(3) {
        0 => room.message(member, what),
        1 => room.publish(what),
        _ => room.frame(member, what),
    };

    assert!(outcome.faults.is_empty(), "{context}: {:?}", outcome.faults);
    for (_, payload) in &outcome.received {
        let parsed = payload.text().map(serde_json::from_str::<serde_json::Value>);
        assert!(matches!(parsed, Some(Ok(_))), "{context}: sent {payload:?}");
    }
    if !outcome.refusals.is_empty() {
        assert_eq!((room.log(), room.kv(), room.timers(), room.members()), before, "{context}");
    }
    outcome.refusals.is_empty()
}

/// Upsets the room and wakes it: waking may set a timer anew, which is no doing of the next frame.
fn wake(room: &mut Room, upset: fn(&mut Room)) {
    upset(room);
    room.request("GET", "/");
}

#[test]
fn ten_thousand_random_frames_never_trap_and_change_nothing_when_refused() {
    let mut accepted = 0;
    for seed in 0..20 {
        let (mut room, members) = room_with(["ann", "bob", "cleo"]);
        say(&mut room, members[0], "one");
        let mut rng = Rng(seed);
        for turn in 0..500 {
            accepted += usize::from(step(&mut room, &members, seed, turn, &mut rng));
            match rng.below(50) {
                0 => wake(&mut room, Room::sleep),
                1 => wake(&mut room, Room::crash),
                2 => _ = room.advance_ms(rng.next() % 6_000),
                _ => {}
            }
        }
    }
    // The test would prove little if nothing, or everything, were refused.
    assert!((1_000..9_000).contains(&accepted), "{accepted} of 10,000 accepted");
}
