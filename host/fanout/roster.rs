//! The members of a channel on this node, in chunks that can be shared: a burst under way keeps the chunks it was planned
//! for, while joins and leaves go on. A chunk is copied only if it changes in that very time.

use std::collections::HashMap;
use std::sync::Arc;

use crate::outbox::Outbox;
use crate::protocol::event::MemberId;
use crate::protocol::identity::Identity;

/// Members of a chunk; also the size up to which a burst is sent by one task.
pub const CHUNK_MEMBERS: usize = 1_024;

/// One member, as bursts see it.
#[derive(Clone)]
pub struct Recipient {
    /// Its id.
    pub member: MemberId,
    /// Whose connection it is.
    pub identity: Identity,
    /// The way to it.
    pub outbox: Arc<Outbox>,
}

/// The members of a channel.
#[derive(Default)]
pub struct Roster {
    chunks: Vec<Arc<Vec<Recipient>>>,
    positions: HashMap<MemberId, u32>,
}

impl Roster {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// Adds a member; false if it was one already.
    pub fn insert(&mut self, recipient: Recipient) -> bool {
        let position = self.positions.len();
        if self.positions.contains_key(&recipient.member) {
            return false;
        }
        self.positions.insert(recipient.member, position as u32);
        if position.is_multiple_of(CHUNK_MEMBERS) {
            self.chunks.push(Arc::new(Vec::new()));
        }
        if let Some(chunk) = self.chunks.last_mut() {
            Arc::make_mut(chunk).push(recipient);
        }
        true
    }

    /// Takes a member out. The last one moves to its place.
    pub fn remove(&mut self, member: MemberId) -> Option<Recipient> {
        let position = self.positions.remove(&member)? as usize;
        let tail = self.chunks.last_mut()?;
        let last = Arc::make_mut(tail).pop()?;
        if tail.is_empty() {
            self.chunks.pop();
        }
        if last.member == member {
            return Some(last);
        }
        self.positions.insert(last.member, position as u32);
        let chunk = Arc::make_mut(self.chunks.get_mut(position / CHUNK_MEMBERS)?);
        Some(std::mem::replace(chunk.get_mut(position % CHUNK_MEMBERS)?, last))
    }

    /// Where a member stands.
    pub fn position(&self, member: MemberId) -> Option<u32> {
        self.positions.get(&member).copied()
    }

    /// The member that stands there.
    pub fn get(&self, position: u32) -> Option<&Recipient> {
        let position = position as usize;
        self.chunks.get(position / CHUNK_MEMBERS)?.get(position % CHUNK_MEMBERS)
    }

    /// A member by its id.
    pub fn find(&self, member: MemberId) -> Option<&Recipient> {
        self.get(self.position(member)?)
    }

    /// All members.
    pub fn iter(&self) -> impl Iterator<Item = &Recipient> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// The chunks as they are now.
    pub fn chunks(&self) -> Vec<Arc<Vec<Recipient>>> {
        self.chunks.clone()
    }
}
