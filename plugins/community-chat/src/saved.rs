//! The memory handed from one instance to the next: a cache. What cannot be read is left out, never an error.
//!
//! Layout, little-endian: version `1`; whether retries follow, their last id, their number, their marks; number of members,
//! their ids; number of typists, each with `until_ms`, member id or 0, length of the user id, the user id.

use hotbay_sdk::MemberId;

use crate::history::Retries;
use crate::typing::Typist;

const VERSION: u8 = 1;

/// What an instance hands over.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Saved {
    pub(crate) retries: Option<Retries>,
    pub(crate) members: Vec<MemberId>,
    pub(crate) typists: Vec<Typist>,
}

/// Writes it down.
pub(crate) fn write<'a>(
    retries: Option<&Retries>,
    members: impl ExactSizeIterator<Item = MemberId>,
    typists: impl ExactSizeIterator<Item = &'a Typist>,
) -> Vec<u8> {
    let mut out = vec![VERSION, u8::from(retries.is_some())];
    if let Some(Retries { last, marks, .. }) = retries {
        out.extend(last.to_le_bytes());
        out.extend((marks.len() as u32).to_le_bytes());
        out.extend(marks.iter().flat_map(|mark| mark.to_le_bytes()));
    }
    out.extend((members.len() as u32).to_le_bytes());
    out.extend(members.flat_map(u64::to_le_bytes));
    out.extend((typists.len() as u32).to_le_bytes());
    for Typist { user, member, until_ms } in typists {
        out.extend(until_ms.to_le_bytes());
        out.extend(member.unwrap_or(0).to_le_bytes());
        out.extend((user.len() as u32).to_le_bytes());
        out.extend(user.as_bytes());
    }
    out
}

/// Reads it; `None` if it is not what [`write`] made.
pub(crate) fn read(mut from: &[u8]) -> Option<Saved> {
    let from = &mut from;
    let [VERSION, has_retries] = *take::<2>(from)? else { return None };
    let retries = match has_retries {
        0 => None,
        _ => Some(Retries::new(number(from)?, list(from, number)?)),
    };
    let members = list(from, number)?;
    let typists = list(from, |from| {
        let until_ms = number(from)?;
        let member = Some(number(from)?).filter(|member| *member != 0);
        let length = u32::from_le_bytes(*take(from)?) as usize;
        let (user, rest) = from.split_at_checked(length)?;
        *from = rest;
        Some(Typist { user: String::from_utf8(user.to_vec()).ok()?, member, until_ms })
    })?;
    from.is_empty().then_some(Saved { retries, members, typists })
}

fn take<'a, const N: usize>(from: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (head, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(head)
}

fn number(from: &mut &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(*take(from)?))
}

fn list<T>(from: &mut &[u8], mut item: impl FnMut(&mut &[u8]) -> Option<T>) -> Option<Vec<T>> {
    let length = u32::from_le_bytes(*take(from)?) as usize;
    // No item takes less than eight bytes: a false length cannot make this reserve more than there is.
    if length > from.len() / 8 {
        return None;
    }
    let mut items = Vec::with_capacity(length);
    for _ in 0..length {
        items.push(item(from)?);
    }
    Some(items)
}
