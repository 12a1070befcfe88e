//! Several operations at once: all or nothing, in a row, and never twice.

use serde_json::{Value, json};

use super::{ack, board_with, frames, kinds, only, refuses, request, send, snapshot, with_settings};

fn op(id: Option<&str>, kind: &str, payload: Value) -> Value {
    let mut op = json!({"type": kind, "payload": payload});
    if let Some(id) = id {
        op["operationId"] = json!(id);
    }
    op
}

fn set(id: Option<&str>, widget: &str, data: Value) -> Value {
    op(id, "WIDGET_UPDATE", json!({"widgetId": widget, "data": data}))
}

fn batch(operations: Vec<Value>) -> Value {
    json!({"operations": operations})
}

#[test]
fn a_batch_is_done_as_a_whole_and_told_as_it_came() {
    let (mut board, [ann, bob]) = board_with(["ann", "bob"]);
    let payload = json!({"operations": [
        set(None, "a", json!({"x": 1})),
        set(Some("o-2"), "b", json!({"x": 1})),
        op(None, "LAYOUT_UPDATE", json!({"layout": ["a", "b"]})),
        set(None, "a", json!({"y": 2})),
        op(None, "WIDGET_DELETE", json!({"widgetId": "b"})),
    ], "note": 1});
    let outcome = send(&mut board, ann, "ann", "WIDGET_BATCH", payload.clone());
    let answer = only(&outcome, ann);
    let results = json!([{"success": true, "version": 1}, {"operationId": "o-2", "success": true, "version": 1},
        {"success": true, "version": 1}, {"success": true, "version": 2}, {"success": true, "version": 2}]);
    assert_eq!(answer["type"], "ACK");
    assert_eq!(answer["payload"], json!({"received": true, "version": 5, "results": results}));
    let news = only(&outcome, bob);
    assert_eq!((&news["type"], &news["payload"], &news["userId"]), (&json!("WIDGET_BATCH"), &payload, &json!("ann")));
    for _ in 0..2 {
        let all = snapshot(&mut board, bob, "bob");
        assert_eq!(all["widgets"], json!({"a": {"version": 2, "data": {"x": 1, "y": 2}}}));
        assert_eq!((&all["layout"], &all["version"]), (&json!(["a", "b"]), &json!(5)));
        board.crash();
    }
}

#[test]
fn if_one_operation_fails_nothing_happened() {
    let (mut board, [ann, _]) = board_with(["ann", "bob"]);
    ack(&mut board, ann, "ann", "WIDGET_UPDATE", json!({"widgetId": "a", "data": {"x": 1}}));
    ack(&mut board, ann, "ann", "WIDGET_UPDATE", json!({"widgetId": "gone", "data": {}}));
    ack(&mut board, ann, "ann", "WIDGET_DELETE", json!({"widgetId": "gone"}));
    ack(&mut board, ann, "ann", "LAYOUT_UPDATE", json!({"layout": [1]}));
    let large = json!({"x": "y".repeat(65_536)});
    let failing = [
        (op(None, "WIDGET_DELETE", json!({"widgetId": "none"})), "not_found"),
        (op(None, "WIDGET_UPDATE", json!({"widgetId": "a", "data": {}, "baseVersion": 1})), "conflict"),
        (op(None, "LAYOUT_UPDATE", json!({"layout": [], "baseVersion": 1})), "conflict"),
        (op(None, "LAYOUT_RESTORE", json!({"version": 9})), "not_found"),
        (set(None, "a", large), "too_large"),
        (set(None, "", json!({})), "bad_request"),
        (op(None, "WIDGET_BATCH", json!({"operations": []})), "bad_request"),
        (op(None, "PING", json!({})), "bad_request"),
    ];
    for crash in [true, false] {
        for (failing, code) in &failing {
            if crash {
                board.crash();
            }
            let before = snapshot(&mut board, ann, "ann");
            let operations = vec![
                set(Some("o-1"), "a", json!({"x": 2, "z": 3})),
                set(None, "new", json!({"x": 2})),
                set(None, "gone", json!({"back": true})),
                op(None, "WIDGET_DELETE", json!({"widgetId": "new"})),
                op(None, "LAYOUT_UPDATE", json!({"layout": [2]})),
                op(None, "LAYOUT_RESTORE", json!({"version": 1})),
                failing.clone(),
                set(None, "after", json!({})),
            ];
            let words = refuses(&mut board, ann, "ann", "WIDGET_BATCH", batch(operations), code);
            assert!(words.starts_with("operation 7: "), "{words}");
            assert_eq!(snapshot(&mut board, ann, "ann"), before);
        }
    }
    // Nor is its name used up.
    assert_eq!(ack(&mut board, ann, "ann", "WIDGET_BATCH", batch(vec![set(Some("o-1"), "a", json!({"x": 9}))])), 5);
    assert_eq!(snapshot(&mut board, ann, "ann")["widgets"]["a"]["data"], json!({"x": 9}));
}

#[test]
fn a_base_in_a_batch_counts_what_the_batch_did_before() {
    let (mut board, [ann]) = board_with(["ann"]);
    let with_base =
        |base| op(None, "WIDGET_UPDATE", json!({"widgetId": "a", "data": {"n": base}, "baseVersion": base}));
    ack(&mut board, ann, "ann", "WIDGET_BATCH", batch(vec![with_base(0), with_base(1), with_base(2)]));
    refuses(&mut board, ann, "ann", "WIDGET_BATCH", batch(vec![with_base(3), with_base(3)]), "conflict");
    assert_eq!(snapshot(&mut board, ann, "ann")["widgets"]["a"], json!({"version": 3, "data": {"n": 2}}));
}

#[test]
fn repeated_operations_of_a_batch_are_not_done_again_nor_told_again() {
    let (mut board, [ann, bob]) = board_with(["ann", "bob"]);
    let first = batch(vec![set(Some("o-1"), "a", json!({"x": 1})), set(Some("o-1"), "a", json!({"x": 2}))]);
    let outcome = send(&mut board, ann, "ann", "WIDGET_BATCH", first.clone());
    assert_eq!(only(&outcome, bob)["payload"], batch(vec![set(Some("o-1"), "a", json!({"x": 1}))]));
    board.crash();
    let outcome = send(&mut board, ann, "ann", "WIDGET_BATCH", first);
    assert_eq!(
        only(&outcome, ann)["payload"]["results"][1],
        json!({"operationId": "o-1", "success": true, "version": 1})
    );
    assert!(frames(&outcome, bob).is_empty());
    let more = batch(vec![set(Some("o-1"), "a", json!({"x": 1})), set(Some("o-2"), "b", json!({"x": 1}))]);
    let outcome = send(&mut board, ann, "ann", "WIDGET_BATCH", more);
    assert_eq!(only(&outcome, bob)["payload"], batch(vec![set(Some("o-2"), "b", json!({"x": 1}))]));
    assert_eq!(snapshot(&mut board, bob, "bob")["version"], 2);
}

#[test]
fn a_restored_layout_in_a_batch_is_told_as_a_layout() {
    let (mut board, [ann, bob]) = board_with(["ann", "bob"]);
    ack(&mut board, ann, "ann", "LAYOUT_UPDATE", json!({"layout": [1]}));
    ack(&mut board, ann, "ann", "LAYOUT_UPDATE", json!({"layout": [2]}));
    let payload = batch(vec![op(None, "LAYOUT_RESTORE", json!({})), set(None, "a", json!({}))]);
    let outcome = send(&mut board, ann, "ann", "WIDGET_BATCH", payload);
    let expected = batch(vec![op(None, "LAYOUT_UPDATE", json!({"layout": [1]})), set(None, "a", json!({}))]);
    assert_eq!(only(&outcome, bob)["payload"], expected);
}

#[test]
fn an_empty_batch_is_fine_and_silent() {
    let (mut board, [ann, bob]) = board_with(["ann", "bob"]);
    for kind in ["WIDGET_BATCH", "SYNC_UPDATE"] {
        let outcome = send(&mut board, ann, "ann", kind, batch(Vec::new()));
        assert_eq!(only(&outcome, ann)["payload"]["results"], json!([]));
        assert!(frames(&outcome, bob).is_empty());
    }
    assert!(board.kv().is_empty() && board.log().is_empty());
}

#[test]
fn a_sync_does_what_it_can_and_tells_each_result() {
    let (mut board, [ann, bob]) = board_with(["ann", "bob"]);
    let operations = vec![
        set(Some("1"), "a", json!({"x": 1})),
        op(Some("2"), "WIDGET_DELETE", json!({"widgetId": "none"})),
        op(Some("3"), "WIDGET_UPDATE", json!({"widgetId": "a", "data": {}, "baseVersion": 9})),
        op(Some("4"), "NO", json!({})),
        op(Some("5"), "LAYOUT_UPDATE", json!({"layout": [1]})),
        op(Some("6"), "LAYOUT_RESTORE", json!({"version": 1})),
    ];
    let outcome = send(&mut board, ann, "ann", "SYNC_UPDATE", batch(operations));
    let answer = only(&outcome, ann);
    assert_eq!((&answer["type"], &answer["payload"]["success"]), (&json!("ACK"), &json!(false)));
    assert_eq!(answer["payload"]["version"], 3);
    let results = answer["payload"]["results"].as_array().unwrap();
    assert_eq!(results[0], json!({"operationId": "1", "success": true, "version": 1}));
    assert_eq!((&results[1]["success"], &results[1]["code"]), (&json!(false), &json!("not_found")));
    let clash = json!({"operationId": "3", "success": false, "version": 1, "code": "conflict",
        "error": "the server is at version 1"});
    assert_eq!(results[2], clash);
    assert_eq!(results[3]["code"], "bad_request");
    assert_eq!((&results[4]["version"], &results[5]["version"]), (&json!(1), &json!(2)));
    // The others hear of what was done, one by one, in order.
    assert_eq!(kinds(&outcome, bob), ["WIDGET_UPDATE", "LAYOUT_UPDATE", "LAYOUT_UPDATE"]);
    assert_eq!(frames(&outcome, bob)[0]["payload"], json!({"widgetId": "a", "data": {"x": 1}}));
    assert!(frames(&outcome, bob).iter().all(|frame| frame["userId"] == "ann" && frame.get("correlationId").is_none()));
}

#[test]
fn a_repeated_operation_answers_its_first_result() {
    let (mut board, [ann, bob]) = board_with(["ann", "bob"]);
    let operations = batch(vec![
        set(Some("1"), "a", json!({"x": 1})),
        op(Some("2"), "WIDGET_DELETE", json!({"widgetId": "later"})),
        op(Some("3"), "WIDGET_UPDATE", json!({"widgetId": "a", "data": {}, "baseVersion": 9})),
    ]);
    let first = only(&send(&mut board, ann, "ann", "SYNC_UPDATE", operations.clone()), ann);
    ack(&mut board, bob, "bob", "WIDGET_UPDATE", json!({"widgetId": "a", "data": {"x": 2}}));
    ack(&mut board, bob, "bob", "WIDGET_UPDATE", json!({"widgetId": "later", "data": {}}));
    for turn in 0..3 {
        let outcome = send(&mut board, ann, "ann", "SYNC_UPDATE", operations.clone());
        assert_eq!(only(&outcome, ann)["payload"]["results"], first["payload"]["results"], "turn {turn}");
        assert!(frames(&outcome, bob).is_empty());
        match turn {
            0 => board.sleep(),
            _ => board.crash(),
        }
    }
    let all = snapshot(&mut board, ann, "ann");
    assert_eq!((&all["version"], &all["widgets"]["a"]["data"]), (&json!(3), &json!({"x": 2})));
    // The same name of another user is another operation; the same user's over HTTP is the same.
    let outcome = send(&mut board, bob, "bob", "SYNC_UPDATE", batch(vec![set(Some("1"), "a", json!({"x": 3}))]));
    assert_eq!(kinds(&outcome, ann), ["WIDGET_UPDATE"]);
    let web = super::join(&mut board, "web");
    ack(&mut board, web, "web", "SYNC_UPDATE", batch(vec![set(Some("w"), "web", json!({}))]));
    let body = json!({"type": "SYNC", "operations": [set(Some("w"), "web", json!({}))]}).to_string();
    assert_eq!(request(&mut board, "POST", "/", &body).1["results"][0]["version"], 1);
}

#[test]
fn what_was_wrong_in_itself_is_judged_again() {
    let (mut board, [ann]) = board_with(["ann"]);
    send(&mut board, ann, "ann", "SYNC_UPDATE", batch(vec![op(Some("1"), "NO", json!({}))]));
    assert!(board.log().is_empty());
    ack(&mut board, ann, "ann", "SYNC_UPDATE", batch(vec![set(Some("1"), "a", json!({}))]));
}

#[test]
fn as_many_results_are_kept_as_the_mount_says() {
    let (mut board, [ann]) = with_settings(r#"{"operationsKeptMax":1000}"#, ["ann"]);
    let ids = |range: std::ops::Range<usize>| -> Vec<Value> {
        range.map(|n| set(Some(&format!("op-{n}")), "a", json!({"n": n}))).collect()
    };
    for start in (0..1_000).step_by(100) {
        ack(&mut board, ann, "ann", "SYNC_UPDATE", batch(ids(start..start + 100)));
    }
    assert_eq!(board.log().len(), 10);
    for crash in [false, true] {
        if crash {
            board.crash();
        }
        assert_eq!(ack(&mut board, ann, "ann", "SYNC_UPDATE", batch(ids(0..100))), 1_000);
    }
    // One more: the oldest is forgotten, exactly that one.
    ack(&mut board, ann, "ann", "SYNC_UPDATE", batch(ids(5_000..5_001)));
    assert_eq!(board.log().len(), 11);
    for crash in [false, true] {
        if crash {
            board.crash();
        }
        assert_eq!(ack(&mut board, ann, "ann", "SYNC_UPDATE", batch(ids(1..2))), 1_001);
    }
    assert_eq!(ack(&mut board, ann, "ann", "SYNC_UPDATE", batch(ids(0..1))), 1_002);
    for start in (6_000..8_000).step_by(100) {
        ack(&mut board, ann, "ann", "SYNC_UPDATE", batch(ids(start..start + 100)));
    }
    assert!(board.log().len() <= 11, "{}", board.log().len());
}

/// Goal: who sends its queue again, because the answer was lost, is not overtaken by what others sent meanwhile.
#[test]
fn a_whole_queue_is_done_once_though_nine_others_come_in_between() {
    let users: [String; 10] = std::array::from_fn(|number| format!("user{number}"));
    let (mut board, members) = with_settings("{}", users.each_ref().map(|user| &**user));
    let queue: Vec<Value> = (0..500).map(|n| set(Some(&n.to_string()), "a", json!({"n": n}))).collect();
    for (member, user) in members.iter().zip(&users) {
        ack(&mut board, *member, user, "SYNC_UPDATE", batch(queue.clone()));
    }
    for crash in [false, true] {
        if crash {
            board.crash();
        }
        assert_eq!(ack(&mut board, members[0], &users[0], "SYNC_UPDATE", batch(queue.clone())), 5_000);
    }
    assert_eq!(board.log().len(), 20);
    assert!(board.log().iter().map(|(_, data)| data.len()).sum::<usize>() < 256 << 10);
}

#[test]
fn a_batch_has_100_operations_and_a_sync_as_many_as_a_client_queues() {
    let (mut board, [ann]) = board_with(["ann"]);
    let operations =
        |count: usize| -> Vec<Value> { (0..count).map(|n| set(Some(&n.to_string()), "a", json!({"n": n}))).collect() };
    for (kind, count) in [("WIDGET_BATCH", 100), ("SYNC_UPDATE", 500)] {
        refuses(&mut board, ann, "ann", kind, batch(operations(count + 1)), "too_many_pending");
        let (mut board, [ann]) = board_with(["ann"]);
        ack(&mut board, ann, "ann", kind, batch(operations(count)));
        assert_eq!(snapshot(&mut board, ann, "ann")["widgets"]["a"]["version"], count);
    }
    let settings = r#"{"maxPendingOperations":2,"maxQueueSize":3}"#;
    for (kind, count) in [("WIDGET_BATCH", 2), ("SYNC_UPDATE", 3)] {
        let (mut board, [ann]) = with_settings(settings, ["ann"]);
        refuses(&mut board, ann, "ann", kind, batch(operations(count + 1)), "too_many_pending");
        ack(&mut board, ann, "ann", kind, batch(operations(count)));
    }
}

#[test]
fn operations_need_a_type_and_in_a_sync_a_name() {
    let (mut board, [ann]) = board_with(["ann"]);
    let long = "x".repeat(129);
    for (kind, operation) in [
        ("WIDGET_BATCH", json!({"payload": {}})),
        ("WIDGET_BATCH", json!(1)),
        ("WIDGET_BATCH", json!({"type": 1})),
        ("WIDGET_BATCH", json!({"type": "WIDGET_UPDATE", "operationId": {}, "payload": {"widgetId": "a", "data": {}}})),
        (
            "WIDGET_BATCH",
            json!({"type": "WIDGET_UPDATE", "operationId": long, "payload": {"widgetId": "a", "data": {}}}),
        ),
        ("WIDGET_BATCH", json!({"type": "WIDGET_UPDATE"})),
        ("SYNC_UPDATE", set(None, "a", json!({}))),
        ("SYNC_UPDATE", set(Some(""), "a", json!({}))),
        ("SYNC_UPDATE", json!({"operationId": "1"})),
        ("SYNC_UPDATE", json!(null)),
    ] {
        refuses(&mut board, ann, "ann", kind, batch(vec![operation]), "bad_request");
    }
    refuses(&mut board, ann, "ann", "WIDGET_BATCH", json!({"operations": {}}), "bad_request");
    // A whole number is a name as well.
    let operation = json!({"operationId": 7, "type": "WIDGET_UPDATE", "payload": {"widgetId": "a", "data": {}}});
    let answer = only(&send(&mut board, ann, "ann", "SYNC_UPDATE", batch(vec![operation])), ann);
    assert_eq!(answer["payload"]["results"][0]["operationId"], 7);
}
