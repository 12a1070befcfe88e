//! A rate that many share: the generic cell rate algorithm (ITU-T I.371) in one atomic number, so that whoever takes from it never waits
//! for another one.

use std::sync::atomic::{AtomicU64, Ordering};

const NS_PER_MS: u64 = 1_000_000;
const NS_PER_S: u64 = 1_000_000_000;
/// What may be taken at once after a pause: the rate of one second.
const BURST_NS: u64 = NS_PER_S;

/// Lets so many units a second through, on average, and those of one second at once. It may get into debt: what came is taken, and then
/// nothing more is to be taken until the bucket is even.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// Units; 0 for any number.
    per_second: AtomicU64,
    /// When it is full again, in nanoseconds since the Unix epoch.
    full_at_ns: AtomicU64,
}

impl Bucket {
    /// Sets another rate, and begins with a full bucket.
    pub(super) fn set(&self, per_second: Option<u64>) {
        self.per_second.store(per_second.unwrap_or(0), Ordering::Relaxed);
        self.full_at_ns.store(0, Ordering::Relaxed);
    }

    /// Units per second, unless there is no limit.
    pub(super) fn rate(&self) -> Option<u64> {
        Some(self.per_second.load(Ordering::Relaxed)).filter(|rate| *rate > 0)
    }

    /// Takes so many units, whether or not they are there. Returns for how long nothing more should be taken, in milliseconds.
    pub(super) fn take(&self, units: u64, now_ms: u64) -> u64 {
        let Some(rate) = self.rate() else { return 0 };
        let now_ns = now_ms * NS_PER_MS;
        let full_at_ns = self.change(|full_at_ns| full_at_ns.max(now_ns).saturating_add(cost_ns(units, rate)));
        debt_ms(full_at_ns, now_ns)
    }

    /// The same for what can still wait itself. Returns for how long: until what was taken before is paid for. Whoever comes later waits
    /// behind it, so that all have their turn.
    pub(super) fn take_in_turn(&self, units: u64, now_ms: u64) -> u64 {
        let Some(rate) = self.rate() else { return 0 };
        let (now_ns, cost_ns) = (now_ms * NS_PER_MS, cost_ns(units, rate));
        let full_at_ns = self.change(|full_at_ns| full_at_ns.max(now_ns).saturating_add(cost_ns));
        // What is more than a full bucket has, by itself, goes when the bucket is full.
        debt_ms(full_at_ns.saturating_sub(cost_ns.saturating_sub(BURST_NS)), now_ns)
    }

    /// Takes so many units if the bucket is even; else says when to come back, in milliseconds.
    pub(super) fn try_take(&self, units: u64, now_ms: u64) -> Result<(), u64> {
        let Some(rate) = self.rate() else { return Ok(()) };
        let (now_ns, cost_ns) = (now_ms * NS_PER_MS, cost_ns(units, rate));
        let taken = self.full_at_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at_ns| {
            // Not even when it is full there may be so much.
            let after_ns = full_at_ns.max(now_ns).saturating_add(cost_ns);
            (after_ns - now_ns <= BURST_NS.max(cost_ns)).then_some(after_ns)
        });
        match taken {
            Ok(_) => Ok(()),
            Err(full_at_ns) => {
                let room_at_ns = full_at_ns.saturating_sub(BURST_NS.max(cost_ns) - cost_ns);
                Err(room_at_ns.saturating_sub(now_ns).div_ceil(NS_PER_MS).max(1))
            }
        }
    }

    /// Gives back what was taken and is not needed.
    pub(super) fn give_back(&self, units: u64) {
        if let Some(rate) = self.rate() {
            self.change(|full_at_ns| full_at_ns.saturating_sub(cost_ns(units, rate)));
        }
    }

    /// For how long nothing should be taken, in milliseconds.
    pub(super) fn wait_ms(&self, now_ms: u64) -> u64 {
        if self.rate().is_none() {
            return 0;
        }
        debt_ms(self.full_at_ns.load(Ordering::Relaxed), now_ms * NS_PER_MS)
    }

    fn change(&self, change: impl Fn(u64) -> u64) -> u64 {
        let mut before = self.full_at_ns.load(Ordering::Relaxed);
        loop {
            let after = change(before);
            match self.full_at_ns.compare_exchange_weak(before, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return after,
                Err(other) => before = other,
            }
        }
    }
}

fn cost_ns(units: u64, rate: u64) -> u64 {
    u64::try_from(u128::from(units) * u128::from(NS_PER_S) / u128::from(rate)).unwrap_or(u64::MAX)
}

fn debt_ms(full_at_ns: u64, now_ns: u64) -> u64 {
    full_at_ns.saturating_sub(now_ns.saturating_add(BURST_NS)).div_ceil(NS_PER_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START_MS: u64 = 1_700_000_000_000;

    fn bucket(rate: u64) -> Bucket {
        let bucket = Bucket::default();
        bucket.set(Some(rate));
        bucket
    }

    /// Law: over any time, no more comes through than the rate and the burst of a second, and what was taken too much is waited for.
    #[test]
    fn a_debt_is_waited_for() {
        let bucket = bucket(100);
        assert_eq!(bucket.take(100, START_MS), 0, "the burst");
        assert_eq!(bucket.take(1, START_MS), 10);
        assert_eq!(bucket.take(50, START_MS), 510, "who comes later waits longer");
        assert_eq!((bucket.wait_ms(START_MS + 509), bucket.wait_ms(START_MS + 510)), (1, 0));
        assert_eq!(bucket.take(1, START_MS + 510), 10);
        assert_eq!(bucket.take(100, START_MS + 60_000), 0, "it never holds more than a second");
        assert_eq!(bucket.take(1, START_MS + 60_000), 10);
        bucket.give_back(51);
        assert_eq!(bucket.take(50, START_MS + 60_000), 0, "given back");
        bucket.set(Some(1));
        assert_eq!((bucket.take(1, START_MS + 60_000), bucket.take(1, START_MS + 60_000)), (0, 1_000), "set anew");
        bucket.set(None);
        assert_eq!(bucket.take(u64::MAX, START_MS), 0);
    }

    #[test]
    fn what_can_be_refused_is_told_when_to_come_back() {
        let bucket = bucket(10);
        assert_eq!((0..20).filter(|_| bucket.try_take(1, START_MS).is_ok()).count(), 10);
        assert_eq!(bucket.try_take(1, START_MS), Err(100));
        assert_eq!(bucket.try_take(1, START_MS + 99), Err(1));
        assert_eq!(bucket.try_take(1, START_MS + 100), Ok(()));
        assert_eq!(
            bucket.try_take(1_000, START_MS + 100),
            Err(1_000),
            "what is too large for any bucket needs a full one"
        );
        assert_eq!(bucket.try_take(1_000, START_MS + 1_100), Ok(()));
        assert_eq!(bucket.try_take(1, START_MS + 1_100), Err(99_100), "and is paid for");
    }

    /// Law: who comes while others wait waits behind them, and each until there is room for it; what no bucket holds goes when it is full.
    #[test]
    fn those_who_wait_have_their_turn() {
        let bucket = bucket(10);
        assert_eq!((0..10).map(|_| bucket.take_in_turn(1, START_MS)).sum::<u64>(), 0, "the burst");
        assert_eq!([(); 3].map(|()| bucket.take_in_turn(1, START_MS)), [100, 200, 300]);
        assert_eq!(bucket.take_in_turn(1, START_MS + 250), 150);
        assert_eq!(bucket.take_in_turn(20, START_MS + 1_400), 0);
        assert_eq!(bucket.take_in_turn(1, START_MS + 1_400), 1_100);
    }

    /// Goal: many at the same time take no more than one would.
    #[test]
    fn threads_share_a_bucket() {
        let bucket = bucket(1_000);
        let taken: usize = std::thread::scope(|scope| {
            let take = || (0..1_000).filter(|_| bucket.try_take(1, START_MS).is_ok()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(taken, 1_000);
    }
}
