//! The HTTP interface: shapes, headers, roles, refusals.

use hotbay_sdk::{HttpRequest, Link, LinkState, Snapshot};
use serde_json::{Value, json};

use super::{
    answer, answer_of, audience, body, bus, bus_with, emit, filter, join, only, page, query, request, send, types,
};

fn posted(value: &Value) -> HttpRequest {
    body(request("POST", "/", "ann", ""), value)
}

fn snapshot(link: LinkState) -> Snapshot {
    let cluster = Link { publisher: LinkState::Connected, subscriber: link, subscribed: 3 };
    Snapshot { uptime_ms: 12_345, connections: 9, users: 9, channels: 1, cluster }
}

#[test]
fn the_overview_has_the_shape_of_the_contract() {
    let mut bus = bus();
    let (status, found) = answer(&mut bus, request("GET", "/", "ann", ""));
    assert_eq!(status, 200);
    let metrics = json!({
        "total_connections": 0, "active_connections": 0, "events_sent": 0, "events_received": 0, "last_activity": null,
        "event_history_size": 0, "client_count": 0,
    });
    let expected = json!({"success": true, "websocket": {
        "nextjs": {"url": "ws://localhost:3000/ws", "status": "active", "metrics": metrics},
        "supabase": {"url": null, "key": null, "enabled": false},
        "tenant_id": "acme",
        "channels": ["ideas:acme", "tenant:acme"],
        "event_types": ["connection", "idea_created", "idea_updated", "user_update", "custom_event"],
        "sources": ["system", "idea_service", "user_service"],
    }});
    assert_eq!(found, expected);
}

#[test]
fn the_overview_lists_what_was_seen() {
    let (mut bus, [ann]) = bus_with(["ann"]);
    emit(&mut bus, ann, json!({"type": "zeta", "source": "billing"}));
    emit(&mut bus, ann, json!({"type": "alpha"}));
    super::subscribe(&mut bus, ann, "orders");
    let (_, found) = answer(&mut bus, request("GET", "", "ann", ""));
    let found = &found["websocket"];
    assert_eq!(found["channels"], json!(["ideas:acme", "orders:acme", "tenant:acme"]));
    assert_eq!(found["event_types"].as_array().unwrap()[5..], [json!("alpha"), json!("zeta")]);
    assert_eq!(found["sources"].as_array().unwrap()[3..], [json!("billing"), json!("client")]);
}

#[test]
fn what_is_discovered_has_a_bound() {
    let (mut bus, [ann]) = bus_with(["ann"]);
    for number in 0..300 {
        emit(&mut bus, ann, json!({"type": format!("t{number}"), "source": format!("s{number}")}));
    }
    for upset in [|_: &mut super::Bus| {}, super::Bus::crash] {
        upset(&mut bus);
        let (_, found) = answer(&mut bus, request("GET", "/", "ann", ""));
        let count = |key: &str| found["websocket"][key].as_array().unwrap().len();
        assert_eq!((count("event_types"), count("sources")), (5 + 256, 3 + 256));
    }
}

#[test]
fn the_address_is_what_the_request_came_to() {
    let mut bus = bus();
    let mut url = |headers: &[(&str, &str)], endpoint: &str| {
        let mut request = request("GET", "/", "ann", "");
        request.headers.retain(|(name, _)| name != "host");
        request.headers.extend(headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        request.identity.as_mut().unwrap().endpoint = endpoint.to_owned();
        answer(&mut bus, request).1["websocket"]["nextjs"]["url"].clone()
    };
    assert_eq!(url(&[("host", "ws.example.com"), ("x-forwarded-proto", "https")], "/ws"), "wss://ws.example.com/ws");
    assert_eq!(url(&[("host", "a.b"), ("x-forwarded-proto", "WSS, http")], "/x/ws"), "wss://a.b/x/ws");
    assert_eq!(url(&[("host", "[::1]:3000"), ("x-forwarded-proto", "http")], "/ws"), "ws://[::1]:3000/ws");
    for host in ["", "a/b", "u@a", "a b", "a\"b", &"a".repeat(256)] {
        assert_eq!(url(&[("host", host)], "/ws"), Value::Null, "{host}");
    }
    assert_eq!(url(&[], "/ws"), Value::Null);
}

#[test]
fn the_status_has_the_shape_of_the_contract() {
    let (mut bus, [ann, bob]) = bus_with(["ann", "bob"]);
    bus.set_stats(snapshot(LinkState::Connected));
    bus.advance_ms(1_500);
    emit(&mut bus, ann, json!({"type": "x"}));
    filter(&mut bus, bob, json!({"eventTypes": ["never"]}));
    bus.disconnect(ann);
    bus.advance_ms(60_000);
    let metrics = json!({
        "total_connections": 2, "active_connections": 1, "events_sent": 2 + 2 + 1, "events_received": 1,
        "last_activity": "2023-11-14T22:13:21.500Z", "event_history_size": 1, "client_count": 1,
    });
    let expected = |metrics| {
        json!({"success": true, "websocket": {
            "server_running": true, "status": "active", "health": "healthy", "metrics": metrics,
        }})
    };
    for parameters in [&[][..], &[("detailed", "false")]] {
        let found = answer(&mut bus, query(request("GET", "/status", "ann", ""), parameters));
        assert_eq!(found, (200, expected(metrics.clone())));
    }
    let mut detailed = metrics;
    let bytes: usize =
        bus.kv().iter().filter(|(key, _)| key.starts_with("h/")).map(|(key, value)| key.len() + value.len()).sum();
    let detail = json!({
        "uptime_ms": 12_345, "users": 1, "distinct_filters": 2, "history_bytes": bytes,
        "channels": [{"channel": "tenant:acme", "subscribers": 1, "history": 1}],
    });
    detailed.as_object_mut().unwrap().extend(detail.as_object().unwrap().clone());
    let found = answer(&mut bus, query(request("GET", "/status", "ann", ""), &[("detailed", "true")]));
    assert_eq!(found, (200, expected(detailed)));
    bus.set_stats(snapshot(LinkState::Disconnected));
    let found = answer(&mut bus, request("GET", "/status/", "ann", ""));
    assert_eq!(found.1["websocket"]["health"], "degraded");
}

#[test]
fn a_post_is_an_event() {
    let (mut bus, [ann, bob]) = bus_with(["ann", "bob"]);
    super::subscribe(&mut bus, bob, "ideas");
    let outcome = bus.request_with(posted(&json!({
        "channel": "ideas:acme", "event": "idea_created", "payload": {"n": 1}, "source": "idea_service", "priority": "critical",
        "userId": "bob", "unknown": [],
    })));
    let (status, found) = answer_of(&outcome);
    let event = only(&outcome, bob);
    assert_eq!(types(&outcome, ann), [""; 0]);
    assert_eq!(status, 200);
    assert_eq!(found, json!({"success": true, "message_id": event["id"], "timestamp": event["timestamp"]}));
    let fields = [&event["eventType"], &event["data"], &event["source"], &event["priority"], &event["userId"]];
    assert_eq!(
        fields,
        [&json!("idea_created"), &json!({"n": 1}), &json!("idea_service"), &json!("critical"), &json!("ann")]
    );
    assert_eq!(page(&mut bus, &[("channel", "ideas")]).0, [event]);
    // Defaults, and the names clients use.
    let outcome = bus.request_with(posted(&json!({"type": "x", "data": [1]})));
    let event = only(&outcome, ann);
    assert_eq!((&event["source"], &event["priority"], &event["data"]), (&json!("api"), &json!("normal"), &json!([1])));
    assert_eq!(audience(&outcome, &bus, "x"), [ann, bob]);
}

#[test]
fn malformed_posts_are_refused_like_frames() {
    let (mut bus, [_ann]) = bus_with(["ann"]);
    let before = bus.kv();
    for (value, status, code) in [
        (json!([]), 400, "bad_request"),
        (json!({}), 400, "bad_request"),
        (json!({"event": 1}), 400, "bad_request"),
        (json!({"event": 1, "type": "x"}), 400, "bad_request"),
        (json!({"event": "error"}), 400, "bad_request"),
        (json!({"event": "x", "source": "system"}), 400, "bad_request"),
        (json!({"event": "x", "priority": "HIGH"}), 400, "bad_request"),
        (json!({"event": "x\u{0}"}), 400, "bad_request"),
        (json!({"event": "x", "channel": "a:b:acme"}), 400, "bad_request"),
        (json!({"event": "x", "channel": "ideas:other"}), 403, "forbidden"),
        (json!({"event": "x", "payload": "y".repeat(64 << 10)}), 413, "too_large"),
    ] {
        let outcome = bus.request_with(posted(&value));
        let (found, body) = answer_of(&outcome);
        assert_eq!((found, &body["error"]["code"], &body["success"]), (status, &json!(code), &json!(false)), "{value}");
        assert!(outcome.received.is_empty());
    }
    for raw in [&b""[..], b"{", b"\xff\xfe"] {
        let (status, _) = answer(&mut bus, HttpRequest { body: raw.to_vec(), ..request("POST", "/", "ann", "") });
        assert_eq!(status, 400);
    }
    assert_eq!(bus.kv(), before);
}

#[test]
fn headers_must_be_there_and_right() {
    let (mut bus, [ann]) = bus_with(["ann"]);
    let mut check = |method: &str, path: &str, headers: &[(&str, &str)], identified: bool, expected: (u16, &str)| {
        let mut request = posted(&json!({"event": "x"}));
        (request.method, request.path) = (method.to_owned(), path.to_owned());
        request.headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        if !identified {
            request.identity = None;
        }
        let outcome = bus.request_with(request);
        let (status, body) = answer_of(&outcome);
        assert_eq!((status, body["error"]["code"].as_str().unwrap_or("")), expected, "{method} {path} {headers:?}");
        assert_eq!(types(&outcome, ann).len(), usize::from(status == 200 && method == "POST"));
    };
    let (tenant, user) = (("x-tenant-id", "acme"), ("x-user-id", "ann"));
    for (method, path) in
        [("GET", "/"), ("POST", "/"), ("PUT", "/"), ("DELETE", "/"), ("GET", "/status"), ("GET", "/history")]
    {
        check(method, path, &[tenant, user], false, (401, "unauthorized"));
        check(method, path, &[user], true, (400, "bad_request"));
        check(method, path, &[("x-tenant-id", ""), user], true, (400, "bad_request"));
        check(method, path, &[("x-tenant-id", "other"), user], true, (403, "forbidden"));
        check(method, path, &[tenant, ("x-user-id", "bob")], true, (403, "forbidden"));
    }
    check("POST", "/", &[tenant], true, (400, "bad_request"));
    check("POST", "/", &[tenant, ("x-user-id", "")], true, (400, "bad_request"));
    check("POST", "/", &[tenant, user], true, (200, ""));
    for path in ["/", "/status", "/history"] {
        check("GET", path, &[tenant], true, (200, ""));
    }
}

#[test]
fn there_is_nothing_else() {
    let mut bus = bus();
    for path in ["/x", "/status/x", "/history/1", "//", "/../status"] {
        let (status, body) = answer(&mut bus, request("GET", path, "ann", ""));
        // A base with slashes behind it is still the base.
        assert_eq!(status, if path == "//" { 200 } else { 404 }, "{path}");
        assert_eq!(body["success"], path == "//");
    }
    for (method, path, allow) in [
        ("PATCH", "/", "GET, POST, PUT, DELETE"),
        ("POST", "/status", "GET"),
        ("DELETE", "/history", "GET"),
        ("G", "/", "GET, POST, PUT, DELETE"),
    ] {
        let outcome = bus.request_with(request(method, path, "ann", "admin"));
        let response = outcome.responses()[0];
        assert_eq!(response.status, 405);
        assert!(response.headers.contains(&("allow".to_owned(), allow.to_owned())));
        assert_eq!(answer_of(&outcome).1["error"]["code"], "method_not_allowed");
    }
}

#[test]
fn an_admin_sets_the_filters_of_a_users_connections() {
    let (mut bus, [ann, bob]) = bus_with(["ann", "bob"]);
    let second = join(&mut bus, "bob");
    super::subscribe(&mut bus, second, "ideas");
    let change = json!({"user_id": "bob", "filters": {"eventTypes": ["a"]}});
    let outcome = bus.request_with(body(request("PUT", "/", "root", "admin"), &change));
    assert_eq!(answer_of(&outcome), (200, json!({"success": true, "user_id": "bob", "connections": 2})));
    for member in [bob, second] {
        let told = only(&outcome, member);
        assert_eq!((&told["eventType"], &told["userId"]), (&json!("filters_updated"), &json!("bob")));
        assert_eq!(told["data"]["filters"]["eventTypes"], json!(["a"]));
    }
    assert_eq!(types(&outcome, ann), [""; 0]);
    bus.crash();
    assert_eq!(audience(&send(&mut bus, ann, json!({"type": "b"})), &bus, "b"), [ann]);
    assert_eq!(audience(&send(&mut bus, ann, json!({"type": "a"})), &bus, "a"), [ann, bob, second]);
    assert_eq!(audience(&send(&mut bus, ann, json!({"type": "a", "channel": "ideas"})), &bus, "a"), [second]);
    let nobody = json!({"user_id": "zoe", "filters": {}});
    let outcome = bus.request_with(body(request("PUT", "/", "root", "admin"), &nobody));
    assert_eq!(answer_of(&outcome).1["connections"], 0);
    assert!(outcome.received.is_empty());
}

#[test]
fn an_admin_closes_a_users_connections() {
    let (mut bus, [ann, bob]) = bus_with(["ann", "bob"]);
    let second = join(&mut bus, "bob");
    let outcome = bus.request_with(query(request("DELETE", "/", "root", "admin"), &[("user_id", "bob")]));
    assert_eq!(answer_of(&outcome), (200, json!({"success": true, "user_id": "bob", "closed": 2})));
    let removed = "removed by an operator".to_owned();
    assert_eq!(outcome.closed, [(bob, 4502, removed.clone()), (second, 4502, removed)]);
    assert_eq!(bus.members(), [ann]);
    let outcome = bus.request_with(query(request("DELETE", "/", "root", "admin"), &[("user_id", "bob")]));
    assert_eq!(answer_of(&outcome).1["closed"], 0);
}

#[test]
fn an_admin_forgets_a_history() {
    let (mut bus, [ann]) = bus_with(["ann"]);
    for channel in ["ideas", "ideas", "tenant"] {
        send(&mut bus, ann, json!({"type": "x", "channel": channel}));
    }
    let forget = |channel: &str| query(request("DELETE", "/", "root", "admin"), &[("channel", channel)]);
    let found = answer(&mut bus, forget("ideas"));
    assert_eq!(found, (200, json!({"success": true, "channel": "ideas:acme", "deleted": 2})));
    assert!(bus.kv().keys().all(|key| !key.starts_with("h/ideas") && key != "c/ideas"));
    assert_eq!(answer(&mut bus, forget("ideas")).1["deleted"], 0);
    assert_eq!(answer(&mut bus, forget("ideas:other")).0, 403);
    for upset in [|_: &mut super::Bus| {}, super::Bus::crash] {
        upset(&mut bus);
        assert_eq!(page(&mut bus, &[("channel", "ideas")]).0.len(), 0);
        assert_eq!(page(&mut bus, &[]).0.len(), 1);
    }
}

#[test]
fn only_admins_may_and_only_what_makes_sense() {
    let (mut bus, [_ann, _bob]) = bus_with(["ann", "bob"]);
    let change = json!({"user_id": "bob", "filters": {}});
    for role in ["", "Admin", "moderator"] {
        let (status, found) = answer(&mut bus, body(request("PUT", "/", "ann", role), &change));
        assert_eq!((status, &found["error"]["code"]), (403, &json!("forbidden")));
        let outcome = bus.request_with(query(request("DELETE", "/", "ann", role), &[("user_id", "bob")]));
        assert_eq!(answer_of(&outcome).0, 403);
        assert!(outcome.closed.is_empty());
    }
    for change in [
        json!({}),
        json!({"user_id": "bob"}),
        json!({"user_id": "bob", "filters": null}),
        json!({"user_id": "bob", "filters": []}),
        json!({"user_id": "bob", "filters": {"priority": ["urgent"]}}),
        json!({"user_id": 1, "filters": {}}),
        json!({"user_id": "", "filters": {}}),
        json!({"user_id": "x".repeat(513), "filters": {}}),
        json!(["bob", {}]),
    ] {
        assert_eq!(answer(&mut bus, body(request("PUT", "/", "root", "admin"), &change)).0, 400, "{change}");
    }
    let long = "x".repeat(513);
    for parameters in [
        &[][..],
        &[("user_id", "")],
        &[("user_id", "bob"), ("channel", "ideas")],
        &[("user_id", &long)],
        &[("channel", ":")],
    ] {
        assert_eq!(
            answer(&mut bus, query(request("DELETE", "/", "root", "admin"), parameters)).0,
            400,
            "{parameters:?}"
        );
    }
}
