//! Conflicts that wait for the client's decision. Memory only: after a crash, or when its time is over, a conflict is simply
//! not resolved, and nothing was changed by it.

use std::collections::BTreeMap;

use hotbay_sdk::{MemberId, Refusal};
use serde::{Deserialize, Serialize};

use crate::encode;

/// Bytes of the unresolved conflicts of one client.
const CLIENT_BYTES_MAX: usize = 640 << 10;
/// Bytes of all unresolved conflicts of a dashboard.
const ALL_BYTES_MAX: usize = 4 << 20;
/// What a conflict costs beside what the client wanted.
const CONFLICT_BYTES: usize = 256;
const ID_PREFIX: &str = "conflict-";

/// What the client wanted, and was refused because the server was further.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Intent {
    /// To merge this object into this widget.
    Update { widget: Box<str>, data: Box<str> },
    /// To delete this widget.
    Delete { widget: Box<str> },
    /// To set this layout.
    Layout { layout: Box<str> },
}

impl Intent {
    fn bytes(&self) -> usize {
        CONFLICT_BYTES
            + match self {
                Self::Update { widget, data } => widget.len() + data.len(),
                Self::Delete { widget } => widget.len(),
                Self::Layout { layout } => layout.len(),
            }
    }
}

/// A conflict that is not resolved.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Conflict {
    pub(crate) member: MemberId,
    pub(crate) intent: Intent,
    /// The client's name for its frame, as it came.
    pub(crate) answers: Option<Box<str>>,
    until_ms: u64,
}

/// The conflicts of a dashboard.
#[derive(Default)]
pub(crate) struct Conflicts {
    /// By number. Numbers ascend, and all wait equally long: the first is the next whose time is over.
    waiting: BTreeMap<u64, Conflict>,
    /// How many conflicts each client has, and their bytes.
    of_client: BTreeMap<MemberId, (usize, usize)>,
    bytes: usize,
}

impl Conflicts {
    /// Takes over what the instance before knew.
    pub(crate) fn resume(conflicts: Vec<(u64, Conflict)>) -> Self {
        let mut resumed = Self::default();
        for (number, conflict) in conflicts {
            resumed.insert(number, conflict);
        }
        resumed
    }

    /// All of them, by number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Conflict)> {
        self.waiting.iter().map(|(number, conflict)| (*number, conflict))
    }

    /// Checks that a client may have another conflict.
    pub(crate) fn check_room(&self, member: MemberId, intent: &Intent, count_max: usize) -> Result<(), Refusal> {
        let (count, bytes) = self.of_client.get(&member).copied().unwrap_or_default();
        let more = intent.bytes();
        if count >= count_max || bytes + more > CLIENT_BYTES_MAX || self.bytes + more > ALL_BYTES_MAX {
            return Err(encode::too_many_pending("resolve the conflicts you have first"));
        }
        Ok(())
    }

    /// Keeps a conflict.
    pub(crate) fn add(&mut self, number: u64, member: MemberId, intent: Intent, answers: Option<&str>, until_ms: u64) {
        self.insert(number, Conflict { member, intent, answers: answers.map(Into::into), until_ms });
    }

    fn insert(&mut self, number: u64, conflict: Conflict) {
        let bytes = conflict.intent.bytes();
        let of_client = self.of_client.entry(conflict.member).or_default();
        *of_client = (of_client.0 + 1, of_client.1 + bytes);
        self.bytes += bytes;
        self.waiting.insert(number, conflict);
    }

    /// The conflict of this name, if it is this client's.
    pub(crate) fn find(&self, name: &str, member: MemberId) -> Option<(u64, &Conflict)> {
        let number = name.strip_prefix(ID_PREFIX)?.parse().ok()?;
        self.waiting.get(&number).filter(|conflict| conflict.member == member).map(|conflict| (number, conflict))
    }

    /// Forgets a conflict.
    pub(crate) fn remove(&mut self, number: u64) -> Option<Conflict> {
        let conflict = self.waiting.remove(&number)?;
        let bytes = conflict.intent.bytes();
        self.bytes -= bytes;
        if let Some(of_client) = self.of_client.get_mut(&conflict.member) {
            *of_client = (of_client.0 - 1, of_client.1 - bytes);
            if of_client.0 == 0 {
                self.of_client.remove(&conflict.member);
            }
        }
        Some(conflict)
    }

    /// A client is gone.
    pub(crate) fn leave(&mut self, member: MemberId) {
        if !self.of_client.contains_key(&member) {
            return;
        }
        let its: Vec<u64> =
            self.iter().filter(|(_, conflict)| conflict.member == member).map(|(number, _)| number).collect();
        for number in its {
            self.remove(number);
        }
    }

    /// When the time of the next one is over.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        self.waiting.values().next().map(|conflict| conflict.until_ms)
    }

    /// Takes out the next one whose time is over.
    pub(crate) fn expire(&mut self, now_ms: u64) -> Option<Conflict> {
        let (number, conflict) = self.waiting.iter().next()?;
        if conflict.until_ms > now_ms {
            return None;
        }
        let number = *number;
        self.remove(number)
    }
}

/// The name of a conflict.
pub(crate) fn name(number: u64) -> String {
    format!("{ID_PREFIX}{number}")
}
