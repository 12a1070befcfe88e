//! What an outbox could not write yet: bounded in bytes, with rules for what is given up when a reader is slow. No IO.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::{Buf, Bytes};

use crate::protocol::burst::{Deliveries, Frames};
use crate::protocol::frame::{Delivery, Priority, frame_len};

/// What an entry costs beside its bytes, so that many tiny frames are bounded, too.
pub(super) const ENTRY_BYTES: usize = size_of::<Entry>();

/// Frames that wait, oldest first.
#[derive(Default)]
pub(super) struct Queue {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Frames given up since somebody asked.
    shed: u64,
}

/// One frame, or several that are treated alike.
pub(super) struct Entry {
    wire: Bytes,
    frames: u32,
    delivery: Delivery,
    /// Bytes left of its first frame, if part of that is on the wire: it can no longer be dropped. Else 0.
    begun: usize,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes that wait, with what the entries cost.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The wires of the oldest entries.
    pub(super) fn wires(&self) -> impl Iterator<Item = &[u8]> {
        self.entries.iter().map(|entry| &entry.wire[..])
    }

    /// Queues some frames, of which the first `written` bytes are on the wire.
    pub(super) fn push(&mut self, frames: &Frames, range: Range<u32>, written: usize) {
        let from = frames.start(range.start) + written;
        let whole = frames.ends.partition_point(|end| (*end as usize) <= from) as u32;
        // The first frame of which nothing is on the wire.
        let mut rest = range.start.max(whole)..range.end;
        if frames.start(rest.start) < from && !rest.is_empty() {
            let begun = from..frames.start(rest.start + 1);
            self.push_entry(own(&frames.wire, begun.clone()), 1, frames.delivery(rest.start).clone(), begun.len());
            rest.start += 1;
        }
        match &frames.deliveries {
            _ if rest.is_empty() => {}
            Deliveries::Alike(delivery) => {
                let wire = own(&frames.wire, frames.bytes(&rest));
                self.push_entry(wire, rest.end - rest.start, delivery.clone(), 0);
            }
            Deliveries::Each(_) => {
                for frame in rest {
                    let wire = own(&frames.wire, frames.bytes(&(frame..frame + 1)));
                    self.push_entry(wire, 1, frames.delivery(frame).clone(), 0);
                }
            }
        }
    }

    fn push_entry(&mut self, wire: Bytes, frames: u32, delivery: Delivery, begun: usize) {
        if let Some(key) = &delivery.conflate {
            let stale = |old: &Entry| old.begun == 0 && old.delivery.conflate.as_ref() == Some(key);
            if let Some(at) = self.entries.iter().position(stale)
                && let Some(old) = self.entries.remove(at)
            {
                self.bytes -= old.cost();
                metrics::counter!("hotbay_outbox_conflated_total").increment(1);
            }
        }
        let entry = Entry { wire, frames, delivery, begun };
        self.bytes += entry.cost();
        self.entries.push_back(entry);
    }

    /// So many bytes of the oldest entries were written.
    pub(super) fn written(&mut self, mut count: usize) {
        while let Some(entry) = self.entries.front_mut() {
            if entry.wire.len() > count {
                self.bytes -= count;
                entry.written(count);
                break;
            }
            count -= entry.wire.len();
            self.bytes -= entry.cost();
            self.entries.pop_front();
        }
        if self.entries.is_empty() {
            self.entries = VecDeque::new(); // Gives the memory of a burst back.
        }
    }

    /// Gives up the oldest low, then normal, frames until the bound holds or none are left.
    pub(super) fn shed_down_to(&mut self, bytes_max: usize) {
        for priority in [Priority::Low, Priority::Normal] {
            let before = self.bytes;
            let dropped = self.drop_unbegun(|entry, left| left > bytes_max && entry.delivery.priority == priority);
            if self.bytes < before {
                self.shed += dropped;
                metrics::counter!("hotbay_outbox_shed_total").increment(dropped);
            }
        }
    }

    /// Gives up all but the frame that is begun.
    pub(super) fn drop_all_unbegun(&mut self) {
        let dropped = self.drop_unbegun(|_, _| true);
        metrics::counter!("hotbay_outbox_shed_total").increment(dropped);
    }

    /// Gives up the entries that `gone` says, asked with the bytes that are left; of one that is begun, all but its first frame.
    /// Returns how many frames that were.
    fn drop_unbegun(&mut self, gone: impl Fn(&Entry, usize) -> bool) -> u64 {
        let (mut left, mut dropped) = (self.bytes, 0);
        self.entries.retain_mut(|entry| {
            if !gone(entry, left) {
                return true;
            }
            left -= entry.cost();
            dropped += u64::from(entry.frames);
            if entry.begun > 0 {
                entry.wire.truncate(entry.begun);
                entry.frames = 1;
                left += entry.cost();
                dropped -= 1;
            }
            entry.begun > 0
        });
        self.bytes = left;
        dropped
    }

    /// Frames given up that the reader was not told about.
    pub(super) fn shed(&self) -> u64 {
        self.shed
    }

    /// Takes that number, once nothing waits any more: told earlier, the reader would hear of it before the frames it still gets.
    pub(super) fn take_shed(&mut self) -> u64 {
        if self.is_empty() { std::mem::take(&mut self.shed) } else { 0 }
    }
}

impl Entry {
    fn cost(&self) -> usize {
        self.wire.len() + ENTRY_BYTES
    }

    /// So many bytes of it, but not all, were written. Where its frames end is read from their headers.
    fn written(&mut self, mut count: usize) {
        while count > 0 {
            let frame = if self.begun > 0 { self.begun } else { frame_len(&self.wire) };
            let now = count.min(frame);
            self.wire.advance(now);
            count -= now;
            self.begun = frame - now;
            self.frames -= u32::from(self.begun == 0);
        }
    }
}

/// Some bytes of a burst for the queue: shared, unless they are a small part, which would keep the whole burst in memory.
fn own(wire: &Bytes, range: Range<usize>) -> Bytes {
    if range.len() * 4 < wire.len() { Bytes::copy_from_slice(&wire[range]) } else { wire.slice(range) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::burst::BurstBuilder;
    use crate::protocol::deflate::Compression;
    use crate::protocol::frame::{Audience, Payload};

    fn frames(priority: Priority, conflate: Option<&str>, lengths: &[usize]) -> Frames {
        let mut builder = BurstBuilder::default();
        for len in lengths {
            let delivery = Delivery { priority, conflate: conflate.map(Into::into) };
            builder.push(0, &Payload::Binary(vec![7; *len].into()), Audience::All, delivery);
        }
        builder.finish().shared
    }

    fn wire(queue: &Queue) -> Vec<u8> {
        queue.wires().flatten().copied().collect()
    }

    /// Goal: wherever a burst is cut, and whatever is written later, what remains is the rest of it, and it is counted right.
    #[test]
    fn the_rest_of_a_burst_is_queued_wherever_it_was_cut() {
        let (one, compression) = (Some("key of one frame"), Compression { bytes_min: 100, ..Compression::default() });
        for (conflate, compressed) in [(None, false), (one, false), (None, true), (one, true)] {
            let all = frames(Priority::Low, conflate, &[1, 200, 0, 70_000, 5]);
            let all = if compressed { all.deflated(compression).clone() } else { all };
            assert_eq!(all.wire.len() < 1_000, compressed);
            for first in (0..all.wire.len()).filter(|at| *at < 300 || all.wire.len() - at < 300) {
                let range = if conflate.is_some() { 1..2 } else { 0..5 };
                let bytes = all.bytes(&range);
                let first = first.min(bytes.len() - 1);
                let mut queue = Queue::default();
                queue.push(&all, range, first);
                assert_eq!(wire(&queue), all.wire[bytes.start + first..bytes.end]);
                let second = (bytes.len() - first).min(7);
                queue.written(second);
                assert_eq!(wire(&queue), all.wire[bytes.start + first + second..bytes.end]);
                let cost: usize = queue.entries.iter().map(Entry::cost).sum();
                assert_eq!(queue.bytes(), cost);
            }
        }
    }

    /// Goal: of a burst that is partly on the wire, all frames but the broken one can be given up.
    #[test]
    fn only_the_frame_that_is_begun_is_kept() {
        let all = frames(Priority::Normal, None, &[10, 10, 10, 10]);
        let mut queue = Queue::default();
        queue.push(&all, 0..4, 0);
        queue.written(12 + 3);

        queue.shed_down_to(0);

        assert_eq!(wire(&queue), all.wire[15..24]);
        assert_eq!((queue.shed(), queue.take_shed()), (2, 0));
        queue.written(9);
        assert_eq!((queue.bytes(), queue.take_shed()), (0, 2));
    }

    #[test]
    fn a_frame_that_is_begun_is_not_replaced() {
        let (old, new) = (frames(Priority::Low, Some("k"), &[4]), frames(Priority::Low, Some("k"), &[5]));
        let mut queue = Queue::default();
        queue.push(&old, 0..1, 2);
        queue.push(&new, 0..1, 0);
        queue.push(&new, 0..1, 0);
        assert_eq!(wire(&queue), [&old.wire[2..], &new.wire[..]].concat());
    }

    #[test]
    fn tiny_frames_cost_more_than_their_bytes() {
        let each = frames(Priority::Low, Some("k"), &[0]);
        let mut queue = Queue::default();
        queue.push(&each, 0..1, 0);
        assert_eq!(queue.bytes(), 2 + ENTRY_BYTES);
    }
}
