//! How much there is of something, and how much there may be.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::quota::limits::{Limit, Over};

/// A count with a bound that may be changed at any time.
#[derive(Debug)]
pub(super) struct Level {
    limit: Limit,
    used: AtomicU64,
    /// `u64::MAX` for any number.
    max: AtomicU64,
}

impl Level {
    pub(super) fn new(limit: Limit) -> Self {
        Self { limit, used: AtomicU64::new(0), max: AtomicU64::new(u64::MAX) }
    }

    pub(super) fn set_max(&self, max: Option<u64>) {
        self.max.store(max.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// The bound, if there is one.
    pub(super) fn max(&self) -> Option<u64> {
        Some(self.max.load(Ordering::Relaxed)).filter(|max| *max != u64::MAX)
    }

    /// Adds so many if they fit, also below a bound of the node.
    pub(super) fn try_add(&self, more: u64, node_max: u64) -> Result<(), Over> {
        let max = self.max.load(Ordering::Relaxed).min(node_max);
        let added = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(more).filter(|after| *after <= max)
        });
        match added {
            Ok(_) => Ok(()),
            Err(_) => Err(Over { limit: self.limit, max }),
        }
    }

    /// Adds so many, whatever the bound.
    pub(super) fn add(&self, more: u64) {
        self.used.fetch_add(more, Ordering::Relaxed);
    }

    /// Takes so many away. Never below zero, however wrong somebody counted.
    pub(super) fn sub(&self, less: u64) {
        let subtract = |used: u64| Some(used.saturating_sub(less));
        // It always has an answer.
        let _before = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, subtract);
    }
}
