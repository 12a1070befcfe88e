//! What goes out: frames written by hand into one string each. Every function leaves valid JSON, or the documented
//! beginning of it.

use hotbay_sdk::Refusal;
use hotbay_sdk::json::{number, string};

use crate::frame::Id;

/// A frame in the making: `{"type":…,"channel":…,"payload":…` and then its end.
#[derive(Clone)]
pub(crate) struct Outgoing(String);

impl Outgoing {
    /// Begins a frame; its payload must be written next.
    pub(crate) fn new(kind: &str, channel: Option<&str>, capacity: usize) -> Self {
        let mut json = String::with_capacity(capacity + 160);
        json.push_str("{\"type\":");
        string(&mut json, kind);
        if let Some(channel) = channel {
            json.push_str(",\"channel\":");
            string(&mut json, channel);
        }
        json.push_str(",\"payload\":");
        Self(json)
    }

    /// Where the payload is written to.
    pub(crate) fn payload(&mut self) -> &mut String {
        &mut self.0
    }

    /// Adds who did it.
    pub(crate) fn by(mut self, user: &str) -> Self {
        self.0.push_str(",\"userId\":");
        string(&mut self.0, user);
        self
    }

    /// Ends the frame.
    pub(crate) fn end(mut self, answers: Option<&Id<'_>>, now_ms: u64) -> String {
        if let Some(id) = answers {
            self.0.push_str(",\"correlationId\":");
            match id {
                Id::Text(text) => string(&mut self.0, &text.0),
                Id::Large(number_) => number(&mut self.0, *number_),
                Id::Number(number_) => {
                    if *number_ < 0 {
                        self.0.push('-');
                    }
                    number(&mut self.0, number_.unsigned_abs());
                }
            }
        }
        self.0.push_str(",\"timestamp\":");
        number(&mut self.0, now_ms);
        self.0.push('}');
        self.0
    }
}

/// Writes a stored message as clients see it: with its id in front.
pub(crate) fn message(json: &mut String, id: u64, stored: &str) {
    json.push_str("{\"id\":\"");
    number(json, id);
    json.push_str("\",");
    json.push_str(stored.strip_prefix('{').unwrap_or(stored));
}

/// An `ERROR` frame.
pub(crate) fn error(why: &Refusal, channel: Option<&str>, answers: Option<&Id<'_>>, now_ms: u64) -> String {
    let mut frame = Outgoing::new("ERROR", channel, why.message.len());
    let json = frame.payload();
    json.push_str("{\"code\":");
    string(json, why.code.name());
    json.push_str(",\"message\":");
    string(json, &why.message);
    json.push('}');
    frame.end(answers, now_ms)
}
