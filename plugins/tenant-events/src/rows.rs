//! What members want, as it is stored (`m/{member}`): it must be found again after a crash, when the members are still connected. Only for those
//! that want anything else than what everybody starts with. Owns the rows of members that are gone, until they are deleted.

use std::collections::{BTreeMap, BTreeSet};

use hotbay_sdk::{Channel, MemberId, Order};

use crate::budget::Budget;
use crate::interests::{Interests, Wishes};

const PREFIX: &str = "m/";
/// What an answer to a scan has at most.
const SCAN_ENTRIES_MAX: usize = 1_000;
/// An answer with fewer bytes was not cut: the largest row would still have fitted. The host's bound is 1 MiB.
const SCAN_BYTES_CUT: usize = 768 << 10;
/// What deleting a row costs, in bytes.
const DELETE_BYTES: usize = 32;
/// Rows of members that are gone deleted in one batch.
const SWEEP_MAX: usize = 1_000;

/// The rows found by an instance that starts.
#[derive(Default)]
pub(crate) struct Rows {
    found: BTreeMap<MemberId, Option<Wishes>>,
    /// Of members that are gone.
    stale: BTreeSet<MemberId>,
}

impl Rows {
    /// Reads all rows.
    pub(crate) fn read(channel: &Channel) -> Self {
        let mut found = BTreeMap::new();
        read_all(channel, PREFIX, &mut |key, value| {
            if let Some(member) = key.strip_prefix(PREFIX).and_then(|member| member.parse().ok()) {
                found.insert(member, serde_json::from_slice(value).ok());
            }
        });
        Self { found, stale: BTreeSet::new() }
    }

    /// Gives the members that were there before this batch what they want. The other rows are of members that are gone: of another
    /// life of the broker, perhaps, in which their ids were used before.
    pub(crate) fn restore(&mut self, interests: &mut Interests) {
        for (member, wishes) in std::mem::take(&mut self.found) {
            if interests.knows(member) {
                // A row that cannot be read is as good as none; it is written over or deleted like any other.
                interests.set(member, wishes.unwrap_or_default(), true);
            } else {
                self.stale.insert(member);
            }
        }
    }

    /// A member comes: what an older one of the same id wanted is forgotten.
    pub(crate) fn forget(&mut self, channel: &Channel, budget: &mut Budget, member: MemberId, stored: bool) {
        if self.stale.remove(&member) || stored {
            channel.kv().delete(&key(member));
            budget.spend(1, DELETE_BYTES);
        }
    }

    /// Deletes rows of members that are gone, some in each batch. True if there are more.
    pub(crate) fn sweep(&mut self, channel: &Channel, budget: &mut Budget) -> bool {
        for _ in 0..SWEEP_MAX {
            if self.stale.is_empty() || !budget.fits(1, DELETE_BYTES) {
                break;
            }
            if let Some(member) = self.stale.pop_first() {
                channel.kv().delete(&key(member));
                budget.spend(1, DELETE_BYTES);
            }
        }
        !self.stale.is_empty()
    }
}

/// The row of a member that wants this; empty for what everybody starts with, which is not stored.
pub(crate) fn encode(wishes: &Wishes) -> Vec<u8> {
    if *wishes == Wishes::default() {
        return Vec::new();
    }
    // Texts and lists always serialise.
    serde_json::to_vec(wishes).unwrap_or_default()
}

/// What [`store`] costs at most: effects and bytes.
pub(crate) fn cost(row: &[u8]) -> (usize, usize) {
    (1, DELETE_BYTES + row.len())
}

/// Gives a member what it wants now, in memory and in the store.
pub(crate) fn store(
    channel: &Channel,
    budget: &mut Budget,
    interests: &mut Interests,
    member: MemberId,
    wishes: Wishes,
    row: &[u8],
) {
    let was_stored = interests.set(member, wishes, !row.is_empty());
    if !row.is_empty() {
        channel.kv().put(&key(member), row);
    } else if was_stored {
        channel.kv().delete(&key(member));
    } else {
        return;
    }
    let (effects, bytes) = cost(row);
    budget.spend(effects, bytes);
}

fn key(member: MemberId) -> String {
    format!("{PREFIX}{member:020}")
}

/// Gives all entries with a prefix. An answer has bounds, and a scan no beginning but its prefix: if one answer is not all, each
/// next character is asked for by itself.
fn read_all(channel: &Channel, prefix: &str, take: &mut impl FnMut(&str, &[u8])) {
    let entries = channel.kv().scan(prefix, Order::Ascending, SCAN_ENTRIES_MAX as u32);
    let bytes: usize = entries.iter().map(|(key, value)| key.len() + value.len()).sum();
    let Some((first, _)) = entries.first() else { return };
    if entries.len() < SCAN_ENTRIES_MAX && bytes < SCAN_BYTES_CUT {
        for (key, value) in &entries {
            take(key, value);
        }
        return;
    }
    let last = channel.kv().scan(prefix, Order::Descending, 1);
    let last = last.first().map_or(&**first, |(key, _)| &**key);
    let common = first.bytes().zip(last.bytes()).take_while(|(a, b)| a == b).count();
    if common == first.len() {
        for (key, value) in &entries {
            take(key, value);
        }
        return;
    }
    for digit in 0..10 {
        read_all(channel, &format!("{}{digit}", &first[..common]), take);
    }
}
