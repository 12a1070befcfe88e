//! Updates and deletions of widgets.

use serde_json::json;

use super::{ack, board_with, kinds, only, refuses, refuses_text, send, snapshot};

#[test]
fn updates_merge_key_by_key_and_the_last_writer_wins() {
    let (mut board, [ann, bob]) = board_with(["ann", "bob"]);
    let update = |data| json!({"widgetId": "w", "data": data});
    assert_eq!(ack(&mut board, ann, "ann", "WIDGET_UPDATE", update(json!({"title": "t", "deep": {"a": 1}}))), 1);
    assert_eq!(ack(&mut board, bob, "bob", "WIDGET_UPDATE", update(json!({"value": 5, "title": "T"}))), 2);
    // Shallow: an object replaces an object. Null is a value.
    assert_eq!(ack(&mut board, ann, "ann", "WIDGET_UPDATE", update(json!({"deep": {"b": 2}, "value": null}))), 3);
    assert_eq!(ack(&mut board, ann, "ann", "WIDGET_UPDATE", update(json!({}))), 4);
    let data = json!({"title": "T", "deep": {"b": 2}, "value": null});
    for turn in 0..3 {
        assert_eq!(snapshot(&mut board, bob, "bob")["widgets"], json!({"w": {"version": 4, "data": data}}), "{turn}");
        if turn == 0 { board.crash() } else { board.sleep() }
    }
}

#[test]
fn keys_stay_in_the_order_in_which_they_first_came() {
    let (mut board, [ann]) = board_with(["ann"]);
    for data in [r#"{"z":1,"b":2}"#, r#"{"y":3,"a":4,"z":5}"#, r#"{"c":6}"#] {
        let frame = format!(r#"{{"type":"WIDGET_UPDATE","userId":"ann","payload":{{"widgetId":"w","data":{data}}}}}"#);
        board.message(ann, frame);
        board.crash();
    }
    assert_eq!(board.kv()["w/w"], br#"{"z":5,"b":2,"y":3,"a":4,"c":6}"#);
}

#[test]
fn values_stay_what_they_were_to_the_last_digit() {
    let (mut board, [ann, bob]) = board_with(["ann", "bob"]);
    let fields = concat!(
        r#""big":123456789012345678901234567890,"id":9007199254740993,"neg":-0,"huge":1e400,"tiny":1E-999,"#,
        r#""one":1.0,"exp":1e5,"s":"\u00e9\ud83d\ude00\/","nested":{"n":[-0.0, 1.10 ,{"x":1e+2}]}"#
    );
    let frame =
        format!(r#"{{"type":"WIDGET_UPDATE","userId":"ann","payload":{{"widgetId":"w","data":{{{fields}}}}}}}"#);
    let outcome = board.message(ann, &*frame);
    assert!(outcome.texts(bob)[0].contains(fields), "{}", outcome.texts(bob)[0]);
    // Also after another update of other keys, a crash and a rebuilt text.
    for crash in [false, true] {
        if crash {
            board.crash();
        }
        ack(&mut board, ann, "ann", "WIDGET_UPDATE", json!({"widgetId": "w", "data": {"other": crash}}));
        let request = r#"{"type":"SYNC_REQUEST","userId":"bob"}"#;
        let text = board.message(bob, request).texts(bob)[0].clone();
        assert!(text.contains(fields), "{text}");
    }
}

#[test]
fn not_json_is_no_data() {
    let (mut board, [ann]) = board_with(["ann"]);
    for data in [
        "NaN",
        "Infinity",
        "-Infinity",
        "{\"a\":NaN}",
        "{\"a\":01}",
        "{\"a\":1.}",
        "{\"a\":.5}",
        "{\"a\":-}",
        "{a:1}",
        "{\"a\":1,}",
        "{\"a\":'x'}",
        "{\"a\":\"\t\"}",
        "{\"a\":\"\\x\"}",
        "{\"a\":undefined}",
        "{\"\\ud800\":1}",
        "",
    ] {
        let text = format!(r#"{{"type":"WIDGET_UPDATE","userId":"ann","payload":{{"widgetId":"w","data":{data}}}}}"#);
        refuses_text(&mut board, ann, &text, "bad_request");
    }
}

#[test]
fn wrong_payloads_are_refused() {
    let (mut board, [ann, _]) = board_with(["ann", "bob"]);
    let long = "w".repeat(129);
    let cases = [
        ("WIDGET_UPDATE", json!(null)),
        ("WIDGET_UPDATE", json!([])),
        ("WIDGET_UPDATE", json!("x")),
        ("WIDGET_UPDATE", json!({})),
        ("WIDGET_UPDATE", json!({"widgetId": "w"})),
        ("WIDGET_UPDATE", json!({"data": {}})),
        ("WIDGET_UPDATE", json!({"widgetId": "w", "data": null})),
        ("WIDGET_UPDATE", json!({"widgetId": "w", "data": []})),
        ("WIDGET_UPDATE", json!({"widgetId": "w", "data": "{}"})),
        ("WIDGET_UPDATE", json!({"widgetId": "", "data": {}})),
        ("WIDGET_UPDATE", json!({"widgetId": long, "data": {}})),
        ("WIDGET_UPDATE", json!({"widgetId": "a\u{0}b", "data": {}})),
        ("WIDGET_UPDATE", json!({"widgetId": "a\nb", "data": {}})),
        ("WIDGET_UPDATE", json!({"widgetId": 1, "data": {}})),
        ("WIDGET_UPDATE", json!({"widgetId": "w", "data": {}, "baseVersion": -1})),
        ("WIDGET_UPDATE", json!({"widgetId": "w", "data": {}, "baseVersion": 1.5})),
        ("WIDGET_UPDATE", json!({"widgetId": "w", "data": {}, "baseVersion": "1"})),
        ("WIDGET_DELETE", json!({})),
        ("WIDGET_DELETE", json!({"widgetId": null})),
        ("WIDGET_DELETE", json!({"widgetId": "w", "baseVersion": true})),
        ("SYNC_REQUEST", json!({"since": "1"})),
        ("SYNC_REQUEST", json!([1])),
        ("SYNC_UPDATE", json!({})),
        ("CONFLICT_RESOLVED", json!({})),
        ("CONFLICT_RESOLVED", json!({"conflictId": "x", "resolution": "mine"})),
    ];
    for (kind, payload) in cases {
        refuses(&mut board, ann, "ann", kind, payload, "bad_request");
    }
    assert!(board.kv().is_empty());
}

#[test]
fn ids_are_any_text_without_control_characters() {
    let (mut board, [ann]) = board_with(["ann"]);
    let ids = ["w", "a/b", "é\"\\", "m/w", "head", &"x".repeat(128), " "];
    for id in ids {
        assert_eq!(ack(&mut board, ann, "ann", "WIDGET_UPDATE", json!({"widgetId": id, "data": {"id": id}})), 1);
    }
    board.crash();
    let widgets = snapshot(&mut board, ann, "ann")["widgets"].clone();
    assert_eq!(widgets.as_object().unwrap().len(), ids.len());
    for id in ids {
        assert_eq!(widgets[id]["data"]["id"], id);
    }
}

#[test]
fn a_deleted_widget_is_gone_and_comes_back_with_a_later_version() {
    let (mut board, [ann, bob]) = board_with(["ann", "bob"]);
    let update = json!({"widgetId": "w", "data": {"a": 1}});
    refuses(&mut board, ann, "ann", "WIDGET_DELETE", json!({"widgetId": "w"}), "not_found");
    ack(&mut board, ann, "ann", "WIDGET_UPDATE", update.clone());
    let outcome = send(&mut board, ann, "ann", "WIDGET_DELETE", json!({"widgetId": "w", "extra": [1]}));
    let news = only(&outcome, bob);
    let told = (&news["type"], &news["payload"], &news["userId"]);
    assert_eq!(told, (&json!("WIDGET_DELETE"), &json!({"widgetId": "w", "extra": [1]}), &json!("ann")));
    assert_eq!(only(&outcome, ann)["payload"], json!({"received": true, "version": 2}));
    assert_eq!(board.kv().keys().collect::<Vec<_>>(), ["t/w"]);
    for _ in 0..2 {
        refuses(&mut board, ann, "ann", "WIDGET_DELETE", json!({"widgetId": "w"}), "not_found");
        assert_eq!(snapshot(&mut board, bob, "bob")["widgets"], json!({}));
        board.crash();
    }
    // An old base can never fit the new widget.
    assert_eq!(ack(&mut board, ann, "ann", "WIDGET_UPDATE", json!({"widgetId": "w", "data": {"b": 1}})), 3);
    assert_eq!(snapshot(&mut board, bob, "bob")["widgets"], json!({"w": {"version": 3, "data": {"b": 1}}}));
    assert_eq!(board.kv().keys().collect::<Vec<_>>(), ["m/w", "w/w"]);
}

#[test]
fn of_a_key_that_comes_twice_the_last_counts() {
    let (mut board, [ann]) = board_with(["ann"]);
    let data = r#"{"a":1,"b":2,"a":3,"\u0061":4}"#;
    board.message(
        ann,
        format!(r#"{{"type":"WIDGET_UPDATE","userId":"ann","payload":{{"widgetId":"w","data":{data}}}}}"#),
    );
    assert_eq!(board.kv()["w/w"], br#"{"a":4,"b":2}"#);
}

#[test]
fn many_changes_in_a_batch_are_written_once() {
    let (mut board, [ann, bob]) = board_with(["ann", "bob"]);
    let frames: Vec<String> =
        (0..100).map(|n| super::frame("ann", "WIDGET_UPDATE", &json!({"widgetId": "w", "data": {"n": n}}))).collect();
    let batch = frames.iter().map(|frame| board.sent(ann, &**frame)).collect();
    let outcome = board.batch(batch);
    assert_eq!(super::frames(&outcome, ann).last().unwrap()["payload"]["version"], 100);
    assert_eq!(kinds(&outcome, bob).len(), 100);
    board.crash();
    assert_eq!(snapshot(&mut board, bob, "bob")["widgets"]["w"], json!({"version": 100, "data": {"n": 99}}));
}
