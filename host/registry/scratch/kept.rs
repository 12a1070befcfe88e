//! State and log of a scratch channel, with the rules of the store: what may be read, in which order, and where an answer ends.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use bytes::Bytes;

use crate::limits::{MountLimits, READ_BYTES_MAX, SCRATCH_BYTES_MAX};
use crate::plugin::{Effects, Fault};

/// See the module.
#[derive(Clone)]
pub(super) struct Kept {
    state: BTreeMap<String, Bytes>,
    state_bytes: u64,
    /// Times in milliseconds, and data; the first one has the offset `log_first`.
    log: VecDeque<(u64, Bytes)>,
    log_bytes: u64,
    log_first: u64,
}

impl Default for Kept {
    fn default() -> Self {
        Self { state: BTreeMap::new(), state_bytes: 0, log: VecDeque::new(), log_bytes: 0, log_first: 1 }
    }
}

impl Kept {
    /// Makes what a batch wrote part of it, as one: all or nothing.
    pub(super) fn write(&mut self, effects: &mut Effects, now_ms: u64, limits: &MountLimits) -> Result<(), Fault> {
        let written: usize =
            effects.state.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Bytes::len)).sum();
        let appended: usize = effects.appends.iter().chain(effects.replaces.values()).map(Bytes::len).sum();
        if self.state_bytes + self.log_bytes + (written + appended) as u64 > SCRATCH_BYTES_MAX {
            return Err(Fault::refused(format!(
                "state and log of a scratch channel are over {SCRATCH_BYTES_MAX} bytes"
            )));
        }
        for (key, value) in std::mem::take(&mut effects.state) {
            let bytes = |value: &Bytes| (key.len() + value.len()) as u64;
            self.state_bytes += value.as_ref().map_or(0, bytes);
            let before = match value {
                Some(value) => self.state.insert(key.clone(), value),
                None => self.state.remove(&key),
            };
            self.state_bytes -= before.as_ref().map_or(0, bytes);
        }
        for data in std::mem::take(&mut effects.appends) {
            self.log_bytes += data.len() as u64;
            self.log.push_back((now_ms, data));
        }
        for (offset, data) in std::mem::take(&mut effects.replaces) {
            let index = offset.checked_sub(self.log_first).and_then(|index| usize::try_from(index).ok());
            if let Some((_, kept)) = index.and_then(|index| self.log.get_mut(index)) {
                self.log_bytes = self.log_bytes + data.len() as u64 - kept.len() as u64;
                *kept = data;
            }
        }
        let (first, next) = self.log_bounds();
        // The oldest go where the log is longer than the mount allows.
        let before = next.saturating_sub(limits.log_entries_max).max(effects.trim_before.unwrap_or(0));
        for _ in first..before.clamp(first, next) {
            let gone = self.log.pop_front();
            self.log_bytes -= gone.map_or(0, |(_, data)| data.len() as u64);
            self.log_first += 1;
        }
        Ok(())
    }

    pub(super) fn get(&self, key: &str) -> Option<Bytes> {
        self.state.get(key).cloned()
    }

    /// Ends early only with more than [`READ_BYTES_MAX`] bytes, as [`Overlay`](crate::protocol::overlay::Overlay) wants it.
    pub(super) fn scan(&self, prefix: &str, after: Option<&str>, descending: bool, limit: u32) -> Vec<(String, Bytes)> {
        let of_prefix = |(key, _): &(&String, &Bytes)| key.starts_with(prefix);
        let after = after.filter(|after| *after >= prefix);
        if descending {
            let end = match (after, successor(prefix)) {
                (Some(after), _) => Bound::Excluded(after.to_owned()),
                (None, Some(end)) => Bound::Excluded(end),
                (None, None) => Bound::Unbounded,
            };
            // A range that begins and ends at one key, which is not in it, is none.
            if matches!(&end, Bound::Excluded(end) if end.as_str() <= prefix) {
                return Vec::new();
            }
            let range = self.state.range((Bound::Included(prefix.to_owned()), end)).rev();
            return bounded(range.skip_while(|entry| !of_prefix(entry)).take_while(of_prefix), limit);
        }
        let start = after.map_or(Bound::Included(prefix), Bound::Excluded);
        bounded(self.state.range::<str, _>((start, Bound::Unbounded)).take_while(of_prefix), limit)
    }

    /// Ends before the entry that would make it larger than [`READ_BYTES_MAX`], but never before the first.
    pub(super) fn read_log(&self, from: u64, before: u64, limit: u32) -> Vec<(u64, u64, Bytes)> {
        let mut bytes = 0;
        let mut found = Vec::new();
        let skip = usize::try_from(from.saturating_sub(self.log_first)).unwrap_or(usize::MAX);
        let entries = (self.log_first..).zip(&self.log).skip(skip);
        for (offset, (at_ms, data)) in entries.take_while(|(offset, _)| *offset < before).take(limit as usize) {
            bytes += data.len();
            if bytes > READ_BYTES_MAX && !found.is_empty() {
                break;
            }
            found.push((offset, *at_ms, data.clone()));
        }
        found
    }

    pub(super) fn log_bounds(&self) -> (u64, u64) {
        (self.log_first, self.log_first + self.log.len() as u64)
    }

    pub(super) fn state_bytes(&self) -> u64 {
        self.state_bytes
    }

    pub(super) fn state(&self) -> &BTreeMap<String, Bytes> {
        &self.state
    }

    pub(super) fn log(&self) -> impl Iterator<Item = (u64, u64, &Bytes)> {
        (self.log_first..).zip(&self.log).map(|(offset, (at_ms, data))| (offset, *at_ms, data))
    }
}

fn bounded<'a>(entries: impl Iterator<Item = (&'a String, &'a Bytes)>, limit: u32) -> Vec<(String, Bytes)> {
    let mut bytes = 0;
    let mut found = Vec::new();
    for (key, value) in entries.take(limit as usize) {
        bytes += key.len() + value.len();
        found.push((key.clone(), value.clone()));
        if bytes > READ_BYTES_MAX {
            break;
        }
    }
    found
}

/// The least text that is after every one with this prefix; `None` if there is none.
fn successor(prefix: &str) -> Option<String> {
    let mut text = prefix.to_owned();
    while let Some(last) = text.pop() {
        // From the last character before the surrogates to the first after them.
        let next = if last == '\u{D7FF}' { Some('\u{E000}') } else { char::from_u32(u32::from(last) + 1) };
        if let Some(next) = next {
            text.push(next);
            return Some(text);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::overlay::{Overlay, Page};
    use crate::registry::scratch::next_random;

    fn written(state: &[(&str, Option<&str>)]) -> Effects {
        let value = |value: &str| Bytes::from(value.to_owned());
        let state = state.iter().map(|(key, written)| ((*key).to_owned(), written.map(value))).collect();
        made(|effects| effects.state = state)
    }

    fn made(make: impl FnOnce(&mut Effects)) -> Effects {
        let mut effects = Effects::default();
        make(&mut effects);
        effects
    }

    fn appended(entries: usize, entry: &Bytes) -> Effects {
        made(|effects| effects.appends = vec![entry.clone(); entries])
    }

    fn write(kept: &mut Kept, mut effects: Effects) {
        kept.write(&mut effects, 5, &MountLimits::default()).unwrap();
    }

    /// Goal: whatever the keys and the prefix, scans in both directions find the same entries, page by page, and no others.
    #[test]
    fn scans_find_every_entry_of_their_prefix_once_and_in_order() {
        let mut seed = 7;
        let alphabet = ["a", "b", "/", "\u{D7FF}", "\u{E000}", "\u{10FFFF}", "é"];
        for _ in 0..200 {
            let mut text = |length: u64| -> String {
                let letters = next_random(&mut seed) % (length + 1);
                (0..letters).map(|_| alphabet[(next_random(&mut seed) % 7) as usize]).collect()
            };
            let mut kept = Kept::default();
            let keys: Vec<String> = (0..12).map(|_| text(4)).collect();
            write(&mut kept, written(&keys.iter().map(|key| (key.as_str(), Some("v"))).collect::<Vec<_>>()));
            let prefix = text(2);
            let mut expected: Vec<String> = kept.state.keys().filter(|key| key.starts_with(&prefix)).cloned().collect();
            for descending in [false, true] {
                for limit in [1, 2, 100] {
                    let mut overlay = Overlay::new(descending, 1_000);
                    let mut after: Option<String> = None;
                    loop {
                        let page = Page::of_answer(kept.scan(&prefix, after.as_deref(), descending, limit), limit);
                        match overlay.add(after.as_deref(), page, []) {
                            Some(next) => after = Some(next),
                            None => break,
                        }
                    }
                    let found: Vec<String> = overlay.into_entries().into_iter().map(|(key, _)| key).collect();
                    assert_eq!(found, expected, "{prefix:?} descending {descending} limit {limit}");
                }
                expected.reverse();
            }
        }
    }

    /// Goal: an answer that ends early for its size says so by its size, and goes on from there.
    #[test]
    fn large_entries_end_an_answer() {
        let large = "x".repeat(600 << 10);
        let mut kept = Kept::default();
        write(&mut kept, written(&[("a", Some(&large)), ("b", Some(&large)), ("c", Some("v"))]));
        let keys = |entries: Vec<(String, Bytes)>| entries.into_iter().map(|(key, _)| key).collect::<String>();

        assert_eq!(keys(kept.scan("", None, false, 100)), "ab");
        assert_eq!(keys(kept.scan("", Some("b"), false, 100)), "c");
        assert_eq!(keys(kept.scan("", None, true, 100)), "cba");
        let appends = [&large, &large, "v"].map(|data| Bytes::from(data.to_owned())).into();
        write(&mut kept, made(|effects| effects.appends = appends));
        let offsets =
            |from, limit| kept.read_log(from, 4, limit).into_iter().map(|(offset, ..)| offset).collect::<Vec<_>>();
        assert_eq!((offsets(1, 100), offsets(2, 100), offsets(0, 1)), (vec![1], vec![2, 3], vec![1]));
    }

    #[test]
    fn bytes_are_counted_as_values_come_and_go() {
        let mut kept = Kept::default();
        write(&mut kept, written(&[("k", Some("four")), ("kk", Some(""))]));
        assert_eq!(kept.state_bytes(), 7);
        write(&mut kept, written(&[("k", Some("v")), ("kk", None), ("none", None)]));
        assert_eq!(kept.state_bytes(), 2);
    }

    /// Law: the log is trimmed by its plugin, and to its bound; offsets go on.
    #[test]
    fn the_log_is_replaced_and_trimmed() {
        let mut kept = Kept::default();
        let limits = MountLimits { log_entries_max: 3, ..MountLimits::default() };
        let mut write = |mut effects: Effects| {
            kept.write(&mut effects, 5, &limits).unwrap();
            (kept.log_bounds(), kept.log_bytes)
        };
        let x = Bytes::from_static(b"x");
        let replaces = BTreeMap::from([(2, Bytes::from_static(b"two")), (9, Bytes::from_static(b"never"))]);

        assert_eq!(write(appended(2, &x)), ((1, 3), 2));
        assert_eq!(write(made(|effects| effects.replaces = replaces)), ((1, 3), 4));
        assert_eq!(write(appended(2, &x)), ((2, 5), 5));
        assert_eq!(write(made(|effects| effects.trim_before = Some(4))), ((4, 5), 1));
        assert_eq!(write(made(|effects| effects.trim_before = Some(2))), ((4, 5), 1));
    }

    /// Law: everything has a bound; what would pass it leaves no trace.
    #[test]
    fn what_is_kept_has_a_bound() {
        let mut kept = Kept::default();
        let large = Bytes::from(vec![0; 1 << 20]);
        let mut written = 0;
        while kept.write(&mut appended(100, &large), 5, &MountLimits::default()).is_ok() {
            written += 1;
        }
        assert_eq!((written, kept.log_bounds().1), (SCRATCH_BYTES_MAX / (100 << 20), 201));
    }
}
