//! Widgets that were deleted. The newest are kept, so that a client which was away learns of them, and so that versions go on
//! where they were when a widget comes back.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::encode;

/// Tombstones of a dashboard.
pub(crate) const TOMBSTONES_MAX: usize = 1_000;

/// That a widget was deleted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tombstone {
    /// The version it got by that.
    pub(super) version: u64,
    /// The version the dashboard got by that.
    pub(super) changed: u64,
}

/// The tombstones of a dashboard.
#[derive(Default)]
pub(super) struct Tombstones {
    by_id: BTreeMap<Rc<str>, Tombstone>,
    /// The version of the dashboard up to which some are forgotten.
    floor: u64,
}

impl Tombstones {
    pub(super) fn new(by_id: BTreeMap<Rc<str>, Tombstone>, floor: u64) -> Self {
        Self { by_id, floor }
    }

    pub(super) fn get(&self, id: &str) -> Option<Tombstone> {
        self.by_id.get(id).copied()
    }

    pub(super) fn insert(&mut self, id: Rc<str>, tombstone: Tombstone) {
        self.by_id.insert(id, tombstone);
    }

    pub(super) fn remove(&mut self, id: &str) {
        self.by_id.remove(id);
    }

    /// The oldest one, if there is no room for another.
    pub(super) fn superfluous(&self) -> Option<Rc<str>> {
        if self.by_id.len() < TOMBSTONES_MAX {
            return None;
        }
        let oldest = self.by_id.iter().min_by_key(|(_, tombstone)| tombstone.changed);
        oldest.map(|(id, _)| Rc::clone(id))
    }

    /// Drops one for good.
    pub(super) fn forget(&mut self, id: &str) {
        if let Some(tombstone) = self.by_id.remove(id) {
            self.floor = self.floor.max(tombstone.changed);
        }
    }

    /// Puts one back to how it stood.
    pub(super) fn restore(&mut self, id: &Rc<str>, before: Option<Tombstone>) {
        match before {
            Some(tombstone) => drop(self.by_id.insert(Rc::clone(id), tombstone)),
            None => drop(self.by_id.remove(id)),
        }
    }

    pub(super) fn floor(&self) -> u64 {
        self.floor
    }

    pub(super) fn set_floor(&mut self, floor: u64) {
        self.floor = floor;
    }

    /// The newest change among them.
    pub(super) fn newest(&self) -> u64 {
        self.by_id.values().map(|tombstone| tombstone.changed).max().unwrap_or(0)
    }

    /// The widgets deleted after a version of the dashboard.
    pub(super) fn after(&self, version: u64) -> Vec<Rc<str>> {
        self.by_id.iter().filter(|(_, tombstone)| tombstone.changed > version).map(|(id, _)| Rc::clone(id)).collect()
    }

    /// At most how many bytes their ids have as JSON.
    pub(super) fn bytes(&self) -> usize {
        self.by_id.keys().map(|id| encode::string_len(id) + 1).sum()
    }
}
