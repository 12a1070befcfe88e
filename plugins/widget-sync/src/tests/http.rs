//! The same over HTTP.

use hotbay_sdk::{HttpRequest, Identity, Link, LinkState, Snapshot};
use serde_json::{Value, json};

use super::{Board, ack, board_with, frames, identity, join, kinds, request, snapshot, with_settings};

fn ready(board: &mut Board, headers: &[(&str, &str)]) -> Value {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let identity = Identity { endpoint: "/api/realtime".to_owned(), ..identity("web") };
    let request = HttpRequest { headers, identity: Some(identity), ..HttpRequest::new("GET", "/") };
    let outcome = board.request_with(request);
    serde_json::from_slice(&outcome.responses()[0].body).unwrap()
}

#[test]
fn ready_says_where_the_socket_is() {
    let (mut board, []) = board_with([]);
    board.advance_ms(7);
    let expected = json!({"status": "ready", "wsUrl": "ws://app.example.com:3000/api/realtime", "userId": "web",
        "timestamp": "2023-11-14T22:13:20.007Z"});
    assert_eq!(ready(&mut board, &[("host", "app.example.com:3000")]), expected);
    for (headers, url) in [
        (&[("host", "a.b"), ("x-forwarded-proto", "https")][..], "wss://a.b/api/realtime"),
        (&[("host", "[::1]:80"), ("x-forwarded-proto", "HTTPS, http")], "wss://[::1]:80/api/realtime"),
        (&[("host", "a.b"), ("x-forwarded-proto", "http")], "ws://a.b/api/realtime"),
        (&[("host", "evil\"/x?@")], "ws://localhost:3000/api/realtime"),
        (&[("host", "")], "ws://localhost:3000/api/realtime"),
        (&[], "ws://localhost:3000/api/realtime"),
    ] {
        assert_eq!(ready(&mut board, headers)["wsUrl"], url);
    }
    let (mut board, []) = with_settings(r#"{"wsUrl":"wss://ws.example.com/rt"}"#, []);
    assert_eq!(ready(&mut board, &[("host", "a.b")])["wsUrl"], "wss://ws.example.com/rt");
}

#[test]
fn posted_operations_are_done_and_reach_all_sockets() {
    let (mut board, [ann, web]) = board_with(["ann", "web"]);
    let body = json!({"type": "SYNC", "operations": [
        {"operationId": "o1", "type": "WIDGET_UPDATE", "payload": {"widgetId": "a", "data": {"x": 1}}},
        {"operationId": "o2", "type": "LAYOUT_UPDATE", "payload": {"layout": ["a"]}},
        {"operationId": "o3", "type": "WIDGET_DELETE", "payload": {"widgetId": "none"}},
        {"operationId": "o4", "type": "WIDGET_UPDATE", "payload": {"widgetId": "a", "data": {}, "baseVersion": 7}},
    ]})
    .to_string();
    let post = |board: &mut Board| {
        let request = HttpRequest {
            body: body.as_bytes().to_vec(),
            identity: Some(identity("web")),
            ..HttpRequest::new("POST", "/")
        };
        board.request_with(request)
    };
    let outcome = post(&mut board);
    let response = outcome.responses()[0];
    assert_eq!(response.headers, [("content-type".to_owned(), "application/json".to_owned())]);
    let first: Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!((response.status, &first["success"]), (200, &json!(false)));
    assert_eq!(first["timestamp"], "2023-11-14T22:13:20.000Z");
    let results = first["results"].as_array().unwrap();
    assert_eq!(results[0], json!({"operationId": "o1", "success": true, "version": 1}));
    assert_eq!(results[1], json!({"operationId": "o2", "success": true, "version": 1}));
    let failed =
        json!({"operationId": "o3", "success": false, "error": "there is no such widget", "code": "not_found"});
    assert_eq!(results[2], failed);
    assert_eq!((&results[3]["code"], &results[3]["version"]), (&json!("conflict"), &json!(1)));
    for id in [ann, web] {
        assert_eq!(kinds(&outcome, id), ["WIDGET_UPDATE", "LAYOUT_UPDATE"]);
        assert!(frames(&outcome, id).iter().all(|frame| frame["userId"] == "web"));
    }
    // Again, also after a crash: the same results, and nobody is told.
    for crash in [false, true] {
        if crash {
            board.crash();
        }
        let outcome = post(&mut board);
        let again: Value = serde_json::from_slice(&outcome.responses()[0].body).unwrap();
        assert_eq!(again["results"], first["results"]);
        assert!(outcome.received.is_empty());
    }
    assert_eq!(snapshot(&mut board, ann, "ann")["version"], 2);
    let (status, body) = request(&mut board, "POST", "/", r#"{"type":"SYNC","operations":[]}"#);
    assert_eq!((status, &body["success"], &body["results"]), (200, &json!(true), &json!([])));
}

#[test]
fn a_whole_queue_of_a_client_is_posted_at_once() {
    let (mut board, [ann]) = board_with(["ann"]);
    let operations: Vec<Value> = (0..500)
        .map(|n| json!({"operationId": n, "type": "WIDGET_UPDATE", "payload": {"widgetId": format!("w{n}"), "data": {"n": n}}}))
        .collect();
    let body = json!({"type": "SYNC", "operations": operations}).to_string();
    for _ in 0..2 {
        let (status, answer) = request(&mut board, "POST", "/", &body);
        assert_eq!((status, &answer["success"]), (200, &json!(true)));
        assert_eq!(answer["results"].as_array().unwrap().len(), 500);
        assert_eq!(snapshot(&mut board, ann, "ann")["version"], 500);
        board.crash();
    }
}

#[test]
fn bad_bodies_are_refused_and_change_nothing() {
    let (mut board, [ann]) = board_with(["ann"]);
    ack(&mut board, ann, "ann", "WIDGET_UPDATE", json!({"widgetId": "a", "data": {}}));
    let before = (board.kv(), board.log());
    let op = r#"{"operationId":"o","type":"WIDGET_UPDATE","payload":{"widgetId":"a","data":{"x":1}}}"#;
    let many = format!(r#"{{"type":"SYNC","operations":[{}]}}"#, vec![op; 501].join(","));
    let deep = format!(r#"{{"type":"SYNC","operations":[{op}],"x":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    let cases = [
        "",
        "null",
        "[]",
        "{}",
        r#"{"type":"SYNC"}"#,
        r#"{"operations":[]}"#,
        r#"{"type":"SYNC","operations":{}}"#,
        r#"{"type":"SYNC","operations":[1]}"#,
        r#"{"type":"SYNC","operations":[{"type":"WIDGET_UPDATE"}]}"#,
        r#"{"type":"SYNC","operations":[{"operationId":"o"}]}"#,
        r#"{"type":"SYNC","operations":[{"operationId":null,"type":"WIDGET_UPDATE"}]}"#,
        r#"{"type":"SYNC","operations":[{"operationId":"o","type":"X","payload":NaN}]}"#,
        &format!(r#"{{"type":"sync","operations":[{op}]}}"#),
        &format!(r#"{{"type":"SYNC","operations":[{op}]"#),
        &format!(r#"{{"type":"SYNC","operations":[{op}]}}x"#),
        &deep,
        &many,
    ];
    for body in cases {
        let (status, answer) = request(&mut board, "POST", "/", body);
        assert_eq!((status, &answer["success"]), (400, &json!(false)), "{body:.100}");
        assert!(answer["error"].is_string());
    }
    let (_, answer) = request(&mut board, "POST", "/", &many);
    assert_eq!(answer["error"], "too_many_pending: a message has at most 500");
    let not_utf8 = HttpRequest { body: vec![0xFF], identity: Some(identity("web")), ..HttpRequest::new("POST", "/") };
    assert_eq!(board.request_with(not_utf8).responses()[0].status, 400);
    assert!((board.kv(), board.log()) == before);
}

#[test]
fn stats_are_of_this_dashboard() {
    let (mut board, [ann, bob]) = board_with(["ann", "bob"]);
    board.advance_ms(1_500);
    let second = join(&mut board, "ann");
    board.message(bob, "x");
    let cluster = Link { publisher: LinkState::Disabled, subscriber: LinkState::Disabled, subscribed: 0 };
    board.set_stats(Snapshot { uptime_ms: 61_999, connections: 500, users: 400, channels: 9, cluster });
    let client = |id: u64, user: &str, at: &str, count: u64| json!({"id": format!("client-{id}"), "userId": user, "connectedAt": at, "messageCount": count, "isAlive": true});
    let (status, stats) = request(&mut board, "GET", "/stats", "");
    let expected = json!({"clientCount": 3, "clients": [
        client(ann, "ann", "2023-11-14T22:13:20.000Z", 0), client(bob, "bob", "2023-11-14T22:13:20.000Z", 1),
        client(second, "ann", "2023-11-14T22:13:21.500Z", 0),
    ], "uptime": 61, "timestamp": "2023-11-14T22:13:21.500Z"});
    assert_eq!((status, stats), (200, expected));
    board.sleep();
    board.disconnect(ann);
    let (_, stats) = request(&mut board, "GET", "/stats/", "");
    assert_eq!((&stats["clientCount"], &stats["clients"][0]["messageCount"]), (&json!(2), &json!(1)));
    board.crash();
    let (_, stats) = request(&mut board, "GET", "/stats", "");
    assert_eq!((&stats["clientCount"], &stats["clients"][0]["messageCount"]), (&json!(2), &json!(0)));
}

#[test]
fn whoever_may_not_see_the_dashboard_gets_403_everywhere() {
    let (mut board, [_]) = board_with(["ann"]);
    for (method, path) in [("GET", "/"), ("POST", "/"), ("GET", "/stats"), ("GET", "/other")] {
        for (who, status) in [(Some(Identity::of("eve")), 403), (None, 401)] {
            let body = br#"{"type":"SYNC","operations":[]}"#.to_vec();
            let request = HttpRequest { body, identity: who, ..HttpRequest::new(method, path) };
            let outcome = board.request_with(request);
            let response = outcome.responses()[0];
            let body: Value = serde_json::from_slice(&response.body).unwrap();
            assert_eq!((response.status, &body["success"]), (status, &json!(false)), "{method} {path}");
            assert!(body["error"].is_string());
            assert_eq!(outcome.effects.len(), 1);
        }
    }
}

#[test]
fn other_requests_are_refused() {
    let (mut board, []) = board_with([]);
    for (method, path, status) in [
        ("PUT", "/", 405),
        ("POST", "/stats", 405),
        ("GET", "/none", 404),
        ("GET", "//", 200),
        ("HEAD", "/", 200),
        ("HEAD", "/stats", 200),
    ] {
        assert_eq!(request(&mut board, method, path, "").0, status, "{method} {path}");
    }
}
