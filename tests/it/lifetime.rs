//! How long a connection lasts: heartbeats, the end of its token, faults, evictions and reconnecting.

use serde_json::json;

use crate::raw::{PING, PONG, Raw, TEXT, fixture_path, frame};
use crate::support::broker::{Setup, token};

/// Without a sign of life the broker ends the connection after the time-out, having asked at least once; the user's other
/// connections see it leave.
#[tokio::test]
async fn a_dead_client_is_dropped() {
    let broker = Setup::fixture("heartbeat = { interval_ms = 400, timeout_ms = 2000 }").start();
    let mut witness = broker.connect("/ws?channel=a", "witness").await;
    witness.send_text("verbose").await;
    assert_eq!(witness.text().await, "ok");
    let mut dead = Raw::join(&broker, "a").await;
    assert_eq!(witness.text().await, "joined raw");

    let count_pings = async {
        let mut asked = 0;
        while let Some((first, _)) = dead.frame().await {
            asked += u32::from(first == PING);
        }
        asked
    };
    // The witness reads meanwhile, so its own pings are answered.
    let (asked, told) = tokio::join!(count_pings, witness.text());

    assert!((1..=5).contains(&asked), "asked {asked} times in 2,000 ms, every 400 ms");
    assert_eq!(told, "left raw");
    assert!(broker.metric("hotbay_heartbeat_timeouts_total").await >= 1.0);
}

/// A client that answers pings stays, for many times the time-out, without saying anything else.
#[tokio::test]
async fn a_client_that_answers_pings_stays() {
    let broker = Setup::fixture("heartbeat = { interval_ms = 150, timeout_ms = 2000 }").start();
    let mut raw = Raw::join(&broker, "a").await;

    for _ in 0..20 {
        let (first, payload) = raw.frame().await.expect("a connection");
        assert_eq!(first, PING);
        raw.write(&frame(PONG, &payload)).await;
    }

    raw.say("echo alive").await;
    assert_eq!(raw.text().await, "alive");
}

/// When the token ends, so does the connection: 4401, which means "reconnect with a new one".
#[tokio::test]
async fn the_end_of_the_token_is_the_end_of_the_connection() {
    let broker = Setup::fixture("").set("key.default.leeway_s", 0).start();
    let mut short = broker.connect_with("/ws?channel=a", &token("alice", json!({}), 4)).await;
    let mut long = broker.connect("/ws?channel=a", "bob").await;

    assert_eq!(short.close_code().await, Some(4401));
    long.send_text("echo still here").await;
    assert_eq!(long.text().await, "still here");
}

/// With `on_excess = "evict"`, a user's newest connection takes the place of the oldest, which is told 4501: do not reconnect.
#[tokio::test]
async fn the_oldest_connection_is_evicted_where_the_mount_says_so() {
    let broker = Setup::fixture("on_excess = \"evict\"\nlimits.connections_per_user_max = 2").start();
    let mut first = broker.connect("/ws?channel=a", "alice").await;
    let mut second = broker.connect("/ws?channel=a", "alice").await;
    let _bob = broker.connect("/ws?channel=a", "bob").await;

    let mut third = broker.connect("/ws?channel=a", "alice").await;

    assert_eq!(first.close_code().await, Some(4501));
    for client in [&mut second, &mut third] {
        client.send_text("count").await;
        assert!(client.text().await.starts_with("count "));
    }
}

/// A fault of the plugin is told to its sender and changes nothing; three in a row close that member with 1011, and nobody
/// else.
#[tokio::test]
async fn a_plugin_that_traps_harms_only_who_made_it() {
    let broker = Setup::fixture("").start();
    let mut calm = broker.connect("/ws?channel=a", "calm").await;
    let mut wild = broker.connect("/ws?channel=a", "wild").await;

    for turn in 0..2 {
        wild.send_text(&format!("put-then-trap key {turn}")).await;
        let told = wild.text().await;
        assert!(told.starts_with("refused fault"), "{told}");
        calm.send_text("get key").await;
        assert_eq!(calm.text().await, "none", "what a failed batch wrote is there");
    }
    wild.send_text("trap").await;

    assert_eq!(wild.close_code().await, Some(1011));
    calm.send_text("echo still here").await;
    assert_eq!(calm.text().await, "still here");
}

/// Who reconnects finds the channel as it was: its state, and its memory as long as the broker lives.
#[tokio::test]
async fn a_client_that_reconnects_finds_its_channel() {
    let mut broker = Setup::fixture("").start();
    let mut client = broker.connect("/ws?channel=a", "alice").await;
    client.send_text("put k v").await;
    assert_eq!(client.text().await, "ok");
    client.close().await;

    let mut again = broker.connect("/ws?channel=a", "alice").await;
    again.send_text("get k").await;
    assert_eq!(again.text().await, "value v");
    again.send_text("count").await;
    assert_eq!(again.text().await, "count 3");
    broker.kill();
    assert_eq!(again.close_code().await, None, "a killed process says no farewell");
    broker.start();
    let mut after = broker.connect("/ws?channel=a", "alice").await;
    after.send_text("get k").await;
    assert_eq!(after.text().await, "value v");
    after.send_text("count").await;
    assert_eq!(after.text().await, "count 2", "memory does not survive a crash");
}

/// A channel that slept goes on where it was, with its members, its memory and its timers.
#[tokio::test]
async fn a_channel_sleeps_and_wakes_with_all_it_had() {
    let broker = Setup::fixture("limits.idle_ms = 100").start();
    let mut client = broker.connect("/ws?channel=a", "alice").await;
    client.send_text("count").await;
    assert_eq!(client.text().await, "count 1");

    broker.until_metric_is("hotbay_channels_awake", 0.0).await;
    client.send_text("timer alarm 300").await;
    assert_eq!(client.text().await, "ok");
    broker.until_metric_is("hotbay_channels_awake", 0.0).await;

    assert_eq!(client.text().await, "timer alarm");
    client.send_text("count").await;
    assert_eq!(client.text().await, "count 3");
}

/// A client that goes away in the middle of a message, or of the handshake, leaves nothing behind.
#[tokio::test]
async fn a_connection_cut_anywhere_leaves_nothing_behind() {
    let broker = Setup::fixture("").start();
    let whole =
        [crate::raw::handshake(&fixture_path(&broker, "raw", "a"), "").into_bytes(), frame(TEXT, b"echo hello")]
            .concat();
    for cut in (0..whole.len()).step_by(23).chain([whole.len() - 1, whole.len()]) {
        let mut raw = Raw::open(&broker).await;
        raw.write(&whole[..cut]).await;
        drop(raw);
    }

    broker.until_metric_is("hotbay_sockets", 1.0).await; // The one that asks.
    broker.until_metric_is("hotbay_connections", 0.0).await;
    let mut raw = Raw::join(&broker, "a").await;
    raw.say("members").await;
    let members = raw.text().await;
    assert_eq!(members.matches('#').count(), 1, "ghosts: {members}");
}

/// A connection that is closed by the broker ends within a bounded time, also if the client never takes its close frame.
#[tokio::test]
async fn a_closed_client_that_never_reads_does_not_stay() {
    let broker = Setup::fixture("limits.outbox_bytes_max = 131072").start();
    let mut sender = broker.connect("/ws?channel=a", "sender").await;
    let mut deaf = Raw::open_narrow(&broker).await;
    deaf.upgrade(&fixture_path(&broker, "deaf", "a")).await;
    broker.until_metric_is("hotbay_connections", 2.0).await;
    for turn in 0..2_000 {
        sender.send_text("big 32768").await;
        sender.text().await;
        if turn % 10 == 9 && broker.metric("hotbay_outbox_shed_total").await > 0.0 {
            break;
        }
    }

    sender.send_text("close-all").await;

    assert_eq!(sender.close_code().await, Some(1000));
    sender.close().await;
    broker.until_metric_is("hotbay_connections", 0.0).await;
}

/// Clients that all come at once, while the broker is busy with something else, wait to be accepted: the kernel turns none away.
#[tokio::test]
async fn a_crowd_waits_to_be_accepted() {
    const CROWD: usize = 600;
    let system = std::fs::read_to_string("/proc/sys/net/core/somaxconn").expect("the system's bound");
    assert!(system.trim().parse::<usize>().expect("a number") >= CROWD, "this system lets only {system} wait");
    let broker = Setup::fixture("").start();
    broker.signal(rustix::process::Signal::STOP);

    let connecting = (0..CROWD).map(|_| tokio::net::TcpStream::connect(broker.address()));
    let crowd = tokio::time::timeout(crate::support::client::DEADLINE, futures_util::future::join_all(connecting))
        .await
        .expect("all in time");

    assert!(crowd.iter().all(Result::is_ok));
    broker.signal(rustix::process::Signal::CONT);
    drop(crowd);
    let alive = crate::support::http::get(&broker.http("/healthz"), &[]).await;
    assert_eq!(alive.status, 200);
}
