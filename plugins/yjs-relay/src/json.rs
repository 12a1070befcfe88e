//! Frames of the JSON protocol: `{type, data?, error?}`, where `data` is the bytes of an update as numbers.

use std::borrow::Cow;

use hotbay_sdk::{Payload, Refusal};
use serde::Deserialize;
use serde_json::value::RawValue;

const EXPECTED: &str = "a frame is a JSON object {type, data?}";
const DATA_EXPECTED: &str = "`data` must be an array of the update's bytes, whole numbers from 0 to 255";

/// A frame of a client or of an application server. Unknown fields are ignored.
#[derive(Deserialize)]
pub(crate) struct Frame<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

impl<'a> Frame<'a> {
    /// Parses a frame. Some clients send their text as a binary message.
    pub(crate) fn parse(frame: &'a Payload) -> Result<Self, Refusal> {
        let bytes = frame.bytes().trim_ascii_start();
        // serde would take an array for a struct as well.
        if bytes.first() != Some(&b'{') {
            return Err(Refusal::bad_request(EXPECTED));
        }
        serde_json::from_slice(bytes).map_err(|_| Refusal::bad_request(EXPECTED))
    }

    /// The `type`.
    pub(crate) fn kind(&self) -> &str {
        &self.kind
    }

    /// The bytes in `data`.
    pub(crate) fn data(&self) -> Result<Vec<u8>, Refusal> {
        let data = self.data.ok_or_else(|| Refusal::bad_request("`yjs-update` lacks `data`"))?;
        numbers(data.get()).ok_or_else(|| Refusal::bad_request(DATA_EXPECTED))
    }
}

/// Reads `[1, 2, 255]`.
fn numbers(text: &str) -> Option<Vec<u8>> {
    let list = text.trim_ascii().strip_prefix('[')?.strip_suffix(']')?.as_bytes();
    if list.trim_ascii().is_empty() {
        return Some(Vec::new());
    }
    let mut bytes = Vec::with_capacity(list.len() / 4 + 1);
    for number in list.split(|byte| *byte == b',') {
        let digits = number.trim_ascii();
        // Whatever JSON allows, a byte has one way to be written.
        if digits.is_empty() || digits.len() > 3 || (digits.len() > 1 && digits[0] == b'0') {
            return None;
        }
        let mut value = 0_u32;
        for digit in digits {
            value = value * 10 + u32::from(digit.checked_sub(b'0').filter(|digit| *digit < 10)?);
        }
        bytes.push(u8::try_from(value).ok()?);
    }
    Some(bytes)
}

/// Each byte as it is written in `data`, with a comma behind it, and how long that is.
const DECIMALS: [([u8; 4], u8); 256] = {
    let mut decimals = [(*b",,,,", 2); 256];
    let mut byte = 0;
    while byte < 256 {
        let (hundreds, tens, ones) = (byte as u8 / 100, byte as u8 / 10 % 10, byte as u8 % 10);
        decimals[byte] = match (hundreds, tens) {
            (0, 0) => ([b'0' + ones, b',', b',', b','], 2),
            (0, _) => ([b'0' + tens, b'0' + ones, b',', b','], 3),
            _ => ([b'0' + hundreds, b'0' + tens, b'0' + ones, b','], 4),
        };
        byte += 1;
    }
    decimals
};

/// Bytes a frame with so many bytes of data has at most.
pub(crate) fn len_max(data: usize) -> usize {
    data * 4 + 64
}

/// A frame with data.
pub(crate) fn data(kind: &str, data: &[u8]) -> String {
    let digits: usize = data.iter().map(|byte| usize::from(DECIMALS[usize::from(*byte)].1)).sum();
    let mut json = Vec::with_capacity(digits + kind.len() + 24);
    json.extend_from_slice(b"{\"type\":\"");
    json.extend_from_slice(kind.as_bytes());
    json.extend_from_slice(b"\",\"data\":[");
    for byte in data {
        let (decimal, length) = &DECIMALS[usize::from(*byte)];
        json.extend_from_slice(&decimal[..usize::from(*length)]);
    }
    if !data.is_empty() {
        json.pop();
    }
    json.extend_from_slice(b"]}");
    String::from_utf8(json).unwrap_or_default()
}

/// An `error` frame.
pub(crate) fn error(why: &str) -> String {
    serde_json::json!({"type": "error", "error": why}).to_string()
}
