//! Follows frame headers in the byte stream (RFC 6455 §5.2), beside the protocol machine, to hold clients to what that
//! machine does not count: how many fragments a message may have, and how long one may take to arrive.

/// Where in the stream of frames the last byte was.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Bytes of a header that is not complete.
    header: [u8; 14],
    header_len: u8,
    /// Bytes of the current frame's payload still to come.
    payload_left: u64,
    /// Frames of the current message so far; 0 between messages.
    fragments: u32,
}

impl Scan {
    /// Follows some bytes. False once a message has more fragments than allowed.
    pub(super) fn follow(&mut self, mut bytes: &[u8], fragments_max: u32) -> bool {
        while !bytes.is_empty() {
            if self.payload_left > 0 {
                let skip = self.payload_left.min(bytes.len() as u64);
                self.payload_left -= skip;
                bytes = &bytes[skip as usize..];
                continue;
            }
            self.header[self.header_len as usize] = bytes[0];
            self.header_len += 1;
            bytes = &bytes[1..];
            if let Some(payload) = self.complete_header() {
                self.payload_left = payload;
                let (first, control) = (self.header[0], self.header[0] & 0x08 != 0);
                self.header_len = 0;
                if !control {
                    self.fragments += 1;
                    if self.fragments > fragments_max {
                        return false;
                    }
                    if first & 0x80 != 0 {
                        self.fragments = 0;
                    }
                }
            }
        }
        true
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

    /// Whether a message or a frame has begun and not ended.
    pub(super) fn is_in_message(&self) -> bool {
        self.header_len > 0 || self.payload_left > 0 || self.fragments > 0
    }
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

    #[test]
    fn the_end_of_a_message_is_seen_wherever_the_bytes_are_cut() {
        let bytes = [frame(0x01, 300), frame(0x00, 0), frame(0x89, 5), frame(0x80, 7)].concat();
        for cut in 1..bytes.len() {
            let mut scan = Scan::default();
            assert!(scan.follow(&bytes[..cut], 3));
            assert!(scan.is_in_message(), "cut at {cut}");
            assert!(scan.follow(&bytes[cut..], 3));
            assert!(!scan.is_in_message(), "cut at {cut}");
        }
    }

    #[test]
    fn the_first_fragment_over_the_limit_is_refused() {
        let bytes = [frame(0x01, 1), frame(0x00, 1), frame(0x80, 1)].concat();
        assert!(Scan::default().follow(&bytes, 3));
        assert!(!Scan::default().follow(&bytes, 2));
    }
}
