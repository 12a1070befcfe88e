//! What priorities mean for a client that reads too slowly.

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::{ask, join, path, setup, user};
use crate::support::broker::{Broker, Setup};
use crate::support::client::{Client, DEADLINE};

/// A client with a small receive buffer, past its `connection` event, that reads only when it is told to.
async fn join_slow(broker: &Broker, name: &str) -> WebSocketStream<TcpStream> {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(16 << 10).expect("a small buffer");
    let stream = socket.connect(broker.address().parse().expect("an address")).await.expect("a connection");
    let url = format!("ws://{}{}&token={}", broker.address(), path(name), user(name, ""));
    let (mut slow, _) = tokio_tungstenite::client_async(url, stream).await.expect("an upgrade");
    assert_eq!(next(&mut slow).await.expect("an event")["eventType"], "connection");
    slow
}

/// The next event, or the code of the close.
async fn next(slow: &mut WebSocketStream<TcpStream>) -> Result<Value, u16> {
    loop {
        match tokio::time::timeout(DEADLINE, slow.next()).await.expect("an event in time") {
            Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).expect("JSON")),
            Some(Ok(Message::Close(close))) => return Err(close.expect("a code").code.into()),
            Some(Ok(_)) => {}
            end => panic!("the connection ended without a close: {end:?}"),
        }
    }
}

/// Sends an event of 30 KB that its sender gets back.
async fn send_large(sender: &mut Client, priority: &str, number: usize) {
    let data = json!([number, "x".repeat(30_000)]);
    ask(sender, json!({ "type": priority, "priority": priority, "data": data }), priority).await;
}

fn narrow() -> Setup {
    setup().set("mount.events.limits.outbox_bytes_max", 131_072).set("mount.events.settings.historyMax", 5)
}

/// Under pressure `low` goes first, then `normal`; the reader is told how many, and a `high` one comes through.
#[tokio::test]
async fn a_slow_reader_loses_low_events_first_and_is_told() {
    let broker = narrow().start();
    let (mut ann, mut slow) = (join(&broker, "ann").await, join_slow(&broker, "slow").await);
    let mut low = 0;
    while low < 2_000 && broker.metric("hotbay_outbox_shed_total").await < 1.0 {
        send_large(&mut ann, "low", low).await;
        low += 1;
    }
    for (number, priority) in ["normal", "high", "critical"].into_iter().enumerate() {
        send_large(&mut ann, priority, number).await;
    }

    let mut arrived = Vec::new();
    let told = loop {
        let event = next(&mut slow).await.expect("it is not closed");
        if event["eventType"] == "error" {
            break event;
        }
        arrived.push(event["eventType"].as_str().expect("a text").to_owned());
    };

    assert_eq!(arrived[arrived.len() - 3..], ["normal", "high", "critical"], "none of them was dropped");
    assert!(arrived[..arrived.len() - 3].iter().all(|kind| kind == "low"), "{arrived:?}");
    let shed = low + 3 - arrived.len();
    assert!(shed >= 3, "only {shed} of {low} were dropped");
    assert_eq!((&told["source"], &told["data"]["code"]), (&json!("system"), &json!("lost")), "{told}");
    let words = told["data"]["message"].as_str().expect("a text");
    assert!(words.starts_with(&format!("{shed} messages")), "{shed} were lost: {words}");
}

/// A reader too slow for `high` and `critical` events gets them without a gap up to where it is closed, with a code that says reconnect.
#[tokio::test]
async fn high_events_are_never_dropped_silently() {
    let broker = narrow().start();
    let (mut ann, mut slow) = (join(&broker, "ann").await, join_slow(&broker, "slow").await);
    let mut sent = 0;
    while sent < 2_000 && broker.metric("hotbay_slow_readers_closed_total").await < 1.0 {
        send_large(&mut ann, ["high", "critical"][sent % 2], sent).await;
        sent += 1;
    }

    let mut arrived = 0;
    let code = loop {
        match next(&mut slow).await {
            Ok(event) => assert_eq!(event["data"][0], arrived, "one is missing: {}", event["eventType"]),
            Err(code) => break code,
        }
        arrived += 1;
    };

    assert_eq!(code, 4408);
    assert!(arrived < sent, "{arrived} of {sent}");
}
