//! Bounds: of a widget, of a dashboard, and of what one batch may cost.

use hotbay_sdk::MemberId;
use serde_json::{Value, json};

use super::{Board, ack, board_with, frame, frames, join, kinds, refuses, request, snapshot, with_settings};

fn sized(bytes: usize) -> Value {
    json!({"x": "y".repeat(bytes - 8)})
}

#[test]
fn a_widget_has_at_most_64_kib_also_by_merging() {
    let (mut board, [ann]) = board_with(["ann"]);
    assert_eq!(sized(65_536).to_string().len(), 65_536);
    ack(&mut board, ann, "ann", "WIDGET_UPDATE", json!({"widgetId": "w", "data": sized(65_536)}));
    for data in [sized(65_537), json!({"a": 1})] {
        refuses(&mut board, ann, "ann", "WIDGET_UPDATE", json!({"widgetId": "w", "data": data}), "too_large");
    }
    // What is replaced does not count, and smaller is always allowed.
    ack(&mut board, ann, "ann", "WIDGET_UPDATE", json!({"widgetId": "w", "data": {"x": "y".repeat(65_521), "a": 1}}));
    refuses(&mut board, ann, "ann", "WIDGET_UPDATE", json!({"widgetId": "w", "data": {"b": 1}}), "too_large");
    board.crash();
    refuses(&mut board, ann, "ann", "WIDGET_UPDATE", json!({"widgetId": "w", "data": {"b": 1}}), "too_large");
    ack(&mut board, ann, "ann", "WIDGET_UPDATE", json!({"widgetId": "w", "data": {"x": 1, "b": 1}}));
}

#[test]
fn a_dashboard_has_at_most_1000_widgets() {
    let (mut board, [ann]) = board_with(["ann"]);
    for start in (0..1_000).step_by(100) {
        let set = |n| json!({"type": "WIDGET_UPDATE", "payload": {"widgetId": format!("{n:0128}"), "data": {"n": n}}});
        let operations: Vec<Value> = (start..start + 100).map(set).collect();
        ack(&mut board, ann, "ann", "WIDGET_BATCH", json!({"operations": operations}));
    }
    for _ in 0..2 {
        refuses(&mut board, ann, "ann", "WIDGET_UPDATE", json!({"widgetId": "one more", "data": {}}), "too_large");
        assert_eq!(snapshot(&mut board, ann, "ann")["widgets"].as_object().unwrap().len(), 1_000);
        board.crash();
    }
    ack(&mut board, ann, "ann", "WIDGET_DELETE", json!({"widgetId": format!("{:0128}", 7)}));
    ack(&mut board, ann, "ann", "WIDGET_UPDATE", json!({"widgetId": "one more", "data": {}}));
}

#[test]
fn the_widgets_of_a_dashboard_are_bounded_together() {
    let (mut board, [ann]) = with_settings(r#"{"dashboardBytesMax":10000}"#, ["ann"]);
    for n in 0..4 {
        ack(&mut board, ann, "ann", "WIDGET_UPDATE", json!({"widgetId": format!("w{n}"), "data": sized(2_300)}));
    }
    for _ in 0..2 {
        refuses(&mut board, ann, "ann", "WIDGET_UPDATE", json!({"widgetId": "w4", "data": sized(2_300)}), "too_large");
        refuses(&mut board, ann, "ann", "WIDGET_UPDATE", json!({"widgetId": "w0", "data": sized(3_000)}), "too_large");
        board.crash();
    }
    // Many small keys cost more than their text.
    let keys: Value = (0..100).map(|n| (format!("{n}"), json!(0))).collect::<serde_json::Map<_, _>>().into();
    refuses(&mut board, ann, "ann", "WIDGET_UPDATE", json!({"widgetId": "w4", "data": keys}), "too_large");
    ack(&mut board, ann, "ann", "WIDGET_UPDATE", json!({"widgetId": "w0", "data": {"x": 1}}));
    ack(&mut board, ann, "ann", "WIDGET_UPDATE", json!({"widgetId": "w4", "data": sized(2_200)}));
    ack(&mut board, ann, "ann", "WIDGET_DELETE", json!({"widgetId": "w1"}));
    ack(&mut board, ann, "ann", "WIDGET_UPDATE", json!({"widgetId": "w5", "data": sized(2_200)}));
}

/// A dashboard filled to its bound, with a layout of 256 KiB in two versions.
fn full_board() -> (Board, [MemberId; 2]) {
    let (mut board, [ann, bob]) = board_with(["ann", "bob"]);
    for n in 0..31 {
        ack(&mut board, ann, "ann", "WIDGET_UPDATE", json!({"widgetId": format!("w{n}"), "data": sized(65_000)}));
    }
    for n in 0..2 {
        let layout = json!([n, "x".repeat((256 << 10) - 8)]);
        ack(&mut board, ann, "ann", "LAYOUT_UPDATE", json!({"layout": layout}));
    }
    (board, [ann, bob])
}

/// Runs the same frame as often as a batch allows; gives how many were acknowledged and refused.
fn flood(board: &mut Board, id: MemberId, frames_text: &[String]) -> (usize, usize) {
    let batch = frames_text.iter().map(|text| board.sent(id, &**text)).collect();
    let outcome = board.batch(batch);
    assert_eq!(outcome.faults, [""; 0], "the batch went over a limit of the host");
    let frames = frames(&outcome, id);
    let refused = frames.iter().filter(|frame| frame["type"] == "NACK").count();
    for frame in frames.iter().filter(|frame| frame["type"] == "NACK") {
        assert_eq!(frame["payload"]["code"], "unavailable", "{frame}");
    }
    (frames.len() - refused, refused)
}

#[test]
fn no_batch_goes_over_the_limits_of_the_host() {
    let (mut board, [ann, bob]) = full_board();
    let floods: Vec<(&str, Vec<String>)> = vec![
        ("restored layouts", vec![frame("ann", "LAYOUT_RESTORE", &json!({})); 256]),
        ("one restore per operation", {
            let operations = vec![json!({"type": "LAYOUT_RESTORE", "payload": {}}); 5];
            vec![frame("ann", "WIDGET_BATCH", &json!({"operations": operations})); 100]
        }),
        (
            "all widgets",
            (0..256)
                .map(|n| frame("ann", "WIDGET_UPDATE", &json!({"widgetId": format!("w{}", n % 31), "data": {"x": n}})))
                .collect(),
        ),
        (
            "conflicts",
            vec![frame("ann", "WIDGET_UPDATE", &json!({"widgetId": "w1", "data": {}, "baseVersion": 99})); 90],
        ),
        ("syncs", vec![frame("ann", "SYNC_REQUEST", &json!({})); 256]),
        ("many operations", {
            let set = |n| json!({"operationId": n, "type": "WIDGET_UPDATE", "payload": {"widgetId": format!("n{}", n % 500), "data": {}}});
            (0..150)
                .map(|m| {
                    let operations: Vec<Value> = (0..100).map(|n| set(m * 100 + n)).collect();
                    frame("ann", "SYNC_UPDATE", &json!({"operations": operations}))
                })
                .collect()
        }),
    ];
    for (name, flood_frames) in floods {
        let (accepted, _) = flood(&mut board, ann, &flood_frames);
        assert!(accepted > 0, "{name}: none was accepted");
        // Whatever was refused, the next batch goes on, and the store has what memory has.
        while board.timers().iter().any(|(timer, _)| timer == "sync") {
            assert!(board.advance_ms(0).faults.is_empty());
        }
        let before = snapshot(&mut board, bob, "bob");
        board.crash();
        assert!(snapshot(&mut board, bob, "bob") == before, "{name}");
    }
}

#[test]
fn what_never_fits_is_too_large_and_not_to_be_sent_again() {
    let (mut board, [ann, _]) = full_board();
    let operations = vec![json!({"type": "LAYOUT_RESTORE", "payload": {}}); 20];
    refuses(&mut board, ann, "ann", "WIDGET_BATCH", json!({"operations": operations}), "too_large");
}

#[test]
fn stats_of_a_crowd_stay_within_a_batch() {
    let (mut board, []) = board_with([]);
    for _ in 0..1_500 {
        join(&mut board, &"u".repeat(128));
    }
    let (_, stats) = request(&mut board, "GET", "/stats", "");
    assert_eq!((&stats["clientCount"], stats["clients"].as_array().unwrap().len()), (&json!(1_500), 1_000));
    let batch = (0..256)
        .map(|id| {
            hotbay_sdk::Event::Request(hotbay_sdk::HttpRequest {
                id,
                identity: Some(super::identity("web")),
                ..hotbay_sdk::HttpRequest::new("GET", "/stats")
            })
        })
        .collect();
    let outcome = board.batch(batch);
    assert!(outcome.faults.is_empty());
    let statuses: Vec<u16> = outcome.responses().iter().map(|response| response.status).collect();
    assert!(statuses.len() == 256 && statuses.contains(&200) && statuses.contains(&503));
}

#[test]
fn a_large_post_is_done_or_tells_what_was_not() {
    let (mut board, [ann]) = board_with(["ann"]);
    let set = |n| json!({"operationId": n, "type": "WIDGET_UPDATE", "payload": {"widgetId": format!("w{n}"), "data": sized(10_000)}});
    let body = json!({"type": "SYNC", "operations": (0..100).map(set).collect::<Vec<_>>()}).to_string();
    let (status, answer) = request(&mut board, "POST", "/", &body);
    assert_eq!((status, &answer["success"]), (200, &json!(true)));
    assert_eq!(snapshot(&mut board, ann, "ann")["widgets"].as_object().unwrap().len(), 100);
}

fn keys(range: std::ops::Range<usize>) -> Value {
    range.map(|n| (format!("{n}"), json!(0))).collect::<serde_json::Map<_, _>>().into()
}

#[test]
fn a_widget_has_at_most_1000_keys_also_by_merging() {
    let (mut board, [ann]) = board_with(["ann"]);
    refuses(&mut board, ann, "ann", "WIDGET_UPDATE", json!({"widgetId": "w", "data": keys(0..1_001)}), "too_large");
    ack(&mut board, ann, "ann", "WIDGET_UPDATE", json!({"widgetId": "w", "data": keys(0..1_000)}));
    for _ in 0..2 {
        refuses(&mut board, ann, "ann", "WIDGET_UPDATE", json!({"widgetId": "w", "data": {"x": 1}}), "too_large");
        ack(&mut board, ann, "ann", "WIDGET_UPDATE", json!({"widgetId": "w", "data": keys(500..1_000)}));
        board.crash();
    }
    // Keys below the first level are no keys of the widget, and of a key that comes twice the last counts.
    ack(&mut board, ann, "ann", "WIDGET_UPDATE", json!({"widgetId": "v", "data": {"deep": keys(0..5_000)}}));
    let twice = vec!["\"a\":1"; 3_000].join(",");
    let text = format!(r#"{{"type":"WIDGET_UPDATE","userId":"ann","payload":{{"widgetId":"u","data":{{{twice}}}}}}}"#);
    assert_eq!(kinds(&board.message(ann, text), ann), ["ACK"]);
}

/// What a batch may cost in time cannot be tested by time. The host gives 100 ms; measured, a thousand keys take a millisecond.
#[test]
fn the_work_of_a_batch_is_bounded_and_the_rest_is_told_to_come_again() {
    let (mut board, [ann]) = board_with(["ann"]);
    let set = |n: usize| json!({"operationId": n, "type": "WIDGET_UPDATE", "payload": {"widgetId": format!("w{n}"), "data": keys(0..1_000)}});
    let body = |range: std::ops::Range<usize>| {
        json!({"type": "SYNC", "operations": range.map(set).collect::<Vec<_>>()}).to_string()
    };
    let (status, answer) = request(&mut board, "POST", "/", &body(0..50));
    let results = answer["results"].as_array().unwrap();
    let done = results.iter().filter(|result| result["success"] == true).count();
    assert_eq!((status, &answer["success"]), (200, &json!(false)));
    assert!((10..40).contains(&done), "{done}");
    assert!(results[done..].iter().all(|result| result["code"] == "unavailable"));
    // It is done when it comes again.
    let (_, answer) = request(&mut board, "POST", "/", &body(0..50));
    assert_eq!(answer["success"], true, "{answer}");
    // All or nothing cannot be done in parts: such a batch never fits.
    board.crash();
    let set = |n: usize| json!({"type": "WIDGET_UPDATE", "payload": {"widgetId": format!("w{n}"), "data": {"0": 1}}});
    let payload = json!({"operations": (0..50).map(set).collect::<Vec<_>>()});
    let before = snapshot(&mut board, ann, "ann");
    refuses(&mut board, ann, "ann", "WIDGET_BATCH", payload, "too_large");
    assert_eq!(snapshot(&mut board, ann, "ann"), before);
}
