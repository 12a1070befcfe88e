//! The layout and its older versions.

use serde_json::{Value, json};

use super::{Board, ack, board_with, only, refuses, refuses_text, send, snapshot, with_settings};

fn kept(board: &Board) -> Vec<u64> {
    let mut kept: Vec<u64> =
        board.kv().keys().filter_map(|key| key.strip_prefix("l/")).map(|version| version.parse().unwrap()).collect();
    kept.sort_unstable();
    kept
}

#[test]
fn a_layout_replaces_the_one_before() {
    let (mut board, [ann, bob]) = board_with(["ann", "bob"]);
    assert_eq!(snapshot(&mut board, ann, "ann")["layout"], json!(null));
    let outcome = send(&mut board, ann, "ann", "LAYOUT_UPDATE", json!({"layout": {"a": [1, 2]}, "by": "x"}));
    assert_eq!(only(&outcome, ann)["payload"], json!({"received": true, "version": 1}));
    let news = only(&outcome, bob);
    assert_eq!(
        (&news["type"], &news["payload"]),
        (&json!("LAYOUT_UPDATE"), &json!({"layout": {"a": [1, 2]}, "by": "x"}))
    );
    assert_eq!(ack(&mut board, bob, "bob", "LAYOUT_UPDATE", json!({"layout": [], "baseVersion": 1})), 2);
    for _ in 0..2 {
        let all = snapshot(&mut board, ann, "ann");
        assert_eq!((&all["layout"], &all["layoutVersion"], &all["version"]), (&json!([]), &json!(2), &json!(2)));
        board.crash();
    }
}

#[test]
fn a_restored_layout_is_a_new_version_and_goes_out_as_an_update() {
    let (mut board, [ann, bob]) = board_with(["ann", "bob"]);
    refuses(&mut board, ann, "ann", "LAYOUT_RESTORE", json!({}), "not_found");
    let text = r#"{"type":"LAYOUT_UPDATE","userId":"ann","payload":{"layout":{"n": -0, "m":1e400}}}"#;
    board.message(ann, text);
    refuses(&mut board, ann, "ann", "LAYOUT_RESTORE", json!({}), "not_found");
    ack(&mut board, ann, "ann", "LAYOUT_UPDATE", json!({"layout": [2]}));
    ack(&mut board, ann, "ann", "LAYOUT_UPDATE", json!({"layout": [3]}));
    board.crash();
    let outcome = board.message(ann, r#"{"type":"LAYOUT_RESTORE","userId":"ann","payload":{"version":1}}"#);
    assert_eq!(only(&outcome, ann)["payload"]["version"], 4);
    let news = &outcome.texts(bob)[0];
    assert!(news.starts_with(r#"{"type":"LAYOUT_UPDATE","#), "{news}");
    assert!(news.ends_with(r#""payload":{"layout":{"n": -0, "m":1e400}}}"#), "{news}");
    // Without a version, the one before the current.
    let outcome = send(&mut board, bob, "bob", "LAYOUT_RESTORE", json!({"version": null}));
    assert_eq!(only(&outcome, ann)["payload"], json!({"layout": [3]}));
    for version in [0, 6, u64::MAX] {
        refuses(&mut board, ann, "ann", "LAYOUT_RESTORE", json!({"version": version}), "not_found");
    }
    assert_eq!(snapshot(&mut board, ann, "ann")["layoutVersion"], 5);
}

#[test]
fn twenty_versions_are_kept() {
    let (mut board, [ann]) = board_with(["ann"]);
    for version in 1..=45_u64 {
        assert_eq!(ack(&mut board, ann, "ann", "LAYOUT_UPDATE", json!({"layout": [version]})), version);
        assert_eq!(kept(&board), (version.saturating_sub(19).max(1)..=version).collect::<Vec<_>>());
        if version % 7 == 0 {
            board.crash();
        }
    }
    refuses(&mut board, ann, "ann", "LAYOUT_RESTORE", json!({"version": 25}), "not_found");
    ack(&mut board, ann, "ann", "LAYOUT_RESTORE", json!({"version": 26}));
    assert_eq!(snapshot(&mut board, ann, "ann")["layout"], json!([26]));
}

#[test]
fn many_versions_in_one_batch_leave_only_the_newest() {
    let (mut board, [ann, _]) = board_with(["ann", "bob"]);
    ack(&mut board, ann, "ann", "LAYOUT_UPDATE", json!({"layout": [1]}));
    ack(&mut board, ann, "ann", "LAYOUT_UPDATE", json!({"layout": [2]}));
    let frames: Vec<String> = (3..=60).map(|n| super::frame("ann", "LAYOUT_UPDATE", &json!({"layout": [n]}))).collect();
    let batch = frames.iter().map(|frame| board.sent(ann, &**frame)).collect();
    board.batch(batch);
    assert_eq!(kept(&board), (41..=60).collect::<Vec<_>>());
    board.crash();
    ack(&mut board, ann, "ann", "LAYOUT_RESTORE", json!({"version": 41}));
    assert_eq!(snapshot(&mut board, ann, "ann")["layout"], json!([41]));
}

#[test]
fn fewer_versions_are_kept_once_the_operator_says_so() {
    let (mut board, [ann]) = with_settings(r#"{"layoutVersionsMax":1}"#, ["ann"]);
    for n in 1..=3 {
        ack(&mut board, ann, "ann", "LAYOUT_UPDATE", json!({"layout": [n]}));
    }
    assert_eq!(kept(&board), [3]);
    refuses(&mut board, ann, "ann", "LAYOUT_RESTORE", json!({}), "not_found");
    ack(&mut board, ann, "ann", "LAYOUT_RESTORE", json!({"version": 3}));
    assert_eq!(kept(&board), [4]);
}

#[test]
fn a_layout_is_an_object_or_an_array_of_at_most_256_kib() {
    let (mut board, [ann]) = board_with(["ann"]);
    for layout in [json!(null), json!(1), json!("x"), json!(true)] {
        refuses(&mut board, ann, "ann", "LAYOUT_UPDATE", json!({"layout": layout}), "bad_request");
    }
    refuses(&mut board, ann, "ann", "LAYOUT_UPDATE", json!({}), "bad_request");
    refuses(&mut board, ann, "ann", "LAYOUT_UPDATE", json!({"layout": [], "baseVersion": "0"}), "bad_request");
    refuses(&mut board, ann, "ann", "LAYOUT_RESTORE", json!({"version": -1}), "bad_request");
    let sized = |bytes: usize| Value::from(vec!["x".repeat(bytes - 4)]);
    refuses(&mut board, ann, "ann", "LAYOUT_UPDATE", json!({"layout": sized((256 << 10) + 1)}), "too_large");
    ack(&mut board, ann, "ann", "LAYOUT_UPDATE", json!({"layout": sized(256 << 10)}));
    let deep = format!(
        r#"{{"type":"LAYOUT_UPDATE","userId":"ann","payload":{{"layout":{}{}}}}}"#,
        "[".repeat(200),
        "]".repeat(200)
    );
    refuses_text(&mut board, ann, &deep, "bad_request");
}
