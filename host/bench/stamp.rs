//! The stamp a published message carries: when it was due and which publish it is, in digits of fixed width, so that it
//! survives any protocol that hands text on, and is read back from each delivery without a parser.

/// Bytes of a stamp: the mark, 16 digits of nanoseconds, 8 digits of the slot.
pub(super) const STAMP_BYTES: usize = MARK.len() + 24;
const MARK: [u8; 2] = *b"hb";

/// What identifies a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    /// When it was due, in nanoseconds since the generator started.
    pub(super) due_ns: u64,
    /// Its place in the ledger.
    pub(super) slot: u32,
}

impl Stamp {
    /// Appends the stamp.
    pub(super) fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&MARK);
        digits(self.due_ns, 16, out);
        digits(u64::from(self.slot), 8, out);
    }

    /// The stamp at the beginning of these bytes.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (mark, rest) = bytes.split_first_chunk::<2>()?;
        let (high, rest) = rest.split_first_chunk()?;
        let (low, rest) = rest.split_first_chunk()?;
        if *mark != MARK {
            return None;
        }
        let due_ns = number(*high)? * 100_000_000 + number(*low)?;
        Some(Self { due_ns, slot: number(*rest.first_chunk()?)? as u32 })
    }
}

fn digits(mut value: u64, width: usize, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + width, b'0');
    for digit in out[start..].iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Eight digits at once: each step joins neighbours, digits to pairs to fours to eight.
fn number(text: [u8; 8]) -> Option<u64> {
    const ZEROS: u64 = u64::from_ne_bytes([b'0'; 8]);
    const HIGH_BITS: u64 = u64::from_ne_bytes([0x80; 8]);
    // Lifts 10 and more over the high bit.
    const OVER_NINE: u64 = u64::from_ne_bytes([0x80 - 10; 8]);
    let digits = u64::from_le_bytes(text) ^ ZEROS;
    if (digits | digits.wrapping_add(OVER_NINE)) & HIGH_BITS != 0 {
        return None;
    }
    let pairs = (digits * 10 + (digits >> 8)) & 0x00FF_00FF_00FF_00FF;
    let fours = (pairs * 100 + (pairs >> 16)) & 0x0000_FFFF_0000_FFFF;
    Some((fours * 10_000 + (fours >> 32)) & 0xFFFF_FFFF)
}

/// Finds stamps in payloads. Remembers where the last one was, for the next one is likely there too.
#[derive(Debug, Default)]
pub(super) struct Finder {
    at: usize,
}

impl Finder {
    /// The first stamp, or the one at the remembered place.
    pub(super) fn find(&mut self, payload: &[u8]) -> Option<Stamp> {
        if let Some(stamp) = payload.get(self.at..).and_then(Stamp::read) {
            return Some(stamp);
        }
        let (at, stamp) = payload
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == MARK[0])
            .find_map(|(at, _)| Some((at, Stamp::read(&payload[at..])?)))?;
        self.at = at;
        Some(stamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(stamp: Stamp) -> Vec<u8> {
        let mut out = Vec::new();
        stamp.write(&mut out);
        out
    }

    #[test]
    fn what_is_written_is_read() {
        for (due_ns, slot) in [(0, 0), (1, 1), (1_234_567_890_123_456, 98_765_432), (9_999_999_999_999_999, 99_999_999)]
        {
            let stamp = Stamp { due_ns, slot };
            let text = written(stamp);

            assert_eq!(text.len(), STAMP_BYTES);
            assert_eq!(Stamp::read(&text), Some(stamp), "{}", String::from_utf8_lossy(&text));
        }
    }

    /// Any byte that is no digit, at any place, makes it no stamp; so does every cut.
    #[test]
    fn nothing_else_is_a_stamp() {
        let text = written(Stamp { due_ns: 1_111_111_111_111_111, slot: 55_555_555 });
        for at in 0..text.len() {
            assert_eq!(Stamp::read(&text[..at]), None);
            for byte in (0..=255_u8).filter(|byte| !byte.is_ascii_digit() && *byte != text[at]) {
                let mut changed = text.clone();
                changed[at] = byte;
                assert_eq!(Stamp::read(&changed), None, "byte {byte} at {at}");
            }
        }
    }

    #[test]
    fn a_stamp_is_found_wherever_it_moves() {
        let stamp = Stamp { due_ns: 42, slot: 7 };
        let mut finder = Finder::default();
        for before in ["", "{\"id\":\"1\",\"content\":\"", "hhb", "hb1234", "{"] {
            let payload = [before.as_bytes(), &written(stamp), b"xxx\"}"].concat();
            assert_eq!(finder.find(&payload), Some(stamp), "after {before:?}");
        }
        assert_eq!(finder.find(b"no stamp here, though hb is"), None);
        assert_eq!(finder.find(b""), None);
    }
}
