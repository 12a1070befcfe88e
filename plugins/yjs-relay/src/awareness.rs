//! Awareness of the y-websocket protocol: for each client of Yjs a small JSON state (cursor, name, colour) that nobody
//! stores. Decides which states count and whose they are; sends nothing.
//!
//! A client is named by a number it chose itself. The first member that speaks for a number owns it until it leaves, so
//! that nobody can move another's cursor. Clients of y-websocket also send back what they were told, with the clock it
//! had: such echoes change nothing. A client that reconnects has its number from before, while its old connection may
//! not be known to be broken yet: a member of the same user takes the number over by a newer clock, or at the same
//! clock if that is the first and only thing it says.

use std::collections::BTreeMap;

use hotbay_sdk::MemberId;
use serde::{Deserialize, Serialize};

use crate::lib0::{Malformed, Read, Reader, write_bytes, write_number};

/// Numbers one member may own.
pub(crate) const IDS_PER_MEMBER_MAX: usize = 16;
/// States of all members together, in bytes.
pub(crate) const TOTAL_BYTES_MAX: usize = 4 << 20;
/// Clients in one frame; a client may say all it knows.
const CHANGES_MAX: usize = 1 << 14;
/// Numbers whose owner left, remembered so that an echo does not bring them back.
const GONE_MAX: usize = 1_024;
/// How many time-outs they are remembered for.
const GONE_TIMEOUTS: u64 = 2;

/// What a frame says of one client.
#[derive(Debug, PartialEq)]
pub(crate) struct Change<'a> {
    client: u64,
    clock: u64,
    /// JSON; absent for `null`, which removes the state.
    state: Option<&'a str>,
}

/// Reads and checks an awareness update.
pub(crate) fn parse(bytes: &[u8]) -> Read<Vec<Change<'_>>> {
    let mut reader = Reader::new(bytes);
    let count = reader.count()?;
    if count > CHANGES_MAX {
        return Err(Malformed("it has states of too many clients"));
    }
    let mut changes = Vec::new();
    for _ in 0..count {
        let (client, clock) = (reader.number()?, reader.number()?);
        let state = std::str::from_utf8(reader.json::<true>()?).map_err(|_| Malformed("a state is not UTF-8"))?;
        changes.push(Change { client, clock, state: Some(state).filter(|state| *state != "null") });
    }
    if reader.left() > 0 {
        return Err(Malformed("there is more after its end"));
    }
    Ok(changes)
}

/// Writes an awareness update.
pub(crate) fn write<'a>(to: &mut Vec<u8>, states: impl ExactSizeIterator<Item = (u64, u64, Option<&'a str>)>) {
    write_number(to, states.len() as u64);
    for (client, clock, state) in states {
        write_number(to, client);
        write_number(to, clock);
        write_bytes(to, state.unwrap_or("null").as_bytes());
    }
}

/// What is known of one client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Entry {
    client: u64,
    /// Absent once that member left.
    owner: Option<MemberId>,
    clock: u64,
    /// Absent once it was removed, or not renewed.
    state: Option<String>,
    /// When it was last heard of.
    at_ms: u64,
}

/// A member that said something.
#[derive(Debug, Default)]
struct Owner {
    user: String,
    clients: Vec<u64>,
}

/// What the next instance gets.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Saved {
    entries: Vec<Entry>,
    owners: Vec<(MemberId, String)>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Awareness {
    entries: BTreeMap<u64, Entry>,
    owners: BTreeMap<MemberId, Owner>,
    /// Of all states.
    bytes: usize,
    state_bytes_max: usize,
    timeout_ms: u64,
}

impl Awareness {
    /// Knows nobody yet.
    pub(crate) fn new(state_bytes_max: usize, timeout_ms: u64) -> Self {
        Self { entries: BTreeMap::new(), owners: BTreeMap::new(), bytes: 0, state_bytes_max, timeout_ms }
    }

    /// Takes over what the instance before knew.
    pub(crate) fn resume(&mut self, saved: Saved) {
        for (member, user) in saved.owners {
            self.owners.insert(member, Owner { user, clients: Vec::new() });
        }
        for entry in saved.entries {
            match entry.owner.map(|member| self.owners.get_mut(&member)) {
                Some(Some(owner)) => owner.clients.push(entry.client),
                Some(None) => continue,
                None => {}
            }
            self.bytes += entry.state.as_ref().map_or(0, String::len);
            self.entries.insert(entry.client, entry);
        }
    }

    /// What the next instance should know.
    pub(crate) fn save(&self) -> Saved {
        let owners = self.owners.iter().map(|(member, owner)| (*member, owner.user.clone()));
        Saved { entries: self.entries.values().cloned().collect(), owners: owners.collect() }
    }

    /// Members that said something.
    pub(crate) fn members(&self) -> Vec<MemberId> {
        self.owners.keys().copied().collect()
    }

    /// Whether a state in a frame is larger than it may be.
    pub(crate) fn exceeds(&self, changes: &[Change<'_>]) -> bool {
        changes.iter().any(|change| change.state.is_some_and(|state| state.len() > self.state_bytes_max))
    }

    /// Takes what a member said. Gives what of it counts, for the others to know.
    pub(crate) fn receive<'a>(
        &mut self,
        member: MemberId,
        user: &str,
        changes: Vec<Change<'a>>,
        now_ms: u64,
    ) -> Vec<Change<'a>> {
        let introduces = changes.len() == 1 && !self.owners.contains_key(&member);
        self.owners.entry(member).or_insert_with(|| Owner { user: user.to_owned(), clients: Vec::new() });
        let mut changes = changes;
        changes.retain(|change| self.accepts(member, user, introduces, change) && self.set(member, change, now_ms));
        changes
    }

    fn accepts(&self, member: MemberId, user: &str, introduces: bool, change: &Change<'_>) -> bool {
        let Some(known) = self.entries.get(&change.client) else { return change.state.is_some() };
        let newer = change.clock > known.clock;
        let same = change.clock == known.clock;
        match known.owner {
            Some(owner) if owner == member => newer || (same && change.state.is_none() && known.state.is_some()),
            Some(owner) if self.owners.get(&owner).is_some_and(|owner| owner.user != user) => false,
            _ => change.state.is_some() && (newer || (same && introduces)),
        }
    }

    /// Writes it down, unless a bound forbids it.
    fn set(&mut self, member: MemberId, change: &Change<'_>, now_ms: u64) -> bool {
        let known = self.entries.get(&change.client);
        let bytes = self.bytes - known.and_then(|known| known.state.as_ref()).map_or(0, String::len);
        let bytes = bytes + change.state.map_or(0, str::len);
        let former = known.and_then(|known| known.owner);
        let Some(owner) = self.owners.get_mut(&member) else { return false };
        if bytes > TOTAL_BYTES_MAX {
            return false;
        }
        if former != Some(member) {
            if owner.clients.len() == IDS_PER_MEMBER_MAX {
                return false;
            }
            owner.clients.push(change.client);
            if let Some(former) = former.and_then(|former| self.owners.get_mut(&former)) {
                former.clients.retain(|client| *client != change.client);
            }
        }
        self.bytes = bytes;
        let state = change.state.map(str::to_owned);
        let entry = Entry { client: change.client, owner: Some(member), clock: change.clock, state, at_ms: now_ms };
        self.entries.insert(change.client, entry);
        true
    }

    /// A member left. Gives the clients whose states went with it, and their clocks.
    pub(crate) fn leave(&mut self, member: MemberId, now_ms: u64) -> Vec<(u64, u64)> {
        let Some(owner) = self.owners.remove(&member) else { return Vec::new() };
        let mut gone = Vec::new();
        for client in owner.clients {
            let Some(entry) = self.entries.get_mut(&client) else { continue };
            entry.owner = None;
            entry.at_ms = now_ms;
            if let Some(state) = entry.state.take() {
                self.bytes -= state.len();
                gone.push((client, entry.clock));
            }
        }
        let forgotten = self.entries.len().saturating_sub(self.owned() + GONE_MAX);
        if forgotten > 0 {
            let gone = self.entries.values().filter(|entry| entry.owner.is_none());
            let mut gone: Vec<(u64, u64)> = gone.map(|entry| (entry.at_ms, entry.client)).collect();
            gone.sort_unstable();
            gone.iter().take(forgotten).for_each(|(_, client)| drop(self.entries.remove(client)));
        }
        gone
    }

    fn owned(&self) -> usize {
        self.owners.values().map(|owner| owner.clients.len()).sum()
    }

    /// Removes states that were not renewed in time. Gives their clients and clocks.
    pub(crate) fn expire(&mut self, now_ms: u64) -> Vec<(u64, u64)> {
        let (timeout_ms, mut expired) = (self.timeout_ms, Vec::new());
        for entry in self.entries.values_mut() {
            if entry.at_ms + timeout_ms <= now_ms
                && let Some(state) = entry.state.take()
            {
                self.bytes -= state.len();
                expired.push((entry.client, entry.clock));
            }
        }
        let remembered_ms = timeout_ms * GONE_TIMEOUTS;
        self.entries.retain(|_, entry| entry.owner.is_some() || entry.at_ms + remembered_ms > now_ms);
        expired
    }

    /// When the next state expires, if none is renewed before.
    pub(crate) fn next_expiry_ms(&self) -> Option<u64> {
        let living = self.entries.values().filter(|entry| entry.state.is_some());
        living.map(|entry| entry.at_ms + self.timeout_ms).min()
    }

    /// Whether there is any state.
    pub(crate) fn any(&self) -> bool {
        self.bytes > 0
    }

    /// All states, with their clients and clocks.
    pub(crate) fn states(&self) -> Vec<(u64, u64, Option<&str>)> {
        let living = self.entries.values().filter(|entry| entry.state.is_some());
        living.map(|entry| (entry.client, entry.clock, entry.state.as_deref())).collect()
    }
}

impl<'a> Change<'a> {
    /// Its client, clock and state.
    pub(crate) fn parts(&self) -> (u64, u64, Option<&'a str>) {
        (self.client, self.clock, self.state)
    }
}
