//! Words of the community chat that its tests share. Items are those of system 2.
//!
//! Not here, because one node alone cannot fulfil them: 9 (keys in Redis), 14 and 15 (publish and subscribe between
//! instances), 30 (connections of the whole cluster), 37 (a client hook).

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::support::broker::Broker;
use crate::support::client::Client;

/// Where the chat is (item 1).
pub(crate) const PATH: &str = "/api/community/ws";

/// Subscribes and returns the `SUBSCRIBED`.
pub(crate) async fn subscribe(client: &mut Client, channel: &str) -> Value {
    client.send(json!({"type": "SUBSCRIBE", "channel": channel})).await;
    let answer = client.until(|message| ["SUBSCRIBED", "ERROR"].iter().any(|kind| message["type"] == *kind)).await;
    assert_eq!(answer["type"], "SUBSCRIBED", "{answer}");
    assert_eq!(answer["channel"], channel);
    answer
}

/// Connects a user and subscribes it.
pub(crate) async fn join(broker: &Broker, user: &str, channel: &str) -> Client {
    let mut client = broker.connect(PATH, user).await;
    subscribe(&mut client, channel).await;
    client
}

/// Connects a user with claims and subscribes it.
pub(crate) async fn join_with(broker: &Broker, user: &str, claims: Value, channel: &str) -> Client {
    let mut client = broker.connect_with(PATH, &broker.token(user, claims)).await;
    subscribe(&mut client, channel).await;
    client
}

/// Sends a frame for a channel.
pub(crate) async fn send(client: &mut Client, kind: &str, channel: &str, payload: Value) {
    client.send(json!({"type": kind, "channel": channel, "payload": payload})).await;
}

/// Sends a message and returns it as it came back to its author; what came before it is passed over.
pub(crate) async fn say(client: &mut Client, channel: &str, content: &str) -> Value {
    let id = fresh();
    let payload = json!({"content": content});
    client.send(json!({"type": "CHAT_MESSAGE", "channel": channel, "payload": payload, "id": id})).await;
    let answer = client.until(|message| message["correlationId"] == *id).await;
    assert_eq!(answer["type"], "CHAT_MESSAGE", "{answer}");
    answer
}

/// Sends a frame and returns the `ERROR` that answers it.
pub(crate) async fn error_of(client: &mut Client, frame: Value) -> Value {
    let id = fresh();
    let mut frame = frame;
    frame["id"] = json!(id);
    client.send(frame).await;
    let answer = client.until(|message| message["correlationId"] == *id).await;
    assert_eq!(answer["type"], "ERROR", "{answer}");
    assert!(
        answer["payload"]["message"].as_str().is_some_and(|text| !text.is_empty()),
        "an error without words: {answer}"
    );
    answer["payload"].clone()
}

/// Proves that nothing of this channel is on its way to the client: what the channel sends is in order, so what it sent
/// before now would come before the client's own next message.
pub(crate) async fn nothing_waits(client: &mut Client, channel: &str) {
    let id = fresh();
    let fence = json!({"type": "CHAT_MESSAGE", "channel": channel, "payload": {"content": "fence"}, "id": id});
    client.nothing_before(fence, |answer| answer["correlationId"] == *id).await;
}

/// The id of a message.
pub(crate) fn id(message: &Value) -> u64 {
    let text = message["payload"]["id"].as_str().or_else(|| message["id"].as_str());
    text.and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("a message without an id: {message}"))
}

/// The contents of a list of messages.
pub(crate) fn contents(messages: &Value) -> Vec<&str> {
    let messages = messages.as_array().unwrap_or_else(|| panic!("no list: {messages}"));
    messages.iter().map(|message| message["content"].as_str().expect("content")).collect()
}

/// A name that was not used before in this process.
pub(crate) fn fresh() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("test-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
