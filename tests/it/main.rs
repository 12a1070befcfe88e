//! The broker from outside: connections, auth, HTTP, the command line.
#[path = "../support/mod.rs"]
mod support;

use support::broker::Setup;

#[tokio::test]
async fn a_chat_message_reaches_both() {
    let broker = Setup::example().start();
    let mut alice = broker.connect("/api/community/ws", "alice").await;
    alice.send(serde_json::json!({"type": "SUBSCRIBE", "channel": "room:1"})).await;
    alice.until_type("SUBSCRIBED").await;
    alice.send(serde_json::json!({"type": "CHAT_MESSAGE", "channel": "room:1", "payload": {"content": "hi"}})).await;
    let message = alice.until_type("CHAT_MESSAGE").await;
    assert_eq!(message["payload"]["content"], "hi");
}
