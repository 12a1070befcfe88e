//! Health, and the settings.

use hotbay_sdk::{Link, LinkState, Snapshot};

use super::{Room, room};

fn stats(connections: u64, channels: u64) -> Snapshot {
    let cluster = Link { publisher: LinkState::Disabled, subscriber: LinkState::Disabled, subscribed: 0 };
    Snapshot { uptime_ms: 5, connections, users: 1, channels, cluster }
}

#[test]
fn health_counts_connections_and_drafts() {
    let mut health = Room::new("health");
    health.set_stats(stats(12, 4));

    let outcome = health.request("GET", "/health");

    let answer = outcome.responses()[0];
    assert_eq!(answer.status, 200);
    assert_eq!(
        std::str::from_utf8(&answer.body).unwrap(),
        r#"{"status":"ok","timestamp":"2023-11-14T22:13:20.000Z","websocket":{"connections":12,"rooms":3}}"#
    );
    assert_eq!((health.log().len(), health.kv().len()), (0, 0));
    health.set_stats(stats(0, 0));
    let outcome = health.request("GET", "/health/");
    assert!(String::from_utf8_lossy(&outcome.responses()[0].body).contains(r#""rooms":0"#));
}

#[test]
fn nothing_else_is_served() {
    let mut health = Room::new("health");
    assert_eq!(health.request("GET", "/").responses()[0].status, 404);
    assert_eq!(health.request("GET", "/healthy").responses()[0].status, 404);
    let outcome = health.request("POST", "/health");
    assert_eq!(outcome.responses()[0].status, 405);
    assert!(outcome.responses()[0].headers.contains(&("allow".to_owned(), "GET, HEAD".to_owned())));
}

#[test]
fn wrong_settings_name_their_key() {
    for (settings, key) in [
        (r#"{"binary_endpoints":"/yjs"}"#, "binary_endpoints"),
        (r#"{"binary_endpoints":[1]}"#, "binary_endpoints"),
        (r#"{"document_bytes_max":"1"}"#, "document_bytes_max"),
        (r#"{"document_bytes_max":10}"#, "document_bytes_max"),
        (r#"{"fold_updates_max":0}"#, "fold_updates_max"),
        (r#"{"fold_bytes_max":1.5}"#, "fold_bytes_max"),
        (r#"{"awareness_timeout_ms":-1}"#, "awareness_timeout_ms"),
        (r#"{"awareness_bytes_max":null}"#, "awareness_bytes_max"),
        (r#"{"effect_bytes_max":true}"#, "effect_bytes_max"),
        (r#"{"garbage_collection":1}"#, "garbage_collection"),
    ] {
        let mut room = Room::with_settings("draft:d1", settings);
        let outcome = room.request("GET", "/health");
        assert!(outcome.faults[0].contains(&format!("`{key}`")), "{settings}: {:?}", outcome.faults);
    }
    let mut room = Room::with_settings("draft:d1", r#"{"unknown":1}"#);
    assert_eq!(room.request("GET", "/health").faults, [""; 0]);
}

#[test]
fn without_settings_there_are_defaults() {
    let mut room = room();
    assert_eq!(room.request("GET", "/health").responses()[0].status, 200);
    let info = hotbay_sdk::ChannelInfo {
        tenant: String::new(),
        name: String::new(),
        now_ms: 0,
        seed: 0,
        settings: "{}".to_owned(),
    };
    let settings = crate::settings::Settings::read(&info).unwrap();
    assert_eq!(settings.binary_endpoints, ["/yjs/{draftId}"]);
    assert_eq!((settings.document_bytes_max, settings.effect_bytes_max), (16 << 20, 96 << 20));
    assert_eq!((settings.fold_updates_max, settings.fold_bytes_max), (500, 1 << 20));
    assert_eq!((settings.awareness_timeout_ms, settings.awareness_bytes_max), (30_000, 16 << 10));
}
