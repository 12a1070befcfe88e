//! What members send and what servers publish, as far as the plugin looks into it; and what the log may show of it.

use std::borrow::Cow;

use hotbay_sdk::{Payload, Refusal};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// Largest publication, in bytes.
pub(crate) const EVENT_BYTES_MAX: usize = 64 << 10;
/// Longest `type` of a publication, in bytes.
const KIND_BYTES_MAX: usize = 64;
/// Longest `timestamp` of a `ping` that is sent back, in bytes of JSON.
const TIMESTAMP_BYTES_MAX: usize = 64;
/// Characters of a `type` that a log line shows.
pub(crate) const SHOWN_KIND_CHARS_MAX: usize = 64;

/// A member's message.
#[derive(Debug, PartialEq)]
pub(crate) enum Inbound<'a> {
    /// With the JSON of its `timestamp`: a number or a string as it came, else `null`.
    Ping { timestamp: &'a str },
    /// Of a type this protocol does not know.
    Unknown { kind: Cow<'a, str> },
    /// Not a JSON object with a `type`.
    Malformed,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    timestamp: Option<&'a RawValue>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

impl<'a> Envelope<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        // serde would take an array for a struct as well.
        let object = text.trim_ascii_start().starts_with('{');
        object.then(|| serde_json::from_str(text).ok()).flatten()
    }
}

impl<'a> Inbound<'a> {
    /// Reads a message.
    pub(crate) fn parse(payload: &'a Payload) -> Self {
        let Some(Envelope { kind, timestamp, .. }) = payload.text().and_then(Envelope::parse) else {
            return Self::Malformed;
        };
        if kind == "ping" {
            return Self::Ping { timestamp: timestamp.map_or("null", echoed) };
        }
        Self::Unknown { kind }
    }
}

/// What of a `timestamp` is sent back.
fn echoed(timestamp: &RawValue) -> &str {
    let json = timestamp.get();
    let small = json.len() <= TIMESTAMP_BYTES_MAX && !json.starts_with(['{', '[']);
    // A raw value's escapes and the range of its numbers are unchecked.
    match small.then(|| serde_json::from_str(json)) {
        Some(Ok(Value::Number(_) | Value::String(_))) => json,
        _ => "null",
    }
}

/// Checks a publication. `None`: it goes out as it came; else as this text.
pub(crate) fn checked_publication(payload: &Payload, now_ms: u64) -> Result<Option<String>, Refusal> {
    let bad = |sentence: &str| Err(Refusal::bad_request(sentence));
    let Some(text) = payload.text() else { return bad("publish JSON text, not binary data") };
    if text.len() > EVENT_BYTES_MAX {
        return Err(Refusal::too_large(format!("an event has at most {EVENT_BYTES_MAX} bytes")));
    }
    let value: Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(error) => return Err(Refusal::bad_request(format!("the body is not valid JSON: {error}"))),
    };
    let Some(envelope) = Envelope::parse(text) else {
        return bad("an event is a JSON object {\"type\": text, \"data\": …}, each field once");
    };
    match &*envelope.kind {
        "metrics_update" | "connection_established" => {
            return bad("events of this type are the broker's own and cannot be published");
        }
        kind if kind.is_empty() || kind.len() > KIND_BYTES_MAX => {
            return bad("`type` must have 1 to 64 bytes");
        }
        "booking_updated" => {}
        _ => return Ok(None),
    }
    let (Some(Value::Object(fields)), Some(data)) = (value.get("data"), envelope.data) else {
        return bad("booking_updated takes {\"data\": {\"bookingId\", \"status\"}}");
    };
    if fields.contains_key("timestamp") {
        return Ok(None);
    }
    // `data` is a part of `text`, and ends with its brace.
    let begin = data.get().as_ptr().addr() - text.as_ptr().addr();
    let (before, after) = text.split_at(begin + data.get().len() - 1);
    let comma = if fields.is_empty() { "" } else { "," };
    Ok(Some(format!("{before}{comma}\"timestamp\":{now_ms}{after}")))
}

/// A text from outside as a log line may show it: cut, and without characters that could forge a line.
pub(crate) fn shown(text: &str, chars_max: usize) -> String {
    let mut line = String::with_capacity(text.len().min(chars_max * 4));
    for char in text.chars().take(chars_max) {
        match char {
            '"' | '\'' => line.push(char),
            _ => line.extend(char.escape_debug()),
        }
    }
    line
}
