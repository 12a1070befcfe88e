//! DEFLATE as `permessage-deflate` uses it (RFC 7692 §7.2): each message on its own, without what came before it. So the machines
//! and their memory (about 300 KiB) belong to a thread, and a connection keeps nothing.

use std::cell::RefCell;
use std::num::NonZeroU8;

use flate2::{Compress, Decompress, FlushCompress, FlushDecompress, Status};
use serde::Deserialize;

/// What ends each flush, and no message has at its end (RFC 7692 §7.2.1).
const FLUSH: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];
/// An empty last block. Behind [`FLUSH`] it ends the stream, unless the message was cut within a block.
const LAST: [u8; 2] = [0x03, 0x00];
/// Most that the scratch buffer of a thread keeps between two messages.
pub const SCRATCH_BYTES_MAX: usize = 256 << 10;
/// How often a message may end its stream and begin another (RFC 7692 §7.2.3.4). A client that can only end streams does it once;
/// each costs more time than the two bytes it takes.
const STREAMS_MAX: usize = 64;

/// How a mount compresses (`[mount.NAME.compression]`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Compression {
    /// How hard it tries.
    pub level: Level,
    /// Messages of fewer bytes are sent as they are.
    pub bytes_min: u32,
}

impl Default for Compression {
    fn default() -> Self {
        Self { level: Level::SIX, bytes_min: 256 }
    }
}

/// From 1, the fastest, to 9, the smallest, as zlib has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u8")]
pub struct Level(NonZeroU8);

impl Level {
    /// What zlib does if nothing else is said.
    pub const SIX: Self = Self(NonZeroU8::MIN.saturating_add(5));
}

impl TryFrom<u8> for Level {
    type Error = &'static str;

    fn try_from(level: u8) -> Result<Self, Self::Error> {
        let level = NonZeroU8::new(level).filter(|level| level.get() <= 9);
        level.map(Self).ok_or("must be from 1, the fastest, to 9, the smallest")
    }
}

/// Why a message cannot be inflated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InflateError {
    /// It would be larger than it may be.
    TooLarge,
    /// It is no DEFLATE data, or only a part of it.
    Invalid,
}

struct Deflater {
    level: Level,
    machine: Compress,
}

thread_local! {
    /// One for each level that mounts of this node use.
    static DEFLATERS: RefCell<Vec<Deflater>> = const { RefCell::new(Vec::new()) };
    static DEFLATED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static INFLATER: RefCell<Option<Decompress>> = const { RefCell::new(None) };
}

/// Deflates a payload and hands on what goes on the wire; `None` if that is not smaller.
pub fn deflate<T>(level: Level, payload: &[u8], work: impl FnOnce(&[u8]) -> T) -> Option<T> {
    DEFLATED.with_borrow_mut(|output| {
        output.clear();
        // Room for all that is worth sending: if it is used up, the rest does not matter.
        output.reserve(payload.len() + FLUSH.len());
        DEFLATERS.with_borrow_mut(|deflaters| {
            let machine = deflater(deflaters, level)?;
            machine.reset();
            machine.compress_vec(payload, output, FlushCompress::Sync).ok()
        })?;
        let deflated = output.strip_suffix(&FLUSH).filter(|deflated| deflated.len() < payload.len());
        let done = deflated.map(work);
        output.clear();
        output.shrink_to(SCRATCH_BYTES_MAX);
        done
    })
}

fn deflater(deflaters: &mut Vec<Deflater>, level: Level) -> Option<&mut Compress> {
    let known = deflaters.iter().position(|deflater| deflater.level == level);
    if known.is_none() {
        let machine = Compress::new(flate2::Compression::new(u32::from(level.0.get())), false);
        deflaters.push(Deflater { level, machine });
    }
    let at = known.unwrap_or(deflaters.len() - 1);
    deflaters.get_mut(at).map(|deflater| &mut deflater.machine)
}

/// Inflates a whole message, all its fragments in one, and appends it to `output`. What is appended by a message that fails is to
/// be thrown away.
///
/// # Errors
/// If it is no DEFLATE data, or has more than `bytes_max` bytes. Little more than those are ever made.
pub fn inflate(message: &mut Vec<u8>, bytes_max: usize, output: &mut Vec<u8>) -> Result<(), InflateError> {
    message.extend(FLUSH);
    message.extend(LAST);
    INFLATER.with_borrow_mut(|inflater| {
        let machine = inflater.get_or_insert_with(|| Decompress::new(false));
        let (from, mut at) = (output.len(), 0);
        for _ in 0..STREAMS_MAX {
            machine.reset(false);
            at += inflate_stream(machine, &message[at..], from.saturating_add(bytes_max), output)?;
            if at == message.len() {
                return Ok(());
            }
        }
        Err(InflateError::Invalid)
    })
}

/// Inflates to the end of a stream, until `output` has `length_max` bytes; returns how long the stream is.
fn inflate_stream(
    machine: &mut Decompress,
    input: &[u8],
    length_max: usize,
    output: &mut Vec<u8>,
) -> Result<usize, InflateError> {
    loop {
        if output.len() == output.capacity() {
            let likely = (4 * input.len()).max(1 << 10);
            output.reserve(likely.min(length_max.saturating_sub(output.len()) + 1));
        }
        let taken = machine.total_in() as usize;
        let status = machine.decompress_vec(&input[taken..], output, FlushDecompress::None);
        if output.len() > length_max {
            return Err(InflateError::TooLarge);
        }
        match status {
            Ok(Status::StreamEnd) => return Ok(machine.total_in() as usize),
            Ok(Status::Ok | Status::BufError) if output.len() == output.capacity() => {}
            // All was taken, there is room for more, and there is no more: the end is missing.
            Ok(_) | Err(_) => return Err(InflateError::Invalid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(level: Level, payload: &[u8]) -> Option<usize> {
        let mut wire = deflate(level, payload, <[u8]>::to_vec)?;
        let (len, mut output) = (wire.len(), b"before".to_vec());
        assert_eq!(inflate(&mut wire, payload.len(), &mut output), Ok(()));
        assert_eq!(output, [b"before", payload].concat());
        Some(len)
    }

    fn inflated(message: &[u8], bytes_max: usize) -> Result<Vec<u8>, InflateError> {
        let mut output = Vec::new();
        inflate(&mut message.to_vec(), bytes_max, &mut output).map(|()| output)
    }

    #[test]
    fn what_was_deflated_is_inflated_at_every_level_and_size() {
        let text: Vec<u8> = (0..9_000).flat_map(|number| format!("{number} green bottles, ").into_bytes()).collect();
        for level in 1..=9 {
            for len in [1_000, 1_001, 32 << 10, 64 << 10, text.len()] {
                let deflated = round_trip(Level::try_from(level).unwrap(), &text[..len]).unwrap();
                assert!(deflated < len / 2, "level {level}: {len} bytes become {deflated}");
            }
        }
    }

    #[test]
    fn what_does_not_shrink_is_not_deflated() {
        let mut state = 1_u64;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        });
        let noise: Vec<u8> = noise.take(5_000).collect();
        assert_eq!(round_trip(Level::SIX, &noise), None);
        assert_eq!(round_trip(Level::SIX, b""), None);
        assert_eq!(round_trip(Level::SIX, b"abc"), None);
        assert!(round_trip(Level::SIX, &[7; 5_000]).is_some(), "the machine is as before");
    }

    /// RFC 7692 §7.2.3: the examples of other ways to deflate "Hello", and of an empty message.
    #[test]
    fn the_examples_of_the_rfc_are_inflated() {
        let hello = Ok(b"Hello".to_vec());
        assert_eq!(inflated(&[0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00], 5), hello);
        assert_eq!(inflated(&[0x00, 0x05, 0x00, 0xFA, 0xFF, 0x48, 0x65, 0x6C, 0x6C, 0x6F, 0x00], 5), hello, "stored");
        assert_eq!(inflated(&[0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x00], 5), hello, "the last block of a stream");
        let two_blocks = [0xF2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xCA, 0xC9, 0xC9, 0x07, 0x00];
        assert_eq!(inflated(&two_blocks, 5), hello, "two blocks");
        assert_eq!(inflated(&[0x00], 0), Ok(Vec::new()), "an empty message");
    }

    #[test]
    fn a_message_that_was_cut_or_is_something_else_is_invalid() {
        let whole = deflate(Level::SIX, "a rose is a rose is a rose".repeat(20).as_bytes(), <[u8]>::to_vec).unwrap();
        assert!(inflated(&whole, 1_000).is_ok());
        for cut in 0..whole.len() {
            assert_eq!(inflated(&whole[..cut], 1_000), Err(InflateError::Invalid), "cut at {cut}");
        }
        assert_eq!(inflated(b"\xFF\xFF\xFF", 1_000), Err(InflateError::Invalid));
        assert_eq!(inflated(&[&whole[..], b"\x01\x02"].concat(), 1_000), Err(InflateError::Invalid));
        assert_eq!(inflated(&[0x03, 0x00].repeat(10_000), 1_000), Err(InflateError::Invalid), "streams without end");
    }

    /// Law: of a message that is too large, little more than the bound is made, however small it is on the wire.
    #[test]
    fn a_bomb_is_given_up_at_the_bound() {
        let bomb = deflate(Level::SIX, &vec![0; 16 << 20], <[u8]>::to_vec).unwrap();
        assert!(bomb.len() < 20_000, "{} bytes", bomb.len());
        for bytes_max in [0, 1, 1_000, 65_536, (16 << 20) - 1] {
            let mut output = Vec::new();
            assert_eq!(inflate(&mut bomb.clone(), bytes_max, &mut output), Err(InflateError::TooLarge));
            assert!(output.capacity() <= 2 * bytes_max + (1 << 10), "{} for {bytes_max}", output.capacity());
        }
        assert!(inflated(&bomb, 16 << 20).is_ok(), "the bound itself fits");
    }
}
