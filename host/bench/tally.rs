//! What is counted while messages come in.

use super::latency::Times;
use super::ledger::{Delivery, Ledger};
use super::stamp::Finder;

/// Longest message that is kept as an example.
const EXAMPLE_BYTES_MAX: usize = 300;

/// Everything that is counted.
pub(super) struct Tally {
    pub(super) ledger: Ledger,
    finder: Finder,
    pub(super) counts: Counts,
    /// Publishes due from then on have their times recorded.
    pub(super) record_from_ns: u64,
    /// From its due time until a member has a message.
    pub(super) deliveries: Times,
    /// From its due time until all have it.
    pub(super) finishes: Times,
    /// From its due time until a connection has joined.
    pub(super) handshakes: Times,
    /// Rooms in which a publish was finished, once for each.
    pub(super) finished_in: Vec<u32>,
    /// The first thing that went wrong.
    pub(super) first_loss: Option<String>,
}

/// Counts, since the beginning.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) published: u64,
    pub(super) finished: u64,
    pub(super) delivered: u64,
    /// Deliveries that did not come.
    pub(super) missing: u64,
    /// Deliveries nobody waited for.
    pub(super) stray: u64,
    /// Messages that refuse something.
    pub(super) refusals: u64,
    /// Connections that ended.
    pub(super) lost: u64,
    /// Seconds without any delivery though some were awaited.
    pub(super) stalls: u64,
    pub(super) reads: u64,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            ledger: Ledger::new(),
            finder: Finder::default(),
            counts: Counts::default(),
            record_from_ns: u64::MAX,
            deliveries: Times::new(),
            finishes: Times::new(),
            handshakes: Times::new(),
            finished_in: Vec::new(),
            first_loss: None,
        }
    }

    /// Counts a message to a member.
    #[inline]
    pub(super) fn message(&mut self, payload: &[u8], now_ns: u64, refusal: Option<&[u8]>) {
        if let Some(refusal) = refusal
            && payload.starts_with(refusal)
        {
            self.counts.refusals += 1;
            return self.loss(|| format!("refused: {}", example(payload)));
        }
        // Without a stamp it is something else, such as a member's arrival.
        let Some(stamp) = self.finder.find(payload) else { return };
        let delivery = self.ledger.deliver(stamp);
        if delivery == Delivery::Stray {
            self.counts.stray += 1;
            return;
        }
        self.counts.delivered += 1;
        let recorded = stamp.due_ns >= self.record_from_ns;
        if recorded {
            self.deliveries.record(now_ns.saturating_sub(stamp.due_ns));
        }
        if let Delivery::Last { room } = delivery {
            self.counts.finished += 1;
            self.finished_in.push(room);
            if recorded {
                self.finishes.record(now_ns.saturating_sub(stamp.due_ns));
            }
        }
    }

    /// Gives up what was due before `ns`.
    pub(super) fn give_up(&mut self, ns: u64) {
        let Self { ledger, counts, finished_in, .. } = self;
        ledger.give_up(ns, |room, missing| {
            counts.missing += u64::from(missing);
            finished_in.push(room);
        });
    }

    /// Remembers what went wrong, if it is the first.
    pub(super) fn loss(&mut self, words: impl FnOnce() -> String) {
        self.first_loss.get_or_insert_with(words);
    }
}

/// The beginning of a message, for people.
pub(super) fn example(payload: &[u8]) -> String {
    let cut = &payload[..payload.len().min(EXAMPLE_BYTES_MAX)];
    String::from_utf8_lossy(cut).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamped(tally: &mut Tally, due_ns: u64, room: u32, members: u32) -> Vec<u8> {
        let mut text = b"{\"content\":\"".to_vec();
        tally.ledger.publish(due_ns, room, members).unwrap().write(&mut text);
        text
    }

    #[test]
    fn only_what_was_due_in_time_is_recorded() {
        let mut tally = Tally::new();
        let (warm_up, measured) = (stamped(&mut tally, 10, 0, 1), stamped(&mut tally, 20, 1, 2));
        tally.record_from_ns = 20;

        for _ in 0..2 {
            tally.message(&measured, 1_000_020, None);
        }
        tally.message(&warm_up, 9_000_000, None);

        let counts = tally.counts;
        assert_eq!((counts.delivered, counts.finished, counts.stray), (3, 2, 0));
        assert_eq!(tally.finished_in, [1, 0]);
        let (deliveries, finishes) = (tally.deliveries.latency().unwrap(), tally.finishes.latency().unwrap());
        assert_eq!((deliveries.count, finishes.count), (2, 1));
        assert!((finishes.max_ms - 1.0).abs() < 0.01);
    }

    #[test]
    fn refusals_and_strangers_are_no_deliveries() {
        let mut tally = Tally::new();
        let mut refusal = b"{\"type\":\"ERROR\",".to_vec();
        refusal.extend(stamped(&mut tally, 10, 0, 1));

        tally.message(&refusal, 20, Some(b"{\"type\":\"ERROR\""));
        tally.message(b"\xFF\x00 whatever", 20, Some(b"{\"type\":\"ERROR\""));
        tally.give_up(u64::MAX);
        tally.message(&refusal, 30, None);

        let counts = tally.counts;
        assert_eq!((counts.delivered, counts.refusals, counts.missing, counts.stray), (0, 1, 1, 1));
        assert!(tally.first_loss.unwrap().contains("ERROR"));
    }
}
