//! Reads along what goes one way on a connection: the head of HTTP, and after an upgrade the frames of WebSocket (RFC 6455 §5.2). It
//! holds the beginning of a message and nothing more, and what it cannot read it passes over: it must not disturb what it watches.

/// Bytes of a head; of a longer one nothing is shown.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Bytes of a message that are held.
const HELD_BYTES_MAX: usize = 400;
/// Longest header of a frame.
const HEADER_BYTES_MAX: usize = 14;

const TEXT: u8 = 1;
const CLOSE: u8 = 8;

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    /// The head of a request or an answer, without the empty line.
    Head(String),
    /// A message.
    Message {
        /// Whether it is text.
        is_text: bool,
        /// How it begins.
        begin: Vec<u8>,
        /// How long it is, in bytes.
        bytes: u64,
    },
    /// The end, with its code and reason if it has some.
    Close(Option<(u16, String)>),
}

/// One way of a connection.
pub(super) enum Tap {
    /// Until the empty line.
    Head(Vec<u8>),
    /// After an upgrade.
    Frames(Frames),
    /// Something else.
    Other,
}

impl Tap {
    /// At the beginning of a connection.
    pub(super) fn new() -> Self {
        Self::Head(Vec::new())
    }

    /// Reads some bytes. `is_upgrade` says of a head whether frames come after it.
    pub(super) fn read(&mut self, mut bytes: &[u8], is_upgrade: impl Fn(&str) -> bool, mut tell: impl FnMut(Seen)) {
        if let Self::Head(head) = self {
            let before = head.len();
            let room = HEAD_BYTES_MAX.saturating_sub(before);
            head.extend_from_slice(&bytes[..bytes.len().min(room)]);
            // The empty line may have begun with the bytes before.
            let from = before.saturating_sub(3);
            let end = head[from..].windows(4).position(|four| four == b"\r\n\r\n").map(|at| from + at);
            let Some(end) = end else {
                if head.len() >= HEAD_BYTES_MAX {
                    *self = Self::Other;
                }
                return;
            };
            bytes = &bytes[end + 4 - before..];
            let text = String::from_utf8_lossy(&head[..end]).into_owned();
            *self = if is_upgrade(&text) { Self::Frames(Frames::default()) } else { Self::Other };
            tell(Seen::Head(text));
        }
        if let Self::Frames(frames) = self {
            frames.read(bytes, &mut tell);
        }
    }
}

/// Where in the stream of frames the last byte was.
#[derive(Debug, Default)]
pub(super) struct Frames {
    header: [u8; HEADER_BYTES_MAX],
    header_len: usize,
    /// Of the frame that goes on, once its header is complete.
    frame: Option<Frame>,
    /// Of the message that goes on: its frames may have others between them.
    message: Option<Message>,
}

#[derive(Debug)]
struct Frame {
    opcode: u8,
    is_last: bool,
    mask: [u8; 4],
    /// Bytes that came.
    have: u64,
    /// Bytes in all.
    bytes: u64,
    /// Of a control frame.
    body: Vec<u8>,
}

#[derive(Debug, Default)]
struct Message {
    is_text: bool,
    begin: Vec<u8>,
    bytes: u64,
}

impl Frames {
    fn read(&mut self, mut bytes: &[u8], tell: &mut impl FnMut(Seen)) {
        loop {
            if self.frame.is_none() {
                let Some((byte, rest)) = bytes.split_first() else { return };
                bytes = rest;
                self.header[self.header_len] = *byte;
                self.header_len += 1;
                self.frame = header(&self.header[..self.header_len]);
                if self.frame.is_some() {
                    self.header_len = 0;
                }
            }
            let Some(frame) = &mut self.frame else { continue };
            let part = bytes.len().min(usize::try_from(frame.bytes - frame.have).unwrap_or(usize::MAX));
            let (now, rest) = bytes.split_at(part);
            bytes = rest;
            let at = frame.have as usize % 4;
            let plain = now.iter().enumerate().map(|(index, byte)| byte ^ frame.mask[(at + index) % 4]);
            let is_control = frame.opcode >= CLOSE;
            let held = if is_control {
                &mut frame.body
            } else {
                let message = self.message.get_or_insert_default();
                message.is_text |= frame.opcode == TEXT;
                message.bytes += now.len() as u64;
                &mut message.begin
            };
            let room = HELD_BYTES_MAX - held.len();
            held.extend(plain.take(room));
            frame.have += now.len() as u64;
            if frame.have < frame.bytes {
                return;
            }
            let (opcode, is_last, body) = (frame.opcode, frame.is_last, std::mem::take(&mut frame.body));
            self.frame = None;
            if opcode == CLOSE {
                let code = body.split_first_chunk::<2>();
                let reason = |reason: &[u8]| String::from_utf8_lossy(reason).into_owned();
                tell(Seen::Close(code.map(|(code, rest)| (u16::from_be_bytes(*code), reason(rest)))));
            } else if !is_control
                && is_last
                && let Some(Message { is_text, begin, bytes }) = self.message.take()
            {
                tell(Seen::Message { is_text, begin, bytes });
            }
        }
    }
}

/// A frame, once its header is complete.
fn header(bytes: &[u8]) -> Option<Frame> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (is_masked, short) = (second & 0x80 != 0, second & 0x7F);
    let extended = match short {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let rest = &bytes[2..];
    if rest.len() < extended + if is_masked { 4 } else { 0 } {
        return None;
    }
    let long = rest[..extended].iter().fold(0, |number, byte| (number << 8) | u64::from(*byte));
    let mask = if is_masked { rest[extended..].first_chunk::<4>().copied() } else { None };
    Some(Frame {
        opcode: first & 0x0F,
        is_last: first & 0x80 != 0,
        mask: mask.unwrap_or_default(),
        have: 0,
        bytes: if extended == 0 { u64::from(short) } else { long },
        body: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
        let masked = if mask.is_some() { 0x80 } else { 0 };
        let mut bytes = vec![first];
        match payload.len() {
            len @ 0..126 => bytes.push(masked | len as u8),
            len @ 126..65_536 => {
                bytes.push(masked | 0x7E);
                bytes.extend((len as u16).to_be_bytes());
            }
            len => {
                bytes.push(masked | 0x7F);
                bytes.extend((len as u64).to_be_bytes());
            }
        }
        bytes.extend(mask.iter().flatten());
        let mask = mask.unwrap_or_default();
        bytes.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ mask[index % 4]));
        bytes
    }

    fn text(begin: &str, bytes: u64) -> Seen {
        Seen::Message { is_text: true, begin: begin.into(), bytes }
    }

    /// Law: what is seen does not depend on how the bytes are cut.
    #[test]
    fn messages_are_seen_however_their_bytes_are_cut() {
        let long = "x".repeat(70_000);
        let bytes = [
            b"GET /a HTTP/1.1\r\nupgrade: websocket\r\n\r\n".to_vec(),
            frame(0x01, Some([1, 2, 3, 4]), b"a mess"),
            frame(0x89, Some([5, 6, 7, 8]), b"ping"),
            frame(0x80, Some([9, 8, 7, 6]), b"age"),
            frame(0x82, None, &[7; 300]),
            frame(0x81, Some([0xFF; 4]), long.as_bytes()),
            frame(0x81, None, b""),
            frame(0x88, Some([1; 4]), &[&[3, 232][..], b"bye"].concat()),
            frame(0x88, None, b""),
        ]
        .concat();
        let wanted = [
            Seen::Head("GET /a HTTP/1.1\r\nupgrade: websocket".to_owned()),
            text("a message", 9),
            Seen::Message { is_text: false, begin: vec![7; 300], bytes: 300 },
            text(&long[..HELD_BYTES_MAX], 70_000),
            text("", 0),
            Seen::Close(Some((1000, "bye".to_owned()))),
            Seen::Close(None),
        ];
        for piece in [1, 2, 3, 7, 1_000, bytes.len()] {
            let (mut tap, mut seen) = (Tap::new(), Vec::new());
            bytes.chunks(piece).for_each(|piece| tap.read(piece, |_| true, |one| seen.push(one)));
            assert_eq!(seen, wanted, "pieces of {piece}");
        }
    }

    #[test]
    fn what_is_no_upgrade_is_passed_over() {
        let (mut tap, mut seen) = (Tap::new(), Vec::new());
        tap.read(b"POST / HTTP/1.1\r\n\r\n\x81\x01a", |_| false, |one| seen.push(one));
        tap.read(b"\x81\x01a", |_| false, |one| seen.push(one));
        assert_eq!(seen, [Seen::Head("POST / HTTP/1.1".to_owned())]);

        let mut tap = Tap::new();
        for _ in 0..20 {
            tap.read(&[b'x'; 1_000], |_| true, |one| panic!("{one:?}"));
        }
        assert!(matches!(tap, Tap::Other));
    }
}
