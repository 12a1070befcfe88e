//! Widgets that were deleted. The newest are kept, so that a client which was away learns of them, and so that versions go on
//! where they were when a widget comes back.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;

use crate::operation::WIDGET_ID_BYTES_MAX;

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
    /// The same by `changed`, which differs for each.
    by_change: BTreeMap<u64, Rc<str>>,
    /// The version of the dashboard up to which some are forgotten.
    floor: u64,
}

impl Tombstones {
    /// None yet; up to this version of the dashboard some are forgotten.
    pub(super) fn new(floor: u64) -> Self {
        Self { floor, ..Self::default() }
    }

    pub(super) fn get(&self, id: &str) -> Option<Tombstone> {
        self.by_id.get(id).copied()
    }

    pub(super) fn insert(&mut self, id: Rc<str>, tombstone: Tombstone) {
        self.remove(&id);
        self.by_change.insert(tombstone.changed, Rc::clone(&id));
        self.by_id.insert(id, tombstone);
    }

    pub(super) fn remove(&mut self, id: &str) -> Option<Tombstone> {
        let tombstone = self.by_id.remove(id)?;
        self.by_change.remove(&tombstone.changed);
        Some(tombstone)
    }

    /// The oldest one, if there is no room for another.
    pub(super) fn superfluous(&self) -> Option<Rc<str>> {
        let oldest = self.by_change.values().next();
        oldest.filter(|_| self.by_id.len() >= TOMBSTONES_MAX).cloned()
    }

    /// Drops one for good.
    pub(super) fn forget(&mut self, id: &str) {
        if let Some(tombstone) = self.remove(id) {
            self.floor = self.floor.max(tombstone.changed);
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
        self.by_change.keys().next_back().copied().unwrap_or(0)
    }

    /// The widgets deleted after a version of the dashboard, in that order.
    pub(super) fn after(&self, version: u64) -> Vec<Rc<str>> {
        self.by_change.range((Bound::Excluded(version), Bound::Unbounded)).map(|(_, id)| Rc::clone(id)).collect()
    }

    /// At most how many bytes their ids have as JSON.
    pub(super) fn bytes_max(&self) -> usize {
        self.by_id.len() * (2 * WIDGET_ID_BYTES_MAX + 3)
    }
}
