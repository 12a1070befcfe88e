//! A set of clocks, kept as ranges that neither touch nor overlap.

use std::collections::BTreeMap;

/// From each key to before its value.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Ranges(BTreeMap<u32, u32>);

impl Ranges {
    /// How many ranges there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The ranges in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, u32)> {
        self.0.iter().map(|(from, to)| (*from, *to))
    }

    /// Whether all clocks from one to before another are in it.
    pub(crate) fn covers(&self, from: u32, to: u32) -> bool {
        self.0.range(..=from).next_back().is_some_and(|(_, end)| *end >= to)
    }

    /// Adds the clocks from one to before another.
    pub(crate) fn add(&mut self, mut from: u32, mut to: u32) {
        if let Some((begin, end)) = self.0.range(..=from).next_back()
            && *end >= from
        {
            (from, to) = (*begin, to.max(*end));
        }
        // Those that begin within, or right behind, it are part of it now.
        while let Some((&begin, &end)) = self.0.range(from..=to).next() {
            self.0.remove(&begin);
            to = to.max(end);
        }
        self.0.insert(from, to);
    }
}
