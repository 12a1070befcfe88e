//! Ten thousand seeded frames, garbage and mutated valid ones, sent and published, with and without connections: none makes the
//! plugin panic, what is refused changes nothing, and no message of a member reaches another.

use hotbay_sdk::harness::Rng;
use hotbay_sdk::{MemberId, Payload};
use serde_json::Value;

use super::{Desk, desk, join};

const VALUES: [&str; 21] = [
    "null",
    "true",
    "1",
    "-1",
    "0",
    "-0.0",
    "1.5",
    "1e999",
    "18446744073709551616",
    "\"\"",
    "\"x\"",
    "\"1\"",
    "\"\\ud800\"",
    "\"\\u0000\"",
    "\"é😀\"",
    "[]",
    "{}",
    "[[[[[[[[[]]]]]]]]]",
    "{\"timestamp\":1}",
    "{\"bookingId\":\"b\",\"status\":\"x\"}",
    "NaN",
];
const KEYS: [&str; 6] = ["type", "data", "timestamp", "bookingId", "status", "x"];
const TYPES: [&str; 9] = [
    "ping",
    "pong",
    "booking_updated",
    "metrics_update",
    "connection_established",
    "",
    "x",
    "\\u0070ing",
    "ping\\u0000",
];
const VALID: [&str; 5] = [
    r#"{"type":"ping","timestamp":1700000000000}"#,
    r#"{"type":"ping","timestamp":"now \u00e9"}"#,
    r#"{"type":"booking_updated","data":{"bookingId":"b1","status":"confirmed \"é😀"}}"#,
    r#"{ "data" : {"bookingId":1,"timestamp":2} , "type":"booking_updated" }"#,
    r#"{"type":"payout","data":[1,{"x":null}],"timestamp":5}"#,
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
                let at = rng.below(bytes.len());
                match rng.below(4) {
                    0 => bytes[at] = rng.next() as u8,
                    1 if bytes.len() > 1 => drop(bytes.remove(at)),
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
            let data = if rng.below(3) == 0 { value.to_owned() } else { format!("{{{}}}", fields.join(",")) };
            format!(r#"{{"type":"{kind}","data":{data},"timestamp":{}}}"#, rng.pick(&VALUES)).into()
        }
        _ => rng.pick(&VALID).into(),
    }
}

fn step(desk: &mut Desk, members: &[MemberId], context: &str, rng: &mut Rng) -> bool {
    let what = frame(rng);
    let context = format!("{context}: {what:?}");
    let before = (desk.log(), desk.kv(), desk.timers(), desk.members());
    let sender = (!members.is_empty() && rng.below(2) == 0).then(|| members[rng.below(members.len())]);

    let outcome = match sender {
        Some(sender) => desk.message(sender, what),
        None => desk.publish(what),
    };

    assert!(outcome.faults.is_empty() && outcome.closed.is_empty(), "{context}: {outcome:?}");
    for (to, payload) in &outcome.received {
        let frame: Value = serde_json::from_str(payload.text().unwrap()).expect(&context);
        assert!(frame["type"].is_string(), "{context}: sent {payload:?}");
        assert!(sender.is_none_or(|sender| sender == *to && frame["type"] == "pong"), "{context}: {outcome:?}");
    }
    if sender.is_some() || !outcome.refusals.is_empty() {
        assert_eq!((desk.log(), desk.kv(), desk.timers(), desk.members()), before, "{context}");
    }
    for (_, event) in desk.log() {
        assert!(serde_json::from_slice::<Value>(&event).is_ok(), "{context}: kept {event:?}");
    }
    assert!(outcome.refusals.is_empty() || outcome.received.is_empty(), "{context}");
    outcome.refusals.is_empty()
}

#[test]
fn ten_thousand_random_frames_never_trap_and_change_nothing_when_refused() {
    let mut accepted = 0;
    for seed in 0..20 {
        let (mut desk, _) = desk();
        let mut members = vec![];
        let mut rng = Rng(seed);
        for turn in 0..500 {
            let context = format!("seed {seed}, turn {turn}");
            accepted += usize::from(step(&mut desk, &members, &context, &mut rng));
            match rng.below(40) {
                0 => desk.sleep(),
                1 => desk.crash(),
                2..=4 => _ = desk.advance_ms(rng.next() % 60_000),
                5 if members.len() < 3 => members.push(join(&mut desk, "ann").0),
                6 if !members.is_empty() => _ = desk.disconnect(members.swap_remove(0)),
                _ => {}
            }
            // Awake again, so that what waking does is no doing of the next frame; and no strike lasts to the hundredth.
            desk.request("GET", "/");
            if turn % 90 == 89 {
                desk.advance_ms(60_000);
            }
        }
    }
    // The test would prove little if nothing, or everything, were refused.
    assert!((1_000..9_000).contains(&accepted), "{accepted} of 10,000 accepted");
}

/// What `saved` holds is a cache: whatever is found there, the channel opens.
#[test]
fn a_saved_state_of_another_make_is_left_out() {
    use hotbay_sdk::harness::Harness;
    use hotbay_sdk::{Channel, ChannelInfo, Plugin};

    struct Wreck(crate::HangarshareMetrics);
    impl Plugin for Wreck {
        fn open(info: &ChannelInfo, _: Option<&[u8]>, channel: &mut Channel) -> Result<Self, String> {
            let mut rng = Rng(info.now_ms);
            for _ in 0..1_000 {
                let mut saved = br#"{"feed":{"figures":{},"failed_ms":5},"strikes":[[1,[1,2]]]}"#.to_vec();
                let at = rng.below(saved.len());
                saved[at] = rng.next() as u8;
                crate::HangarshareMetrics::open(info, Some(&saved), channel)?;
            }
            crate::HangarshareMetrics::open(info, Some(b""), channel).map(Self)
        }

        fn save(&mut self) -> Vec<u8> {
            self.0.save()
        }
    }
    let mut desk = Harness::<Wreck>::new("owner:ann");
    assert_eq!(desk.request("GET", "/").faults, [""; 0]);
    desk.sleep();
    assert!(desk.saved().is_some_and(|saved| saved.len() < 512), "an owner who is away costs little memory");
}
