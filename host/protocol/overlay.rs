//! Newer writes laid over older entries of a channel's state, page by page. A scan goes through layers, each of which lays
//! its own writes over the answer of the one below: the batch under way, batches on their way to the disk, the store.
//!
//! The answer of a lower layer may end early. What lies beyond its last key is not known then, so nothing is laid over it
//! before the next page says what is there.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::limits::READ_BYTES_MAX;

/// Entries of a state that follow each other without a gap, in the order that was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Keys and values.
    pub entries: Vec<(String, Bytes)>,
    /// Whether it is certain that nothing comes after them.
    pub complete: bool,
}

impl Page {
    /// An answer of [`Overlay`] to somebody who asked for this many.
    pub fn of_answer(entries: Vec<(String, Bytes)>, limit: u32) -> Self {
        let complete = entries.len() < limit as usize && bytes(&entries) <= READ_BYTES_MAX;
        Self { entries, complete }
    }
}

/// The answer to a scan while it grows. It ends early only when it has more than [`READ_BYTES_MAX`] bytes, so that an answer
/// of fewer entries than were asked for, and no more bytes, is all there is.
#[derive(Debug)]
pub struct Overlay {
    descending: bool,
    limit: usize,
    bytes: usize,
    entries: Vec<(String, Bytes)>,
}

impl Overlay {
    /// An empty answer of at most `limit` entries.
    pub fn new(descending: bool, limit: u32) -> Self {
        Self { descending, limit: limit as usize, bytes: 0, entries: Vec::new() }
    }

    /// Lays `written` (those of the scan's prefix; `None` is deleted) over a page of what is below, which begins after
    /// `after`. `Some` is where the next page begins, if one is needed.
    pub fn add<'w>(
        &mut self,
        after: Option<&str>,
        page: Page,
        written: impl IntoIterator<Item = (&'w str, Option<&'w Bytes>)>,
    ) -> Option<String> {
        let Page { entries, complete } = page;
        let horizon = if complete { None } else { entries.last().map(|(key, _)| key.clone()) };
        let mut entries: BTreeMap<String, Bytes> = entries.into_iter().collect();
        for (key, value) in written {
            let known = after.is_none_or(|after| self.is_past(key, after))
                && horizon.as_deref().is_none_or(|horizon| !self.is_past(key, horizon));
            match value {
                _ if !known => {}
                Some(value) => drop(entries.insert(key.to_owned(), value.clone())),
                None => drop(entries.remove(key)),
            }
        }
        let full = if self.descending {
            entries.into_iter().rev().any(|entry| self.take(entry))
        } else {
            entries.into_iter().any(|entry| self.take(entry))
        };
        horizon.filter(|_| !full)
    }

    /// The answer.
    pub fn into_entries(self) -> Vec<(String, Bytes)> {
        self.entries
    }

    /// The answer without the entry that makes it larger than [`READ_BYTES_MAX`], unless that is its first.
    pub fn into_bounded(mut self) -> Vec<(String, Bytes)> {
        if self.bytes > READ_BYTES_MAX && self.entries.len() > 1 {
            self.entries.pop();
        }
        self.entries
    }

    /// Takes an entry; true if there is no room for another one.
    fn take(&mut self, entry: (String, Bytes)) -> bool {
        if self.is_full() {
            return true;
        }
        self.bytes += entry.0.len() + entry.1.len();
        self.entries.push(entry);
        self.is_full()
    }

    fn is_full(&self) -> bool {
        self.entries.len() >= self.limit || self.bytes > READ_BYTES_MAX
    }

    fn is_past(&self, key: &str, mark: &str) -> bool {
        if self.descending { key < mark } else { key > mark }
    }
}

fn bytes(entries: &[(String, Bytes)]) -> usize {
    entries.iter().map(|(key, value)| key.len() + value.len()).sum()
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    type Layer = BTreeMap<String, Option<Bytes>>;

    /// The lowest layer: ends before the entry that would make it too large, as a store does.
    fn stored(state: &BTreeMap<String, Bytes>, after: Option<&str>, descending: bool, limit: u32) -> Page {
        let mut page = Page { entries: Vec::new(), complete: true };
        for (key, value) in in_order(state, descending) {
            if after.is_some_and(|after| if descending { key.as_str() >= after } else { key.as_str() <= after }) {
                continue;
            }
            let too_large = bytes(&page.entries) + key.len() + value.len() > READ_BYTES_MAX;
            if page.entries.len() >= limit as usize || (too_large && !page.entries.is_empty()) {
                page.complete = false;
                break;
            }
            page.entries.push((key, value));
        }
        page
    }

    fn in_order(state: &BTreeMap<String, Bytes>, descending: bool) -> Vec<(String, Bytes)> {
        let mut entries: Vec<_> = state.clone().into_iter().collect();
        if descending {
            entries.reverse();
        }
        entries
    }

    fn scan(
        below: &dyn Fn(Option<&str>, u32) -> Page,
        layer: &Layer,
        after: Option<&str>,
        descending: bool,
        limit: u32,
    ) -> Overlay {
        let mut overlay = Overlay::new(descending, limit);
        let ask = limit + layer.values().filter(|value| value.is_none()).count() as u32;
        let mut after = after.map(str::to_owned);
        loop {
            let written = layer.iter().map(|(key, value)| (key.as_str(), value.as_ref()));
            match overlay.add(after.as_deref(), below(after.as_deref(), ask), written) {
                Some(next) => after = Some(next),
                None => return overlay,
            }
        }
    }

    /// Goal: whatever was written in which layer, an answer is the beginning of the whole state, without a hole, and as long as
    /// its bounds allow.
    /// Method: random large values in a store and two layers over it, against a map of all three.
    #[test]
    fn an_answer_through_layers_has_no_holes() {
        let large = Bytes::from(vec![7; 1 << 20]);
        for seed in 0..3_000 {
            let mut rng = StdRng::seed_from_u64(seed);
            let key = |rng: &mut StdRng| format!("{:02}", rng.random_range(0..30));
            let value = |rng: &mut StdRng| {
                let kib = if rng.random_range(0..3) == 0 { 1 } else { rng.random_range(1..=1_023) };
                large.slice(..kib << 10)
            };
            let mut state: BTreeMap<String, Bytes> =
                (0..rng.random_range(0..20)).map(|_| (key(&mut rng), value(&mut rng))).collect();
            let mut layer = || -> Layer {
                let writes = rng.random_range(0..8);
                (0..writes).map(|_| (key(&mut rng), rng.random::<bool>().then(|| value(&mut rng)))).collect()
            };
            let (pending, batch) = (layer(), layer());
            let descending = seed % 2 == 0;
            let limit = [1, 3, 1_000][seed as usize % 3];

            let from_store = |after: Option<&str>, limit| stored(&state, after, descending, limit);
            let from_pending = |after: Option<&str>, limit| {
                Page::of_answer(scan(&from_store, &pending, after, descending, limit).into_entries(), limit)
            };
            let found = scan(&from_pending, &batch, None, descending, limit).into_bounded();

            for (key, value) in pending.iter().chain(&batch) {
                match value {
                    Some(value) => drop(state.insert(key.clone(), value.clone())),
                    None => drop(state.remove(key)),
                }
            }
            let expected = stored(&state, None, descending, limit).entries;
            let keys = |entries: &[(String, Bytes)]| entries.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
            assert_eq!(keys(&found), keys(&expected), "seed {seed}");
            assert!(found == expected, "seed {seed}: other values");
        }
    }

    /// What ended early hides what was written behind it, until the next page comes.
    #[test]
    fn nothing_is_laid_beyond_an_incomplete_page() {
        let small = Bytes::from_static(b"small");
        let written = [("a", Some(&small)), ("c", Some(&small))];
        let entry = |key: &str| (key.to_owned(), small.clone());
        let mut overlay = Overlay::new(false, 10);

        let next = overlay.add(None, Page { entries: vec![entry("a")], complete: false }, written);
        assert_eq!(next.as_deref(), Some("a"));
        let next = overlay.add(next.as_deref(), Page { entries: vec![entry("b")], complete: true }, written);

        assert_eq!(next, None);
        assert_eq!(overlay.into_entries(), [entry("a"), entry("b"), entry("c")]);
    }
}
