//! What goes out: frames written by hand into one string each. Every function leaves valid JSON, or the documented
//! beginning of it.

use hotbay_sdk::{Refusal, RefusalCode};

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

/// Writes a string with its quotes.
pub(crate) fn string(json: &mut String, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    json.push('"');
    let mut from = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        json.push_str(&text[from..at]);
        from = at + 1;
        match byte {
            b'"' => json.push_str("\\\""),
            b'\\' => json.push_str("\\\\"),
            b'\n' => json.push_str("\\n"),
            b'\r' => json.push_str("\\r"),
            b'\t' => json.push_str("\\t"),
            _ => {
                json.push_str("\\u00");
                json.push(char::from(HEX[usize::from(byte >> 4)]));
                json.push(char::from(HEX[usize::from(byte & 15)]));
            }
        }
    }
    json.push_str(&text[from..]);
    json.push('"');
}

/// Writes a number.
pub(crate) fn number(json: &mut String, mut value: u64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    digits[at..].iter().for_each(|digit| json.push(char::from(*digit)));
}

/// Writes a list by its items.
pub(crate) fn list<T>(json: &mut String, items: impl IntoIterator<Item = T>, mut write: impl FnMut(&mut String, T)) {
    json.push('[');
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            json.push(',');
        }
        write(json, item);
    }
    json.push(']');
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
    string(json, code(why.code));
    json.push_str(",\"message\":");
    string(json, &why.message);
    json.push('}');
    frame.end(answers, now_ms)
}

/// The code of a refusal in this protocol.
fn code(code: RefusalCode) -> &'static str {
    match code {
        RefusalCode::BadRequest => "bad_request",
        RefusalCode::Forbidden => "forbidden",
        RefusalCode::NotFound => "not_found",
        RefusalCode::NotJoined => "not_subscribed",
        RefusalCode::TooLarge => "too_large",
        RefusalCode::RateLimited => "rate_limited",
        RefusalCode::Conflict => "conflict",
        RefusalCode::Unavailable => "unavailable",
        RefusalCode::Fault => "internal",
        RefusalCode::Lost => "lost",
        RefusalCode::Closing => "closing",
    }
}
