//! Who may open a draft: by the firm it is bound to, or by the operator's statement.

use std::cell::RefCell;
use std::rc::Rc;

use hotbay_sdk::harness::Outcome;
use hotbay_sdk::{Event, Identity, LeaveReason, RefusalCode, Rows, SqlError, SqlValue};
use serde_json::{Value, json};

use super::{
    BINARY_ENDPOINT, Editor, JSON_ENDPOINT, Room, binary_frames, frames, identity, join, join_binary, join_json, read,
    room, send, send_binary, send_update, viewer,
};
use crate::admission::TRY_AGAIN;
use crate::binary;

fn with_claims(user: &str, claims: &Value) -> Identity {
    Identity { claims: claims.to_string(), ..identity(user, JSON_ENDPOINT) }
}

fn may_open(room: &mut Room, identity: Identity) -> bool {
    let (id, joined) = join(room, identity);
    if joined.closed.is_empty() {
        assert_eq!((frames(&joined, id).len(), joined.refusals.len()), (1, 0));
        room.disconnect(id);
        return true;
    }
    assert_denied(room, id, &joined);
    false
}

#[track_caller]
fn assert_denied(room: &Room, id: u64, joined: &Outcome) {
    assert_eq!(joined.closed, [(id, 1008, "Access denied".to_owned())]);
    assert_eq!(joined.received, [], "not a word, let alone the document");
    assert_eq!(joined.refusals.iter().map(|why| why.code).collect::<Vec<_>>(), [RefusalCode::Forbidden]);
    assert!(!room.members().contains(&id));
}

#[test]
fn the_first_to_open_a_draft_binds_it_to_a_firm() {
    let mut room = room();
    let (ann, _) = join(&mut room, with_claims("ann", &json!({"firmId": "f1"})));
    assert!(!may_open(&mut room, with_claims("eve", &json!({"firmId": "f2"}))), "also while it is empty");
    send_update(&mut room, ann, &Editor::new(5).types("ours"));
    room.disconnect(ann);

    for round in 0..3 {
        assert!(may_open(&mut room, with_claims("bob", &json!({"firmId": "f1"}))), "round {round}");
        assert!(!may_open(&mut room, with_claims("eve", &json!({"firmId": "f2"}))), "round {round}");
        assert!(!may_open(&mut room, with_claims("eve", &json!({"firmId": "f2", "drafts": ["d2", 1]}))));
        assert!(may_open(&mut room, with_claims("guest", &json!({"firmId": "f2", "drafts": ["d0", "d1"]}))));
        if round == 0 { room.sleep() } else { room.restart() }
    }
    assert_eq!(room.kv().get("firm").map(Vec::as_slice), Some(b"f1".as_slice()));
}

#[test]
fn without_a_firm_nobody_opens_anything() {
    let mut room = room();
    let claims = [
        json!({}),
        json!({"firmId": null}),
        json!({"firmId": ""}),
        json!({"firmId": ["f1"]}),
        json!({"firmId": true}),
        json!({"firmId": 1.5}),
        json!({"drafts": ["d1"]}),
        json!([]),
    ];
    for claims in &claims {
        assert!(!may_open(&mut room, with_claims("ann", claims)), "{claims}");
    }
    assert_eq!(room.kv().len(), 0, "nothing is bound");
    let mut broken = identity("ann", JSON_ENDPOINT);
    broken.claims = "{".to_owned();
    assert!(!may_open(&mut room, broken));
    assert!(may_open(&mut room, with_claims("ann", &json!({"firmId": 17}))), "ids may be numbers");
    assert!(may_open(&mut room, with_claims("bob", &json!({"firmId": "17"}))));
}

#[test]
fn a_viewer_does_not_bind_a_draft() {
    let mut room = room();
    assert!(!may_open(&mut room, viewer("vera", JSON_ENDPOINT)));
    assert_eq!(room.kv().len(), 0);
    join_json(&mut room, "ann");
    assert!(may_open(&mut room, viewer("vera", JSON_ENDPOINT)));
}

/// Goal: whoever opens names at random leaves nothing, and keeps them from nobody.
#[test]
fn a_draft_in_which_nothing_was_written_is_left_to_the_next() {
    let upsets: [fn(&mut Room); 3] = [|_| (), Room::sleep, Room::crash];
    for upset in upsets {
        let mut room = room();
        let (ann, bob) = (join_json(&mut room, "ann"), join_binary(&mut room, "bob"));
        upset(&mut room);
        room.disconnect(ann);
        assert_eq!(room.kv().len(), 1, "bob is still here");
        upset(&mut room);
        send_binary(&mut room, bob, binary::update(&[0, 0]));
        room.disconnect(bob);

        assert_eq!((room.kv().len(), room.log().len(), room.timers().len()), (0, 0, 0));
        assert!(may_open(&mut room, with_claims("eve", &json!({"firmId": "f2"}))));
    }
}

/// Goal: no broker that dies leaves a name taken.
#[test]
fn a_binding_nobody_took_back_does_not_count_if_nothing_was_written() {
    let mut room = room();
    join_json(&mut room, "ann");
    room.restart();
    assert_eq!(room.kv().len(), 1);
    assert!(may_open(&mut room, with_claims("eve", &json!({"firmId": "f2"}))));
    assert_eq!(room.kv().len(), 0);
}

/// Goal: what was written stays its firm's, wherever it lies.
#[test]
fn a_draft_in_which_something_was_written_stays_bound() {
    const MIB: usize = 1 << 20;
    // In the log, in the snapshot, and in the snapshot of the batch in which the last one leaves; deleted or not.
    for (settings, bytes) in [("{}", 5), (r#"{"fold_updates_max":1}"#, 5), ("{}", 2 * MIB)] {
        let mut room = Room::with_settings("draft:d1", settings);
        room.set_effect_bytes_max(64 * MIB);
        let (editor, ann) = (Editor::new(5), join_binary(&mut room, "ann"));
        let what = room.sent(ann, binary::update(&editor.types(&"x".repeat(bytes))));
        let left = room.left(ann, LeaveReason::Disconnected, None);

        let outcome = room.batch(vec![what, left]);

        assert_eq!((outcome.faults.len(), outcome.refusals.len()), (0, 0));
        for upset in [Room::sleep, Room::crash, Room::restart] {
            upset(&mut room);
            assert!(!may_open(&mut room, with_claims("eve", &json!({"firmId": "f2"}))), "{settings}, {bytes} bytes");
            let bob = join_json(&mut room, "bob");
            room.disconnect(bob);
        }
        assert_eq!(room.kv().get("firm").map(Vec::as_slice), Some(b"f1".as_slice()));
    }
    let mut room = room();
    let update = Editor::new(5).types("by a server");
    room.publish(json!({"type": "yjs-update", "data": update}).to_string());
    assert!(may_open(&mut room, identity("ann", JSON_ENDPOINT)));
    assert!(!may_open(&mut room, with_claims("eve", &json!({"firmId": "f2"}))), "also what a server wrote");
}

#[test]
fn both_endpoints_have_one_rule() {
    let mut room = room();
    join_binary(&mut room, "ann");
    let eve = Identity { endpoint: BINARY_ENDPOINT.to_owned(), ..with_claims("eve", &json!({"firmId": "f2"})) };
    let (id, joined) = join(&mut room, eve);
    assert_denied(&room, id, &joined);
}

/// Goal: whoever is turned away gets nothing in before it is gone.
#[test]
fn who_is_turned_away_does_nothing() {
    let mut room = room();
    let ann = join_json(&mut room, "ann");
    let eve = room.connect_as(with_claims("eve", &json!({"firmId": "f2"})));
    let frames_of_eve = [
        json!({"type": "yjs-update", "data": Editor::new(5).types("mine")}),
        json!({"type": "yjs-state-request"}),
        json!({"type": "ping"}),
    ];
    let mut events = vec![room.joined(eve, None)];
    events.extend(frames_of_eve.map(|frame| room.sent(eve, frame.to_string())));

    let outcome = room.batch(events);

    assert_eq!((outcome.closed.len(), outcome.refusals.len(), outcome.faults.len()), (1, 4, 0));
    assert_eq!(frames(&outcome, eve).iter().filter(|frame| frame["type"] != "error").count(), 0);
    assert_eq!(frames(&outcome, ann).len(), 0);
    assert_eq!(room.log().len(), 0);
}

type Calls = Rc<RefCell<Vec<Vec<SqlValue>>>>;

/// A room whose statement answers this.
fn room_asking(answer: impl Fn() -> Result<Rows, SqlError> + 'static) -> (Room, Calls) {
    let (mut room, calls) = (room(), Calls::default());
    let seen = Rc::clone(&calls);
    room.set_database(move |statement, parameters| {
        assert_eq!(statement, "draft_access");
        seen.borrow_mut().push(parameters.to_vec());
        answer()
    });
    (room, calls)
}

pub(super) fn rows(columns: &[&str], row: Option<&[SqlValue]>) -> Rows {
    Rows {
        columns: columns.iter().map(|column| (*column).to_owned()).collect(),
        rows: row.into_iter().map(<[SqlValue]>::to_vec).collect(),
    }
}

#[test]
fn a_statement_replaces_the_rule_of_firms() {
    let (mut room, calls) = room_asking(|| Ok(rows(&["x"], Some(&[SqlValue::Integer(1)]))));

    assert!(may_open(&mut room, with_claims("ann", &json!({"firmId": "f1"}))));
    assert!(may_open(&mut room, with_claims("eve", &json!({"firmId": "f2"}))));
    assert!(may_open(&mut room, with_claims("nobody", &json!({}))));
    assert!(may_open(&mut room, viewer("vera", JSON_ENDPOINT)));

    assert_eq!(room.kv().len(), 0, "nothing is bound");
    let text = |text: &str| SqlValue::Text(text.to_owned());
    assert_eq!(calls.borrow()[0], [text("d1"), text("ann"), text("f1"), text("editor")]);
    assert_eq!(calls.borrow()[2], [text("d1"), text("nobody"), SqlValue::Null, text("editor")]);
    assert_eq!(calls.borrow()[3], [text("d1"), text("vera"), text("f1"), text("viewer")]);
    let (mut room, _) = room_asking(|| Ok(rows(&[], None)));
    assert!(!may_open(&mut room, identity("ann", JSON_ENDPOINT)), "no row, no access");
}

#[test]
fn a_statement_says_who_may_write() {
    for (access, opens, writes) in [
        (SqlValue::Text("write".to_owned()), true, true),
        (SqlValue::Text("read".to_owned()), true, false),
        (SqlValue::Text("none".to_owned()), false, false),
        (SqlValue::Null, false, false),
        (SqlValue::Integer(1), false, false),
    ] {
        let row = [SqlValue::Integer(1), access.clone()];
        let (mut room, _) = room_asking(move || Ok(rows(&["id", "access"], Some(&row))));
        let (ann, joined) = join(&mut room, identity("ann", JSON_ENDPOINT));
        assert_eq!(joined.closed.is_empty(), opens, "{access:?}");
        if opens {
            assert_eq!(
                send_update(&mut room, ann, &Editor::new(5).types("x")).refusals.is_empty(),
                writes,
                "{access:?}"
            );
            let (vera, _) = join(&mut room, viewer("vera", JSON_ENDPOINT));
            assert_eq!(send_update(&mut room, vera, &Editor::new(6).types("x")).refusals.len(), 1, "a viewer never");
        }
    }
}

#[test]
fn while_the_statement_cannot_be_asked_everybody_is_told_to_come_back() {
    for error in [
        SqlError::Unavailable,
        SqlError::Timeout,
        SqlError::Failed,
        SqlError::TooLarge,
        SqlError::BadParameters("x".into()),
    ] {
        let (mut room, _) = room_asking(move || Err(error.clone()));
        let (id, joined) = join(&mut room, identity("ann", JSON_ENDPOINT));
        assert_eq!(joined.closed, [(id, TRY_AGAIN, "Access cannot be checked now, try again later".to_owned())]);
        assert_eq!((joined.received.len(), joined.refusals.len(), room.kv().len()), (0, 1, 0));
        assert!(!room.members().contains(&id));
    }
}

/// Goal: what was decided on joining holds through sleep, and is decided again after a crash.
#[test]
fn after_a_crash_access_is_decided_again() {
    let allowed = Rc::new(RefCell::new(true));
    let answer = Rc::clone(&allowed);
    let (mut room, calls) =
        room_asking(move || Ok(rows(&["x"], if *answer.borrow() { Some(&[SqlValue::Null]) } else { None })));
    let (ann, vera) = (join_json(&mut room, "ann"), join(&mut room, viewer("vera", JSON_ENDPOINT)).0);
    let editor = Editor::new(5);
    room.sleep();
    assert_eq!(send_update(&mut room, ann, &editor.types("a")).refusals, []);
    assert_eq!(calls.borrow().len(), 2, "not asked again");

    room.crash();
    assert_eq!(send_update(&mut room, vera, &editor.types("b")).refusals.len(), 1);
    assert_eq!(send_update(&mut room, ann, &editor.types("c")).refusals, []);
    assert_eq!(send_update(&mut room, ann, &editor.types("d")).refusals, []);
    assert_eq!(calls.borrow().len(), 4, "once each");

    room.crash();
    *allowed.borrow_mut() = false;
    let refused = send_update(&mut room, ann, &editor.types("e"));
    assert_eq!(refused.closed, [(ann, 1008, "Access denied".to_owned())]);
    assert_eq!(room.log().len(), 3);
}

/// Goal: the last letter of somebody who types it and leaves, while the channel sleeps, is not lost.
#[test]
fn the_last_word_of_who_leaves_counts() {
    for endpoint in [JSON_ENDPOINT, BINARY_ENDPOINT] {
        let mut room = room();
        let (ann, _) = join(&mut room, identity("ann", endpoint));
        let bob = join_json(&mut room, "bob");
        let update = Editor::new(5).types("bye");
        let what = if endpoint == JSON_ENDPOINT {
            room.sent(ann, json!({"type": "yjs-update", "data": update}).to_string())
        } else {
            room.sent(ann, binary::update(&update))
        };
        room.sleep();

        let outcome = room.batch(vec![what, room.left(ann, LeaveReason::Disconnected, None)]);

        assert_eq!((outcome.faults.len(), outcome.refusals.len()), (0, 0));
        assert_eq!(frames(&outcome, bob).len(), 1);
        assert_eq!(read(&mut room).text(), "bye");
    }
    // After a crash nobody knows any more what it may; it is told so, and nothing is half done.
    let mut room = room();
    let (ann, bob) = (join_binary(&mut room, "ann"), join_json(&mut room, "bob"));
    let what = room.sent(ann, binary::update(&Editor::new(5).types("bye")));
    room.crash();
    let outcome = room.batch(vec![what, room.left(ann, LeaveReason::Disconnected, None)]);
    assert_eq!((outcome.faults.len(), outcome.refusals.len(), room.log().len()), (0, 1, 0));
    assert_eq!(frames(&send(&mut room, bob, &json!({"type": "ping"})), bob).len(), 1);
    assert_eq!(room.batch(vec![Event::Timer("states".to_owned())]).faults, [""; 0]);
}

#[test]
fn endpoints_are_set_by_the_mount() {
    let mut room = Room::with_settings("draft:d1", r#"{"binary_endpoints":["/a","/b/{draftId}"]}"#);
    for (endpoint, binary) in [("/a", true), ("/b/{draftId}", true), (BINARY_ENDPOINT, false), ("/ws", false)] {
        let (id, joined) = join(&mut room, identity("ann", endpoint));
        let is_binary = joined.received.iter().any(|(_, what)| what.text().is_none());
        assert_eq!(is_binary, binary, "{endpoint}");
        if binary {
            assert_eq!(binary_frames(&send_binary(&mut room, id, binary::step_1(&[0])), id).len(), 1);
        }
    }
}
