//! Below the protocol machine, which knows no extension: turns each compressed message (RFC 7692) into the one frame it would have
//! been without compression, and passes everything else through as it came. Only connections that negotiated it have one.

use bytes::Bytes;

use crate::connection::scan::{Part, Scan};
use crate::limits::MountLimits;
use crate::protocol::close::Close;
use crate::protocol::deflate::{InflateError, inflate};
use crate::protocol::frame::RSV1;

/// After so many bytes for the protocol machine the rest of what was read waits. A read of 64 KiB may hold thousands of messages
/// that are each as large as they may be: they become messages no faster than those of a client that does not compress.
const STEP_BYTES: usize = 64 << 10;
/// A header with the longest form of a length, and a mask of zeros, which leaves the payload as it is.
const HEADER_BYTES: usize = 14;

const PROTOCOL: Close = Close { code: 1002, reason: "protocol error" };
const INVALID: Close = Close { code: 1007, reason: "not DEFLATE" };

/// What a connection keeps between two reads.
pub(super) struct Inflation {
    bytes_max: usize,
    message: Message,
    /// The frame of a compressed message that is coming in, between its header and the end of its payload.
    frame: Option<Frame>,
    /// What was read and has to wait.
    left: Bytes,
}

/// The message that is coming in; control frames may come in between.
enum Message {
    None,
    /// Its frames are passed through.
    Plain,
    Compressed {
        opcode: u8,
        payload: Vec<u8>,
    },
}

struct Frame {
    is_last: bool,
    /// Turned so that its first byte is for the next one of the payload.
    mask: [u8; 4],
}

impl Inflation {
    pub(super) fn new(limits: &MountLimits) -> Self {
        Self { bytes_max: limits.message_bytes_max, message: Message::None, frame: None, left: Bytes::new() }
    }

    /// Whether there is something to do before more is read.
    pub(super) fn has_left(&self) -> bool {
        !self.left.is_empty()
    }

    /// What was read and had to wait.
    pub(super) fn take_left(&mut self) -> Bytes {
        std::mem::take(&mut self.left)
    }

    /// Follows some bytes, as [`Scan::follow`] does, and appends what the protocol machine is to read to `plain`.
    ///
    /// # Errors
    /// At what ends the connection; what came before it is in `plain` and still counts.
    pub(super) fn follow(&mut self, scan: &mut Scan, bytes: &[u8], plain: &mut Vec<u8>) -> Result<(), Close> {
        let mut rest = bytes;
        while !rest.is_empty() {
            if plain.len() >= STEP_BYTES {
                self.left = Bytes::copy_from_slice(rest);
                break;
            }
            match scan.step(&mut rest)? {
                Part::None => {}
                Part::Header(header) => self.header(header, plain)?,
                Part::Payload(payload) => self.payload(payload, plain),
            }
            if !scan.is_in_frame()
                && let Some(frame) = self.frame.take()
                && frame.is_last
            {
                self.inflate(plain)?;
            }
        }
        Ok(())
    }

    /// Takes a frame's whole header. What breaks the protocol is passed through to the machine, unless it would look right there.
    fn header(&mut self, header: &[u8], plain: &mut Vec<u8>) -> Result<(), Close> {
        let &[first, second, ..] = header else { return Err(PROTOCOL) };
        let (is_last, reserved, opcode) = (first & 0x80 != 0, first & 0x70, first & 0x0F);
        let mask = header.last_chunk().filter(|_| second & 0x80 != 0);
        if opcode & 0x08 != 0 {
            plain.extend_from_slice(header);
            return Ok(());
        }
        match (&self.message, opcode, reserved, mask) {
            (Message::None, 1 | 2, RSV1, Some(_)) => {
                self.message = Message::Compressed { opcode, payload: Vec::new() };
            }
            (Message::Compressed { .. }, 0, 0, Some(_)) => {}
            (Message::Compressed { .. }, ..) => return Err(PROTOCOL),
            (Message::None | Message::Plain, ..) => {
                self.message = if is_last { Message::None } else { Message::Plain };
                plain.extend_from_slice(header);
                return Ok(());
            }
        }
        self.frame = mask.map(|mask| Frame { is_last, mask: *mask });
        Ok(())
    }

    fn payload(&mut self, part: &[u8], plain: &mut Vec<u8>) {
        let (Some(frame), Message::Compressed { payload, .. }) = (&mut self.frame, &mut self.message) else {
            return plain.extend_from_slice(part);
        };
        let before = payload.len();
        payload.extend_from_slice(part);
        for word in payload[before..].chunks_mut(4) {
            word.iter_mut().zip(frame.mask).for_each(|(byte, mask)| *byte ^= mask);
        }
        frame.mask.rotate_left(part.len() % 4);
    }

    /// The message is complete.
    fn inflate(&mut self, plain: &mut Vec<u8>) -> Result<(), Close> {
        let Message::Compressed { opcode, mut payload } = std::mem::replace(&mut self.message, Message::None) else {
            return Ok(());
        };
        let before = plain.len();
        let mut header = [0; HEADER_BYTES];
        plain.extend_from_slice(&header);
        if let Err(error) = inflate(&mut payload, self.bytes_max, plain) {
            plain.truncate(before);
            return Err(match error {
                InflateError::TooLarge => Close::TOO_BIG,
                InflateError::Invalid => INVALID,
            });
        }
        let length = (plain.len() - before - HEADER_BYTES) as u64;
        header[..2].copy_from_slice(&[0x80 | opcode, 0xFF]);
        header[2..10].copy_from_slice(&length.to_be_bytes());
        plain[before..before + HEADER_BYTES].copy_from_slice(&header);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
