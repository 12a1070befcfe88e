//! Backpressure and slow readers: nothing is lost on the way in; on the way out nobody waits for the slow, and nothing is
//! dropped silently (laws 5 and 6 of the design).

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::raw::{Raw, TEXT, fixture_path, frame};
use crate::support::broker::{Broker, Setup};
use crate::support::client::{Client, DEADLINE};

/// Connects a client of the fixture that will not read until told to.
async fn join_narrow(broker: &Broker, path: &str) -> Raw {
    let mut raw = Raw::open_narrow(broker).await;
    raw.upgrade(path).await;
    raw
}

/// Broadcasts frames of 32 KiB until some were dropped for a slow reader; returns how many there were.
async fn flood_until_shed(broker: &Broker, sender: &mut Client) -> usize {
    for count in 1..=2_000 {
        sender.send_text("big 32768").await;
        assert_eq!(sender.text().await.len(), 32_768, "a reader that keeps up gets every frame");
        if count % 10 == 0 && broker.metric("hotbay_outbox_shed_total").await > 0.0 {
            return count;
        }
    }
    panic!("2,000 frames did not fill the outbox of a reader that never reads");
}

/// What is dropped for a slow reader is counted, and the reader is told; what was not dropped arrives whole.
#[tokio::test]
async fn every_frame_to_a_slow_reader_arrives_or_is_counted_and_told() {
    let broker = Setup::fixture("limits.outbox_bytes_max = 131072").start();
    let mut sender = broker.connect("/ws?channel=a", "sender").await;
    let mut slow = join_narrow(&broker, &fixture_path(&broker, "slow", "a")).await;
    slow.say("echo joined").await;
    assert_eq!(slow.text().await, "joined");

    let sent = flood_until_shed(&broker, &mut sender).await;
    let mut arrived = 0.0;
    let told = loop {
        let text = slow.text().await;
        if text.starts_with('x') {
            assert_eq!(text.len(), 32_768);
            arrived += 1.0;
        } else {
            break text;
        }
    };

    // Now, because the last frame may reach the sender before it reaches the slow reader's outbox.
    let shed = broker.metric("hotbay_outbox_shed_total").await;
    let lost = sent as f64 - arrived - shed;
    assert!(lost.abs() < 0.5, "{lost} of {sent} frames were lost and not counted: {arrived} arrived, {shed} were shed");
    assert!(told.starts_with(&format!("refused lost: {shed} messages")), "{told}, but {shed} were shed");
    // And from here on it is a reader like any other.
    slow.say("echo awake").await;
    assert_eq!(slow.text().await, "awake");
}

/// Frames with a conflation key replace each other while they wait: a slow reader gets the newest, never a backlog; a reader
/// that keeps up gets them all.
#[tokio::test]
async fn a_slow_reader_gets_the_newest_of_conflated_frames() {
    let broker = Setup::fixture("limits.outbox_bytes_max = 131072").start();
    let mut sender = broker.connect("/ws?channel=a", "sender").await;
    let mut slow = join_narrow(&broker, &fixture_path(&broker, "slow", "a")).await;
    flood_until_shed(&broker, &mut sender).await;

    sender.send_text("conflate 1000").await;
    for turn in 0..1_000 {
        assert_eq!(sender.text().await, format!("conflate {turn}"));
    }
    let mut conflated = Vec::new();
    loop {
        let text = slow.text().await;
        match text.strip_prefix("conflate ") {
            Some(turn) => conflated.push(turn.parse::<u32>().expect("a number")),
            None if text.starts_with('x') => {}
            None => break,
        }
    }

    // The frames of one key are of low priority here, so the newest may be shed as well, but then the reader is told.
    assert!(conflated.len() <= 1, "a backlog of conflated frames: {conflated:?}");
    assert!(conflated.iter().all(|turn| *turn == 999), "not the newest: {conflated:?}");
    assert!(broker.metric("hotbay_outbox_conflated_total").await >= 998.0);
}

/// A reader that never reads is closed with 4408 ("reconnect") once frames that must not be dropped are over its bound; the
/// others get every message, in order.
#[tokio::test]
async fn a_reader_that_never_reads_is_closed_and_nobody_else_notices() {
    let rate = "{ per_second = 100000, burst = 100000 }";
    let broker = Setup::example()
        .set("mount.community.limits.rate_per_connection", rate)
        .set("mount.community.limits.outbox_bytes_max", 131_072)
        .start();
    let path = "/api/community/ws";
    let subscribe = json!({"type": "SUBSCRIBE", "channel": "room:1"});
    let mut writer = broker.connect(path, "writer").await;
    writer.send(subscribe.clone()).await;
    writer.until_type("SUBSCRIBED").await;
    let mut reader = broker.connect(path, "reader").await;
    reader.send(subscribe.clone()).await;
    reader.until_type("SUBSCRIBED").await;
    let slow = broker.token("slow", json!({}));
    let mut slow = join_narrow(&broker, &format!("{path}?token={slow}")).await;
    slow.write(&frame(TEXT, subscribe.to_string().as_bytes())).await;
    slow.text().await;

    let mut written = 0;
    while written < 5_000 {
        let content = format!("{written:08}{}", "🙂".repeat(3_900));
        writer.send(json!({"type": "CHAT_MESSAGE", "channel": "room:1", "payload": {"content": content}})).await;
        let (own, other) = (writer.until_type("CHAT_MESSAGE").await, reader.until_type("CHAT_MESSAGE").await);
        assert_eq!((&own["payload"]["content"], &other["payload"]), (&json!(content), &own["payload"]));
        written += 1;
        if written % 5 == 0 && broker.metric("hotbay_slow_readers_closed_total").await > 0.0 {
            break;
        }
    }

    assert_eq!(slow.close_code().await, Some(4408), "after {written} messages");
    let mut late = broker.connect(path, "late").await;
    late.send(subscribe).await;
    assert_eq!(late.until_type("SUBSCRIBED").await["payload"]["online"], json!(["late", "reader", "writer"]));
}

/// A reader that never reads and is never closed by its outbox does not hold the broker's end up either: SIGTERM ends it.
#[tokio::test]
async fn a_reader_that_never_reads_does_not_delay_the_end() {
    let mut broker = Setup::fixture("limits.outbox_bytes_max = 131072").set("limits.drain_ms_max", 9_000).start();
    let mut sender = broker.connect("/ws?channel=a", "sender").await;
    let _slow = join_narrow(&broker, &fixture_path(&broker, "slow", "a")).await;
    flood_until_shed(&broker, &mut sender).await;

    assert_eq!(broker.terminate().await, Some(0), "{}", broker.log());
}

/// A sender that is faster than the plugin is held back, and every one of its messages is handled, in order.
#[tokio::test]
async fn a_flood_into_a_slow_plugin_loses_nothing() {
    const MESSAGES: usize = 3_000;
    let extra = "limits.mailbox_events_max = 8\nlimits.batch_events_max = 8\nlimits.cpu_ms_max = 5000";
    let broker = Setup::fixture(extra).start();
    let mut witness = broker.connect("/ws?channel=a", "witness").await;
    let flooder = broker.connect("/ws?channel=a", "flooder").await;
    let (mut sink, mut stream) = flooder.into_socket().split();

    let flood = tokio::spawn(async move {
        for number in 0..MESSAGES {
            // Every tenth keeps the plugin busy for a while.
            let message = if number % 10 == 0 { "hostcalls 300".to_owned() } else { format!("echo {number}") };
            sink.send(Message::text(message)).await.expect("a connection");
        }
        sink
    });
    for number in 0..MESSAGES {
        let answer = tokio::time::timeout(DEADLINE, stream.next()).await.expect("an answer in time");
        let answer = answer.expect("a connection").expect("a message");
        let expected = if number % 10 == 0 { "done".to_owned() } else { number.to_string() };
        assert_eq!(answer.to_text().expect("text"), expected);
    }
    let _sink = flood.await.expect("the flood");

    assert!(broker.metric("hotbay_backpressure_total").await > 0.0, "the flood was never held back: it proves nothing");
    witness.send_text("count").await;
    assert_eq!(witness.text().await, format!("count {}", MESSAGES + 1));
}

/// A flooded channel does not hold up another one, nor plain HTTP.
#[tokio::test]
async fn a_busy_channel_does_not_hold_up_another() {
    let broker = Setup::fixture("limits.cpu_ms_max = 1000").start();
    let mut calm = broker.connect("/ws?channel=calm", "calm").await;
    let mut busy = broker.connect("/ws?channel=busy", "busy").await;
    busy.send_text("loop").await;

    calm.send_text("echo now").await;
    let first = tokio::select! {
        biased;
        answer = calm.text() => answer,
        answer = busy.text() => panic!("the endless loop ended first: {answer}"),
    };

    assert_eq!(first, "now");
    let told = busy.text().await;
    assert!(told.starts_with("refused fault"), "{told}");
}
