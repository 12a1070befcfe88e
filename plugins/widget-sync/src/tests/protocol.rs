//! Envelopes, who may come in, and how refusals are told.

use hotbay_sdk::harness::Effect;
use hotbay_sdk::{Identity, Payload, Plugin, Refusal, RefusalCode, Sender};
use serde_json::{Value, json};

use super::{Board, ack, board_with, frame, frames, identity, join, kinds, only, refuses, refuses_text, send};
use crate::WidgetSync;

#[test]
fn a_client_is_welcomed_with_its_id_and_the_version() {
    let (mut board, [ann]) = board_with(["ann"]);
    ack(&mut board, ann, "ann", "WIDGET_UPDATE", json!({"widgetId": "w", "data": {"a": 1}}));
    board.crash();
    let bob = board.connect_as(identity("bob"));
    let outcome = board.join_connection(bob);
    let connect = only(&outcome, bob);
    let id = connect["id"].as_str().unwrap();
    assert!(id.strip_prefix("msg-").unwrap().bytes().all(|byte| byte.is_ascii_digit()), "{id}");
    let expected = json!({"type": "CONNECT", "id": id, "timestamp": "2023-11-14T22:13:20.000Z", "userId": "bob",
        "payload": {"clientId": format!("client-{bob}"), "version": 1}});
    assert_eq!(connect, expected);
    assert!(frames(&outcome, ann).is_empty());
}

#[test]
fn a_dashboard_is_open_to_its_user_and_to_those_with_its_id_in_their_claim() {
    let cases = [
        ("ann", "{}", "dashboard:ann", true),
        ("ann", "{}", "dashboard:bob", false),
        ("ann", r#"{"dashboards":["bob"]}"#, "dashboard:bob", true),
        ("ann", r#"{"dashboards":["bo","bobb","*"]}"#, "dashboard:bob", false),
        ("ann", r#"{"dashboards":"bob"}"#, "dashboard:bob", false),
        ("ann", r#"{"dashboards":{"bob":1}}"#, "dashboard:bob", false),
        ("ann", r#"{"dashboards":[7,-8]}"#, "dashboard:7", true),
        ("ann", r#"{"dashboards":[7.0,[7],null,true]}"#, "dashboard:7", false),
        ("ann", r#"{"dashboards":[18446744073709551615]}"#, "dashboard:18446744073709551615", true),
        ("ann", "not json", "dashboard:bob", false),
        ("ann", "{}", "room:ann", false),
        ("ann", r#"{"dashboards":[""]}"#, "dashboard:", false),
    ];
    for (user, claims, channel, allowed) in cases {
        let mut board = Board::new(channel);
        let id = board.connect_as(Identity { claims: claims.to_owned(), ..Identity::of(user) });
        let outcome = board.join_connection(id);
        if allowed {
            assert_eq!(kinds(&outcome, id), ["CONNECT"], "{claims} {channel}");
            assert!(outcome.closed.is_empty());
        } else {
            let frame = only(&outcome, id);
            assert_eq!(
                (&frame["type"], &frame["payload"]),
                (&json!("DISCONNECT"), &json!({"reason": "Access denied"}))
            );
            assert_eq!(outcome.closed, [(id, 1008, "Access denied".to_owned())], "{claims} {channel}");
            assert_eq!(outcome.refusals[0].code, RefusalCode::Forbidden);
            assert!(board.timers().is_empty() && board.kv().is_empty());
        }
    }
}

#[test]
fn whoever_is_refused_is_never_counted_nor_told_anything() {
    let (mut board, [ann]) = board_with(["ann"]);
    let eve = board.connect("eve");
    // In one batch with a change, before and after it.
    let batch = vec![
        board.joined(eve, None),
        board.sent(ann, frame("ann", "WIDGET_UPDATE", &json!({"widgetId": "w", "data": {}}))),
    ];
    let outcome = board.batch(batch);
    assert_eq!(outcome.closed, [(eve, 1008, "Access denied".to_owned())]);
    let (_, stats) = super::request(&mut board, "GET", "/stats", "");
    assert_eq!(stats["clientCount"], 1);
}

#[test]
fn an_answer_has_a_new_id_the_servers_time_the_same_user_and_the_correlation() {
    let (mut board, [ann, bob]) = board_with(["ann", "bob"]);
    board.advance_ms(1_234);
    let payload = json!({"widgetId": "w", "data": {"title": "t", "value": 1}});
    let outcome = send(&mut board, ann, "ann", "WIDGET_UPDATE", payload.clone());
    let (answer, news) = (only(&outcome, ann), only(&outcome, bob));
    let timestamp = "2023-11-14T22:13:21.234Z";
    let expected = json!({"type": "ACK", "id": answer["id"], "timestamp": timestamp, "userId": "ann",
        "correlationId": "c-1", "payload": {"received": true, "version": 1}});
    assert_eq!(answer, expected);
    let expected =
        json!({"type": "WIDGET_UPDATE", "id": news["id"], "timestamp": timestamp, "userId": "ann", "payload": payload});
    assert_eq!(news, expected);
    assert_ne!(answer["id"], news["id"]);
}

#[test]
fn correlation_ids_come_back_as_they_came() {
    let (mut board, [ann]) = board_with(["ann"]);
    for id in ["1", "-7", "18446744073709551615", r#""x""#, r#""\u00e9 \"q\" \ud800""#, "0"] {
        let outcome = board.message(ann, format!(r#"{{"type":"PING","userId":"ann","id":{id}}}"#));
        assert!(outcome.texts(ann)[0].ends_with(&format!(r#","correlationId":{id}}}"#)), "{id}");
    }
    for text in [r#"{"type":"PING","userId":"ann"}"#, r#"{"type":"PING","userId":"ann","id":null}"#] {
        let outcome = board.message(ann, text);
        assert_eq!(only(&outcome, ann).get("correlationId"), None);
    }
}

#[test]
fn message_ids_ascend_over_sleep_crash_and_batches() {
    let (mut board, [ann, bob]) = board_with(["ann", "bob"]);
    let mut last = 0;
    for turn in 0..200 {
        match turn % 10 {
            3 => board.sleep(),
            7 => {
                // The time goes on between what was sent and the instance after the crash.
                board.advance_ms(1);
                board.crash();
            }
            _ => {}
        }
        let ping = frame("ann", "WIDGET_UPDATE", &json!({"widgetId": "w", "data": {}}));
        let batch = vec![board.sent(ann, &*ping), board.sent(ann, ping)];
        let outcome = board.batch(batch);
        for (to, what) in &outcome.received {
            assert!(*to == ann || *to == bob);
            let frame: Value = serde_json::from_str(what.text().unwrap()).unwrap();
            let id: u64 = frame["id"].as_str().unwrap()[4..].parse().unwrap();
            assert!(id > last, "turn {turn}: {id} after {last}");
            last = id;
        }
    }
}

#[test]
fn a_frame_needs_a_type_and_its_senders_id() {
    let (mut board, [ann]) = board_with(["ann"]);
    let long = format!(r#"{{"type":"PING","userId":"ann","id":"{}"}}"#, "x".repeat(129));
    let deep = format!(r#"{{"type":"PING","userId":"ann","payload":{}{}}}"#, "[".repeat(100), "]".repeat(100));
    let very_deep = format!(r#"{{"type":"PING","userId":"ann","x":{}{}}}"#, "[".repeat(30_000), "]".repeat(30_000));
    let cases = [
        ("", "bad_request"),
        ("null", "bad_request"),
        ("[]", "bad_request"),
        (r#"["PING",null,"ann"]"#, "bad_request"),
        ("{}", "bad_request"),
        (r#"{"userId":"ann"}"#, "bad_request"),
        (r#"{"type":"PING"}"#, "bad_request"),
        (r#"{"type":"PING","userId":null}"#, "bad_request"),
        (r#"{"type":null,"userId":"ann"}"#, "bad_request"),
        (r#"{"type":1,"userId":"ann"}"#, "bad_request"),
        (r#"{"type":"PING","type":"PING","userId":"ann"}"#, "bad_request"),
        (r#"{"type":"PING","userId":"ann","payload":NaN}"#, "bad_request"),
        (r#"{"type":"PING","userId":"ann"} {}"#, "bad_request"),
        (r#"{"type":"PING","userId":"ann""#, "bad_request"),
        (r#"{"type":"PING","userId":"ann","id":{}}"#, "bad_request"),
        (r#"{"type":"PING","userId":"ann","id":1.5}"#, "bad_request"),
        (r#"{"type":"PING","userId":"ann","id":""}"#, "bad_request"),
        (&long, "bad_request"),
        (&deep, "bad_request"),
        (&very_deep, "bad_request"),
        (r#"{"type":"PING","userId":"bob"}"#, "forbidden"),
        (r#"{"type":"PING","userId":""}"#, "forbidden"),
        (r#"{"type":"PING","userId":["ann"]}"#, "forbidden"),
        (r#"{"type":"PING","userId":7}"#, "forbidden"),
        (r#"{"type":"PING","userId":"ann\u0000"}"#, "forbidden"),
        (r#"{"type":"ping","userId":"ann"}"#, "bad_request"),
        (r#"{"type":"","userId":"ann"}"#, "bad_request"),
        (r#"{"type":"CONNECT","userId":"ann"}"#, "bad_request"),
        (r#"{"type":"SYNC_RESPONSE","userId":"ann"}"#, "bad_request"),
        (r#"{"type":"CONFLICT_DETECTED","userId":"ann"}"#, "bad_request"),
    ];
    for (text, code) in cases {
        refuses_text(&mut board, ann, text, code);
    }
    let outcome = board.message(ann, Payload::Binary(br#"{"type":"PING","userId":"ann"}"#.to_vec()));
    assert_eq!(only(&outcome, ann)["payload"]["code"], "bad_request");
    // The id of a refused frame comes back wherever it can be read.
    let outcome = board.message(ann, r#"{"type":"NO","userId":"ann","id":"q"}"#);
    assert_eq!(only(&outcome, ann)["correlationId"], "q");
}

#[test]
fn a_users_id_may_be_escaped_or_a_number() {
    let mut board = Board::new("dashboard:7");
    let seven = board.join("7");
    for id in ["7", r#""7""#, r#""\u0037""#] {
        let outcome = board.message(seven, format!(r#"{{"type":"PING","userId":{id}}}"#));
        assert_eq!(kinds(&outcome, seven), ["PONG"], "{id}");
    }
    for id in ["7.0", "07", "-7", "70", r#""07""#] {
        let outcome = board.message(seven, format!(r#"{{"type":"PING","userId":{id}}}"#));
        assert_eq!(kinds(&outcome, seven), ["NACK"], "{id}");
    }
}

#[test]
fn answers_of_a_client_are_taken_in_silence() {
    let (mut board, [ann, _]) = board_with(["ann", "bob"]);
    for kind in ["PONG", "ACK", "NACK", "DISCONNECT"] {
        let outcome = send(&mut board, ann, "ann", kind, json!({}));
        assert!(outcome.effects.is_empty() && outcome.refusals.is_empty(), "{kind}");
    }
}

#[test]
fn a_clients_ping_is_answered_to_it_alone() {
    let (mut board, [ann, _]) = board_with(["ann", "bob"]);
    let outcome = send(&mut board, ann, "ann", "PING", json!({}));
    let pong = only(&outcome, ann);
    assert_eq!((&pong["type"], &pong["payload"], &pong["correlationId"]), (&json!("PONG"), &json!({}), &json!("c-1")));
    assert_eq!(outcome.received.len(), 1);
}

#[test]
fn every_code_of_the_host_has_a_name_in_this_protocol() {
    let to = Sender { now_ms: 1_700_000_000_000, identity: Identity::of("a\"nn") };
    let told = |frame: Option<&Payload>, code| {
        let payload = WidgetSync::refused(&to, frame, &Refusal::new(code, "so \"it\" is")).unwrap();
        serde_json::from_str::<Value>(payload.text().unwrap()).unwrap()
    };
    let frame = Payload::from(r#"{"id":"q","type":5}"#);
    let cases = [
        (RefusalCode::BadRequest, "bad_request"),
        (RefusalCode::Forbidden, "forbidden"),
        (RefusalCode::NotFound, "not_found"),
        (RefusalCode::NotJoined, "not_subscribed"),
        (RefusalCode::TooLarge, "too_large"),
        (RefusalCode::RateLimited, "rate_limited"),
        (RefusalCode::Conflict, "conflict"),
        (RefusalCode::Unavailable, "unavailable"),
        (RefusalCode::Lost, "unavailable"),
        (RefusalCode::Fault, "internal"),
    ];
    for (code, name) in cases {
        let nack = told(Some(&frame), code);
        let payload = json!({"code": name, "message": "so \"it\" is"});
        let expected = json!({"type": "NACK", "id": nack["id"], "timestamp": "2023-11-14T22:13:20.000Z",
            "userId": "a\"nn", "payload": payload, "correlationId": "q"});
        assert_eq!(nack, expected);
    }
    for frame in [Payload::from("{"), Payload::Binary(vec![0xFF])] {
        assert_eq!(told(Some(&frame), RefusalCode::TooLarge).get("correlationId"), None);
    }
    let last = told(None, RefusalCode::Closing);
    assert_eq!((&last["type"], &last["payload"]), (&json!("DISCONNECT"), &json!({"reason": "so \"it\" is"})));
    // Different refusals at the same time have different ids, and the same one the same.
    let ids = [RefusalCode::Lost, RefusalCode::Lost].map(|code| told(None, code)["id"].clone());
    assert_eq!(ids[0], ids[1]);
    assert_ne!(ids[0], told(Some(&frame), RefusalCode::Lost)["id"]);
}

#[test]
fn what_changes_the_dashboard_is_never_dropped_silently() {
    let (mut board, [ann, _]) = board_with(["ann", "bob"]);
    let outcome = send(&mut board, ann, "ann", "WIDGET_UPDATE", json!({"widgetId": "w", "data": {}}));
    let mut frames = 0;
    for effect in &outcome.effects {
        if let Effect::Frame { how, .. } = effect {
            assert_eq!((how.priority, how.conflate.clone()), (hotbay_sdk::Priority::High, None));
            frames += 1;
        }
    }
    assert_eq!(frames, 2);
}

#[test]
fn nobody_else_there_means_no_frame_for_others() {
    let (mut board, [ann]) = board_with(["ann"]);
    let outcome = send(&mut board, ann, "ann", "WIDGET_UPDATE", json!({"widgetId": "w", "data": {}}));
    assert_eq!(outcome.effects.len(), 1);
    let second = join(&mut board, "ann");
    // Another tab of the same user is another client.
    let outcome = send(&mut board, ann, "ann", "WIDGET_UPDATE", json!({"widgetId": "w", "data": {}}));
    assert_eq!(kinds(&outcome, second), ["WIDGET_UPDATE"]);
}

#[test]
fn wrong_settings_keep_the_channel_from_starting_and_name_the_key() {
    let cases = [
        (r#"{"enableConflictDetection":1}"#, "enableConflictDetection"),
        (r#"{"maxPendingOperations":0}"#, "maxPendingOperations"),
        (r#"{"maxPendingOperations":"100"}"#, "maxPendingOperations"),
        (r#"{"operationTimeoutMs":-1}"#, "operationTimeoutMs"),
        (r#"{"heartbeatIntervalMs":1.5}"#, "heartbeatIntervalMs"),
        (r#"{"heartbeatMisses":null}"#, "heartbeatMisses"),
        (r#"{"layoutVersionsMax":101}"#, "layoutVersionsMax"),
        (r#"{"operationsKeptMax":[]}"#, "operationsKeptMax"),
        (r#"{"operationsKeptMax":999}"#, "operationsKeptMax"),
        (r#"{"operationsKeptMax":19,"maxQueueSize":10}"#, "operationsKeptMax"),
        (r#"{"dashboardBytesMax":99999999}"#, "dashboardBytesMax"),
        (r#"{"serverEvents":"yes"}"#, "serverEvents"),
        (r#"{"wsUrl":""}"#, "wsUrl"),
    ];
    for (settings, key) in cases {
        let why = crate::settings::Settings::read(settings).unwrap_err();
        assert!(why.starts_with(&format!("settings.{key} must be ")), "{why}");
    }
    assert!(crate::settings::Settings::read("[]").is_err());
    assert!(crate::settings::Settings::read(r#"{"operationsKeptMax":20,"maxQueueSize":10}"#).is_ok());
    let read = crate::settings::Settings::read(r#"{"unknown":{"a":1}}"#).unwrap();
    assert_eq!(read, crate::settings::Settings::read("{}").unwrap());
}

#[test]
fn a_refused_message_changes_nothing_though_its_client_is_alive() {
    let (mut board, [ann, _]) = board_with(["ann", "bob"]);
    let words = refuses(&mut board, ann, "ann", "WIDGET_UPDATE", json!({"widgetId": 5, "data": {}}), "bad_request");
    assert!(words.contains("widgetId"), "{words}");
    let (_, stats) = super::request(&mut board, "GET", "/stats", "");
    assert_eq!(stats["clients"][0]["messageCount"], 1);
}
