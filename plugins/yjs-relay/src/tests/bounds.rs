//! What is bounded: documents, and what goes out in one batch.

use serde_json::json;

use super::{
    BINARY_ENDPOINT, Editor, JSON_ENDPOINT, Room, binary_frames, data, frames, identity, join_binary, join_json, only,
    read, send, send_binary, send_update, stored, updates,
};
use crate::binary;

const MIB: usize = 1 << 20;

/// A room whose mount lets out 1 MiB in a batch, with a document of about this size.
fn narrow_room(bytes: usize) -> (Room, Editor) {
    let mut room = Room::with_settings("draft:d1", &json!({"effect_bytes_max": MIB}).to_string());
    let editor = Editor::new(5);
    let ann = join_binary(&mut room, "ann");
    for _ in 0..bytes / 10_000 {
        send_binary(&mut room, ann, binary::update(&editor.types(&"some words".repeat(1_000))));
    }
    room.disconnect(ann);
    room.set_effect_bytes_max(MIB);
    (room, editor)
}

/// Goal: what is too much for one batch comes in the next ones, and everybody gets it.
#[test]
fn documents_that_do_not_fit_into_a_batch_wait_for_the_next() {
    let (mut room, editor) = narrow_room(150_000);
    let mut events = Vec::new();
    let mut readers = Vec::new();
    for number in 0..4_u8 {
        let json = room.connect_as(identity("json", JSON_ENDPOINT));
        let binary = room.connect_as(identity("binary", BINARY_ENDPOINT));
        readers.push((json, binary));
        events.extend([room.joined(json, None), room.joined(binary, None)]);
        // Each has something else, so that no two share a frame.
        events.push(room.sent(binary, binary::step_1(&[1, 9 + number, 1])));
    }

    let outcome = room.batch(events);

    assert_eq!(outcome.faults, [""; 0]);
    let at_once = outcome.received.iter().filter(|(_, what)| what.bytes().len() > 100_000).count();
    assert!((2..8).contains(&at_once), "{at_once}");
    let mut later = outcome;
    for _ in 0..10 {
        let next = room.advance_ms(1);
        assert_eq!(next.faults, [""; 0]);
        later.received.extend(next.received);
    }
    for (json, binary) in readers {
        let reader = Editor::new(6);
        reader.apply(&data(&only(&later, json), "yjs-state-response"));
        assert_eq!(reader.text(), editor.text());
        assert_eq!(updates(&later, binary).len(), 1);
    }
    assert_eq!(room.timers(), [], "nothing is left to send");
}

/// Goal: an update too large to be sent at once to everybody reaches everybody all the same.
#[test]
fn an_update_that_does_not_fit_comes_as_the_document() {
    let (mut room, editor) = narrow_room(10_000);
    let (ann, bob) = (join_binary(&mut room, "ann"), join_binary(&mut room, "bob"));
    let (cleo, dan) = (join_json(&mut room, "cleo"), join_json(&mut room, "dan"));
    let update = editor.types(&"x".repeat(230_000));

    let mut sent = send_binary(&mut room, ann, binary::update(&update));
    assert_eq!(updates(&sent, bob), [update]);
    sent.received.extend(room.advance_ms(1).received);

    for other in [cleo, dan] {
        let reader = Editor::new(6);
        reader.apply(&data(&only(&sent, other), "yjs-state-response"));
        assert_eq!(reader.text(), editor.text());
    }
    assert_eq!(sent.received.iter().filter(|(to, _)| *to == ann).count(), 0);
}

/// Goal: what must be folded in a batch has room there, however many wait for the document.
#[test]
fn an_update_that_must_be_folded_goes_before_who_waits() {
    let mut room = Room::with_settings("draft:d1", &json!({"effect_bytes_max": 6 * MIB}).to_string());
    room.set_effect_bytes_max(6 * MIB);
    let (editor, ann) = (Editor::new(5), join_binary(&mut room, "ann"));
    for _ in 0..120 {
        send_binary(&mut room, ann, binary::update(&editor.types(&"some words".repeat(1_000))));
    }
    let readers: Vec<u64> = (0..8).map(|_| join_binary(&mut room, "bob")).collect();
    let asks = readers.iter().enumerate().map(|(number, id)| room.sent(*id, binary::step_1(&[1, 9 + number as u8, 1])));
    let asks = asks.collect();
    let mut received = room.batch(asks);
    assert_eq!(room.timers().len(), 1, "some wait");

    received
        .received
        .extend(send_binary(&mut room, ann, binary::update(&editor.types(&"x".repeat(3 * MIB / 2)))).received);
    received.received.extend(room.advance_ms(10).received);

    for id in readers {
        let reader = Editor::new(6);
        for update in updates(&received, id) {
            reader.apply(&update);
        }
        assert_eq!(reader.text(), editor.text());
    }
    room.restart();
    let ann = join_binary(&mut room, "ann");
    assert_eq!(updates(&send_binary(&mut room, ann, binary::step_1(&[0])), ann).len(), 1);
    assert_eq!(room.log().len(), 0);
}

/// Goal: a crowd that joins costs one question and one list of cursors.
#[test]
fn who_joins_together_is_greeted_together() {
    let (mut room, _) = narrow_room(10_000);
    let ann = join_binary(&mut room, "ann");
    let state = format!("\"{}\"", "x".repeat(10_000));
    let mut states = Vec::new();
    crate::awareness::write(&mut states, [(7, 1, Some(state.as_str()))].into_iter());
    send_binary(&mut room, ann, binary::awareness(&states));
    let joining: Vec<u64> = (0..250).map(|_| room.connect_as(identity("bob", BINARY_ENDPOINT))).collect();
    let mut events: Vec<_> = joining.iter().map(|id| room.joined(*id, None)).collect();
    events.push(room.sent(ann, vec![3]));
    events.push(room.sent(ann, vec![3]));

    let outcome = room.batch(events);

    assert_eq!((outcome.faults.len(), outcome.effects.len()), (0, 2));
    assert_eq!((binary_frames(&outcome, ann).len(), binary_frames(&outcome, joining[99]).len()), (1, 2));
}

/// Goal: a change of version in between loses nobody who waits.
#[test]
fn who_waits_for_a_document_gets_it_from_the_next_version() {
    let (mut room, editor) = narrow_room(230_000);
    let (ann, bob) = (join_json(&mut room, "ann"), join_binary(&mut room, "bob"));
    let ask = room.sent(ann, r#"{"type":"yjs-state-request"}"#);
    let asking = vec![ask, room.sent(bob, binary::step_1(&[0]))];
    let mut received = room.batch(asking);

    room.sleep();
    received.received.extend(room.advance_ms(1).received);

    let reader = Editor::new(6);
    reader.apply(&data(&only(&received, ann), "yjs-state-response"));
    assert_eq!((reader.text(), updates(&received, bob).len()), (editor.text(), 1));
}

#[test]
fn who_waits_for_a_document_and_leaves_is_forgotten() {
    let (mut room, _) = narrow_room(230_000);
    let (ann, bob) = (join_json(&mut room, "ann"), join_binary(&mut room, "bob"));
    let ask = room.sent(ann, r#"{"type":"yjs-state-request"}"#);
    let events = vec![ask, room.sent(bob, binary::step_1(&[0])), room.sent(ann, json!({"type": "ping"}).to_string())];
    let waiting = room.batch(events);
    assert_eq!(room.timers().len(), 1);
    let unserved = if frames(&waiting, ann).len() == 2 { bob } else { ann };

    room.disconnect(unserved);

    assert_eq!(room.advance_ms(10).received, []);
    assert_eq!(room.timers(), []);
}

#[test]
fn a_document_too_large_to_be_sent_is_an_error_and_no_fault() {
    let (mut room, editor) = narrow_room(400_000);
    let (ann, bob) = (join_json(&mut room, "ann"), join_binary(&mut room, "bob"));

    let asked = send(&mut room, ann, &json!({"type": "yjs-state-request"}));

    let why = "the document is too large to be sent";
    assert_eq!(only(&asked, ann), json!({"type": "error", "error": why}));
    let asked = send_binary(&mut room, bob, binary::step_1(&[0]));
    assert_eq!(updates(&asked, bob).len(), 1, "as bytes it fits");
    let mut reader = Editor::new(6);
    reader.apply(&updates(&asked, bob)[0]);
    assert_eq!(reader.text(), editor.text());
    reader = Editor::new(7);
    for _ in 0..65 {
        send_binary(&mut room, bob, binary::update(&reader.types(&"some words".repeat(1_000))));
    }
    let asked = send_binary(&mut room, bob, binary::step_1(&[0]));
    assert_eq!(binary_frames(&asked, bob), [binary::denied(why)]);
}

/// Goal: a document at its limit refuses what would make it larger, in both protocols, and nothing of it takes hold.
#[test]
fn a_full_document_refuses_more() {
    let mut room = Room::with_settings("draft:d1", r#"{"document_bytes_max":65536}"#);
    let (ann, bob) = (join_json(&mut room, "ann"), join_binary(&mut room, "bob"));
    let editor = Editor::new(5);
    send_update(&mut room, ann, &editor.types(&"x".repeat(60_000)));
    let before = stored(&room);
    let more = editor.types(&"y".repeat(10_000));

    let refused = send_update(&mut room, ann, &more);
    let why = "the update would make the document too large";
    assert_eq!(only(&refused, ann), json!({"type": "error", "error": why}));
    assert_eq!(refused.received.len(), 1);
    let refused = send_binary(&mut room, bob, binary::update(&more));
    assert_eq!(binary_frames(&refused, bob), [binary::denied(why)]);
    assert_eq!(refused.received.len(), 1);

    assert_eq!(stored(&room), before);
    // Taking something away makes room.
    let reader = read(&mut room);
    assert_eq!(send_update(&mut room, ann, &reader.removes(50_000)).refusals, []);
    let reader = Editor::new(8);
    assert_eq!(send_update(&mut room, ann, &reader.types(&"z".repeat(20_000))).refusals, []);
    assert_eq!(read(&mut room).text().len(), 30_000);
    room.restart();
    assert_eq!(read(&mut room).text().len(), 30_000);
}

#[test]
fn a_state_vector_is_bounded() {
    let mut room = super::room();
    let ann = join_binary(&mut room, "ann");
    let mut vector = vec![0x80, 0x80, 0x20];
    vector.extend([5, 1].repeat(512 << 10));

    let refused = send_binary(&mut room, ann, binary::step_1(&vector));

    assert_eq!(binary_frames(&refused, ann), [binary::denied("the state vector is too large")]);
}

/// Goal: members that wait cannot fill the memory with what they have.
#[test]
fn state_vectors_that_wait_are_bounded() {
    let (mut room, _) = narrow_room(1_000_000);
    let mut vector = vec![0x80, 0x80, 0x18];
    vector.extend([5, 1].repeat(384 << 10));
    let members: Vec<u64> = (0..16).map(|_| join_binary(&mut room, "ann")).collect();
    let events = members.iter().enumerate().map(|(number, id)| {
        vector[4] = 1 + number as u8;
        room.sent(*id, binary::step_1(&vector))
    });
    let events = events.collect();

    let outcome = room.batch(events);

    let refused = outcome.refusals.iter().filter(|why| why.message.starts_with("too many wait")).count();
    assert_eq!((outcome.faults.len(), refused), (0, 6));
}

/// Goal: lines about frames are few, however many frames come.
#[test]
fn lines_are_few() {
    let mut room = super::room();
    let ann = join_json(&mut room, "ann");
    let before = room.lines().len();
    for frame in ["x", r#"{"type":"what"}"#] {
        room.batch(vec![room.sent(ann, frame); 200]);
    }
    assert_eq!(room.lines().len() - before, 16);
}
