//! What application servers publish, and what they are told.

use hotbay_sdk::harness::Outcome;
use hotbay_sdk::{HttpRequest, Identity, MemberId, RefusalCode};
use serde_json::{Value, json};

use super::{Board, ack, board_with, frame, frames, identity, join, kinds, only, send, snapshot, with_settings};

fn publish(board: &mut Board, body: &Value) -> Outcome {
    let outcome = board.publish(body.to_string());
    assert!(outcome.faults.is_empty(), "{body}");
    outcome
}

fn join_server(board: &mut Board, user: &str) -> MemberId {
    let id = board.connect_as(Identity { role: "server".to_owned(), ..identity(user) });
    board.join_connection(id);
    id
}

#[test]
fn a_server_changes_the_dashboard_like_a_client_and_all_are_told() {
    let (mut board, [ann, bob]) = board_with(["ann", "bob"]);
    let told = |outcome: &Outcome, kind: &str, payload: &Value, user: &str| {
        for id in [ann, bob] {
            let news = only(outcome, id);
            assert_eq!((&news["type"], &news["payload"], &news["userId"]), (&json!(kind), payload, &json!(user)));
            assert_eq!(news.get("correlationId"), None);
        }
    };
    let payload = json!({"widgetId": "a", "data": {"x": 1}});
    let outcome = publish(&mut board, &json!({"type": "WIDGET_UPDATE", "payload": payload}));
    told(&outcome, "WIDGET_UPDATE", &payload, "server");
    let payload = json!({"operations": [{"type": "WIDGET_UPDATE", "payload": {"widgetId": "b", "data": {}}}]});
    let outcome = publish(&mut board, &json!({"type": "WIDGET_BATCH", "data": payload, "userId": "bot"}));
    told(&outcome, "WIDGET_BATCH", &payload, "bot");
    publish(&mut board, &json!({"type": "LAYOUT_UPDATE", "payload": {"layout": [1]}}));
    publish(&mut board, &json!({"type": "LAYOUT_UPDATE", "payload": {"layout": [2], "baseVersion": 1}}));
    let outcome = publish(&mut board, &json!({"type": "LAYOUT_RESTORE"}));
    told(&outcome, "LAYOUT_UPDATE", &json!({"layout": [1]}), "server");
    let outcome = publish(&mut board, &json!({"type": "WIDGET_DELETE", "payload": {"widgetId": "b"}}));
    told(&outcome, "WIDGET_DELETE", &json!({"widgetId": "b"}), "server");
    board.crash();
    let all = snapshot(&mut board, ann, "ann");
    assert_eq!(all["widgets"], json!({"a": {"version": 1, "data": {"x": 1}}}));
    assert_eq!((&all["layout"], &all["version"]), (&json!([1]), &json!(6)));
}

#[test]
fn every_other_type_is_passed_on_to_all_or_to_one_user() {
    let (mut board, [ann, bob]) = board_with(["ann", "bob"]);
    let second = join(&mut board, "ann");
    let kv = board.kv();
    for kind in ["NOTICE", "SYNC_UPDATE", "WIDGET_HIGHLIGHT", "widget:seen", "PING", &"x".repeat(64), "\"q\""] {
        for payload in [json!({"a": [1]}), json!("text"), json!([1, null]), json!(-1.5)] {
            let outcome = publish(&mut board, &json!({"type": kind, "payload": payload, "userId": "bot"}));
            let news = only(&outcome, bob);
            assert_eq!((&news["type"], &news["payload"], &news["userId"]), (&json!(kind), &payload, &json!("bot")));
            assert_eq!(outcome.received.len(), 3);
        }
    }
    let outcome = publish(&mut board, &json!({"type": "NOTICE", "toUser": "ann"}));
    assert_eq!(only(&outcome, ann)["payload"], json!({}));
    assert_eq!((kinds(&outcome, second).len(), frames(&outcome, bob).len()), (1, 0));
    let outcome = board.publish(r#"{"type":"N","payload":{"n":-0,"m":1e999}}"#);
    assert!(outcome.texts(ann)[0].ends_with(r#""payload":{"n":-0,"m":1e999}}"#));
    assert!(board.kv() == kv);
}

#[test]
fn wrong_publications_are_rejected() {
    let (mut board, [ann]) = board_with(["ann"]);
    ack(&mut board, ann, "ann", "WIDGET_UPDATE", json!({"widgetId": "a", "data": {}}));
    let long = format!(r#"{{"type":"{}"}}"#, "x".repeat(65));
    let long_user = format!(r#"{{"type":"N","userId":"{}"}}"#, "x".repeat(129));
    let deep = format!(r#"{{"type":"N","payload":{}{}}}"#, "[".repeat(100), "]".repeat(100));
    let cases = [
        ("", RefusalCode::BadRequest),
        ("[]", RefusalCode::BadRequest),
        ("{}", RefusalCode::BadRequest),
        (r#"{"type":""}"#, RefusalCode::BadRequest),
        (r#"{"type":1}"#, RefusalCode::BadRequest),
        (&long, RefusalCode::BadRequest),
        (&long_user, RefusalCode::BadRequest),
        (&deep, RefusalCode::BadRequest),
        (r#"{"type":"N","userId":""}"#, RefusalCode::BadRequest),
        (r#"{"type":"N","toUser":""}"#, RefusalCode::BadRequest),
        (r#"{"type":"N","toUser":1}"#, RefusalCode::BadRequest),
        (r#"{"type":"N","payload":NaN}"#, RefusalCode::BadRequest),
        (r#"{"type":"WIDGET_UPDATE"}"#, RefusalCode::BadRequest),
        (r#"{"type":"WIDGET_UPDATE","payload":{"widgetId":"a","data":{}},"toUser":"ann"}"#, RefusalCode::BadRequest),
        (r#"{"type":"WIDGET_UPDATE","payload":{"widgetId":"a","data":{},"baseVersion":0}}"#, RefusalCode::Conflict),
        (r#"{"type":"WIDGET_DELETE","payload":{"widgetId":"b"}}"#, RefusalCode::NotFound),
        (r#"{"type":"LAYOUT_RESTORE"}"#, RefusalCode::NotFound),
    ];
    let before = (board.kv(), board.log());
    for (body, code) in cases {
        let outcome = board.publish(body);
        assert!(outcome.faults.is_empty() && outcome.received.is_empty(), "{body:.100}");
        assert_eq!(outcome.refusals[0].code, code, "{body:.100}");
    }
    assert!(board.publish(vec![1_u8]).refusals[0].code == RefusalCode::BadRequest);
    assert!((board.kv(), board.log()) == before);
}

#[test]
fn servers_on_the_dashboard_hear_what_clients_do() {
    let (mut board, [ann]) = with_settings(r#"{"serverEvents":true}"#, ["ann"]);
    let server = join_server(&mut board, "app");
    let other = join_server(&mut board, "app2");
    let payload = json!({"widgetId": "a", "data": {"x": 1}});
    let text = frame("ann", "WIDGET_UPDATE", &payload);
    let outcome = board.message(ann, &*text);
    assert_eq!(kinds(&outcome, ann), ["ACK"]);
    for id in [server, other] {
        assert_eq!(kinds(&outcome, id), ["WIDGET_UPDATE", "widget:updated"]);
        let event = &frames(&outcome, id)[1];
        let message: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(event["payload"], json!({"clientId": format!("client-{ann}"), "message": message}));
        assert_eq!(event["userId"], "ann");
    }
    let outcome = send(&mut board, ann, "ann", "SYNC_REQUEST", json!({}));
    assert_eq!(only(&outcome, server)["type"], "sync:requested");
    assert_eq!(only(&outcome, server)["payload"], json!({"clientId": format!("client-{ann}")}));
    // What did not happen is no event; nor does a server hear of itself.
    send(&mut board, ann, "ann", "WIDGET_DELETE", json!({"widgetId": "none"}));
    let outcome = send(&mut board, ann, "ann", "WIDGET_UPDATE", json!({"widgetId": "a", "data": {}, "baseVersion": 0}));
    assert_eq!(outcome.received.len(), 1);
    let outcome = send(&mut board, server, "app", "WIDGET_DELETE", json!({"widgetId": "a"}));
    assert_eq!(kinds(&outcome, server), ["ACK"]);
    assert_eq!(kinds(&outcome, other), ["WIDGET_DELETE", "widget:updated"]);
    assert_eq!(kinds(&outcome, ann), ["WIDGET_DELETE"]);
    // The role is known again after a crash, and forgotten with the connection.
    board.crash();
    board.disconnect(other);
    let outcome = send(
        &mut board,
        ann,
        "ann",
        "WIDGET_BATCH",
        json!({"operations": [{"type": "WIDGET_UPDATE", "payload": payload}]}),
    );
    assert_eq!(kinds(&outcome, server), ["WIDGET_BATCH", "widget:updated"]);
}

#[test]
fn servers_hear_of_a_changed_widget_whichever_way_it_was_changed() {
    let (mut board, [ann, bob]) = with_settings(r#"{"serverEvents":true}"#, ["ann", "bob"]);
    let server = join_server(&mut board, "app");
    let told = |outcome: &Outcome, kinds_before: &[&str], client: &Value, message: &str| {
        let kinds = kinds(outcome, server);
        assert_eq!(kinds, [kinds_before, &["widget:updated"]].concat());
        let event = frames(outcome, server).pop().unwrap();
        let message: Value = serde_json::from_str(message).unwrap();
        assert_eq!(event["payload"], json!({"clientId": client, "message": message}));
        assert!(frames(outcome, bob).iter().all(|frame| frame["type"] != "widget:updated"));
    };
    let update =
        |id: &str| json!({"operationId": id, "type": "WIDGET_UPDATE", "payload": {"widgetId": "a", "data": {"x": 1}}});
    let client = json!(format!("client-{ann}"));

    let sync = frame("ann", "SYNC_UPDATE", &json!({"operations": [update("1"), update("2")]}));
    told(&board.message(ann, &*sync), &["WIDGET_UPDATE", "WIDGET_UPDATE"], &client, &sync);
    // Repeated, refused, or of the layout: no widget was changed.
    assert_eq!(kinds(&board.message(ann, &*sync), server), [""; 0]);
    let layout = json!({"operationId": "3", "type": "LAYOUT_UPDATE", "payload": {"layout": []}});
    let none = json!({"operationId": "4", "type": "WIDGET_DELETE", "payload": {"widgetId": "none"}});
    let outcome = send(&mut board, ann, "ann", "SYNC_UPDATE", json!({"operations": [layout, none]}));
    assert_eq!(kinds(&outcome, server), ["LAYOUT_UPDATE"]);
    let layout = json!({"type": "LAYOUT_UPDATE", "payload": {"layout": [1]}});
    let outcome = send(&mut board, ann, "ann", "WIDGET_BATCH", json!({"operations": [layout, layout]}));
    assert_eq!(kinds(&outcome, server), ["WIDGET_BATCH"]);
    let both = frame("ann", "WIDGET_BATCH", &json!({"operations": [layout, update("6")]}));
    told(&board.message(ann, &*both), &["WIDGET_BATCH"], &client, &both);

    let post = |board: &mut Board, body: &str| {
        board.request_with(HttpRequest {
            body: body.as_bytes().to_vec(),
            identity: Some(identity("ann")),
            ..HttpRequest::new("POST", "/")
        })
    };
    let body = json!({"type": "SYNC", "operations": [update("5")]}).to_string();
    told(&post(&mut board, &body), &["WIDGET_UPDATE"], &Value::Null, &body);
    assert_eq!(kinds(&post(&mut board, &body), server), [""; 0]);

    for (resolution, changes) in [("client", true), ("server", false)] {
        let outdated = json!({"widgetId": "a", "data": {"x": 2}, "baseVersion": 1});
        let outcome = send(&mut board, ann, "ann", "WIDGET_UPDATE", outdated);
        assert_eq!(kinds(&outcome, server), [""; 0]);
        let id = only(&outcome, ann)["payload"]["conflictId"].clone();
        let decision = frame("ann", "CONFLICT_RESOLVED", &json!({"conflictId": id, "resolution": resolution}));
        let outcome = board.message(ann, &*decision);
        if changes {
            told(&outcome, &["WIDGET_UPDATE"], &client, &decision);
        } else {
            assert_eq!(kinds(&outcome, server), [""; 0]);
        }
    }
}

#[test]
fn a_servers_payload_may_be_called_data_and_both_is_no_mistake() {
    let (mut board, [ann]) = board_with(["ann"]);
    for (body, payload) in [
        (json!({"type": "N", "data": 1}), json!(1)),
        (json!({"type": "N", "payload": 2, "data": 1}), json!(2)),
        (json!({"type": "N", "payload": null, "data": 1}), json!(1)),
    ] {
        assert_eq!(only(&publish(&mut board, &body), ann)["payload"], payload, "{body}");
    }
}

#[test]
fn without_the_setting_servers_are_clients_like_others() {
    let (mut board, [ann]) = board_with(["ann"]);
    let server = join_server(&mut board, "app");
    let outcome = send(&mut board, ann, "ann", "WIDGET_UPDATE", json!({"widgetId": "a", "data": {}}));
    assert_eq!(kinds(&outcome, server), ["WIDGET_UPDATE"]);
    let outcome = send(&mut board, ann, "ann", "SYNC_REQUEST", json!({}));
    assert!(frames(&outcome, server).is_empty());
}

#[test]
fn a_server_needs_access_to_the_dashboard_as_well() {
    let mut board = Board::with_settings("dashboard:d", r#"{"serverEvents":true}"#);
    let id = board.connect_as(Identity { role: "server".to_owned(), ..Identity::of("app") });
    let outcome = board.join_connection(id);
    assert_eq!(outcome.closed, [(id, 1008, "Access denied".to_owned())]);
}
