//! Old base versions: what is told to whom, and what each decision does.

use hotbay_sdk::MemberId;
use serde_json::{Value, json};

use super::{Board, ack, board_with, frames, kinds, only, refuses, send, snapshot, with_settings};

fn update(base: Option<u64>, data: Value) -> Value {
    let mut payload = json!({"widgetId": "w", "data": data});
    if let Some(base) = base {
        payload["baseVersion"] = json!(base);
    }
    payload
}

/// A widget at version 2 with `{a: 1, b: 2}`.
fn at_version_2() -> (Board, [MemberId; 2]) {
    let (mut board, [ann, bob]) = board_with(["ann", "bob"]);
    ack(&mut board, ann, "ann", "WIDGET_UPDATE", update(None, json!({"a": 1})));
    ack(&mut board, ann, "ann", "WIDGET_UPDATE", update(Some(1), json!({"b": 2})));
    (board, [ann, bob])
}

/// Sends what clashes; gives the payload of the CONFLICT_DETECTED.
#[track_caller]
fn clash(board: &mut Board, id: MemberId, user: &str, kind: &str, payload: Value) -> Value {
    let before = (board.kv(), board.log());
    let outcome = send(board, id, user, kind, payload);
    let told = only(&outcome, id);
    assert_eq!((&told["type"], &told["correlationId"]), (&json!("CONFLICT_DETECTED"), &json!("c-1")), "{told}");
    assert_eq!(outcome.received.len(), 1, "only its sender is told");
    assert!(outcome.refusals.is_empty());
    assert_eq!((board.kv(), board.log()), before);
    told["payload"].clone()
}

fn resolve(told: &Value, resolution: &str, data: Option<Value>) -> Value {
    let mut payload = json!({"conflictId": told["conflictId"], "resolution": resolution});
    if let Some(data) = data {
        payload["data"] = data;
    }
    payload
}

fn widget(board: &mut Board, id: MemberId, user: &str) -> Value {
    snapshot(board, id, user)["widgets"]["w"].clone()
}

#[test]
fn an_old_base_changes_nothing_and_is_told_to_its_sender_alone() {
    let (mut board, [_, bob]) = at_version_2();
    for base in [0, 1, 3, u64::MAX] {
        let told = clash(&mut board, bob, "bob", "WIDGET_UPDATE", update(Some(base), json!({"a": 9, "n": -0})));
        let expected = json!({"conflictId": told["conflictId"], "widgetId": "w", "serverVersion": 2,
            "serverData": {"a": 1, "b": 2}, "clientData": {"a": 9, "n": 0}});
        assert_eq!(told, expected);
    }
    assert_eq!(ack(&mut board, bob, "bob", "WIDGET_UPDATE", update(Some(2), json!({"a": 9}))), 3);
    assert_eq!(ack(&mut board, bob, "bob", "WIDGET_UPDATE", update(None, json!({"a": 8}))), 4);
}

#[test]
fn without_detection_a_base_is_ignored() {
    let (mut board, [ann]) = with_settings(r#"{"enableConflictDetection":false}"#, ["ann"]);
    for base in [5, 0, 1] {
        ack(&mut board, ann, "ann", "WIDGET_UPDATE", update(Some(base), json!({"a": base})));
        ack(&mut board, ann, "ann", "LAYOUT_UPDATE", json!({"layout": [], "baseVersion": base}));
    }
    assert_eq!(ack(&mut board, ann, "ann", "WIDGET_DELETE", json!({"widgetId": "w", "baseVersion": 1})), 4);
}

#[test]
fn decisions_on_an_update() {
    let wanted = json!({"a": 9, "c": 3});
    let cases = [
        ("client", None, json!({"a": 9, "b": 2, "c": 3}), Some(json!({"a": 9, "c": 3}))),
        ("client", Some(json!({"d": 4})), json!({"a": 1, "b": 2, "d": 4}), Some(json!({"d": 4}))),
        ("server", None, json!({"a": 1, "b": 2}), None),
        ("server", Some(json!({"d": 4})), json!({"a": 1, "b": 2}), None),
        ("merge", None, json!({"a": 1, "b": 2, "c": 3}), Some(json!({"c": 3}))),
        ("merge", Some(json!({"a": 5, "c": 6})), json!({"a": 5, "b": 2, "c": 6}), Some(json!({"a": 5, "c": 6}))),
    ];
    for (resolution, data, expected, told_others) in cases {
        let (mut board, [ann, bob]) = at_version_2();
        let told = clash(&mut board, bob, "bob", "WIDGET_UPDATE", update(Some(1), wanted.clone()));
        board.sleep(); // A conflict survives the sleep of its channel.
        let decision = resolve(&told, resolution, data);
        let outcome = send(&mut board, bob, "bob", "CONFLICT_RESOLVED", decision.clone());
        let version = if told_others.is_some() { 3 } else { 2 };
        assert_eq!(only(&outcome, bob)["payload"], json!({"received": true, "version": version}), "{decision}");
        match told_others {
            Some(data) => {
                let news = only(&outcome, ann);
                assert_eq!((&news["type"], &news["userId"]), (&json!("WIDGET_UPDATE"), &json!("bob")));
                assert_eq!(news["payload"], json!({"widgetId": "w", "data": data}), "{decision}");
            }
            None => assert!(frames(&outcome, ann).is_empty()),
        }
        assert_eq!(widget(&mut board, ann, "ann"), json!({"version": version, "data": expected}), "{decision}");
        // It is decided once.
        refuses(&mut board, bob, "bob", "CONFLICT_RESOLVED", decision, "not_found");
        assert!(board.timers().iter().any(|(name, _)| name == "heartbeat"));
    }
}

#[test]
fn a_merge_that_adds_nothing_changes_nothing() {
    let (mut board, [_, bob]) = at_version_2();
    let told = clash(&mut board, bob, "bob", "WIDGET_UPDATE", update(Some(1), json!({"a": 9})));
    assert_eq!(ack(&mut board, bob, "bob", "CONFLICT_RESOLVED", resolve(&told, "merge", None)), 2);
}

#[test]
fn a_decision_holds_for_the_widget_as_it_then_is() {
    let (mut board, [ann, bob]) = at_version_2();
    let told = clash(&mut board, bob, "bob", "WIDGET_UPDATE", update(Some(1), json!({"a": 9})));
    ack(&mut board, ann, "ann", "WIDGET_UPDATE", update(None, json!({"a": 7, "z": 26})));
    assert_eq!(ack(&mut board, bob, "bob", "CONFLICT_RESOLVED", resolve(&told, "client", None)), 4);
    assert_eq!(widget(&mut board, ann, "ann")["data"], json!({"a": 9, "b": 2, "z": 26}));
}

#[test]
fn an_update_of_a_deleted_widget_is_a_conflict() {
    for (resolution, data, expected) in [
        ("client", None, json!({"version": 4, "data": {"c": 3}})),
        ("server", None, json!(null)),
        ("merge", None, json!({"version": 4, "data": {"c": 3}})),
        ("merge", Some(json!({"d": 4})), json!({"version": 4, "data": {"d": 4}})),
    ] {
        let (mut board, [ann, bob]) = at_version_2();
        ack(&mut board, ann, "ann", "WIDGET_DELETE", json!({"widgetId": "w", "baseVersion": 2}));
        let told = clash(&mut board, bob, "bob", "WIDGET_UPDATE", update(Some(2), json!({"c": 3})));
        let expected_told = json!({"conflictId": told["conflictId"], "widgetId": "w", "serverVersion": 3,
            "serverData": null, "clientData": {"c": 3}});
        assert_eq!(told, expected_told);
        let version = ack(&mut board, bob, "bob", "CONFLICT_RESOLVED", resolve(&told, resolution, data));
        assert_eq!(version, if resolution == "server" { 3 } else { 4 });
        assert_eq!(widget(&mut board, ann, "ann"), expected, "{resolution}");
    }
}

#[test]
fn a_widget_that_nobody_knows_clashes_with_any_base_but_zero() {
    let (mut board, [ann]) = board_with(["ann"]);
    let told = clash(&mut board, ann, "ann", "WIDGET_UPDATE", update(Some(4), json!({})));
    assert_eq!((&told["serverVersion"], &told["serverData"]), (&json!(0), &json!(null)));
    assert_eq!(ack(&mut board, ann, "ann", "WIDGET_UPDATE", update(Some(0), json!({}))), 1);
    // A tombstone whose version is known is no surprise.
    ack(&mut board, ann, "ann", "WIDGET_DELETE", json!({"widgetId": "w"}));
    assert_eq!(ack(&mut board, ann, "ann", "WIDGET_UPDATE", update(Some(2), json!({}))), 3);
}

#[test]
fn decisions_on_a_deletion() {
    for (resolution, data, expected, news) in [
        ("client", None, json!(null), Some("WIDGET_DELETE")),
        ("server", None, json!({"version": 2, "data": {"a": 1, "b": 2}}), None),
        ("merge", None, json!({"version": 2, "data": {"a": 1, "b": 2}}), None),
        ("merge", Some(json!({"b": 7})), json!({"version": 3, "data": {"a": 1, "b": 7}}), Some("WIDGET_UPDATE")),
    ] {
        let (mut board, [ann, bob]) = at_version_2();
        let told = clash(&mut board, bob, "bob", "WIDGET_DELETE", json!({"widgetId": "w", "baseVersion": 1}));
        assert_eq!((&told["serverData"], &told["clientData"]), (&json!({"a": 1, "b": 2}), &json!(null)));
        let outcome = send(&mut board, bob, "bob", "CONFLICT_RESOLVED", resolve(&told, resolution, data));
        assert_eq!(kinds(&outcome, ann), news.into_iter().collect::<Vec<_>>(), "{resolution}");
        assert_eq!(widget(&mut board, ann, "ann"), expected, "{resolution}");
    }
}

#[test]
fn a_deletion_decided_after_somebody_elses_is_done_already() {
    let (mut board, [ann, bob]) = at_version_2();
    let told = clash(&mut board, bob, "bob", "WIDGET_DELETE", json!({"widgetId": "w", "baseVersion": 1}));
    ack(&mut board, ann, "ann", "WIDGET_DELETE", json!({"widgetId": "w"}));
    assert_eq!(ack(&mut board, bob, "bob", "CONFLICT_RESOLVED", resolve(&told, "client", None)), 3);
}

#[test]
fn decisions_on_a_layout() {
    for (resolution, data, expected) in
        [("client", None, json!([3])), ("server", None, json!([2])), ("merge", Some(json!([2, 3])), json!([2, 3]))]
    {
        let (mut board, [ann, bob]) = board_with(["ann", "bob"]);
        ack(&mut board, ann, "ann", "LAYOUT_UPDATE", json!({"layout": [1], "baseVersion": 0}));
        ack(&mut board, ann, "ann", "LAYOUT_UPDATE", json!({"layout": [2], "baseVersion": 1}));
        let told = clash(&mut board, bob, "bob", "LAYOUT_UPDATE", json!({"layout": [3], "baseVersion": 1}));
        let expected_told = json!({"conflictId": told["conflictId"], "widgetId": null, "target": "layout",
            "serverVersion": 2, "serverData": [2], "clientData": [3]});
        assert_eq!(told, expected_told);
        refuses(&mut board, bob, "bob", "CONFLICT_RESOLVED", resolve(&told, "merge", None), "bad_request");
        refuses(&mut board, bob, "bob", "CONFLICT_RESOLVED", resolve(&told, "merge", Some(json!("x"))), "bad_request");
        ack(&mut board, bob, "bob", "CONFLICT_RESOLVED", resolve(&told, resolution, data));
        assert_eq!(snapshot(&mut board, ann, "ann")["layout"], expected, "{resolution}");
    }
}

#[test]
fn a_conflict_is_its_clients_alone() {
    let (mut board, [ann, bob]) = at_version_2();
    let told = clash(&mut board, bob, "bob", "WIDGET_UPDATE", update(Some(1), json!({"a": 9})));
    let second = super::join(&mut board, "bob");
    for (id, user) in [(ann, "ann"), (second, "bob")] {
        refuses(&mut board, id, user, "CONFLICT_RESOLVED", resolve(&told, "client", None), "not_found");
    }
    for name in ["conflict-1", "conflict-", "1", "", "conflict-99999999999999999999999"] {
        let payload = json!({"conflictId": name, "resolution": "client"});
        refuses(&mut board, bob, "bob", "CONFLICT_RESOLVED", payload, "not_found");
    }
    ack(&mut board, bob, "bob", "CONFLICT_RESOLVED", resolve(&told, "client", None));
}

#[test]
fn a_refused_decision_leaves_the_conflict() {
    let (mut board, [_, bob]) = at_version_2();
    let told = clash(&mut board, bob, "bob", "WIDGET_UPDATE", update(Some(1), json!({"a": 9})));
    refuses(&mut board, bob, "bob", "CONFLICT_RESOLVED", resolve(&told, "client", Some(json!([1]))), "bad_request");
    let large = json!({"x": "y".repeat(65_536)});
    refuses(&mut board, bob, "bob", "CONFLICT_RESOLVED", resolve(&told, "merge", Some(large)), "too_large");
    ack(&mut board, bob, "bob", "CONFLICT_RESOLVED", resolve(&told, "client", None));
}

#[test]
fn a_conflict_ends_after_30_seconds_each_at_its_time() {
    let (mut board, [_, bob]) = at_version_2();
    let first = clash(&mut board, bob, "bob", "WIDGET_UPDATE", update(Some(1), json!({"a": 9})));
    board.advance_ms(10_000);
    let second = clash(&mut board, bob, "bob", "WIDGET_UPDATE", update(Some(1), json!({"a": 8})));
    board.sleep();
    let outcome = board.advance_ms(19_999);
    assert!(!kinds(&outcome, bob).contains(&"NACK".to_owned()));
    let outcome = board.advance_ms(1);
    let nack = frames(&outcome, bob).into_iter().find(|frame| frame["type"] == "NACK").unwrap();
    assert_eq!((&nack["payload"]["code"], &nack["correlationId"]), (&json!("conflict"), &json!("c-1")));
    refuses(&mut board, bob, "bob", "CONFLICT_RESOLVED", resolve(&first, "client", None), "not_found");
    send(&mut board, bob, "bob", "PONG", json!({}));
    board.advance_ms(9_999);
    assert_eq!(ack(&mut board, bob, "bob", "CONFLICT_RESOLVED", resolve(&second, "client", None)), 3);
    send(&mut board, bob, "bob", "PONG", json!({}));
    let outcome = board.advance_ms(40_000);
    assert!(!kinds(&outcome, bob).contains(&"NACK".to_owned()));
}

#[test]
fn unresolved_conflicts_are_bounded_in_number_and_bytes() {
    let (mut board, [ann, bob]) = at_version_2();
    for _ in 0..100 {
        clash(&mut board, bob, "bob", "WIDGET_UPDATE", update(Some(1), json!({"a": 9})));
    }
    let words = refuses(&mut board, bob, "bob", "WIDGET_UPDATE", update(Some(1), json!({"a": 9})), "too_many_pending");
    assert!(words.starts_with("too many pending operations"), "{words}");
    // Others are not concerned, nor is what does not clash; and time heals.
    let large = json!({"a": "x".repeat(60_000)});
    for _ in 0..10 {
        clash(&mut board, ann, "ann", "WIDGET_UPDATE", update(Some(1), large.clone()));
    }
    refuses(&mut board, ann, "ann", "WIDGET_UPDATE", update(Some(1), large.clone()), "too_many_pending");
    ack(&mut board, bob, "bob", "WIDGET_UPDATE", update(Some(2), json!({})));
    board.advance_ms(30_000);
    clash(&mut board, bob, "bob", "WIDGET_UPDATE", update(Some(1), json!({"a": 9})));
    clash(&mut board, ann, "ann", "WIDGET_UPDATE", update(Some(1), large));
}

#[test]
fn conflicts_of_a_client_that_left_are_forgotten() {
    let (mut board, [ann, bob]) = at_version_2();
    for _ in 0..100 {
        clash(&mut board, bob, "bob", "WIDGET_UPDATE", update(Some(1), json!({"a": 9})));
    }
    board.disconnect(bob);
    send(&mut board, ann, "ann", "PONG", json!({}));
    let outcome = board.advance_ms(30_000);
    assert_eq!(kinds(&outcome, ann), ["PING"]);
    board.sleep();
    let saved: Value = serde_json::from_slice(board.saved().unwrap()).unwrap();
    assert_eq!(saved["conflicts"], json!([]));
}

#[test]
fn after_a_crash_conflicts_are_not_resolved_and_nothing_is_changed() {
    let (mut board, [_, bob]) = at_version_2();
    let told = clash(&mut board, bob, "bob", "WIDGET_UPDATE", update(Some(1), json!({"a": 9})));
    board.crash();
    refuses(&mut board, bob, "bob", "CONFLICT_RESOLVED", resolve(&told, "client", None), "not_found");
    assert_eq!(widget(&mut board, bob, "bob")["version"], 2);
}
