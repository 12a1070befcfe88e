//! The store: folding, loading, and what survives what.

use hotbay_sdk::harness::{Harness, Outcome, Rng};
use hotbay_sdk::{Channel, ChannelInfo, Joined, Message, Payload, Plugin, Publication, Refusal, Sender};
use serde_json::json;

use super::{
    Editor, JSON_ENDPOINT, Room, binary_frames, data, identity, join, join_binary, join_json, only, read, room, send,
    send_binary, send_update, stored,
};
use crate::{YjsRelay, binary};

const MIB: usize = 1 << 20;

/// Updates that are as large as they look.
fn noise(rng: &mut Rng, bytes: usize) -> String {
    (0..bytes).map(|_| char::from(b'!' + (rng.next() % 90) as u8)).collect()
}

#[test]
fn nobody_sees_an_empty_document_before_the_stored_one_is_loaded() {
    let upsets: [fn(&mut Room); 3] = [Room::sleep, Room::crash, Room::restart];
    for folded in [false, true] {
        for upset in upsets {
            let mut room = Room::with_settings("draft:d1", if folded { r#"{"fold_updates_max":2}"# } else { "{}" });
            let (editor, ann) = (Editor::new(5), join_json(&mut room, "ann"));
            for word in ["one ", "two ", "three"] {
                send_update(&mut room, ann, &editor.types(word));
            }
            upset(&mut room);

            let (bob, joined) = join(&mut room, identity("bob", JSON_ENDPOINT));

            let reader = Editor::new(6);
            reader.apply(&data(&only(&joined, bob), "yjs-state-response"));
            assert_eq!(reader.text(), "one two three");
        }
    }
}

#[test]
fn the_log_is_folded_every_500_updates() {
    let mut room = room();
    let (editor, ann) = (Editor::new(5), join_json(&mut room, "ann"));
    for update in 1..=1_001 {
        send_update(&mut room, ann, &editor.types("x"));
        assert_eq!(room.log().len(), update % 500, "update {update}");
    }

    assert_eq!(room.log()[0].0, 1_001, "offsets go on");
    let snapshot = room.kv()["snapshot/000000"].clone();
    let reader = Editor::new(6);
    reader.apply(&snapshot);
    assert_eq!(reader.text(), "x".repeat(1_000));
    assert!(snapshot.len() < 1_050, "typed letters are one block: {}", snapshot.len());
    room.restart();
    assert_eq!(read(&mut room).text(), "x".repeat(1_001));
}

#[test]
fn the_log_is_folded_every_mebibyte() {
    let (mut room, mut rng) = (room(), Rng(1));
    let (editor, ann) = (Editor::new(5), join_binary(&mut room, "ann"));
    for _ in 0..15 {
        send_binary(&mut room, ann, binary::update(&editor.types(&noise(&mut rng, 70_000))));
    }
    assert!(room.log().iter().map(|(_, data)| data.len()).sum::<usize>() < MIB);
    assert_eq!(room.kv().get("snapshot").map(Vec::len), Some(13), "folded once");
    room.restart();
    assert_eq!(read(&mut room).text(), editor.text());
}

/// Goal: the counts that decide when to fold go on where they were.
#[test]
fn a_long_tail_is_folded_also_after_a_restart() {
    let mut room = room();
    let editor = Editor::new(5);
    for round in 0..5 {
        let ann = join_json(&mut room, "ann");
        for _ in 0..99 {
            send_update(&mut room, ann, &editor.types("x"));
        }
        assert_eq!(room.log().len(), (round + 1) * 99);
        room.restart();
    }
    let ann = join_json(&mut room, "ann");
    for _ in 0..5 {
        send_update(&mut room, ann, &editor.types("x"));
    }
    assert_eq!(room.log().len(), 0);
    assert_eq!(read(&mut room).text(), editor.text());
}

/// Goal: an update too large for a log entry is durable in the batch that brings it.
#[test]
fn an_update_over_a_mebibyte_is_folded_at_once() {
    let (mut room, mut rng) = (room(), Rng(2));
    room.set_effect_bytes_max(96 << 20);
    let (editor, ann) = (Editor::new(5), join_binary(&mut room, "ann"));
    let (bob, cleo) = (join_binary(&mut room, "bob"), join_json(&mut room, "cleo"));
    send_binary(&mut room, ann, binary::update(&editor.types("first ")));
    let update = editor.types(&noise(&mut rng, 3 * MIB));

    let sent = send_binary(&mut room, ann, binary::update(&update));

    assert_eq!(binary_frames(&sent, bob), [binary::update(&update)]);
    assert_eq!(data(&only(&sent, cleo), "yjs-update"), update);
    assert_eq!((room.log().len(), room.kv().keys().filter(|key| key.starts_with("snapshot/")).count()), (0, 4));
    room.restart();
    assert_eq!(read(&mut room).text(), editor.text());
}

#[test]
fn a_document_that_shrinks_gives_back_its_pieces() {
    let (mut room, mut rng) = (Room::with_settings("draft:d1", r#"{"fold_updates_max":1}"#), Rng(3));
    room.set_effect_bytes_max(96 << 20);
    let (editor, ann) = (Editor::new(5), join_binary(&mut room, "ann"));
    let pieces = |room: &Room| room.kv().keys().filter(|key| key.starts_with("snapshot/")).count();
    send_binary(&mut room, ann, binary::update(&editor.types(&noise(&mut rng, 5 * MIB))));
    assert_eq!(pieces(&room), 6);

    send_binary(&mut room, ann, binary::update(&editor.removes(4 * MIB as u32)));

    assert_eq!(pieces(&room), 2);
    room.restart();
    assert_eq!(read(&mut room).text(), editor.text());
}

/// Goal: deleted text is gone from the store, unless the operator keeps it.
#[test]
fn what_was_deleted_is_not_stored_for_ever() {
    for kept in [false, true] {
        let settings = json!({"fold_updates_max": 2, "garbage_collection": !kept});
        let mut room = Room::with_settings("draft:d1", &settings.to_string());
        let (editor, ann) = (Editor::new(5), join_json(&mut room, "ann"));
        send_update(&mut room, ann, &editor.types("a secret"));
        send_update(&mut room, ann, &editor.removes(8));
        let snapshot = room.kv()["snapshot/000000"].clone();
        assert_eq!(snapshot.windows(6).any(|window| window == b"secret"), kept);
    }
}

#[test]
fn a_batch_at_fault_leaves_no_trace() {
    let mut room = room();
    room.set_effect_bytes_max(1_000);
    let (editor, ann) = (Editor::new(5), join_json(&mut room, "ann"));
    join_json(&mut room, "bob");
    send_update(&mut room, ann, &editor.types("kept"));
    let before = stored(&room);

    // More than the mount lets out, though not than the plugin thinks it may.
    let frame = json!({"type": "yjs-update", "data": Editor::new(6).types(&"x".repeat(2_000))}).to_string();
    let outcome = room.message(ann, frame);

    assert_eq!((outcome.faults.len(), outcome.refusals.len()), (1, 1));
    assert_eq!(stored(&room), before);
    assert_eq!(read(&mut room).text(), "kept");
}

/// The plugin, and somebody who writes to its store: a publication is a key, a space and a value.
struct Vandalised(YjsRelay);

impl Plugin for Vandalised {
    fn open(info: &ChannelInfo, saved: Option<&[u8]>, channel: &mut Channel) -> Result<Self, String> {
        YjsRelay::open(info, saved, channel).map(Self)
    }
    fn on_start(&mut self, channel: &mut Channel) {
        self.0.on_start(channel);
    }
    fn on_join(&mut self, channel: &mut Channel, joined: Joined) -> Result<(), Refusal> {
        self.0.on_join(channel, joined)
    }
    fn on_message(&mut self, channel: &mut Channel, message: Message) -> Result<(), Refusal> {
        self.0.on_message(channel, message)
    }
    fn on_publish(&mut self, channel: &mut Channel, publication: Publication) -> Result<(), Refusal> {
        let bytes = publication.payload.bytes();
        let space = bytes.iter().position(|byte| *byte == b' ').unwrap();
        channel.kv().put(std::str::from_utf8(&bytes[..space]).unwrap(), &bytes[space + 1..]);
        Ok(())
    }
    fn on_batch_end(&mut self, channel: &mut Channel) {
        self.0.on_batch_end(channel);
    }
    fn refused(to: &Sender, frame: Option<&Payload>, why: &Refusal) -> Option<Payload> {
        YjsRelay::refused(to, frame, why)
    }
}

type Spoil = fn(&mut Vec<u8>);

/// Goal: a store that is not as it was written is not written over.
#[test]
fn a_broken_store_keeps_the_draft_closed_and_as_it_is() {
    let breaks: [(&str, Spoil); 5] = [
        ("snapshot/000000", |data| data.truncate(data.len() - 1)),
        ("snapshot/000000", |data| data.push(0)),
        ("snapshot/000000", |data| data[1] += 1),
        ("snapshot", |data| data[0] = 9),
        ("snapshot", |data| data[1] = 2),
    ];
    for (key, spoil) in breaks {
        let mut room: Harness<Vandalised> = Harness::with_settings("draft:d1", r#"{"fold_updates_max":1}"#);
        let ann = room.connect_as(identity("ann", JSON_ENDPOINT));
        room.join_connection(ann);
        send_update_to(&mut room, ann, &Editor::new(5).types("hello"));
        let mut value = room.kv()[key].clone();
        spoil(&mut value);
        room.publish([key.as_bytes(), b" ", &value].concat());
        room.crash();
        let before = (room.log(), room.kv());

        let bob = room.connect_as(identity("bob", JSON_ENDPOINT));
        let joined = room.join_connection(bob);
        assert_eq!(joined.closed, [(bob, 4013, "The draft cannot be loaded".to_owned())], "{key}");
        for outcome in [room.message(ann, r#"{"type":"yjs-state-request"}"#), send_update_to(&mut room, ann, &[0, 0])] {
            assert_eq!(only(&outcome, ann), json!({"type": "error", "error": "the draft cannot be loaded"}));
        }
        assert_eq!((room.log(), room.kv()), before, "{key}");
        assert!(room.lines().iter().any(|(_, line)| line.contains("context=load")), "{key}");
    }
}

fn send_update_to(room: &mut Harness<Vandalised>, id: u64, update: &[u8]) -> Outcome {
    room.message(id, json!({"type": "yjs-update", "data": update}).to_string())
}

/// Goal: what needs no document does not load it.
#[test]
fn a_ping_does_not_read_the_store() {
    let mut room = room();
    let ann = join_json(&mut room, "ann");
    room.sleep();
    let reads = room.log_reads();
    send_update(&mut room, ann, &Editor::new(5).types("x"));
    room.sleep();
    for _ in 0..5 {
        send(&mut room, ann, &json!({"type": "ping"}));
        room.sleep();
    }
    assert_eq!(room.log_reads(), reads, "an empty log is not read, and later nothing asked for it");
    send(&mut room, ann, &json!({"type": "yjs-state-request"}));
    assert_eq!(room.log_reads(), reads + 1);
}

/// Goal: a sleeping draft costs its rows, whatever its size.
#[test]
fn a_sleeping_draft_hands_over_no_document() {
    let (mut room, mut rng) = (room(), Rng(5));
    let ann = join_json(&mut room, "ann");
    send_update(&mut room, ann, &Editor::new(5).types(&noise(&mut rng, 500_000)));
    room.sleep();
    assert!(room.saved().unwrap().len() < 300, "{}", String::from_utf8_lossy(room.saved().unwrap()));
}
