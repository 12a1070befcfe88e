//! The protocol of y-websocket, and both protocols on one document.

use hotbay_sdk::harness::Rng;
use serde_json::json;
use yrs::updates::encoder::Encode;

use super::{
    BINARY_ENDPOINT, Editor, Room, binary_frames, data, frames, identity, join, join_binary, join_json, only, read,
    room, send_binary, send_update, stored, updates, viewer,
};
use crate::binary;

/// What a client of y-websocket does with what it receives: it applies updates and answers step 1.
fn handle(room: &mut Room, editor: &Editor, id: u64, received: Vec<Vec<u8>>) {
    for frame in received {
        match binary::Frame::parse(&frame).unwrap() {
            binary::Frame::Step1(vector) => {
                let vector = <yrs::StateVector as yrs::updates::decoder::Decode>::decode_v1(vector).unwrap();
                send_binary(room, id, binary::step_2(&editor.since(&vector)));
            }
            binary::Frame::Step2(update) | binary::Frame::Update { update, .. } => editor.apply(update),
            _ => {}
        }
    }
}

/// Joins and does what a client of y-websocket does when its connection opens.
fn connect(room: &mut Room, editor: &Editor, user: &str) -> u64 {
    let (id, joined) = join(room, identity(user, BINARY_ENDPOINT));
    let asked = send_binary(room, id, binary::step_1(&editor.vector().encode_v1()));
    handle(room, editor, id, binary_frames(&joined, id));
    handle(room, editor, id, binary_frames(&asked, id));
    id
}

#[test]
fn both_sides_learn_what_they_lack_when_they_meet() {
    let mut room = room();
    let (ann, bob) = (Editor::new(5), Editor::new(6));
    ann.types("made offline by ann");
    bob.types("made offline by bob");

    connect(&mut room, &ann, "ann");
    connect(&mut room, &bob, "bob");

    assert_eq!(read(&mut room).shows(), bob.shows());
    let cleo = Editor::new(7);
    connect(&mut room, &cleo, "cleo");
    assert_eq!(cleo.shows(), bob.shows());
}

#[test]
fn the_server_asks_first_and_answers_with_the_rest() {
    let (mut room, editor) = (room(), Editor::new(5));
    let ann = join_json(&mut room, "ann");
    send_update(&mut room, ann, &editor.types("hello"));
    let known = editor.vector();
    send_update(&mut room, ann, &editor.types(" world"));

    let (bob, joined) = join(&mut room, identity("bob", BINARY_ENDPOINT));

    assert_eq!(binary_frames(&joined, bob), [binary::step_1(&editor.vector().encode_v1())]);
    let asked = send_binary(&mut room, bob, binary::step_1(&known.encode_v1()));
    assert_eq!(binary_frames(&asked, bob), [binary::step_2(&editor.since(&known))]);
    let asked = send_binary(&mut room, bob, binary::step_1(&editor.vector().encode_v1()));
    assert_eq!(binary_frames(&asked, bob), [binary::step_2(&[0, 0])]);
}

#[test]
fn an_update_reaches_both_protocols_in_their_own_words() {
    let (mut room, editor) = (room(), Editor::new(5));
    let (ann, bob) = (join_binary(&mut room, "ann"), join_binary(&mut room, "bob"));
    let (cleo, dan) = (join_json(&mut room, "cleo"), join_json(&mut room, "dan"));

    let update = editor.types("binary");
    let sent = send_binary(&mut room, ann, binary::update(&update));
    assert_eq!(binary_frames(&sent, ann).len(), 0, "no echo");
    assert_eq!(binary_frames(&sent, bob), [binary::update(&update)]);
    for other in [cleo, dan] {
        assert_eq!(only(&sent, other), json!({"type": "yjs-update", "data": update}));
    }

    let update = editor.types("json");
    let sent = send_update(&mut room, cleo, &update);
    assert_eq!(frames(&sent, cleo).len(), 0, "no echo");
    assert_eq!(data(&only(&sent, dan), "yjs-update"), update);
    for other in [ann, bob] {
        assert_eq!(binary_frames(&sent, other), [binary::update(&update)]);
    }
    assert_eq!(sent.effects.len(), 2, "one frame for each protocol");
}

/// Goal: what is in a frame behind its update goes to nobody.
#[test]
fn only_a_whole_frame_goes_on_as_it_came() {
    let (mut room, editor) = (room(), Editor::new(5));
    let (ann, bob) = (join_binary(&mut room, "ann"), join_binary(&mut room, "bob"));
    let update = editor.types("x");

    let sent = send_binary(&mut room, ann, [binary::update(&update), vec![1, 2, 3]].concat());

    assert_eq!(binary_frames(&sent, bob), [binary::update(&update)]);
    let update = editor.types("y");
    let sent = send_binary(&mut room, ann, binary::step_2(&update));
    assert_eq!(binary_frames(&sent, bob), [binary::update(&update)], "an answer is an update to others");
}

#[test]
fn a_viewer_is_not_asked_and_what_it_writes_is_dropped_without_a_word() {
    let (mut room, editor) = (room(), Editor::new(5));
    let ann = join_binary(&mut room, "ann");
    send_binary(&mut room, ann, binary::update(&editor.types("hello")));
    let (vera, joined) = join(&mut room, viewer("vera", BINARY_ENDPOINT));
    assert_eq!(joined.received, []);
    let before = stored(&room);

    for frame in [binary::step_2(&editor.types("no")), binary::update(&editor.types("no")), binary::update(&[9])] {
        let outcome = send_binary(&mut room, vera, frame);
        assert_eq!((outcome.received.len(), outcome.refusals.len()), (0, 1));
    }

    assert_eq!(stored(&room), before);
    let asked = send_binary(&mut room, vera, binary::step_1(&[0]));
    assert_eq!(updates(&asked, vera).len(), 1);
}

#[test]
fn what_is_refused_is_answered_in_the_words_of_the_protocol() {
    let mut room = room();
    let (ann, _bob) = (join_binary(&mut room, "ann"), join_binary(&mut room, "bob"));
    let before = stored(&room);
    let cases: [(Vec<u8>, &str); 8] = [
        (vec![], "the frame is malformed: it ends too early"),
        (vec![0], "the frame is malformed: it ends too early"),
        (vec![0, 7, 0], "the frame is malformed: this kind of sync frame is unknown"),
        (vec![0, 0, 1, 5], "the frame is malformed: it ends too early"),
        (vec![0, 2, 9, 0], "the frame is malformed: it ends too early"),
        (binary::update(&[1]), "the update is malformed: it ends too early"),
        (binary::step_2(&[0, 0, 0]), "the update is malformed: there is more after its end"),
        (binary::awareness(&[1, 5]), "the frame is malformed: it ends too early"),
    ];

    for (frame, why) in cases {
        let outcome = send_binary(&mut room, ann, frame.clone());
        assert_eq!(binary_frames(&outcome, ann), [binary::denied(why)], "{frame:?}");
        assert_eq!((outcome.received.len(), outcome.closed.len()), (1, 0));
    }
    let outcome = room.message(ann, "{\"type\":\"ping\"}");
    let why = "this endpoint takes binary frames of the y-websocket protocol";
    assert_eq!(only(&outcome, ann), json!({"type": "error", "error": why}));
    for ignored in [vec![2, 0, 0], vec![9], vec![9, 9, 9]] {
        let outcome = send_binary(&mut room, ann, ignored);
        assert_eq!((outcome.received.len(), outcome.refusals.len()), (0, 0));
    }
    assert_eq!(stored(&room), before);
}

/// Goal: a frame that was lost on the way is asked for, once there is a gap to see it by.
#[test]
fn who_leaves_a_gap_is_asked_for_what_is_missing() {
    let (mut room, editor) = (room(), Editor::new(5));
    let (ann, bob) = (connect(&mut room, &editor, "ann"), join_json(&mut room, "bob"));
    send_binary(&mut room, ann, binary::update(&editor.types("one ")));
    let known = editor.vector();
    editor.types("lost ");

    let sent = send_binary(&mut room, ann, binary::update(&editor.types("two")));

    assert_eq!(binary_frames(&sent, ann), [binary::step_1(&known.encode_v1())]);
    assert_eq!(frames(&sent, bob).len(), 1, "others wait for it as well");
    handle(&mut room, &editor, ann, binary_frames(&sent, ann));
    assert_eq!(read(&mut room).text(), "one lost two");
    let sent = send_binary(&mut room, ann, binary::update(&editor.types("!")));
    assert_eq!(binary_frames(&sent, ann).len(), 0, "and no more");
}

/// Goal: through sleep, crash, restart, folding, both protocols and editors that come and go, everybody ends with the
/// same.
#[test]
fn editors_that_come_and_go_agree_in_the_end() {
    for seed in 0..25 {
        let mut rng = Rng(seed);
        let mut room = Room::with_settings("draft:d1", r#"{"fold_updates_max":7}"#);
        let editors: Vec<Editor> = (1..=4).map(Editor::new).collect();
        let mut online: Vec<Option<u64>> = vec![None; editors.len()];
        for _ in 0..120 {
            let index = rng.below(editors.len());
            match (rng.below(12), online[index]) {
                (0, Some(id)) => {
                    room.disconnect(id);
                    online[index] = None;
                }
                (0..=2, None) => online[index] = Some(connect(&mut room, &editors[index], "u")),
                (1, _) => room.sleep(),
                (2, _) => room.crash(),
                (3, _) => {
                    room.restart();
                    online.fill(None);
                }
                (_, Some(id)) => {
                    let sent = send_binary(&mut room, id, binary::update(&editors[index].edits(&mut rng)));
                    for (other, editor) in online.iter().zip(&editors) {
                        if let Some(other) = other {
                            handle(&mut room, editor, *other, binary_frames(&sent, *other));
                        }
                    }
                }
                (_, None) => drop(editors[index].edits(&mut rng)),
            }
        }
        for _ in 0..2 {
            for editor in &editors {
                connect(&mut room, editor, "u");
            }
        }
        let shown = read(&mut room).shows();
        for editor in &editors {
            assert_eq!(editor.shows(), shown, "seed {seed}");
        }
    }
}
