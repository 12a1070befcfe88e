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
    /// All are full but the last; none is empty.
    chunks: Vec<Arc<Vec<Recipient>>>,
    /// Where each stands. Absent while they are few: looking through them is cheaper then, in time and in memory.
    #[expect(clippy::box_collection, reason = "absent in most channels, where it should take little room")]
    positions: Option<Box<HashMap<MemberId, u32>>>,
}

/// So many members are few.
const FEW: usize = 32;

impl Roster {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK_MEMBERS + last.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Adds a member; false if it was one already.
    pub fn insert(&mut self, recipient: Recipient) -> bool {
        if self.position(recipient.member).is_some() {
            return false;
        }
        let position = self.len();
        match &mut self.positions {
            Some(positions) => drop(positions.insert(recipient.member, position as u32)),
            None if position == FEW => {
                let members = self.iter().chain([&recipient]).map(|known| known.member);
                self.positions = Some(Box::new(members.zip(0..).collect()));
            }
            None => {}
        }
        if let Some(last) = self.chunks.last_mut().filter(|last| last.len() < CHUNK_MEMBERS) {
            Arc::make_mut(last).push(recipient);
        } else {
            // Most channels have few members: no room for more than there are.
            self.chunks.reserve_exact(1);
            self.chunks.push(Arc::new(vec![recipient]));
        }
        true
    }

    /// Takes a member out. The last one moves to its place.
    pub fn remove(&mut self, member: MemberId) -> Option<Recipient> {
        let position = self.position(member)?;
        let tail = self.chunks.last_mut()?;
        let last = Arc::make_mut(tail).pop()?;
        if tail.is_empty() {
            self.chunks.pop();
        }
        if self.len() <= FEW / 2 {
            self.positions = None;
        }
        if let Some(positions) = &mut self.positions {
            positions.remove(&member);
            if last.member != member {
                positions.insert(last.member, position);
            }
        }
        if last.member == member {
            return Some(last);
        }
        let position = position as usize;
        let chunk = Arc::make_mut(self.chunks.get_mut(position / CHUNK_MEMBERS)?);
        Some(std::mem::replace(chunk.get_mut(position % CHUNK_MEMBERS)?, last))
    }

    /// Where a member stands.
    pub fn position(&self, member: MemberId) -> Option<u32> {
        match &self.positions {
            Some(positions) => positions.get(&member).copied(),
            None => self.iter().zip(0..).find_map(|(known, position)| (known.member == member).then_some(position)),
        }
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// Goal: across the sizes at which the roster changes its form, growing and shrinking, every member is found where it stands,
    /// nobody twice, and nobody who left.
    #[tokio::test]
    async fn members_are_found_whatever_their_number() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let outbox = Arc::new(Outbox::new(stream, 1 << 10));
        let recipient = |id| {
            let (member, identity, outbox) = (MemberId(id), Identity::anonymous("default"), Arc::clone(&outbox));
            Recipient { member, identity, outbox }
        };
        let mut roster = Roster::default();
        let mut members = VecDeque::new();
        let mut next = 0;
        for target in [FEW - 1, FEW + 2, FEW / 2 - 1, CHUNK_MEMBERS + FEW, CHUNK_MEMBERS - 1, 1, 0, FEW + 1, 0] {
            while members.len() < target {
                assert!(roster.insert(recipient(next)));
                assert!(!roster.insert(recipient(next)), "a member is one only once");
                members.push_back(next);
                next += 1;
            }
            while members.len() > target {
                // The oldest and the newest by turns.
                let gone = if members.len() % 2 == 0 { members.pop_front() } else { members.pop_back() }.unwrap();
                assert_eq!(roster.remove(MemberId(gone)).unwrap().member, MemberId(gone));
                assert!(roster.remove(MemberId(gone)).is_none());
                assert!(roster.find(MemberId(gone)).is_none());
            }
            assert_eq!(roster.len(), target);
            assert_eq!(roster.is_empty(), target == 0);
            assert_eq!(roster.iter().count(), target);
            for member in &members {
                let position = roster.position(MemberId(*member)).unwrap();
                assert_eq!(roster.get(position).unwrap().member, MemberId(*member));
            }
        }
    }
}
