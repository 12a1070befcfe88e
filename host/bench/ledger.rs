//! What was published and not yet received by all. A publish is finished when its last member has it, so a server gains
//! nothing by dropping, nor by serving some members and forgetting others.

use super::stamp::Stamp;

/// Most publishes under way; a power of two.
pub(super) const UNDER_WAY_MAX: usize = 1 << 17;

/// All publishes under way, oldest first, in a ring.
pub(super) struct Ledger {
    slots: Box<[Slot]>,
    /// Number of the next publish; its slot is this modulo the ring.
    next: u64,
    /// Number of the oldest one that may be unfinished.
    oldest: u64,
    unfinished: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    due_ns: u64,
    room: u32,
    /// Members who do not have it yet; 0 is free.
    missing: u32,
}

/// What a delivery was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    /// One of those awaited.
    Awaited,
    /// The last one awaited of a publish in this room.
    Last { room: u32 },
    /// Of a publish that is finished, given up, or unknown.
    Stray,
}

impl Ledger {
    pub(super) fn new() -> Self {
        Self { slots: vec![Slot::default(); UNDER_WAY_MAX].into(), next: 0, oldest: 0, unfinished: 0 }
    }

    /// Publishes that were not received by all.
    pub(super) fn unfinished(&self) -> u64 {
        self.unfinished
    }

    /// Enters a publish that `members` members, at least one, are to receive. `None` if too many are under way.
    pub(super) fn publish(&mut self, due_ns: u64, room: u32, members: u32) -> Option<Stamp> {
        let at = place(self.next);
        if members == 0 || self.slots[at].missing > 0 {
            return None;
        }
        self.slots[at] = Slot { due_ns, room, missing: members };
        self.next += 1;
        self.unfinished += 1;
        Some(Stamp { due_ns, slot: at as u32 })
    }

    /// A member received a publish.
    #[inline]
    pub(super) fn deliver(&mut self, stamp: Stamp) -> Delivery {
        let Some(slot) = self.slots.get_mut(stamp.slot as usize) else { return Delivery::Stray };
        // A slot is used again and again; the time tells its publishes apart.
        if slot.missing == 0 || slot.due_ns != stamp.due_ns {
            return Delivery::Stray;
        }
        slot.missing -= 1;
        if slot.missing > 0 {
            return Delivery::Awaited;
        }
        self.unfinished -= 1;
        Delivery::Last { room: slot.room }
    }

    /// Gives up publishes due before `ns`; `each` is told the room and how many members did not get it.
    pub(super) fn give_up(&mut self, ns: u64, mut each: impl FnMut(u32, u32)) {
        while self.oldest < self.next {
            let slot = &mut self.slots[place(self.oldest)];
            if slot.missing > 0 {
                if slot.due_ns >= ns {
                    break;
                }
                each(slot.room, slot.missing);
                slot.missing = 0;
                self.unfinished -= 1;
            }
            self.oldest += 1;
        }
    }
}

fn place(number: u64) -> usize {
    number as usize & (UNDER_WAY_MAX - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_is_finished_when_all_have_it() {
        let mut ledger = Ledger::new();
        let first = ledger.publish(10, 3, 2).unwrap();
        let second = ledger.publish(10, 4, 1).unwrap();

        assert_eq!(ledger.deliver(first), Delivery::Awaited);
        assert_eq!(ledger.deliver(second), Delivery::Last { room: 4 });
        assert_eq!(ledger.unfinished(), 1);
        assert_eq!(ledger.deliver(first), Delivery::Last { room: 3 });
        assert_eq!(ledger.deliver(first), Delivery::Stray, "once too often");
        assert_eq!(ledger.unfinished(), 0);
    }

    #[test]
    fn what_was_never_published_is_stray() {
        let mut ledger = Ledger::new();
        let stamp = ledger.publish(10, 0, 1).unwrap();
        for wrong in [Stamp { due_ns: 11, ..stamp }, Stamp { slot: 5, ..stamp }, Stamp { slot: u32::MAX, ..stamp }] {
            assert_eq!(ledger.deliver(wrong), Delivery::Stray);
        }
        assert!(ledger.publish(10, 0, 0).is_none(), "nobody would get it");
    }

    /// Every slot is used again only when it is free.
    #[test]
    fn a_full_ledger_says_so() {
        let mut ledger = Ledger::new();
        let stamps: Vec<Stamp> = (0..UNDER_WAY_MAX as u64).map(|ns| ledger.publish(ns, 0, 1).unwrap()).collect();
        assert!(ledger.publish(0, 0, 1).is_none());
        ledger.deliver(stamps[1]);
        assert!(ledger.publish(0, 0, 1).is_none(), "the oldest is in the way");
        ledger.deliver(stamps[0]);
        let again = ledger.publish(1 << 40, 9, 1).unwrap();
        assert_eq!(ledger.deliver(stamps[0]), Delivery::Stray, "an old delivery is not taken for the new one's");
        assert_eq!(ledger.deliver(again), Delivery::Last { room: 9 });
    }

    #[test]
    fn what_is_too_old_is_given_up_with_its_members_missing() {
        let mut ledger = Ledger::new();
        let stamps: Vec<Stamp> = (0..4).map(|n| ledger.publish(n * 100, n as u32, 3).unwrap()).collect();
        ledger.deliver(stamps[1]);
        let mut lost = Vec::new();

        ledger.give_up(200, |room, missing| lost.push((room, missing)));

        assert_eq!(lost, [(0, 3), (1, 2)]);
        assert_eq!(ledger.unfinished(), 2);
        assert_eq!(ledger.deliver(stamps[1]), Delivery::Stray);
        ledger.give_up(u64::MAX, |_, _| {});
        assert_eq!(ledger.unfinished(), 0);
    }
}
