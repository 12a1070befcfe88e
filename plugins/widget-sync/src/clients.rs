//! The connections: who they are, how much they sent, and whether they are alive. All of it is memory only; after a crash the
//! members are known again, and counted anew.

use std::collections::{BTreeMap, BTreeSet};

use hotbay_sdk::{Identity, MemberId};
use serde::{Deserialize, Serialize};

/// The role of application servers.
const SERVER_ROLE: &str = "server";

/// One connection.
pub(crate) struct Client {
    pub(crate) user: Box<str>,
    pub(crate) tally: Tally,
}

/// What is counted of a connection.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) connected_ms: u64,
    pub(crate) messages: u64,
    /// `PING`s in a row that were not answered before the next one.
    pub(crate) missed: u32,
    /// Was sent a `PING` and said nothing since.
    asked: bool,
}

impl Tally {
    /// Of a connection that was not seen before.
    pub(crate) fn new(connected_ms: u64) -> Self {
        Self { connected_ms, messages: 0, missed: 0, asked: false }
    }
}

/// The connections to the dashboard.
#[derive(Default)]
pub(crate) struct Clients {
    by_id: BTreeMap<MemberId, Client>,
    servers: BTreeSet<MemberId>,
}

impl Clients {
    /// A connection came.
    pub(crate) fn join(&mut self, id: MemberId, identity: &Identity, tally: Tally) {
        if identity.role == SERVER_ROLE {
            self.servers.insert(id);
        }
        let user = identity.user.as_str().into();
        self.by_id.entry(id).or_insert(Client { user, tally });
    }

    /// A connection went; `false` if there was none.
    pub(crate) fn leave(&mut self, id: MemberId) -> bool {
        self.servers.remove(&id);
        self.by_id.remove(&id).is_some()
    }

    /// A connection said something.
    pub(crate) fn heard(&mut self, id: MemberId) {
        if let Some(client) = self.by_id.get_mut(&id) {
            client.tally.messages += 1;
            client.tally.missed = 0;
            client.tally.asked = false;
        }
    }

    /// Counts who said nothing since the last `PING`, and takes the next one as sent. Gives the connections that missed as
    /// many as `misses`, at most `limit` of them: the others are found the next time.
    pub(crate) fn beat(&mut self, misses: u32, limit: usize) -> Vec<MemberId> {
        let mut dead = Vec::new();
        for (id, client) in &mut self.by_id {
            if client.tally.asked {
                client.tally.missed = client.tally.missed.saturating_add(1);
            }
            client.tally.asked = true;
            if client.tally.missed >= misses && dead.len() < limit {
                dead.push(*id);
            }
        }
        dead
    }

    /// One connection.
    pub(crate) fn get(&self, id: MemberId) -> Option<&Client> {
        self.by_id.get(&id)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (MemberId, &Client)> {
        self.by_id.iter().map(|(id, client)| (*id, client))
    }

    /// The application servers among them.
    pub(crate) fn servers(&self) -> &BTreeSet<MemberId> {
        &self.servers
    }
}
