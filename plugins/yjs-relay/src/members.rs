//! Who is here, which protocol they speak and what they may do. Kept in memory, and handed over when the channel
//! sleeps.

use std::collections::BTreeMap;

use hotbay_sdk::{Audience, MemberId};
use serde::{Deserialize, Serialize};

use crate::access::Access;

/// How a member speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Protocol {
    Json,
    /// That of y-websocket.
    Binary,
}

/// A member.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) user: String,
    pub(crate) protocol: Protocol,
    /// Absent until it is needed, for members an instance found when it started after a crash.
    pub(crate) access: Option<Access>,
    /// `ws_<milliseconds>_<random>`, for the operator.
    pub(crate) connection: String,
    /// When it was asked for what the document lacks, or told that something is missing; absent once it sent that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) asked_at_ms: Option<u64>,
}

/// All members.
#[derive(Debug, Default)]
pub(crate) struct Members {
    all: BTreeMap<MemberId, Member>,
    binary: usize,
}

impl Members {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is nobody.
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether any of them speaks so.
    pub(crate) fn any(&self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::Binary => self.binary > 0,
            Protocol::Json => self.binary < self.all.len(),
        }
    }

    pub(crate) fn get(&self, id: MemberId) -> Option<&Member> {
        self.all.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: MemberId) -> Option<&mut Member> {
        self.all.get_mut(&id)
    }

    pub(crate) fn insert(&mut self, id: MemberId, member: Member) {
        self.remove(id);
        self.binary += usize::from(member.protocol == Protocol::Binary);
        self.all.insert(id, member);
    }

    pub(crate) fn remove(&mut self, id: MemberId) -> Option<Member> {
        let member = self.all.remove(&id)?;
        self.binary -= usize::from(member.protocol == Protocol::Binary);
        Some(member)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (MemberId, &Member)> {
        self.all.iter().map(|(id, member)| (*id, member))
    }

    /// All who speak so but one; `None` if that is nobody.
    pub(crate) fn others(&self, protocol: Protocol, but: Option<MemberId>) -> Option<Audience> {
        if !self.any(protocol) {
            return None;
        }
        let alone = match protocol {
            Protocol::Binary => self.binary == self.all.len(),
            Protocol::Json => self.binary == 0,
        };
        match but {
            None if alone => Some(Audience::All),
            Some(but) if alone && self.all.contains_key(&but) => (self.all.len() > 1).then_some(Audience::Except(but)),
            _ => {
                let them = self.all.iter().filter(|(id, member)| member.protocol == protocol && Some(**id) != but);
                let them: Vec<MemberId> = them.map(|(id, _)| *id).collect();
                (!them.is_empty()).then_some(Audience::Only(them))
            }
        }
    }
}
