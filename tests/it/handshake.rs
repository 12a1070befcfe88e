//! Before the upgrade: header limits, what makes a handshake, origins, and how many connections there may be.

use serde_json::json;

use crate::raw::{Raw, TEXT, fixture_path, frame, handshake};
use crate::support::broker::{Broker, Setup};
use crate::support::client::{Client, DEADLINE};
use crate::support::http;

/// The first line and the headers of the answer to a request.
async fn answer(broker: &Broker, request: &str) -> String {
    let mut raw = Raw::open(broker).await;
    raw.write(request.as_bytes()).await;
    raw.head().await
}

/// A client that sends its headers a byte at a time is closed when its time is over, however busy it is.
#[tokio::test]
async fn slow_headers_end_the_connection() {
    let broker = Setup::fixture("").set("limits.http_header_ms_max", 300).start();
    let mut raw = Raw::open(&broker).await;
    raw.write(b"GET /healthz HTTP/1.1\r\nX-Slow: ").await;

    let trickle = async { while raw.poll().await.is_some() && raw.try_write(b"a").await {} };

    tokio::time::timeout(DEADLINE, trickle).await.expect("the broker waits for ever");
}

/// A client that connects and says nothing is closed, too.
#[tokio::test]
async fn silence_ends_the_connection() {
    let broker = Setup::fixture("").set("limits.http_header_ms_max", 300).start();
    let mut raw = Raw::open(&broker).await;

    assert_eq!(raw.status().await, 0, "closed without an answer");
}

/// A header block over 16 KiB is refused with 431; one below goes through.
#[tokio::test]
async fn a_large_header_block_is_refused() {
    let broker = Setup::fixture("").start();
    let request = |bytes: usize| format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX-Large: {}\r\n\r\n", "a".repeat(bytes));

    let fits = answer(&broker, &request(15_000)).await;
    let large = answer(&broker, &request(17_000)).await;
    let endless = {
        let mut raw = Raw::open(&broker).await;
        raw.write(b"GET /").await;
        while raw.poll().await == Some(0) && raw.try_write(&[b'a'; 1_000]).await {}
        raw.head().await
    };

    assert!(fits.starts_with("HTTP/1.1 200 "), "{fits}");
    assert!(large.starts_with("HTTP/1.1 431 "), "{large}");
    assert!(endless.is_empty() || endless.starts_with("HTTP/1.1 4"), "{endless}");
}

/// RFC 6455 §4.2: another version gets 426 and the version to use; a malformed key, another method and HTTP/1.0 get 4xx.
#[tokio::test]
async fn a_wrong_handshake_is_refused() {
    let broker = Setup::fixture("").start();
    let good = handshake(&fixture_path(&broker, "raw", "a"), "");
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    assert!(answer(&broker, &good).await.starts_with("HTTP/1.1 101 "));

    let version = answer(&broker, &good.replace("Version: 13", "Version: 8")).await;
    assert!(version.starts_with("HTTP/1.1 426 "), "{version}");
    assert!(version.to_ascii_lowercase().contains("\r\nsec-websocket-version: 13\r\n"), "{version}");
    for (why, request) in [
        ("no version", good.replace("Sec-WebSocket-Version: 13\r\n", "")),
        ("no key", good.replace(&format!("{key}\r\n"), "")),
        ("an empty key", good.replace(key, "Sec-WebSocket-Key: ")),
        ("a short key", good.replace(key, "Sec-WebSocket-Key: c2hvcnQ=")),
        ("no base64", good.replace(key, "Sec-WebSocket-Key: !!!!!!!!!!!!!!!!!!!!!!==")),
        ("another method", good.replacen("GET", "POST", 1)),
        ("HTTP/1.0", good.replacen("HTTP/1.1", "HTTP/1.0", 1)),
    ] {
        let answer = answer(&broker, &request).await;
        let refused = answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.0 4");
        assert!(refused, "{why}: {answer}");
    }
}

/// What is no handshake is not taken for one, and paths without a mount are 404.
#[tokio::test]
async fn other_requests_get_a_status() {
    let broker = Setup::fixture("").start();
    for (path, status) in [("/ws", 426), ("/", 404), ("/other", 404), ("/ws/below", 404), ("/healthz", 200)] {
        assert_eq!(http::get(&broker.http(path), &[]).await.status, status, "{path}");
    }
    let mut raw = Raw::open(&broker).await;
    raw.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 no TLS here\r\n\r\n").await;
    assert!(matches!(raw.status().await, 0 | 400));
}

/// A frame that comes in one packet with the handshake is not lost.
#[tokio::test]
async fn a_frame_right_behind_the_handshake_is_read() {
    let broker = Setup::fixture("").start();
    let mut raw = Raw::open(&broker).await;
    let request = handshake(&fixture_path(&broker, "raw", "a"), "");

    raw.write(&[request.as_bytes(), &frame(TEXT, b"echo one"), &frame(TEXT, b"echo two")].concat()).await;

    assert!(raw.head().await.starts_with("HTTP/1.1 101 "));
    assert_eq!([raw.text().await, raw.text().await], ["one", "two"]);
}

/// With a list of origins, a page of another origin gets 403, whatever its token; programs, which send none, come in.
#[tokio::test]
async fn only_listed_origins_may_connect() {
    let broker = Setup::fixture(r#"origins = ["https://app.example.com"]"#).start();
    let url = format!("ws://{}{}", broker.address(), fixture_path(&broker, "alice", "a"));
    for bad in ["https://evil.example.com", "http://app.example.com", "https://app.example.com.evil.org", "null", ""] {
        assert_eq!(Client::refused_status(&url, &[("Origin", bad)]).await, 403, "{bad:?}");
    }
    for good in ["https://app.example.com", "https://APP.example.com"] {
        assert!(Client::try_connect(&url, &[("Origin", good)]).await.is_ok(), "{good}");
    }
    assert!(Client::try_connect(&url, &[]).await.is_ok());
}

/// A token in a cookie counts only for pages of the broker's own host: without an origin, or from another page, 403.
#[tokio::test]
async fn a_cookie_counts_for_its_own_host_only() {
    let broker = Setup::example().start();
    let url = format!("ws://{}/api/community/ws", broker.address());
    let cookie = format!("next-auth.session-token={}", broker.token("alice", json!({})));
    let own = broker.http("");

    assert_eq!(Client::refused_status(&url, &[("Cookie", &cookie)]).await, 403);
    assert_eq!(Client::refused_status(&url, &[("Cookie", &cookie), ("Origin", "https://evil.example")]).await, 403);
    assert!(Client::try_connect(&url, &[("Cookie", &cookie), ("Origin", &own)]).await.is_ok());
}

/// The tenant's connections are limited; another tenant's are not touched, and room is made when one ends.
#[tokio::test]
async fn connections_of_a_tenant_are_limited() {
    let broker = Setup::fixture("").set("limits.connections_per_tenant_max", 2).start();
    let first = broker.connect("/ws?channel=a", "alice").await;
    let _second = broker.connect("/ws?channel=a", "bob").await;
    let url = format!("ws://{}{}", broker.address(), fixture_path(&broker, "carol", "a"));

    assert_eq!(Client::refused_status(&url, &[]).await, 429);
    let other = broker.token("dave", json!({"tenant": "acme"}));
    let _other_tenant = broker.connect_with("/ws?channel=a", &other).await;
    first.close().await;
    broker.until_metric_is("hotbay_connections", 2.0).await;
    assert!(Client::try_connect(&url, &[]).await.is_ok());
}

/// Sockets from one address are limited before anything is read from them; room is made when one ends.
#[tokio::test]
async fn sockets_of_an_address_are_limited() {
    let broker = Setup::fixture("").set("limits.connections_per_address_max", 3).start();
    let first = Raw::join(&broker, "a").await;
    let _second = Raw::join(&broker, "a").await;
    let _third = Raw::open(&broker).await;

    let mut fourth = Raw::open(&broker).await;
    let refused = fourth.status().await;
    drop(first);

    assert_eq!(refused, 0, "closed without an answer");
    let again = async {
        loop {
            let mut raw = Raw::open(&broker).await;
            if raw.try_write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await && raw.status().await == 200 {
                return;
            }
        }
    };
    tokio::time::timeout(DEADLINE, again).await.expect("room for a socket");
}

/// All sockets are limited, upgraded or not.
#[tokio::test]
async fn sockets_are_limited() {
    let broker = Setup::fixture("").set("limits.connections_max", 2).start();
    let mut first = Raw::join(&broker, "a").await;
    let _second = Raw::open(&broker).await;

    let refused = Raw::open(&broker).await.status().await;

    assert_eq!(refused, 0);
    first.say("echo still here").await;
    assert_eq!(first.text().await, "still here");
}
