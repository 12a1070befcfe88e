//! Gaps: an update that was lost or refused, and what its author hears of it.

use serde_json::{Value, json};
use yrs::updates::encoder::Encode;

use super::{
    BINARY_ENDPOINT, Editor, JSON_ENDPOINT, Room, binary_frames, data, frames, identity, join, join_binary, join_json,
    only, read, room, send_binary, send_update, viewer,
};
use crate::binary;
use crate::deliver::ASK_AGAIN_MS;

fn missing() -> Value {
    json!({"type": "error", "error": "updates before this one are missing; send your whole state"})
}

/// Goal: nobody types into the void without knowing it.
#[test]
fn a_json_client_is_told_of_its_gap_once_until_it_is_closed() {
    let (mut room, editor) = (room(), Editor::new(5));
    let (ann, bob) = (join_json(&mut room, "ann"), join_json(&mut room, "bob"));
    send_update(&mut room, ann, &editor.types("one "));
    editor.types("lost ");

    let told = send_update(&mut room, ann, &editor.types("two "));

    assert_eq!(only(&told, ann), missing());
    assert_eq!((frames(&told, bob).len(), told.refusals.len()), (1, 0), "it is stored and sent on all the same");
    for update in [editor.types("three "), editor.removes(1), editor.types("four ")] {
        assert_eq!(frames(&send_update(&mut room, ann, &update), ann), [Value::Null; 0], "once");
    }
    assert_eq!(read(&mut room).text(), "ne ", "what is behind the gap waits");

    let closed = send_update(&mut room, ann, &editor.all());

    assert_eq!(frames(&closed, ann).len(), 0);
    assert_eq!(read(&mut room).text(), "ne lost two three four ");
    assert_eq!(frames(&send_update(&mut room, ann, &editor.types("five ")), ann).len(), 0);
    editor.types("lost again ");
    assert_eq!(only(&send_update(&mut room, ann, &editor.types("six")), ann), missing(), "the next gap is a new one");
}

/// Goal: who comes back with what it sent before its connection broke hears of the gap as well.
#[test]
fn a_gap_is_told_to_a_new_connection_and_after_sleep_only_to_that() {
    let (mut room, editor) = (room(), Editor::new(5));
    let ann = join_json(&mut room, "ann");
    editor.types("lost ");
    let update = editor.types("two");
    assert_eq!(only(&send_update(&mut room, ann, &update), ann), missing());
    room.sleep();
    assert_eq!(frames(&send_update(&mut room, ann, &editor.types("!")), ann).len(), 0, "it knows");

    let again = join_json(&mut room, "ann");

    assert_eq!(only(&send_update(&mut room, again, &update), again), missing());
}

#[test]
fn others_do_not_hear_of_a_gap_that_is_not_theirs() {
    let (mut room, ann, bob) = (room(), Editor::new(5), Editor::new(6));
    let (of_ann, of_bob) = (join_json(&mut room, "ann"), join_json(&mut room, "bob"));
    ann.types("lost ");
    send_update(&mut room, of_ann, &ann.types("two"));

    assert_eq!(frames(&send_update(&mut room, of_bob, &bob.types("mine")), of_bob).len(), 0);
    let published = room.publish(json!({"type": "yjs-update", "data": ann.types("three")}).to_string());
    assert_eq!(
        data(&only(&published, of_ann), "yjs-update").len(),
        data(&only(&published, of_bob), "yjs-update").len()
    );
}

/// A room with a small bound, and a y-websocket client that pasted more than fits.
fn room_after_a_refused_paste() -> (Room, Editor, u64) {
    let mut room = Room::with_settings("draft:d1", r#"{"document_bytes_max":65536}"#);
    let (editor, ann) = (Editor::new(5), join_binary(&mut room, "ann"));
    send_binary(&mut room, ann, binary::step_2(&editor.all()));
    send_binary(&mut room, ann, binary::update(&editor.types("kept ")));
    let refused = send_binary(&mut room, ann, binary::update(&editor.types(&"x".repeat(100_000))));
    assert_eq!(refused.refusals.len(), 1);
    (room, editor, ann)
}

/// Goal: a document that was refused as a whole is not asked for again with every letter.
#[test]
fn who_cannot_close_its_gap_is_not_asked_with_every_letter() {
    let (mut room, editor, ann) = room_after_a_refused_paste();
    let mut asked = 0;
    let types = |room: &mut Room, asked: &mut usize| {
        let typed = send_binary(room, ann, binary::update(&editor.types("y")));
        if binary_frames(&typed, ann).is_empty() {
            return;
        }
        *asked += 1;
        let answered = send_binary(room, ann, binary::step_2(&editor.since(&yrs::StateVector::default())));
        assert_eq!(binary_frames(&answered, ann), [binary::denied("the update would make the document too large")]);
    };

    for _ in 0..50 {
        types(&mut room, &mut asked);
    }

    assert_eq!(asked, 1);
    room.advance_ms(ASK_AGAIN_MS);
    for _ in 0..50 {
        types(&mut room, &mut asked);
    }
    assert_eq!(asked, 2, "after a minute it may be otherwise");
}

/// Goal: a gap heals by itself once what was too large is taken back; and a later one is asked for at once.
#[test]
fn who_was_refused_is_whole_again_once_its_answer_fits() {
    let (mut room, editor, ann) = room_after_a_refused_paste();
    let ask = || binary::step_1(&[1, 5, 5]);
    let asked = send_binary(&mut room, ann, binary::update(&editor.types("y")));
    assert_eq!(binary_frames(&asked, ann), [ask()]);
    send_binary(&mut room, ann, binary::step_2(&editor.all()));
    send_binary(&mut room, ann, binary::update(&editor.removes(100_000)));
    room.advance_ms(ASK_AGAIN_MS);
    let asked = send_binary(&mut room, ann, binary::update(&editor.types("z")));
    assert_eq!(binary_frames(&asked, ann), [ask()]);

    let answered = send_binary(&mut room, ann, binary::step_2(&editor.all()));

    assert_eq!((binary_frames(&answered, ann).len(), answered.refusals.len()), (0, 0));
    assert_eq!(read(&mut room).text(), editor.text());
    let known = editor.vector();
    editor.types("lost");
    let asked = send_binary(&mut room, ann, binary::update(&editor.types("!")));
    assert_eq!(binary_frames(&asked, ann), [binary::step_1(&known.encode_v1())]);
}

/// Goal: the question on joining counts: a client whose answer to it was refused is not asked once more by its first
/// letter.
#[test]
fn the_question_on_joining_counts() {
    let mut room = Room::with_settings("draft:d1", r#"{"document_bytes_max":65536}"#);
    let (editor, ann) = (Editor::new(5), join_binary(&mut room, "ann"));
    editor.types(&"x".repeat(100_000));
    assert_eq!(send_binary(&mut room, ann, binary::step_2(&editor.all())).refusals.len(), 1);

    let typed = send_binary(&mut room, ann, binary::update(&editor.types("y")));

    assert_eq!((typed.refusals.len(), binary_frames(&typed, ann).len()), (0, 0));
}

/// Goal: an answer with a gap that its sender cannot close does not make a loop of questions.
#[test]
fn an_answer_is_not_asked_about() {
    let (mut room, lost) = (room(), Editor::new(5));
    lost.types("lost ");
    let pending = lost.types("two");
    let ann = join_binary(&mut room, "ann");

    for _ in 0..3 {
        let answered = send_binary(&mut room, ann, binary::step_2(&pending));
        assert_eq!(binary_frames(&answered, ann).len(), 0);
        room.advance_ms(ASK_AGAIN_MS);
    }
    let (vera, joined) = join(&mut room, viewer("vera", BINARY_ENDPOINT));
    assert_eq!(binary_frames(&joined, vera).len(), 0);
    let (bob, joined) = join(&mut room, identity("bob", JSON_ENDPOINT));
    assert_eq!(frames(&joined, bob).len(), 1);
}
