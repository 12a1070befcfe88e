//! `SYNC_REQUEST`: everything, or what changed.

use hotbay_sdk::MemberId;
use serde_json::{Value, json};

use super::{Board, ack, board_with, frame, frames, join, kinds, only, send, snapshot};

fn since(board: &mut Board, id: MemberId, since: u64) -> Value {
    let outcome = send(board, id, "ann", "SYNC_REQUEST", json!({"since": since}));
    assert_eq!(outcome.received.len(), 1);
    only(&outcome, id)["payload"].clone()
}

fn set(board: &mut Board, id: MemberId, widget: &str) -> u64 {
    ack(board, id, "ann", "WIDGET_UPDATE", json!({"widgetId": widget, "data": {"id": widget}}))
}

#[test]
fn an_empty_dashboard_is_version_0() {
    let (mut board, [ann]) = board_with(["ann"]);
    let expected =
        json!({"version": 0, "full": true, "widgets": {}, "layout": null, "layoutVersion": 0, "deleted": []});
    assert_eq!(snapshot(&mut board, ann, "ann"), expected);
    assert!(board.kv().is_empty());
}

#[test]
fn since_gives_only_what_changed_after_it() {
    let (mut board, [ann, _]) = board_with(["ann", "bob"]);
    set(&mut board, ann, "a"); // 1
    set(&mut board, ann, "b"); // 2
    ack(&mut board, ann, "ann", "LAYOUT_UPDATE", json!({"layout": [1]})); // 3
    ack(&mut board, ann, "ann", "WIDGET_DELETE", json!({"widgetId": "a"})); // 4
    set(&mut board, ann, "c"); // 5
    let b = json!({"version": 1, "data": {"id": "b"}});
    let c = json!({"version": 1, "data": {"id": "c"}});
    let answer = |widgets: Value, layout: Value, deleted: Value, full: bool| json!({"version": 5, "full": full, "widgets": widgets, "layout": layout, "layoutVersion": 1, "deleted": deleted});
    for _ in 0..2 {
        let all = answer(json!({"b": b, "c": c}), json!([1]), json!([]), true);
        assert_eq!(snapshot(&mut board, ann, "ann"), all);
        // From a future that is not this dashboard's: everything.
        assert_eq!(since(&mut board, ann, 6), all);
        let cases = [
            (0, answer(json!({"b": b, "c": c}), json!([1]), json!(["a"]), false)),
            (1, answer(json!({"b": b, "c": c}), json!([1]), json!(["a"]), false)),
            (2, answer(json!({"c": c}), json!([1]), json!(["a"]), false)),
            (3, answer(json!({"c": c}), json!(null), json!(["a"]), false)),
            (4, answer(json!({"c": c}), json!(null), json!([]), false)),
            (5, answer(json!({}), json!(null), json!([]), false)),
        ];
        for (version, expected) in cases {
            assert_eq!(since(&mut board, ann, version), expected, "since {version}");
        }
        board.crash();
    }
    // What came back is no longer deleted.
    set(&mut board, ann, "a");
    assert_eq!(since(&mut board, ann, 3)["deleted"], json!([]));
}

#[test]
fn a_thousand_deletions_are_remembered_and_before_that_everything_is_told() {
    let (mut board, [ann]) = board_with(["ann"]);
    set(&mut board, ann, "kept");
    for round in 0..11 {
        let ids: Vec<String> = (0..50).map(|n| format!("w-{round}-{n}")).collect();
        let set = |id: &String| json!({"type": "WIDGET_UPDATE", "payload": {"widgetId": id, "data": {}}});
        let delete = |id: &String| json!({"type": "WIDGET_DELETE", "payload": {"widgetId": id}});
        let operations: Vec<Value> = ids.iter().map(set).chain(ids.iter().map(delete)).collect();
        ack(&mut board, ann, "ann", "WIDGET_BATCH", json!({"operations": operations}));
    }
    let (mut version, mut tombs) = (1_101, 550);
    while tombs < 1_003 {
        set(&mut board, ann, &format!("x-{tombs}"));
        ack(&mut board, ann, "ann", "WIDGET_DELETE", json!({"widgetId": format!("x-{tombs}")}));
        (version, tombs) = (version + 2, tombs + 1);
    }
    for crash in [false, true] {
        if crash {
            board.crash();
        }
        assert_eq!(board.kv().keys().filter(|key| key.starts_with("t/")).count(), 1_000);
        // The first three deletions, at versions 52, 53 and 54, are forgotten.
        let partial = since(&mut board, ann, 54);
        assert_eq!((&partial["full"], partial["deleted"].as_array().unwrap().len()), (&json!(false), 1_000));
        assert_eq!(partial["version"], version);
        let full = since(&mut board, ann, 53);
        assert_eq!((&full["full"], &full["deleted"]), (&json!(true), &json!([])));
        assert_eq!(full["widgets"].as_object().unwrap().keys().collect::<Vec<_>>(), ["kept"]);
    }
    // A forgotten widget begins anew; one that is remembered goes on.
    assert_eq!(set(&mut board, ann, "w-0-0"), 1);
    assert_eq!(set(&mut board, ann, "w-0-3"), 3);
}

#[test]
fn a_batch_that_fails_forgets_no_deletion() {
    let (mut board, [ann]) = board_with(["ann"]);
    for round in 0..20 {
        let ids: Vec<String> = (0..50).map(|n| format!("w-{round}-{n}")).collect();
        let set = |id: &String| json!({"type": "WIDGET_UPDATE", "payload": {"widgetId": id, "data": {}}});
        let delete = |id: &String| json!({"type": "WIDGET_DELETE", "payload": {"widgetId": id}});
        let operations: Vec<Value> = ids.iter().map(set).chain(ids.iter().map(delete)).collect();
        ack(&mut board, ann, "ann", "WIDGET_BATCH", json!({"operations": operations}));
    }
    set(&mut board, ann, "last");
    let before = since(&mut board, ann, 0);
    assert_eq!(before["full"], false);
    let operations = json!({"operations": [
        {"type": "WIDGET_DELETE", "payload": {"widgetId": "last"}},
        {"type": "WIDGET_DELETE", "payload": {"widgetId": "last"}},
    ]});
    super::refuses(&mut board, ann, "ann", "WIDGET_BATCH", operations, "not_found");
    assert_eq!(since(&mut board, ann, 0), before);
}

#[test]
fn all_who_ask_at_once_are_answered_in_the_batches_that_follow() {
    let (mut board, [ann]) = board_with(["ann"]);
    for n in 0..10 {
        let data = json!({"x": "y".repeat(60_000)});
        ack(&mut board, ann, "ann", "WIDGET_UPDATE", json!({"widgetId": format!("w{n}"), "data": data}));
    }
    let others: Vec<MemberId> = (0..60).map(|_| join(&mut board, "bob")).collect();
    board.crash();
    let request = frame("bob", "SYNC_REQUEST", &json!({}));
    let batch = others.iter().map(|id| board.sent(*id, &*request)).collect();
    let mut outcome = board.batch(batch);
    assert!(outcome.faults.is_empty() && outcome.refusals.is_empty());
    let at_once = outcome.received.len();
    assert!((1..60).contains(&at_once), "{at_once}");
    // Some leave meanwhile, and the channel changes its version.
    board.disconnect(others[59]);
    board.sleep();
    // Timers that are due at once fire one after another, each in a batch of its own.
    let later = board.advance_ms(0);
    assert!(later.faults.is_empty());
    outcome.received.extend(later.received);
    assert!(!board.timers().iter().any(|(name, _)| name == "sync"));
    for id in &others[..59] {
        let answer = only(&outcome, *id);
        assert_eq!((&answer["type"], &answer["correlationId"]), (&json!("SYNC_RESPONSE"), &json!("c-1")));
        assert_eq!(answer["payload"]["widgets"].as_object().unwrap().len(), 10);
    }
    assert!(frames(&outcome, others[59]).is_empty());
    assert_eq!(kinds(&send(&mut board, ann, "ann", "SYNC_REQUEST", json!({})), ann), ["SYNC_RESPONSE"]);
}
