//! Messages, edits, deletions, retries, typing.

use hotbay_sdk::harness::Effect;
use hotbay_sdk::{Audience, Priority};
use serde_json::{Value, json};

use super::{assert_refused, connect_role, frames, kinds, only, recent, room_with, say, send, subscribe};

#[test]
fn a_message_goes_to_all_and_is_stored() {
    let (mut room, [ann, bob]) = room_with(["ann", "bob"]);
    let outcome = send(
        &mut room,
        ann,
        json!({"type": "CHAT_MESSAGE", "payload": {"content": "hi \"you\"\n\u{1}é", "clientId": "c"}}),
    );
    let now = room.now_ms();
    let expected = json!({
        "type": "CHAT_MESSAGE", "channel": "room:1", "userId": "ann", "timestamp": now,
        "payload": {"id": "1", "userId": "ann", "content": "hi \"you\"\n\u{1}é", "clientId": "c", "createdAt": now},
    });
    assert_eq!(only(&outcome, ann), expected);
    assert_eq!(only(&outcome, bob), expected);
    assert_eq!(room.log().len(), 1);
    // One frame, encoded once, never dropped.
    assert!(
        matches!(&*outcome.effects, [Effect::Frame { to: Audience::All, how, .. }] if how.priority == Priority::High)
    );
}

#[test]
fn the_senders_copy_answers_its_frame() {
    let (mut room, [ann, bob]) = room_with(["ann", "bob"]);
    let second = subscribe(&mut room, "ann");
    let outcome = send(&mut room, ann, json!({"type": "CHAT_MESSAGE", "id": "f1", "payload": {"content": "x"}}));
    assert_eq!(only(&outcome, ann)["correlationId"], "f1");
    assert_eq!(only(&outcome, bob).get("correlationId"), None);
    assert_eq!(only(&outcome, second).get("correlationId"), None);
}

#[test]
fn further_fields_pass_through_but_never_replace_the_servers() {
    let (mut room, [ann]) = room_with(["ann"]);
    let payload = json!({"content": "x", "replyTo": {"id": "7"}, "mood": [1, 2.5], "id": "99", "userId": "eve",
        "createdAt": 1, "editedAt": 1, "deletedAt": 1, "deletedBy": "eve"});
    let outcome = send(&mut room, ann, json!({"type": "CHAT_MESSAGE", "payload": payload}));
    let now = room.now_ms();
    let expected =
        json!({"id": "1", "userId": "ann", "content": "x", "createdAt": now, "replyTo": {"id": "7"}, "mood": [1, 2.5]});
    assert_eq!(only(&outcome, ann)["payload"], expected);
    assert_eq!(recent(&mut room, ann), [expected]);
    send(&mut room, ann, json!({"type": "MESSAGE_EDIT", "payload": {"id": "1", "content": "y"}}));
    assert_eq!(recent(&mut room, ann)[0]["replyTo"], json!({"id": "7"}));
}

#[test]
fn content_has_1_to_4000_characters() {
    let (mut room, [ann]) = room_with(["ann"]);
    for (content, code) in
        [("", "bad_request"), (&*"é".repeat(4_001), "too_large"), (&*"x".repeat(60_000), "too_large")]
    {
        let outcome = send(&mut room, ann, json!({"type": "CHAT_MESSAGE", "payload": {"content": content}}));
        assert_refused(&outcome, ann, code);
    }
    say(&mut room, ann, &"é".repeat(4_000));
    say(&mut room, ann, "x");
    let edit = json!({"type": "MESSAGE_EDIT", "payload": {"id": "1", "content": "x".repeat(4_001)}});
    assert_refused(&send(&mut room, ann, edit), ann, "too_large");
    assert_eq!(room.log().len(), 2);
}

#[test]
fn wrong_payloads_are_refused_and_store_nothing() {
    let (mut room, [ann, _]) = room_with(["ann", "bob"]);
    let deep = format!(r#"{{"content":"x","deep":{}{}}}"#, "[".repeat(20_000), "]".repeat(20_000));
    let deep_short = format!(r#"{{"content":"x","deep":{}{}}}"#, "[".repeat(1_000), "]".repeat(1_000));
    let many = (0..17).map(|n| format!(r#","f{n}":0"#)).collect::<Vec<_>>().concat();
    let many = format!(r#"{{"content":"x"{many}}}"#);
    let large = format!(r#"{{"content":"x","f":"{}"}}"#, "y".repeat(4_100));
    let long_id = format!(r#"{{"content":"x","clientId":"{}"}}"#, "y".repeat(129));
    let cases = [
        ("CHAT_MESSAGE", "null", "bad_request"),
        ("CHAT_MESSAGE", "1", "bad_request"),
        ("CHAT_MESSAGE", r#"["x"]"#, "bad_request"),
        ("CHAT_MESSAGE", "{}", "bad_request"),
        ("CHAT_MESSAGE", r#"{"content":1}"#, "bad_request"),
        ("CHAT_MESSAGE", r#"{"content":null}"#, "bad_request"),
        ("CHAT_MESSAGE", r#"{"content":"\ud800"}"#, "bad_request"),
        ("CHAT_MESSAGE", r#"{"content":"x","content":"y"}"#, "bad_request"),
        ("CHAT_MESSAGE", r#"{"content":"x","clientId":1}"#, "bad_request"),
        ("CHAT_MESSAGE", r#"{"content":"x","clientId":""}"#, "bad_request"),
        ("CHAT_MESSAGE", &long_id, "bad_request"),
        ("CHAT_MESSAGE", r#"{"content":"x","n":1e999}"#, "bad_request"),
        ("CHAT_MESSAGE", r#"{"content":"x","s":"\udc00"}"#, "bad_request"),
        ("CHAT_MESSAGE", r#"{"content":"x","a":1,"a":2}"#, "bad_request"),
        ("CHAT_MESSAGE", r#"{"content":"x","\ud800":2}"#, "bad_request"),
        ("CHAT_MESSAGE", &deep, "too_large"),
        ("CHAT_MESSAGE", &deep_short, "bad_request"),
        ("CHAT_MESSAGE", &many, "too_large"),
        ("CHAT_MESSAGE", &large, "too_large"),
        ("TYPING", "{}", "bad_request"),
        ("TYPING", r#"{"isTyping":1}"#, "bad_request"),
        ("TYPING", "[true]", "bad_request"),
        ("TYPING", r#"{"isTyping":"true"}"#, "bad_request"),
        ("MESSAGE_EDIT", "{}", "bad_request"),
        ("MESSAGE_EDIT", r#"{"id":"1"}"#, "bad_request"),
        ("MESSAGE_EDIT", r#"{"id":"1","content":""}"#, "bad_request"),
        ("MESSAGE_EDIT", r#"{"id":1.5,"content":"x"}"#, "bad_request"),
        ("MESSAGE_EDIT", r#"{"id":true,"content":"x"}"#, "bad_request"),
        ("MESSAGE_EDIT", r#"{"id":"2","content":"x"}"#, "not_found"),
        ("MESSAGE_EDIT", r#"{"id":"+1","content":"x"}"#, "not_found"),
        ("MESSAGE_EDIT", r#"{"id":-1,"content":"x"}"#, "not_found"),
        ("MESSAGE_EDIT", r#"{"id":0,"content":"x"}"#, "not_found"),
        ("MESSAGE_EDIT", r#"{"id":"99999999999999999999","content":"x"}"#, "not_found"),
        ("MESSAGE_DELETE", "{}", "bad_request"),
        ("MESSAGE_DELETE", r#"{"id":18446744073709551615}"#, "not_found"),
        ("MESSAGE_DELETE", r#"{"id":"abc"}"#, "not_found"),
        ("MESSAGE_DELETE", r#"{"id":null}"#, "bad_request"),
    ];
    say(&mut room, ann, "one");
    let before = room.log();
    for (kind, payload, code) in cases {
        let frame = format!(r#"{{"type":"{kind}","channel":"room:1","payload":{payload}}}"#);
        let outcome = room.frame(ann, frame);
        assert!(outcome.faults.is_empty(), "{kind} {payload:.100}");
        assert_refused(&outcome, ann, code);
    }
    assert_eq!(room.log(), before);
}

#[test]
fn ids_ascend_and_come_in_as_text_or_number() {
    let (mut room, [ann]) = room_with(["ann"]);
    let ids: Vec<u64> = (0..12).map(|_| say(&mut room, ann, "x").parse().unwrap()).collect();
    assert!(ids.is_sorted_by(|a, b| a < b));
    for id in [json!("12"), json!(12)] {
        let outcome = send(&mut room, ann, json!({"type": "MESSAGE_EDIT", "payload": {"id": id, "content": "y"}}));
        assert_eq!(only(&outcome, ann)["payload"]["id"], "12");
    }
}

#[test]
fn an_author_edits_and_deletes_an_old_message() {
    let (mut room, [ann, bob]) = room_with(["ann", "bob"]);
    let id = say(&mut room, ann, "first");
    for _ in 0..700 {
        say(&mut room, bob, "later");
    }
    let created = room.now_ms();
    room.advance_ms(10);
    let now = room.now_ms();
    let outcome =
        send(&mut room, ann, json!({"type": "MESSAGE_EDIT", "id": 1, "payload": {"id": id, "content": "FIRST"}}));
    let payload = json!({"id": id, "userId": "ann", "content": "FIRST", "editedAt": now});
    assert_eq!(
        only(&outcome, bob),
        json!({"type": "MESSAGE_EDIT", "channel": "room:1", "payload": payload, "userId": "ann", "timestamp": now})
    );
    assert_eq!(only(&outcome, ann)["correlationId"], 1);
    let stored: Value = serde_json::from_slice(&room.log()[0].1).unwrap();
    assert_eq!(stored, json!({"userId": "ann", "content": "FIRST", "createdAt": created, "editedAt": now}));

    let outcome = send(&mut room, ann, json!({"type": "MESSAGE_DELETE", "payload": {"id": id}}));
    let payload = json!({"id": id, "userId": "ann", "deletedAt": now});
    assert_eq!(
        only(&outcome, bob),
        json!({"type": "MESSAGE_DELETE", "channel": "room:1", "payload": payload, "userId": "ann", "timestamp": now})
    );
    let stored: Value = serde_json::from_slice(&room.log()[0].1).unwrap();
    assert_eq!(stored, json!({"userId": "ann", "createdAt": created, "deletedAt": now, "deletedBy": "ann"}));

    for kind in ["MESSAGE_EDIT", "MESSAGE_DELETE"] {
        let outcome = send(&mut room, ann, json!({"type": kind, "payload": {"id": id, "content": "x"}}));
        assert_refused(&outcome, ann, "not_found");
    }
}

#[test]
fn only_the_author_and_moderators_change_a_message() {
    let (mut room, [ann, bob]) = room_with(["ann", "bob"]);
    let id = say(&mut room, ann, "x");
    for (role, allowed) in [("", false), ("user", false), ("Admin", false), ("moderator", true), ("admin", true)] {
        let other = connect_role(&mut room, "other", role);
        send(&mut room, other, json!({"type": "SUBSCRIBE"}));
        let outcome = send(&mut room, other, json!({"type": "MESSAGE_EDIT", "payload": {"id": id, "content": "y"}}));
        if allowed {
            let frame = only(&outcome, bob);
            assert_eq!((&frame["userId"], &frame["payload"]["userId"]), (&json!("other"), &json!("ann")));
        } else {
            assert_refused(&outcome, other, "forbidden");
            let outcome = send(&mut room, other, json!({"type": "MESSAGE_DELETE", "payload": {"id": id}}));
            assert_refused(&outcome, other, "forbidden");
        }
    }
}

#[test]
fn a_retry_is_answered_to_its_sender_and_stored_once() {
    let (mut room, [ann, bob]) = room_with(["ann", "bob"]);
    let frame = |id: u64| json!({"type": "CHAT_MESSAGE", "id": id, "payload": {"content": "x", "clientId": "c1"}});
    let first = only(&send(&mut room, ann, frame(1)), ann);
    for _ in 0..499 {
        say(&mut room, bob, "x");
    }
    for turn in 0..4 {
        match turn {
            1 => room.sleep(),
            2 => room.crash(),
            _ => {}
        }
        let outcome = send(&mut room, ann, frame(2));
        let again = only(&outcome, ann);
        assert_eq!(again["payload"], first["payload"], "turn {turn}");
        assert_eq!(again["correlationId"], 2);
        assert_eq!(outcome.received.len(), 1);
    }
    assert_eq!(room.log().len(), 500);
    // The same clientId of another user is another message, and so is one beyond the window.
    assert_eq!(only(&send(&mut room, bob, frame(3)), bob)["payload"]["id"], "501");
    assert_eq!(only(&send(&mut room, ann, frame(4)), ann)["payload"]["id"], "502");
}

#[test]
fn a_retry_of_a_changed_message_tells_how_it_stands() {
    let (mut room, [ann]) = room_with(["ann"]);
    let frame = json!({"type": "CHAT_MESSAGE", "payload": {"content": "x", "clientId": "c1"}});
    send(&mut room, ann, frame.clone());
    send(&mut room, ann, json!({"type": "MESSAGE_EDIT", "payload": {"id": 1, "content": "y"}}));
    assert_eq!(only(&send(&mut room, ann, frame.clone()), ann)["payload"]["content"], "y");
    send(&mut room, ann, json!({"type": "MESSAGE_DELETE", "payload": {"id": 1}}));
    room.crash();
    assert_eq!(kinds(&send(&mut room, ann, frame), ann), ["MESSAGE_DELETE"]);
    assert_eq!(room.log().len(), 1);
}

#[test]
fn two_in_one_batch_with_the_same_client_id_are_one_message() {
    let (mut room, [ann, bob]) = room_with(["ann", "bob"]);
    let frame =
        json!({"type": "CHAT_MESSAGE", "channel": "room:1", "payload": {"content": "x", "clientId": "c1"}}).to_string();
    let batch = vec![room.sent(ann, &*frame), room.sent(ann, &*frame)];
    let outcome = room.batch(batch);
    assert_eq!(frames(&outcome, ann).len(), 2);
    assert_eq!(frames(&outcome, bob).len(), 1);
    assert_eq!(room.log().len(), 1);
}

#[test]
fn typing_is_shown_to_others_and_ends_after_5_seconds() {
    let (mut room, [ann, bob]) = room_with(["ann", "bob"]);
    let typing = |on: bool| json!({"type": "TYPING", "payload": {"isTyping": on}});
    let outcome = send(&mut room, ann, typing(true));
    let now = room.now_ms();
    let payload = json!({"userId": "ann", "isTyping": true});
    assert_eq!(
        only(&outcome, bob),
        json!({"type": "TYPING", "channel": "room:1", "payload": payload, "userId": "ann", "timestamp": now})
    );
    assert!(frames(&outcome, ann).is_empty());
    let [Effect::Frame { how, .. }] = &*outcome.effects else { panic!("one frame") };
    assert_eq!((how.priority, how.conflate.as_deref()), (Priority::Low, Some("typing:ann")));

    room.advance_ms(4_000);
    send(&mut room, ann, typing(true));
    assert!(frames(&room.advance_ms(4_999), bob).is_empty());
    let outcome = room.advance_ms(1);
    assert_eq!(only(&outcome, bob)["payload"], json!({"userId": "ann", "isTyping": false}));
    assert!(frames(&outcome, ann).is_empty());
    assert!(frames(&room.advance_ms(60_000), bob).is_empty());

    send(&mut room, ann, typing(true));
    assert_eq!(only(&send(&mut room, ann, typing(false)), bob)["payload"]["isTyping"], false);
    assert!(frames(&room.advance_ms(60_000), bob).is_empty());
    assert!(room.log().is_empty() && room.kv().is_empty());
}

#[test]
fn each_typist_ends_at_its_own_time() {
    let (mut room, [ann, bob, cleo]) = room_with(["ann", "bob", "cleo"]);
    let typing = json!({"type": "TYPING", "payload": {"isTyping": true}});
    send(&mut room, ann, typing.clone());
    room.advance_ms(2_000);
    send(&mut room, bob, typing);
    room.sleep();
    let outcome = room.advance_ms(3_000);
    assert_eq!(only(&outcome, cleo)["payload"]["userId"], "ann");
    let outcome = room.advance_ms(2_000);
    assert_eq!(only(&outcome, cleo)["payload"]["userId"], "bob");
    assert!(room.timers().is_empty());
}

#[test]
fn a_typist_who_leaves_types_no_longer() {
    let (mut room, [ann, bob]) = room_with(["ann", "bob"]);
    let second = subscribe(&mut room, "ann");
    send(&mut room, second, json!({"type": "TYPING", "payload": {"isTyping": true}}));
    let outcome = room.disconnect(second);
    assert_eq!(only(&outcome, bob)["payload"], json!({"userId": "ann", "isTyping": false}));
    assert_eq!(kinds(&outcome, ann), ["TYPING"]);
    assert!(frames(&room.advance_ms(10_000), bob).is_empty());
}
