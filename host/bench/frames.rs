//! Frames of a server (RFC 6455 §5.2) found where they lie in what was read: whole ones are shown in place, one that is
//! cut is put together from its pieces. What a server sends may be anything; it gives frames or an error.

/// How much of a payload is shown.
pub(super) const SHOWN_BYTES_MAX: usize = 4 << 10;
/// Longest frame that is waited for.
const FRAME_BYTES_MAX: u64 = 64 << 20;
const HEADER_BYTES_MAX: usize = 10;

/// A whole frame came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) opcode: u8,
    /// The payload, up to [`SHOWN_BYTES_MAX`].
    pub(super) payload: &'a [u8],
}

/// What a server must not send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("a masked frame, which only clients send")]
    Masked,
    #[error("a frame with reserved bits, though no extension was agreed on")]
    Reserved,
    #[error("a frame of {0} bytes; at most {FRAME_BYTES_MAX} are waited for")]
    TooLong(u64),
}

/// Walks the frames of one connection. Small while no frame is cut: there may be very many of these.
#[derive(Debug, Default)]
pub(super) struct Walker {
    /// Header and the payload to be shown of a frame whose end has not come yet.
    carry: Vec<u8>,
    /// Bytes of its payload that came and will not be shown.
    passed: u64,
}

struct Header {
    opcode: u8,
    bytes: usize,
    payload: u64,
}

impl Walker {
    /// Shows every frame that `bytes` ends; they follow what was given before. `each` says whether to go on.
    #[inline]
    pub(super) fn walk(&mut self, mut bytes: &[u8], mut each: impl FnMut(Frame<'_>) -> bool) -> Result<(), Malformed> {
        if !self.carry.is_empty() {
            let Some(rest) = self.resume(bytes)? else { return Ok(()) };
            bytes = rest;
            let go_on = match header(&self.carry)? {
                Some(header) => each(Frame { opcode: header.opcode, payload: &self.carry[header.bytes..] }),
                None => true,
            };
            self.carry.clear();
            self.passed = 0;
            if !go_on {
                return Ok(());
            }
        }
        while let Some(header) = header(bytes)? {
            let end = header.bytes + header.payload as usize;
            let Some(payload) = bytes.get(header.bytes..end) else { break };
            bytes = &bytes[end..];
            let payload = &payload[..payload.len().min(SHOWN_BYTES_MAX)];
            if !each(Frame { opcode: header.opcode, payload }) {
                return Ok(());
            }
        }
        if !bytes.is_empty() {
            self.resume(bytes)?;
        }
        Ok(())
    }

    /// Takes the rest of the frame in `carry`, and returns what follows it; `None` if it is still not whole.
    fn resume<'b>(&mut self, mut bytes: &'b [u8]) -> Result<Option<&'b [u8]>, Malformed> {
        let header = loop {
            match header(&self.carry)? {
                Some(header) => break header,
                None => match bytes.split_first() {
                    Some((byte, rest)) => {
                        self.carry.push(*byte);
                        bytes = rest;
                    }
                    None => return Ok(None),
                },
            }
        };
        let shown = header.payload.min(SHOWN_BYTES_MAX as u64) as usize;
        let more = (header.bytes + shown - self.carry.len()).min(bytes.len());
        self.carry.extend_from_slice(&bytes[..more]);
        bytes = &bytes[more..];
        if self.carry.len() < header.bytes + shown {
            return Ok(None);
        }
        let unshown = header.payload - shown as u64 - self.passed;
        let passed = unshown.min(bytes.len() as u64);
        self.passed += passed;
        Ok((passed == unshown).then(|| &bytes[passed as usize..]))
    }
}

/// The header at the beginning, if it is whole.
#[inline]
fn header(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let &[first, second, ..] = bytes else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err(Malformed::Reserved);
    }
    if second & 0x80 != 0 {
        return Err(Malformed::Masked);
    }
    let (length, payload) = match second {
        126 => (4, bytes.get(2..4).map(|rest| u64::from(u16::from_be_bytes([rest[0], rest[1]])))),
        127 => (HEADER_BYTES_MAX, bytes[2..].first_chunk().map(|rest| u64::from_be_bytes(*rest))),
        payload => (2, Some(u64::from(payload))),
    };
    match payload {
        Some(payload) if payload > FRAME_BYTES_MAX => Err(Malformed::TooLong(payload)),
        payload => Ok(payload.map(|payload| Header { opcode: first & 0x0F, bytes: length, payload })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x80 | opcode];
        match payload.len() {
            len @ 0..=125 => frame.push(len as u8),
            len @ 126..=0xFFFF => {
                frame.push(126);
                frame.extend((len as u16).to_be_bytes());
            }
            len => {
                frame.push(127);
                frame.extend((len as u64).to_be_bytes());
            }
        }
        frame.extend(payload);
        frame
    }

    fn shown(pieces: &[&[u8]]) -> Result<Vec<(u8, Vec<u8>)>, Malformed> {
        let mut walker = Walker::default();
        let mut shown = Vec::new();
        for piece in pieces {
            walker.walk(piece, |frame| {
                shown.push((frame.opcode, frame.payload.to_vec()));
                true
            })?;
        }
        Ok(shown)
    }

    /// Short, medium and long headers, a control frame and an empty one.
    fn stream() -> (Vec<u8>, Vec<(u8, Vec<u8>)>) {
        let sent = [(1, vec![b'a'; 5]), (9, vec![b'p'; 3]), (2, vec![b'b'; 300]), (1, vec![]), (2, vec![b'c'; 70_000])];
        let bytes = sent.iter().flat_map(|(opcode, payload)| frame(*opcode, payload)).collect();
        let cut = |payload: &Vec<u8>| payload[..payload.len().min(SHOWN_BYTES_MAX)].to_vec();
        (bytes, sent.iter().map(|(opcode, payload)| (*opcode, cut(payload))).collect())
    }

    /// Goal: what is shown does not depend on how the stream is cut.
    /// Method: cut it in two at every place, and into equal pieces of many sizes.
    #[test]
    fn every_cut_shows_the_same_frames() {
        let (bytes, expected) = stream();
        for at in 0..=bytes.len() {
            let (before, after) = bytes.split_at(at);
            assert_eq!(shown(&[before, after]).as_ref(), Ok(&expected), "cut at {at}");
        }
        for size in [1, 2, 3, 5, 7, 11, 64, 1_000, 4_096, 65_536] {
            let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
            assert_eq!(shown(&pieces).as_ref(), Ok(&expected), "pieces of {size}");
        }
    }

    #[test]
    fn a_frame_is_shown_when_its_last_byte_came() {
        let bytes = frame(2, &vec![0; 10_000]);
        let (last, rest) = bytes.split_last().unwrap();
        assert_eq!(shown(&[rest]), Ok(vec![]));
        assert_eq!(shown(&[rest, &[*last]]).map(|shown| shown.len()), Ok(1));
    }

    #[test]
    fn the_walk_ends_when_told() {
        let bytes = [frame(8, b""), frame(1, b"late")].concat();
        for cut in 0..bytes.len() {
            let (mut walker, mut count) = (Walker::default(), 0);
            for piece in [&bytes[..cut], &bytes[cut..]] {
                if count == 0 {
                    let walked = walker.walk(piece, |_| {
                        count += 1;
                        false
                    });
                    assert_eq!(walked, Ok(()));
                }
            }
            assert_eq!(count, 1, "cut at {cut}");
        }
    }

    #[test]
    fn what_a_server_must_not_send_is_named() {
        assert_eq!(shown(&[&[0x81, 0x85]]), Err(Malformed::Masked));
        assert_eq!(shown(&[&[0xC1, 0x05]]), Err(Malformed::Reserved));
        assert_eq!(shown(&[&[0xC1], &[0x05]]), Err(Malformed::Reserved));
        let endless = [&[0x82, 127][..], &u64::MAX.to_be_bytes()].concat();
        assert_eq!(shown(&[&endless]), Err(Malformed::TooLong(u64::MAX)));
    }
}
