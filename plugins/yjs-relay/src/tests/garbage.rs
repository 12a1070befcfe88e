//! Ten thousand seeded frames in each protocol, garbage and mutated valid ones: none makes the plugin panic, what is
//! refused changes nothing and reaches nobody, and whatever reaches somebody is well formed.

use hotbay_sdk::harness::{Outcome, Rng};
use hotbay_sdk::{MemberId, Payload};
use serde_json::{Value, json};

use super::{BINARY_ENDPOINT, Editor, JSON_ENDPOINT, Room, identity, join, stored, viewer};
use crate::update::Checked;
use crate::{awareness, binary, json};

fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>, interesting: &[u8]) {
    for _ in 0..rng.below(4) {
        let at = rng.below(bytes.len().max(1));
        match rng.below(5) {
            _ if bytes.is_empty() => {}
            0 => bytes[at] = rng.next() as u8,
            1 => drop(bytes.remove(at)),
            2 => bytes.insert(at, interesting[rng.below(interesting.len())]),
            3 => bytes[at] ^= 1 << rng.below(8),
            _ => bytes.truncate(at.max(1)),
        }
    }
}

fn random(rng: &mut Rng) -> Vec<u8> {
    (0..rng.below(60)).map(|_| if rng.below(2) == 0 { rng.next() as u8 } else { rng.below(8) as u8 }).collect()
}

fn binary_frame(rng: &mut Rng, editor: &Editor) -> Vec<u8> {
    let mut update = editor.edits(rng);
    if rng.below(4) == 0 {
        mutate(rng, &mut update, &[0, 1, 127, 128, 255]);
    }
    let mut frame = match rng.below(9) {
        0 => random(rng),
        1 => binary::step_1(&random(rng)),
        2 => binary::step_2(&update),
        3 => vec![3],
        4 | 5 => {
            let states = ["{}", "null", "{\"cursor\":[1,2]}", "1", "{"];
            let mut states = (0..rng.below(3))
                .map(|_| (rng.below(6) as u64, rng.below(9) as u64, Some(states[rng.below(states.len())])));
            let states: Vec<_> = states.by_ref().collect();
            let mut update = Vec::new();
            awareness::write(&mut update, states.into_iter());
            binary::awareness(&update)
        }
        _ => binary::update(&update),
    };
    if rng.below(4) == 0 {
        mutate(rng, &mut frame, &[0, 1, 2, 3, 127, 128, 255]);
    }
    frame
}

fn json_frame(rng: &mut Rng, editor: &Editor) -> Vec<u8> {
    const TYPES: [&str; 7] = ["yjs-update", "yjs-state-request", "yjs-state-response", "ping", "pong", "error", "x"];
    let mut update = editor.edits(rng);
    if rng.below(4) == 0 {
        mutate(rng, &mut update, &[0, 1, 127, 128, 255]);
    }
    let frame = match rng.below(5) {
        0 => return random(rng),
        1 => json!({"type": TYPES[rng.below(TYPES.len())], "data": [0, rng.below(2), {"a": -1}]}),
        2 => json!({"type": TYPES[rng.below(TYPES.len())], "error": "x"}),
        _ => json!({"type": "yjs-update", "data": update}),
    };
    let mut frame = frame.to_string().into_bytes();
    if rng.below(4) == 0 {
        mutate(rng, &mut frame, b"{}[]\",:\\0e-1");
    }
    frame
}

/// Checks what somebody received.
fn assert_well_formed(what: &Payload, context: &str) {
    match what {
        Payload::Text(text) => {
            let frame: Value = serde_json::from_str(text).unwrap_or_else(|_| panic!("{context}: {text}"));
            if frame["type"] == "yjs-update" || frame["type"] == "yjs-state-response" {
                let update = json::Frame::parse(what).unwrap().data().unwrap();
                assert!(Checked::new(&update).is_ok(), "{context}: {text}");
            }
        }
        Payload::Binary(bytes) => {
            match binary::Frame::parse(bytes).unwrap_or_else(|_| panic!("{context}: {bytes:?}")) {
                binary::Frame::Update { update, .. } | binary::Frame::Step2(update) => {
                    assert!(Checked::new(update).is_ok(), "{context}: {bytes:?}");
                }
                binary::Frame::Awareness { update, .. } => {
                    assert!(awareness::parse(update).is_ok(), "{context}: {bytes:?}");
                }
                binary::Frame::Step1(_) | binary::Frame::Other(2) => {}
                other => panic!("{context}: {other:?}"),
            }
        }
    }
}

struct Play {
    room: Room,
    members: Vec<(MemberId, bool)>,
    editor: Editor,
    rng: Rng,
}

impl Play {
    fn new(seed: u64) -> Self {
        let settings = r#"{"fold_updates_max":20,"document_bytes_max":20000}"#;
        let mut room = Room::with_settings("draft:d1", settings);
        let identities = [
            identity("ann", JSON_ENDPOINT),
            identity("bob", JSON_ENDPOINT),
            identity("ann", BINARY_ENDPOINT),
            identity("cleo", BINARY_ENDPOINT),
            viewer("vera", BINARY_ENDPOINT),
        ];
        let members =
            identities.map(|identity| (join(&mut room, identity.clone()).0, identity.endpoint == BINARY_ENDPOINT));
        Self { room, members: members.to_vec(), editor: Editor::new(5), rng: Rng(seed) }
    }

    /// Sends one frame, and says whether it was accepted.
    fn step(&mut self, context: &str) -> bool {
        let (member, is_binary) = self.members[self.rng.below(self.members.len())];
        // Now and then in the words of the other protocol.
        let frame = match (is_binary, self.rng.below(12)) {
            (true, 1..) | (false, 0) => binary_frame(&mut self.rng, &self.editor),
            _ => json_frame(&mut self.rng, &self.editor),
        };
        let frame: Payload = match String::from_utf8(frame) {
            Ok(text) if !is_binary || self.rng.below(20) == 0 => text.into(),
            Ok(text) => text.into_bytes().into(),
            Err(bytes) => bytes.into_bytes().into(),
        };
        let context = format!("{context}: {frame:?}");
        let published = self.rng.below(15) == 0;
        let (before, timers) = (stored(&self.room), self.room.timers());

        let outcome: Outcome = if published { self.room.publish(frame) } else { self.room.message(member, frame) };

        assert!(outcome.faults.is_empty(), "{context}: {:?}", outcome.faults);
        for (_, what) in &outcome.received {
            assert_well_formed(what, &context);
        }
        if !outcome.refusals.is_empty() {
            assert_eq!(stored(&self.room), before, "{context}");
            assert_eq!(self.room.timers(), timers, "{context}");
            assert!(outcome.received.iter().all(|(to, _)| *to == member && !published), "{context}");
        }
        outcome.refusals.is_empty()
    }
}

#[test]
fn twenty_thousand_random_frames_never_trap_and_change_nothing_when_refused() {
    let mut accepted = 0;
    for seed in 0..40 {
        let mut play = Play::new(seed);
        for turn in 0..500 {
            accepted += usize::from(play.step(&format!("seed {seed}, turn {turn}")));
            match play.rng.below(60) {
                0 => play.room.sleep(),
                1 => play.room.crash(),
                2 => _ = play.room.advance_ms(play.rng.next() % 40_000),
                _ => continue,
            }
            // Waking may set a timer anew, which is no doing of the next frame.
            play.room.request("GET", "/");
        }
        // What is there after all that is what loads again.
        let before = super::read(&mut play.room).shows();
        play.room.restart();
        assert_eq!(super::read(&mut play.room).shows(), before, "seed {seed}");
    }
    // The test would prove little if nothing, or everything, were refused.
    assert!((4_000..16_000).contains(&accepted), "{accepted} of 20,000 accepted");
}
