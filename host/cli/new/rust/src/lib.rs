//! Numbers messages, for ever. Change it into what a channel of yours means.
//!
//! ```text
//! who joins gets  {"count":0}
//! send            {"text":"hi"}
//! all get         {"number":1,"user":"ann","text":"hi"}
//! ```

use hotbay_sdk::{Channel, ChannelInfo, Joined, Message, Payload, Plugin, Refusal, Sender};
use serde::Deserialize;
use serde_json::json;

/// What a member may send.
#[derive(Deserialize)]
struct Request {
    text: String,
}

/// A channel. What it must not forget is in the channel's state: memory is lost when the plugin fails, or the broker.
pub struct Counter {
    count: u64,
}

impl Plugin for Counter {
    fn open(_: &ChannelInfo, _saved: Option<&[u8]>, channel: &mut Channel) -> Result<Self, String> {
        match channel.kv().get("count") {
            None => Ok(Self { count: 0 }),
            Some(kept) => serde_json::from_slice(&kept).map(|count| Self { count }).map_err(|e| e.to_string()),
        }
    }

    fn on_join(&mut self, channel: &mut Channel, joined: Joined) -> Result<(), Refusal> {
        channel.send(joined.member, json!({ "count": self.count }).to_string());
        Ok(())
    }

    fn on_message(&mut self, channel: &mut Channel, message: Message) -> Result<(), Refusal> {
        let Ok(Request { text }) = serde_json::from_slice(message.payload.bytes()) else {
            return Err(Refusal::bad_request(r#"send {"text":"…"}"#));
        };
        self.count += 1;
        channel.kv().put("count", self.count.to_string().as_bytes());
        channel.broadcast(json!({ "number": self.count, "user": message.user, "text": text }).to_string());
        Ok(())
    }

    /// What a client is sent whose message was refused.
    fn refused(_: &Sender, _: Option<&Payload>, why: &Refusal) -> Option<Payload> {
        let frame = json!({ "type": "error", "code": why.code.name(), "message": why.message });
        Some(frame.to_string().into())
    }
}

hotbay_sdk::export!(Counter);

#[cfg(test)]
mod tests {
    use super::Counter;
    use hotbay_sdk::harness::Harness;

    /// The SDK runs a plugin without WebAssembly: `cargo test`.
    #[test]
    fn messages_are_numbered_also_after_a_crash() {
        let mut channel = Harness::<Counter>::new("room:1");
        let ann = channel.join("ann");
        channel.message(ann, r#"{"text":"hi"}"#);

        channel.crash();
        let outcome = channel.message(ann, r#"{"text":"again"}"#);

        assert_eq!(outcome.texts(ann), [r#"{"number":2,"text":"again","user":"ann"}"#]);
    }
}
