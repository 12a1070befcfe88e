//! When things are due at a fixed rate. A thing done late keeps its due time, and latency counts from there: a server that
//! stalls is charged for everything it made wait (no coordinated omission).

/// Due times, counted from a start, without drift.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    start_ns: u64,
    per_second: u32,
    done: u64,
    late_ns_max: u64,
}

impl Pace {
    /// `per_second` things a second, the first one at `start_ns`.
    pub(super) fn new(start_ns: u64, per_second: u32) -> Self {
        Self { start_ns, per_second: per_second.max(1), done: 0, late_ns_max: 0 }
    }

    /// When the next one is due.
    pub(super) fn due_ns(&self) -> u64 {
        let offset = u128::from(self.done) * 1_000_000_000 / u128::from(self.per_second);
        self.start_ns.saturating_add(u64::try_from(offset).unwrap_or(u64::MAX))
    }

    /// How many were done.
    pub(super) fn done(&self) -> u64 {
        self.done
    }

    /// The due time of the next one, if it has come; then it counts as done.
    pub(super) fn take(&mut self, now_ns: u64) -> Option<u64> {
        let due_ns = self.due_ns();
        let late_ns = now_ns.checked_sub(due_ns)?;
        self.late_ns_max = self.late_ns_max.max(late_ns);
        self.done += 1;
        Some(due_ns)
    }

    /// How late the latest one was done, since this was last asked.
    pub(super) fn take_late_ns_max(&mut self) -> u64 {
        std::mem::take(&mut self.late_ns_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_times_do_not_drift() {
        let mut pace = Pace::new(500, 3);
        let dues: Vec<u64> = (0..7).filter_map(|_| pace.take(u64::MAX)).collect();
        assert_eq!(dues, [500, 333_333_833, 666_667_166, 1_000_000_500, 1_333_333_833, 1_666_667_166, 2_000_000_500]);
    }

    #[test]
    fn nothing_is_done_early() {
        let mut pace = Pace::new(1_000, 1_000);
        assert_eq!(pace.take(999), None);
        assert_eq!(pace.take(1_000), Some(1_000));
        assert_eq!(pace.take(1_000_999), None);
        assert_eq!((pace.done(), pace.due_ns()), (1, 1_001_000));
    }

    /// After a stall everything that was due in between is done at once, each with its own due time.
    #[test]
    fn what_was_held_up_keeps_its_due_time() {
        let mut pace = Pace::new(0, 1_000);
        assert_eq!(pace.take(0), Some(0));
        let stalled_until = 4_500_000;

        let held_up: Vec<u64> = std::iter::from_fn(|| pace.take(stalled_until)).collect();

        assert_eq!(held_up, [1_000_000, 2_000_000, 3_000_000, 4_000_000]);
        assert_eq!(pace.take_late_ns_max(), 3_500_000);
        assert_eq!(pace.take_late_ns_max(), 0);
    }

    #[test]
    fn a_long_run_does_not_overflow() {
        let mut pace = Pace::new(u64::MAX - 10, 1);
        assert_eq!(pace.take(u64::MAX), Some(u64::MAX - 10));
        assert_eq!(pace.due_ns(), u64::MAX);
    }
}
