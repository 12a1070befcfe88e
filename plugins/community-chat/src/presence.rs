//! Who is in the channel: connections, and how many each user has. Every step costs O(log n).

use std::collections::{BTreeMap, BTreeSet};

use hotbay_sdk::MemberId;

/// The members and users of the channel.
#[derive(Default)]
pub(crate) struct Presence {
    members: BTreeSet<MemberId>,
    /// Connections of each user.
    users: BTreeMap<Box<str>, u32>,
}

impl Presence {
    /// Counts a connection; true if it is the user's first. A connection that is already counted changes nothing.
    pub(crate) fn join(&mut self, member: MemberId, user: &str) -> bool {
        if !self.members.insert(member) {
            return false;
        }
        if let Some(connections) = self.users.get_mut(user) {
            *connections += 1;
            return false;
        }
        self.users.insert(user.into(), 1);
        true
    }

    /// Discounts a connection; true if it was the user's last.
    pub(crate) fn leave(&mut self, member: MemberId, user: &str) -> bool {
        if !self.members.remove(&member) {
            return false;
        }
        match self.users.get_mut(user) {
            Some(connections) if *connections > 1 => {
                *connections -= 1;
                false
            }
            Some(_) => {
                self.users.remove(user);
                true
            }
            None => false,
        }
    }

    /// Users, in ascending order.
    pub(crate) fn users(&self) -> impl Iterator<Item = &str> {
        self.users.keys().map(|user| &**user)
    }

    /// How many users there are.
    pub(crate) fn online(&self) -> usize {
        self.users.len()
    }

    /// The connections.
    pub(crate) fn members(&self) -> impl ExactSizeIterator<Item = MemberId> {
        self.members.iter().copied()
    }
}
