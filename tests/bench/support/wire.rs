//! Frames of a server, where they lie in a buffer (RFC 6455 §5.2).

use std::ops::Range;

/// The opcode and the place of the payload of the first frame, if it is whole. A server does not mask (§5.1).
#[inline]
pub(crate) fn frame(bytes: &[u8]) -> Option<(u8, Range<usize>)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (start, len): (usize, usize) = match second & 0x7F {
        126 => (4, usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?)).ok()?),
        len => (2, usize::from(len)),
    };
    let end = start.checked_add(len)?;
    (bytes.len() >= end).then_some((first & 0x0F, start..end))
}

/// What a close frame says.
pub(crate) fn close_words(payload: &[u8]) -> String {
    match payload.split_first_chunk() {
        Some((code, reason)) => format!("{} {}", u16::from_be_bytes(*code), String::from_utf8_lossy(reason)),
        None => "without a code".to_owned(),
    }
}
