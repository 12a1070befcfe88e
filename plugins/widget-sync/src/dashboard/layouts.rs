//! The layout of a dashboard and its older versions. Versions are kept without gaps, up to a number.

use std::collections::BTreeMap;
use std::rc::Rc;

use hotbay_sdk::Channel;

use super::stored;

/// The layouts of a dashboard.
#[derive(Clone)]
pub(super) struct Layouts {
    /// The current version; 0 if there is none.
    version: u64,
    /// The oldest version kept; 1 if there is none.
    first: u64,
    /// The version the dashboard got by the last change.
    changed: u64,
    versions_max: u64,
    /// Those that were read or made.
    texts: BTreeMap<u64, Rc<str>>,
    /// The versions that the store has: from and before.
    stored: (u64, u64),
}

impl Layouts {
    pub(super) fn new(version: u64, first: u64, changed: u64, versions_max: u64) -> Self {
        Self { version, first, changed, versions_max, texts: BTreeMap::new(), stored: (first, version + 1) }
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn first(&self) -> u64 {
        self.first
    }

    pub(super) fn changed(&self) -> u64 {
        self.changed
    }

    /// One version; `None` if it is not kept.
    pub(super) fn text(&mut self, channel: &Channel, version: u64) -> Option<Rc<str>> {
        if !(self.first..=self.version).contains(&version) {
            return None;
        }
        if let Some(text) = self.texts.get(&version) {
            return Some(Rc::clone(text));
        }
        let text = stored::layout(channel, version)?;
        self.texts.insert(version, Rc::clone(&text));
        Some(text)
    }

    /// Makes a layout the current one and returns its version.
    pub(super) fn push(&mut self, text: Rc<str>, changed: u64) -> u64 {
        self.version += 1;
        self.changed = changed;
        self.texts.insert(self.version, text);
        while self.version - self.first >= self.versions_max {
            self.texts.remove(&self.first);
            self.first += 1;
        }
        self.version
    }

    /// Writes what the store lacks, deletes what is no longer kept, and frees the memory of all but the current one.
    pub(super) fn write(&mut self, channel: &Channel) {
        let (from, before) = self.stored;
        for version in from..before.min(self.first) {
            stored::delete_layout(channel, version);
        }
        for version in before.max(self.first)..=self.version {
            if let Some(text) = self.texts.get(&version) {
                stored::put_layout(channel, version, text);
            }
        }
        self.stored = (self.first, self.version + 1);
        self.texts.retain(|version, _| *version == self.version);
    }
}
