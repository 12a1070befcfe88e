//! Plain HTTP requests, and the settings of the mount.

use hotbay_sdk::{HttpRequest, HttpResponse, Identity};
use serde_json::{Value, json};

use super::{Desk, desk, desk_with, join};
use crate::settings::Settings;

fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> HttpRequest {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let identity = Some(Identity { endpoint: "/api/ws".to_owned(), ..Identity::of("ann") });
    HttpRequest { headers, identity, ..HttpRequest::new(method, path) }
}

fn ask(desk: &mut Desk, request: HttpRequest) -> (HttpResponse, Value) {
    let outcome = desk.request_with(request);
    assert_eq!(outcome.faults, [""; 0]);
    let response = outcome.responses()[0].clone();
    let body = serde_json::from_slice(&response.body).unwrap();
    (response, body)
}

/// The body of the owner's `GET /`.
pub(super) fn get(desk: &mut Desk) -> Value {
    ask(desk, request("GET", "/", &[])).1
}

#[test]
fn get_says_who_and_where_and_how_many() {
    let (mut desk, _) = desk();
    desk.advance_ms(7);
    let headers = [("host", "ws.example.com:3000"), ("x-forwarded-proto", "https")];
    let (response, body) = ask(&mut desk, request("GET", "/", &headers));
    let expected = json!({
        "success": true,
        "ownerId": "ann",
        "wsUrl": "wss://ws.example.com:3000/api/ws",
        "connections": 0,
        "timestamp": "2023-11-14T22:13:20.007Z",
    });
    assert_eq!((response.status, body), (200, expected));
    assert!(response.headers.contains(&("cache-control".to_owned(), "no-store".to_owned())));
    let (first, _) = join(&mut desk, "ann");
    join(&mut desk, "ann");
    assert_eq!(get(&mut desk)["connections"], 2);
    desk.disconnect(first);
    assert_eq!(get(&mut desk)["connections"], 1);
}

#[test]
fn the_address_is_made_of_the_request_and_nothing_else_slips_in() {
    let (mut desk, _) = desk();
    let mut url = |headers: &[(&str, &str)]| ask(&mut desk, request("GET", "/", headers)).1["wsUrl"].clone();
    assert_eq!(url(&[("host", "localhost:3000")]), "ws://localhost:3000/api/ws");
    assert_eq!(url(&[("host", "[::1]:3000"), ("x-forwarded-proto", "http")]), "ws://[::1]:3000/api/ws");
    assert_eq!(url(&[("host", "a.b"), ("x-forwarded-proto", "HTTPS, http")]), "wss://a.b/api/ws");
    assert_eq!(url(&[("host", "a.b"), ("x-forwarded-proto", "wss")]), "wss://a.b/api/ws");
    let long = "a".repeat(256);
    for host in ["", "a b", "evil/path", "user@evil", "a\"b", "a\u{e9}", &long] {
        assert_eq!(url(&[("host", host)]), Value::Null, "{host}");
    }
    assert_eq!(url(&[]), Value::Null);
}

#[test]
fn the_address_of_the_settings_comes_first() {
    let (mut desk, _) = desk_with(r#"{"ws_url":"wss://ws.example.com/api/ws"}"#);
    let (_, body) = ask(&mut desk, request("GET", "/", &[("host", "10.0.0.1")]));
    assert_eq!(body["wsUrl"], "wss://ws.example.com/api/ws");
}

#[test]
fn other_requests_are_refused_in_the_same_shape() {
    let (mut desk, _) = desk();
    let stranger = HttpRequest { identity: Some(Identity::of("bob")), ..request("GET", "/", &[]) };
    let nobody = HttpRequest { identity: None, ..request("GET", "/", &[]) };
    for (request, status) in [
        (request("GET", "/health", &[]), 404),
        (request("POST", "/", &[]), 405),
        (request("DELETE", "/", &[]), 405),
        (stranger, 403),
        (nobody, 401),
    ] {
        let (response, body) = ask(&mut desk, request);
        assert_eq!((response.status, &body["success"], body["error"].is_string()), (status, &json!(false), true));
    }
    for (method, path) in [("HEAD", "/"), ("GET", "")] {
        assert_eq!(ask(&mut desk, request(method, path, &[])).0.status, 200);
    }
}

#[test]
fn settings_have_defaults_and_unknown_ones_are_ignored() {
    let defaults = Settings {
        interval_ms: 5_000,
        heartbeat_interval_ms: 30_000,
        offline_events_max: 100,
        offline_ttl_ms: 86_400_000,
        ws_url: None,
    };
    assert_eq!(Settings::parse("{}"), Ok(defaults.clone()));
    assert_eq!(Settings::parse(r#"{"intervalMs":true,"x":{}}"#), Ok(defaults));
    let all = r#"{"interval_ms":100,"heartbeat_interval_ms":1000,"offline_events_max":1000,"offline_ttl_ms":0,"ws_url":"ws://x"}"#;
    let settings = Settings::parse(all).unwrap();
    assert_eq!(
        (settings.interval_ms, settings.offline_events_max, settings.ws_url.as_deref()),
        (100, 1_000, Some("ws://x"))
    );
}

#[test]
fn wrong_settings_are_an_error_that_names_the_key() {
    for (settings, key) in [
        (r#"{"interval_ms":"5000"}"#, "settings.interval_ms"),
        (r#"{"interval_ms":99}"#, "settings.interval_ms"),
        (r#"{"interval_ms":3600001}"#, "settings.interval_ms"),
        (r#"{"interval_ms":5000.5}"#, "settings.interval_ms"),
        (r#"{"heartbeat_interval_ms":0}"#, "settings.heartbeat_interval_ms"),
        (r#"{"offline_events_max":-1}"#, "settings.offline_events_max"),
        (r#"{"offline_events_max":1001}"#, "settings.offline_events_max"),
        (r#"{"offline_ttl_ms":[1]}"#, "settings.offline_ttl_ms"),
        (r#"{"ws_url":7}"#, "settings.ws_url"),
        (r#"{"ws_url":"https://x"}"#, "settings.ws_url"),
        (r#"{"ws_url":"ws://a b"}"#, "settings.ws_url"),
        ("[]", "settings"),
    ] {
        let error = Settings::parse(settings).unwrap_err();
        assert!(error.contains(key), "{settings}: {error}");
    }
}
