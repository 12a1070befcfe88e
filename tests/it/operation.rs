//! What an operator sees: health, readiness, metrics and logs, and that none of it shows secrets or payloads.

use std::time::Instant;

use serde_json::json;
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;

use crate::support::broker::Setup;
use crate::support::client::Client;
use crate::support::http;

/// `/healthz` says that the process answers, `/readyz` that it can take traffic.
#[tokio::test]
async fn health_and_readiness_are_told() {
    let broker = Setup::fixture("").start();

    let alive = http::get(&broker.http("/healthz"), &[]).await;
    let ready = http::get(&broker.http("/readyz"), &[]).await;

    assert_eq!(alive.status, 200);
    assert_eq!((ready.status, ready.header("content-type")), (200, Some("application/json")));
    let ready = ready.json();
    assert_eq!(
        (&ready["status"], &ready["store"], &ready["cluster"]),
        (&json!("ready"), &json!("ok"), &json!("disabled"))
    );
}

/// Whoever asks whether the broker is ready, and however often, makes it write about once a second.
#[tokio::test]
async fn asking_for_readiness_is_no_work() {
    let broker = Setup::fixture("").start();
    let options = SqliteConnectOptions::new().filename(broker.data().join("hotbay.db"));
    let mut database = options.connect().await.expect("the database");
    // Each look adds one.
    let mut looks = async || -> i64 {
        let looks = sqlx::query_scalar("SELECT at_ms FROM probe").fetch_one(&mut database);
        looks.await.expect("the probe")
    };
    let url = broker.http("/readyz");
    let started = Instant::now();
    http::get(&url, &[]).await;
    let before = looks().await;

    for _ in 0..10 {
        let asked = futures_util::future::join_all((0..20).map(|_| http::get(&url, &[]))).await;
        assert!(asked.iter().all(|answer| answer.status == 200));
    }

    let looked = looks().await - before;
    assert!(
        looked <= 1 + started.elapsed().as_secs().cast_signed(),
        "looked {looked} times in {:?}",
        started.elapsed()
    );
}

/// Wrong API keys are looked up a few times for each address, then it has to wait. A server whose key was right goes on.
#[tokio::test]
async fn wrong_api_keys_are_slowed_down() {
    let broker = Setup::fixture("").start();
    let key = broker.api_key("shop");
    let publish = async |key: &str| broker.publish(key, "fixture:a", &json!("x")).await;
    assert_eq!(publish(&key).await.status, 200);
    let started = Instant::now();

    let mut looked_up = 0;
    let refused = loop {
        let answer = publish(&format!("hb_{looked_up}")).await;
        if answer.status != 401 {
            break answer;
        }
        looked_up += 1;
        assert!(looked_up < 1_000, "nobody is slowed down");
    };

    assert_eq!(refused.status, 429);
    let wait_s: u64 = refused.header("retry-after").and_then(|seconds| seconds.parse().ok()).expect("how long to wait");
    assert_eq!(wait_s, 1);
    assert!((20..=21 + started.elapsed().as_secs()).contains(&looked_up), "{looked_up} were looked up");
    broker.until_metric_is("hotbay_wrong_api_keys_total", looked_up as f64).await;
    assert_eq!(publish(&key).await.status, 200, "a key that was right before");
    broker.run(&["key", "revoke", "--name", "shop"]);
    assert_eq!(publish(&key).await.status, 401, "at once");
    assert_eq!(publish(&key).await.status, 429);
}

/// The metrics that were promised are there after a session in which each could happen, and the counts are true.
#[tokio::test]
async fn the_promised_metrics_are_there() {
    let broker = Setup::fixture("limits.rate_per_connection = { per_second = 1, burst = 12 }").start();
    let mut alice = broker.connect("/ws?channel=a", "alice").await;
    let mut bob = broker.connect("/ws?channel=a", "bob").await;
    // Who is connected may not have joined yet.
    bob.send_text("echo joined").await;
    assert_eq!(bob.text().await, "joined");
    for number in 0..10 {
        alice.send_text(&format!("message {number}")).await;
        assert_eq!((alice.text().await, bob.text().await), (format!("message {number}"), format!("message {number}")));
    }
    alice.send_text("put k v").await;
    alice.text().await;
    alice.send_text("trap").await;
    assert!(alice.text().await.starts_with("refused fault"));
    // The burst is used up; one of these is over the rate, whatever was refilled meanwhile.
    alice.send_text("once too often").await;
    alice.send_text("once too often").await;
    alice.text().await;
    let refused = http::get(&broker.http("/ws?channel=a"), &upgrade_headers()).await;
    assert_eq!(refused.status, 401);

    let answer = http::get(&broker.http("/metrics"), &[]).await;

    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    for name in [
        "hotbay_connections",
        "hotbay_sockets",
        "hotbay_messages_in_total",
        "hotbay_frames_out_total",
        "hotbay_bytes_in_total",
        "hotbay_bytes_out_total",
        "hotbay_batches_total",
        "hotbay_batch_events",
        "hotbay_batch_commit_seconds",
        "hotbay_commit_seconds",
        "hotbay_plugin_cpu_microseconds_total",
        "hotbay_plugin_faults_total",
        "hotbay_channels_awake",
        "hotbay_refusals_total",
        "hotbay_auth_refusals_total",
    ] {
        assert!(answer.text.contains(&format!("# HELP {name} ")), "{name} has no words");
        let series = answer.text.lines().filter(|line| line.starts_with(name));
        assert!(series.count() > 0, "{name} is not there:\n{}", answer.text);
    }
    for (name, least) in [
        ("hotbay_messages_in_total", 12.0),
        ("hotbay_frames_out_total", 21.0),
        ("hotbay_batches_total", 10.0),
        ("hotbay_plugin_faults_total", 1.0),
    ] {
        let value = broker.metric(name).await;
        assert!(value >= least, "{name} is {value}, but at least {least} happened");
    }
    broker.until_metric_is("hotbay_connections", 2.0).await;
    broker.until_metric_is("hotbay_channels_awake", 1.0).await;
    drop((alice, bob));
    broker.until_metric_is("hotbay_connections", 0.0).await;
}

fn upgrade_headers() -> [(&'static str, &'static str); 4] {
    [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ]
}

/// After a session with recognisable secrets, in which all goes wrong that can, neither logs nor metrics hold a token, an API
/// key, the signing secret or anything a client wrote, even with the broker's own logs at their most talkative.
#[tokio::test]
async fn no_secret_and_no_payload_is_in_logs_or_metrics() {
    const PAYLOAD: &str = "recognisable-payload-4711";
    const CLAIM: &str = "recognisable-claim-4712";
    let mut broker = Setup::example()
        .set("log.filter", "info,hotbay=trace")
        .set("mount.community.limits.rate_per_connection", "{ per_second = 1, burst = 5 }")
        .start();
    let key = broker.api_key("shop");
    let path = "/api/community/ws";
    let token = broker.token("alice", json!({"secretClaim": CLAIM}));
    let foreign = format!("{token}x");
    let mut client = broker.connect_with(path, &token).await;
    client.send(json!({"type": "SUBSCRIBE", "channel": "room:1"})).await;
    client.until_type("SUBSCRIBED").await;
    for text in [
        json!({"type": "CHAT_MESSAGE", "channel": "room:1", "payload": {"content": PAYLOAD}}).to_string(),
        json!({"type": PAYLOAD, "channel": "room:1"}).to_string(),
        json!({"type": "CHAT_MESSAGE", "channel": "room:1", "payload": {PAYLOAD: 1}}).to_string(),
        format!("{PAYLOAD} is no JSON"),
        PAYLOAD.repeat(300),
        PAYLOAD.to_owned(),
    ] {
        client.send_text(&text).await;
        client.json().await;
    }
    for (channel, body) in [
        ("room:1", json!({"type": "NOTICE", "payload": PAYLOAD})),
        ("room:1", json!(PAYLOAD)),
        ("no:1", json!(PAYLOAD)),
    ] {
        broker.publish(&key, channel, &body).await;
    }
    broker.publish(&format!("{key}x"), "room:1", &json!(PAYLOAD)).await;
    let url = format!("ws://{}{path}", broker.address());
    let offer = format!("bearer.{foreign}");
    for headers in [
        vec![("Authorization", format!("Bearer {foreign}"))],
        vec![("Cookie", format!("next-auth.session-token={foreign}"))],
        vec![("Sec-WebSocket-Protocol", offer)],
    ] {
        let headers: Vec<(&'static str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert!(Client::try_connect(&url, &headers).await.is_err());
    }
    Client::refused_status(&format!("{url}?token={foreign}"), &[]).await;
    client.send_message(tokio_tungstenite::tungstenite::Message::text(PAYLOAD.repeat(4_000))).await;
    client.close_code().await;

    let signature = token.rsplit('.').next().expect("a signature");
    let metrics = http::get(&broker.http("/metrics"), &[]).await.text;
    assert_eq!(broker.terminate().await, Some(0));
    let log = broker.until_log("draining").await;

    for (place, text) in [("the log", &log), ("the metrics", &metrics)] {
        for secret in [signature, &key, crate::support::broker::SECRET, PAYLOAD, CLAIM] {
            assert!(!text.contains(secret), "{place} shows {secret:?}:\n{text}");
        }
    }
}

/// The fixture's plugin log goes to the broker's log, at most so many lines a second, and long lines are cut.
#[tokio::test]
async fn a_plugin_cannot_flood_the_log() {
    let extra = "limits.log_lines_per_second_max = 5\nlimits.log_line_bytes_max = 100";
    let broker = Setup::fixture(extra).start();
    let mut client = broker.connect("/ws?channel=a", "alice").await;

    client.send_text("log-big 10000").await;
    client.send_text("log 500").await;
    client.send_text("echo done").await;
    assert_eq!(client.text().await, "done");
    broker.until_metric("hotbay_plugin_log_lines_dropped_total", 480.0).await;

    let log = broker.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("\"line ") || line.contains("xxxx")).collect();
    assert!((1..=20).contains(&lines.len()), "{} lines of the plugin", lines.len());
    assert!(lines.iter().all(|line| line.len() < 600), "a long line was not cut");
}
