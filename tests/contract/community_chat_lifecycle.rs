//! Items 26 and 35: the end of the process, reconnecting, and a client of another make.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::community_chat::{PATH, id, join, say};
use crate::support::broker::Setup;
use crate::support::client::{Client, DEADLINE};

const RATE: (&str, &str) = ("mount.community.limits.rate_per_connection", "{ per_second = 100000, burst = 100000 }");

/// Writes messages as fast as they are acknowledged, until the connection ends. Returns what was acknowledged, by id, and
/// the close code.
async fn write_until_closed(
    mut client: Client,
    started: tokio::sync::oneshot::Sender<()>,
) -> (Vec<(u64, String)>, Option<u16>) {
    const WINDOW: u64 = 20;
    let mut acknowledged = Vec::new();
    let mut started = Some(started);
    let mut sent = 0_u64;
    loop {
        while sent < acknowledged.len() as u64 + WINDOW {
            let payload = json!({"content": format!("m{sent}")});
            client.try_send(json!({"type": "CHAT_MESSAGE", "channel": "room:1", "payload": payload, "id": sent})).await;
            sent += 1;
        }
        match client.next_or_close().await {
            Ok(message) => {
                let message: serde_json::Value = serde_json::from_str(message.to_text().expect("text")).expect("JSON");
                if message["correlationId"].is_u64() && message["type"] == "CHAT_MESSAGE" {
                    acknowledged.push((id(&message), message["payload"]["content"].as_str().expect("text").to_owned()));
                }
                if acknowledged.len() == 100
                    && let Some(started) = started.take()
                {
                    started.send(()).expect("somebody who waits");
                }
            }
            Err(close) => return (acknowledged, close.map(|close| close.code.into())),
        }
    }
}

/// Item 26: on SIGTERM and on SIGINT, under load, clients are closed with 1012 ("reconnect"), the process ends with 0, and
/// after the next start every acknowledged message is there, once.
#[tokio::test]
async fn item_26_a_graceful_shutdown_loses_nothing_acknowledged() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut broker = Setup::example().set(RATE.0, RATE.1).start();
        let client = join(&broker, "alice", "room:1").await;
        let mut idle = broker.connect(PATH, "bob").await;
        let (started, begun) = tokio::sync::oneshot::channel();
        let writer = tokio::spawn(write_until_closed(client, started));
        tokio::time::timeout(DEADLINE, begun).await.expect("messages in time").expect("messages");

        broker.signal(signal);
        let (acknowledged, code) = writer.await.expect("a writer");
        let idle_code = idle.close_code().await;
        let exit = broker.ended().await;

        assert_eq!((code, idle_code), (Some(1012), Some(1012)), "{signal:?}");
        assert_eq!(exit, Some(0), "{signal:?}");
        broker.start();
        let mut reader = broker.connect(PATH, "carol").await;
        let (mut stored, mut since) = (Vec::new(), json!(0));
        loop {
            reader.send(json!({"type": "SUBSCRIBE", "channel": "room:1", "payload": {"since": since}})).await;
            let payload = reader.until_type("SUBSCRIBED").await["payload"].clone();
            let missed = payload["missed"].as_array().expect("missed");
            stored.extend(missed.iter().map(|one| (id(one), one["content"].as_str().expect("text").to_owned())));
            if payload["more"] != true {
                break;
            }
            since = payload["next"].clone();
        }
        // What was written and not acknowledged may be there or not, but nothing is there twice or out of order.
        assert_eq!(stored[..acknowledged.len()], acknowledged, "{signal:?}");
        let contents: Vec<String> = (0..stored.len()).map(|number| format!("m{number}")).collect();
        assert_eq!(stored.iter().map(|(_, content)| content.clone()).collect::<Vec<_>>(), contents, "{signal:?}");
    }
}

/// Item 26: while it stops, the broker takes no new connections, and idle clients do not delay it.
#[tokio::test]
async fn item_26_after_the_signal_nobody_new_comes_in() {
    let mut broker = Setup::example().start();
    let address = broker.address().to_owned();
    let mut clients = Vec::new();
    for number in 0..50 {
        clients.push(broker.connect(PATH, &format!("user-{number}")).await);
    }

    let began = std::time::Instant::now();
    let end = tokio::spawn(async move {
        let code = broker.terminate().await;
        (broker, code)
    });
    for client in &mut clients {
        assert_eq!(client.close_code().await, Some(1012));
    }
    drop(clients);
    let (_broker, code) = end.await.expect("an end");

    assert_eq!(code, Some(0));
    assert!(began.elapsed() < Duration::from_secs(10), "clients that read must not make it wait for the drain's limit");
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "somebody still listens");
}

/// Item 35 (npm `ws`, a client we did not write): it chats with a tokio client, both ways, and sees pings and the close.
#[tokio::test]
async fn item_35_npm_ws_chats_with_a_tokio_client() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e");
    assert!(folder.join("node_modules/ws").exists(), "install it first: make needs");
    let heartbeat = "{ interval_ms = 200, timeout_ms = 30000 }";
    let mut broker = Setup::example().set("mount.community.heartbeat", heartbeat).start();
    let mut alice = join(&broker, "alice", "room:1").await;
    let node = tokio::process::Command::new("node")
        .arg(folder.join("chat.mjs"))
        .arg(format!("ws://{}{PATH}", broker.address()))
        .arg(broker.token("node", json!({})))
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("node");

    assert_eq!(alice.until_type("USER_JOINED").await["payload"]["userId"], "node");
    say(&mut alice, "room:1", "hello node").await;
    let answer =
        alice.until(|message| message["payload"]["userId"] == "node" && message["type"] == "CHAT_MESSAGE").await;
    assert_eq!(answer["payload"]["content"], "you said: hello node");
    alice.until(|message| message["payload"]["content"] == "pinged").await;
    assert_eq!(broker.terminate().await, Some(0));
    let output =
        tokio::time::timeout(DEADLINE, node.wait_with_output()).await.expect("an end in time").expect("an end");

    let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{printed}\n{errors}");
    let expected = ["open", "SUBSCRIBED online=alice,node", "CHAT_MESSAGE hello node", "ping", "close 1012"];
    assert_eq!(printed.lines().collect::<Vec<_>>(), expected, "{errors}");
}
