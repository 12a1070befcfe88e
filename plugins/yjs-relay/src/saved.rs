//! The memory handed from one instance to the next: members, awareness and who waits for an answer, never the document.
//! A cache: what cannot be read is left out.

use std::collections::BTreeMap;

use hotbay_sdk::MemberId;
use serde::{Deserialize, Serialize};

use crate::awareness;
use crate::deliver::Want;
use crate::members::{Member, Members};

/// Members handed over; beyond it an instance looks them up as after a crash.
const MEMBERS_MAX: usize = 10_000;

/// What an instance hands over.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Saved {
    pub(crate) members: BTreeMap<MemberId, Member>,
    pub(crate) awareness: awareness::Saved,
    pub(crate) wanted: BTreeMap<MemberId, Want>,
    /// When access is checked again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) access_due_ms: Option<u64>,
}

impl Saved {
    /// Writes it down.
    pub(crate) fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// The members to hand over.
pub(crate) fn members(members: &Members) -> BTreeMap<MemberId, Member> {
    members.iter().take(MEMBERS_MAX).map(|(id, member)| (id, member.clone())).collect()
}

/// Reads it; nothing if it is not what [`Saved::write`] made.
pub(crate) fn read(saved: Option<&[u8]>) -> Option<Saved> {
    serde_json::from_slice(saved?).ok()
}
