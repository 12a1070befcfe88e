//! Follows frame headers in the byte stream (RFC 6455 §5.2), beside the protocol machine, to hold clients to what that
//! machine does not count, or counts late: how many fragments a message may have, how large all of them together may be, and
//! how long one may take to arrive.

use crate::limits::MountLimits;
use crate::protocol::close::Close;
use crate::protocol::frame::RSV1;

/// Where in the stream of frames the last byte was.
#[derive(Debug)]
pub(super) struct Scan {
    message_bytes_max: u64,
    fragments_max: u32,
    /// Frames of the current message so far; 0 between messages.
    fragments: u32,
    /// Whether the current message is compressed: DEFLATE makes some messages larger.
    is_compressed: bool,
    /// Bytes of the current message that its headers announced so far.
    message_bytes: u64,
    /// Bytes of the current frame's payload still to come.
    payload_left: u64,
    /// Bytes of a header that is not complete.
    header: [u8; 14],
    header_len: u8,
}

/// What [`Scan::step`] took.
pub(super) enum Part<'a> {
    /// Some of a header, which is not complete.
    None,
    /// What a whole header is made of.
    Header(&'a [u8]),
    /// Some of the payload.
    Payload(&'a [u8]),
}

/// What a client did wrong, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Excess {
    /// Bytes before the frame at fault; what they hold still counts.
    pub(super) before: usize,
    /// The answer.
    pub(super) close: Close,
}

impl Scan {
    pub(super) fn new(limits: &MountLimits) -> Self {
        Self {
            message_bytes_max: limits.message_bytes_max as u64,
            fragments_max: limits.message_fragments_max,
            fragments: 0,
            is_compressed: false,
            message_bytes: 0,
            payload_left: 0,
            header: [0; 14],
            header_len: 0,
        }
    }

    /// Follows some bytes.
    ///
    /// # Errors
    /// At the header of a frame with which its message has too many fragments, or becomes too large.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> Result<(), Excess> {
        let (mut rest, mut before) = (bytes, 0);
        while !rest.is_empty() {
            if !self.is_in_frame() {
                before = bytes.len() - rest.len();
            }
            self.step(&mut rest).map_err(|close| Excess { before, close })?;
        }
        Ok(())
    }

    /// Takes the next part off the beginning of some bytes.
    ///
    /// # Errors
    /// At the same headers.
    #[inline]
    pub(super) fn step<'s, 'b: 's>(&'s mut self, bytes: &mut &'b [u8]) -> Result<Part<'s>, Close> {
        if self.payload_left > 0 {
            let length = self.payload_left.min(bytes.len() as u64);
            self.payload_left -= length;
            let (part, rest) = bytes.split_at(length as usize);
            *bytes = rest;
            return Ok(Part::Payload(part));
        }
        while let Some((byte, rest)) = bytes.split_first() {
            self.header[self.header_len as usize] = *byte;
            self.header_len += 1;
            *bytes = rest;
            if let Some(payload) = self.complete_header() {
                let length = std::mem::take(&mut self.header_len) as usize;
                self.payload_left = payload;
                self.frame(payload)?;
                return Ok(Part::Header(&self.header[..length]));
            }
        }
        Ok(Part::None)
    }

    /// Counts a frame, whose header is complete. Control frames come between fragments and belong to no message.
    fn frame(&mut self, payload: u64) -> Result<(), Close> {
        let (first, control) = (self.header[0], self.header[0] & 0x08 != 0);
        if control {
            return Ok(());
        }
        if self.fragments == 0 {
            self.is_compressed = first & RSV1 != 0;
        }
        self.fragments += 1;
        self.message_bytes = self.message_bytes.saturating_add(payload);
        if self.fragments > self.fragments_max {
            return Err(Close::FRAGMENTS);
        }
        let slack = if self.is_compressed { slack(self.message_bytes_max) } else { 0 };
        if self.message_bytes > self.message_bytes_max.saturating_add(slack) {
            return Err(Close::TOO_BIG);
        }
        if first & 0x80 != 0 {
            (self.fragments, self.message_bytes) = (0, 0);
        }
        Ok(())
    }

    /// The payload's length, once the whole header is there.
    fn complete_header(&self) -> Option<u64> {
        let len = self.header_len as usize;
        if len < 2 {
            return None;
        }
        let extended = match self.header[1] & 0x7F {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if self.header[1] & 0x80 != 0 { 4 } else { 0 };
        if len < 2 + extended + mask {
            return None;
        }
        let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte));
        Some(if extended == 0 { u64::from(self.header[1] & 0x7F) } else { number(&self.header[2..2 + extended]) })
    }

    /// Whether a frame has begun and not ended.
    pub(super) fn is_in_frame(&self) -> bool {
        self.header_len > 0 || self.payload_left > 0
    }

    /// Whether a message or a frame has begun and not ended.
    pub(super) fn is_in_message(&self) -> bool {
        self.is_in_frame() || self.fragments > 0
    }
}

/// By how many bytes DEFLATE may make a message of this length larger. Zlib's own bound, with the least memory, is an eighth and
/// a little; usually it is 5 bytes in 16 KiB.
fn slack(length: u64) -> u64 {
    length / 4 + 64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, payload: usize) -> Vec<u8> {
        let mut bytes = vec![first];
        if payload <= 125 {
            bytes.push(0x80 | payload as u8);
        } else {
            bytes.push(0xFE);
            bytes.extend((payload as u16).to_be_bytes());
        }
        bytes.extend(vec![0; 4 + payload]);
        bytes
    }

    fn scan(fragments_max: u32, message_bytes_max: usize) -> Scan {
        Scan::new(&MountLimits { message_fragments_max: fragments_max, message_bytes_max, ..MountLimits::default() })
    }

    #[test]
    fn the_end_of_a_message_is_seen_wherever_the_bytes_are_cut() {
        let bytes = [frame(0x01, 300), frame(0x00, 0), frame(0x89, 5), frame(0x80, 7)].concat();
        for cut in 1..bytes.len() {
            let mut scan = scan(3, 307);
            assert_eq!(scan.follow(&bytes[..cut]), Ok(()));
            assert!(scan.is_in_message(), "cut at {cut}");
            assert_eq!(scan.follow(&bytes[cut..]), Ok(()));
            assert!(!scan.is_in_message(), "cut at {cut}");
        }
    }

    #[test]
    fn the_first_fragment_over_the_limit_is_refused_and_what_came_before_counts() {
        let whole = frame(0x81, 9);
        let bytes = [whole.clone(), frame(0x01, 1), frame(0x00, 1), frame(0x80, 1)].concat();
        let before = bytes.len() - frame(0x80, 1).len();
        assert_eq!(scan(3, 100).follow(&bytes), Ok(()));
        assert_eq!(scan(2, 100).follow(&bytes), Err(Excess { before, close: Close::FRAGMENTS }));
    }

    /// Goal: a message that becomes too large is refused by the header of the fragment that makes it so, before its body comes.
    #[test]
    fn a_message_is_too_big_by_the_header_of_the_fragment_that_makes_it_so() {
        let bytes = [frame(0x01, 200), frame(0x89, 99), frame(0x80, 101)].concat();
        let before = bytes.len() - frame(0x80, 101).len();
        let header_end = before + 6;
        assert_eq!(scan(9, 301).follow(&bytes), Ok(()));
        assert_eq!(scan(9, 300).follow(&bytes[..header_end]), Err(Excess { before, close: Close::TOO_BIG }));
    }
}
