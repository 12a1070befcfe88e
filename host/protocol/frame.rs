//! Payloads, and the frames they travel in to clients: encoded once per batch, for all who receive them.

use std::str::Utf8Error;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::protocol::event::MemberId;

/// Longest header of a frame from server to client, in bytes (RFC 6455 §5.2; servers do not mask).
pub const HEADER_BYTES_MAX: usize = 10;

/// What one WebSocket message carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// A text message; valid UTF-8, as its makers checked.
    Text(Bytes),
    /// A binary message.
    Binary(Bytes),
}

impl Payload {
    /// A text message.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(Bytes::from(text.into()))
    }

    /// The bytes of either kind.
    pub fn bytes(&self) -> &Bytes {
        match self {
            Self::Text(bytes) | Self::Binary(bytes) => bytes,
        }
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.bytes().len()
    }

    /// Whether it carries nothing.
    pub fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    /// The text, or `None` for a binary message.
    ///
    /// # Errors
    /// If the bytes are not UTF-8 after all.
    pub fn as_text(&self) -> Option<Result<&str, Utf8Error>> {
        match self {
            Self::Text(bytes) => Some(std::str::from_utf8(bytes)),
            Self::Binary(_) => None,
        }
    }

    /// The opcode of a frame that carries it.
    pub fn opcode(&self) -> Opcode {
        match self {
            Self::Text(_) => Opcode::Text,
            Self::Binary(_) => Opcode::Binary,
        }
    }
}

/// The opcodes the host sends; RFC 6455 §5.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// A whole text message.
    Text = 0x1,
    /// A whole binary message.
    Binary = 0x2,
    /// The last frame.
    Close = 0x8,
    /// A heartbeat.
    Ping = 0x9,
}

/// In a frame's first byte: its message is compressed (RFC 7692 §6).
pub const RSV1: u8 = 0x40;

/// Appends a whole, unmasked frame (RFC 6455 §5.2) to `wire`.
pub fn encode(opcode: Opcode, payload: &[u8], wire: &mut BytesMut) {
    encode_first(0x80 | opcode as u8, payload, wire);
}

/// The same with any first byte.
pub fn encode_first(first: u8, payload: &[u8], wire: &mut BytesMut) {
    wire.reserve(HEADER_BYTES_MAX + payload.len());
    wire.put_u8(first);
    match payload.len() {
        len @ 0..=125 => wire.put_u8(len as u8),
        len @ 126..=0xFFFF => {
            wire.put_u8(126);
            wire.put_u16(len as u16);
        }
        len => {
            wire.put_u8(127);
            wire.put_u64(len as u64);
        }
    }
    wire.extend_from_slice(payload);
}

/// Length of the header of a frame made by [`encode`].
pub fn header_len(frame: &[u8]) -> usize {
    match frame {
        [_, 126, ..] => 4,
        [_, 127, ..] => 10,
        _ => 2,
    }
    .min(frame.len())
}

/// Length of the whole frame that begins `wire`, made by [`encode`]; of what is no whole frame, the length of `wire`.
pub fn frame_len(wire: &[u8]) -> usize {
    let number = |bytes: &[u8]| bytes.iter().fold(0_usize, |number, byte| (number << 8) | usize::from(*byte));
    let len = match wire {
        [_, 126, a, b, ..] => 4 + number(&[*a, *b]),
        [_, 127, long @ ..] if long.len() >= 8 => 10 + number(&long[..8]),
        [_, len, ..] => 2 + usize::from(*len),
        _ => wire.len(),
    };
    len.min(wire.len())
}

/// One frame of its own.
pub fn encode_payload(payload: &Payload) -> Bytes {
    let mut wire = BytesMut::with_capacity(HEADER_BYTES_MAX + payload.len());
    encode(payload.opcode(), payload.bytes(), &mut wire);
    wire.freeze()
}

/// A close frame. The reason is cut to the 123 bytes a control frame has room for.
pub fn encode_close(code: u16, reason: &str) -> Bytes {
    let mut end = reason.len().min(123);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let mut body = Vec::with_capacity(2 + end);
    body.extend_from_slice(&code.to_be_bytes());
    body.extend_from_slice(&reason.as_bytes()[..end]);
    let mut wire = BytesMut::with_capacity(2 + body.len());
    encode(Opcode::Close, &body, &mut wire);
    wire.freeze()
}

/// Who receives a frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Audience {
    /// Every member.
    All,
    /// Every member but one.
    Except(MemberId),
    /// These members.
    Only(Box<[MemberId]>),
    /// Every member of a user.
    User(Box<str>),
}

/// What is given up first for a slow reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Shed first.
    Low,
    /// Shed next.
    Normal,
    /// Never shed: the reader is closed instead.
    High,
}

/// How a frame is treated when its receiver is slow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// What is given up first.
    pub priority: Priority,
    /// A newer frame with the same key replaces an older one that still waits.
    pub conflate: Option<Arc<str>>,
}

impl Delivery {
    /// Frames the host itself sends.
    pub const HIGH: Self = Self { priority: Priority::High, conflate: None };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_grow_with_the_payload() {
        for (len, header) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let frame = encode_payload(&Payload::Binary(vec![7; len].into()));
            assert_eq!((frame.len(), frame_len(&[&frame[..], &frame[..]].concat())), (header + len, header + len));
            assert_eq!((frame[0], header_len(&frame)), (0x82, header));
        }
    }

    #[test]
    fn a_long_close_reason_is_cut_at_a_character() {
        let frame = encode_close(1000, &"é".repeat(100));
        assert_eq!(frame.len(), 2 + 2 + 122);
        assert!(std::str::from_utf8(&frame[4..]).is_ok());
    }
}
