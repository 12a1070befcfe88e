//! Ids of events: version 4 UUIDs (RFC 9562) that also tell where in its channel's history an event stands, so that a page of
//! history is found from an id by one read. 62 bits are random; the other 60 are the position, masked by those and by the channel's
//! name, so that ids look and spread like any others, and one of another channel speaks of no event there is. Only this plugin reads
//! them that way.

use hotbay_sdk::{hash, mix};

/// Bits of the random half beside the variant.
const RANDOM_MASK: u64 = (1 << 62) - 1;
/// Bits of the other half beside the version.
const POSITION_MASK: u64 = (1 << 60) - 1;
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

/// The id of the event at this position of an event channel's history.
pub(crate) fn of_event(random: u64, name: &str, position: u64) -> String {
    encode(random, position ^ mask(random, name))
}

/// An id of nothing that is kept, made of two random numbers.
pub(crate) fn encode(random: u64, more: u64) -> String {
    let random = random & RANDOM_MASK;
    let high = more & POSITION_MASK;
    let high = (high >> 12) << 16 | 0x4000 | (high & 0xFFF);
    let bits = u128::from(high) << 64 | u128::from(random | 1 << 63);
    let mut text = String::with_capacity(36);
    for nibble in (0..32).rev() {
        if HYPHENS.contains(&text.len()) {
            text.push('-');
        }
        text.push(char::from(b"0123456789abcdef"[(bits >> (nibble * 4)) as usize & 15]));
    }
    text
}

/// The position an id of this event channel speaks of; `None` if it is no id of this plugin.
pub(crate) fn position(id: &str, name: &str) -> Option<u64> {
    if id.len() != 36 {
        return None;
    }
    let mut bits = 0_u128;
    for (at, byte) in id.bytes().enumerate() {
        if HYPHENS.contains(&at) {
            if byte != b'-' {
                return None;
            }
            continue;
        }
        bits = bits << 4 | u128::from(char::from(byte).to_digit(16)?);
    }
    let (high, low) = ((bits >> 64) as u64, bits as u64);
    let version_4 = high & 0xF000 == 0x4000 && low >> 62 == 0b10;
    let masked = (high >> 16) << 12 | (high & 0xFFF);
    version_4.then(|| (masked ^ mask(low, name)) & POSITION_MASK)
}

fn mask(random: u64, name: &str) -> u64 {
    mix((random & RANDOM_MASK) ^ hash(name.bytes()))
}
