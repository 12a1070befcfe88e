//! The clock of the process. It shows wall time as it was when the process started, and goes on from there by a clock that
//! nobody sets: setting the machine's clock back must not stretch pauses, heartbeats and timers. Where wall time runs
//! ahead, because the machine was suspended or its clock was wrong before, it follows, so that durable timers are not late.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How far wall time may run ahead before it is followed, in milliseconds. Less is a matter of NTP, which also bends the clock
/// this one goes by.
const AHEAD_MS_MAX: u64 = 5_000;
/// How often wall time is looked at, in milliseconds.
const LOOK_EVERY_MS: u64 = 1_000;

static CLOCK: LazyLock<Clock<Machine>> = LazyLock::new(|| Clock::new(Machine::start()));

/// Milliseconds since the Unix epoch, for everything that is measured or planned: never less than it was before in this process.
/// Close to wall time, but not for judging what others signed with theirs; see [`wall_ms`].
pub fn now_ms() -> u64 {
    CLOCK.now_ms()
}

/// Milliseconds since the Unix epoch as the machine's clock has them right now: it may be set back. For the life of tokens.
pub fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as u64)
}

/// A time as people and programs read it, in UTC: `2026-03-01 12:00:05Z`. Days to dates as in H. Hinnant, "chrono-Compatible Low-Level
/// Date Algorithms".
pub fn utc(at_ms: u64) -> String {
    let seconds = at_ms / 1_000;
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468; // From 1 March of the year 0.
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}Z", of_day / 3_600, of_day / 60 % 60, of_day % 60)
}

/// Where time comes from.
trait Source {
    /// Milliseconds since some moment; never set, stands still while the machine is suspended.
    fn monotonic_ms(&self) -> u64;
    /// Milliseconds since the Unix epoch; may be set.
    fn wall_ms(&self) -> u64;
}

struct Machine {
    started: Instant,
    /// What wall time was past a whole millisecond then, so that both clocks tick together: this one must not be behind by the
    /// fractions that each of them leaves out.
    phase: Duration,
}

impl Machine {
    fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), phase: Duration::from_nanos(u64::from(wall.subsec_nanos() % 1_000_000)) }
    }
}

impl Source for Machine {
    fn monotonic_ms(&self) -> u64 {
        let elapsed = self.phase + self.started.elapsed();
        elapsed.as_secs() * 1_000 + u64::from(elapsed.subsec_millis())
    }

    fn wall_ms(&self) -> u64 {
        wall_ms()
    }
}

struct Clock<S> {
    source: S,
    /// What this clock showed, or would have, when the monotonic clock was at 0. Only ever grows.
    anchor_ms: AtomicU64,
    /// When to look at wall time again, by the monotonic clock.
    look_at_ms: AtomicU64,
}

impl<S: Source> Clock<S> {
    fn new(source: S) -> Self {
        let anchor_ms = source.wall_ms().saturating_sub(source.monotonic_ms());
        Self { source, anchor_ms: AtomicU64::new(anchor_ms), look_at_ms: AtomicU64::new(0) }
    }

    fn now_ms(&self) -> u64 {
        let monotonic_ms = self.source.monotonic_ms();
        if monotonic_ms >= self.look_at_ms.load(Ordering::Relaxed) {
            self.look_at_wall(monotonic_ms);
        }
        self.anchor_ms.load(Ordering::Relaxed) + monotonic_ms
    }

    fn look_at_wall(&self, monotonic_ms: u64) {
        self.look_at_ms.store(monotonic_ms + LOOK_EVERY_MS, Ordering::Relaxed);
        let wall_ms = self.source.wall_ms();
        // Read after wall time: a thread that was stopped between the two must not take its pause for a jump.
        let anchor_ms = wall_ms.saturating_sub(self.source.monotonic_ms());
        let ahead_ms = anchor_ms.saturating_sub(self.anchor_ms.load(Ordering::Relaxed));
        if ahead_ms > AHEAD_MS_MAX {
            tracing::warn!(ahead_ms, "the machine's clock ran ahead (it was set, or the machine slept): followed");
            self.anchor_ms.fetch_max(anchor_ms, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const HOUR_MS: u64 = 3_600_000;
    const START_MS: u64 = 1_700_000_000_000;

    /// A machine whose clocks are set by hand, in milliseconds.
    #[derive(Default)]
    struct Hands {
        monotonic: Cell<u64>,
        wall: Cell<u64>,
        /// How long a thread is stopped when it looks at wall time.
        stop: Cell<u64>,
    }

    impl Source for &Hands {
        fn monotonic_ms(&self) -> u64 {
            self.monotonic.get()
        }

        fn wall_ms(&self) -> u64 {
            self.pass(self.stop.take());
            self.wall.get()
        }
    }

    impl Hands {
        fn pass(&self, ms: u64) {
            self.monotonic.set(self.monotonic.get() + ms);
            self.wall.set(self.wall.get() + ms);
        }

        fn set(&self, by_ms: i64) {
            self.wall.set(self.wall.get().saturating_add_signed(by_ms));
        }
    }

    fn hands() -> Hands {
        Hands { monotonic: Cell::new(77), wall: Cell::new(START_MS), stop: Cell::default() }
    }

    /// Law (FAULTS 45): a clock set back by an hour changes no pause.
    #[test]
    fn a_clock_set_back_changes_nothing() {
        let hands = hands();
        let clock = Clock::new(&hands);
        assert_eq!(clock.now_ms(), START_MS);

        hands.set(-HOUR_MS.cast_signed());

        for passed_ms in (0..2 * HOUR_MS).step_by(700) {
            assert_eq!(clock.now_ms(), START_MS + passed_ms);
            hands.pass(700);
        }
    }

    #[test]
    fn a_clock_set_ahead_is_followed_within_a_second() {
        let hands = hands();
        let clock = Clock::new(&hands);
        clock.now_ms();

        hands.set(HOUR_MS.cast_signed());
        hands.pass(LOOK_EVERY_MS);

        assert_eq!(clock.now_ms(), START_MS + HOUR_MS + LOOK_EVERY_MS);
        hands.set(-HOUR_MS.cast_signed());
        hands.pass(LOOK_EVERY_MS);
        assert_eq!(clock.now_ms(), START_MS + HOUR_MS + 2 * LOOK_EVERY_MS, "and never goes back");
    }

    #[test]
    fn a_suspended_machine_catches_up() {
        let hands = hands();
        let clock = Clock::new(&hands);
        clock.now_ms();
        // Some time before and after, so that it need not be the very call that looks.
        hands.pass(600);
        hands.set(8 * HOUR_MS.cast_signed());
        hands.pass(600);

        assert_eq!(clock.now_ms(), START_MS + 8 * HOUR_MS + 1_200);
    }

    /// Small corrections stay between the clocks, and do not add up.
    #[test]
    fn small_steps_are_not_followed_until_they_add_up() {
        let hands = hands();
        let clock = Clock::new(&hands);
        let mut steps = 0;
        for _ in 0..5 {
            hands.set(1_000);
            hands.pass(LOOK_EVERY_MS);
            steps += 1;
            assert_eq!(clock.now_ms(), START_MS + steps * LOOK_EVERY_MS);
        }
        hands.set(1_000);
        hands.pass(LOOK_EVERY_MS);
        assert_eq!(clock.now_ms(), START_MS + 6 * LOOK_EVERY_MS + 6_000);
    }

    #[test]
    fn a_thread_that_was_stopped_takes_its_pause_for_no_jump() {
        let hands = hands();
        let clock = Clock::new(&hands);
        clock.now_ms();
        hands.pass(LOOK_EVERY_MS);
        hands.stop.set(60_000);

        clock.now_ms();

        hands.pass(1);
        assert_eq!(clock.now_ms(), START_MS + LOOK_EVERY_MS + 60_000 + 1);
    }

    #[test]
    fn the_process_has_about_the_time_of_the_machine() {
        let before = now_ms();
        assert!(before.abs_diff(wall_ms()) < AHEAD_MS_MAX);
        assert!(now_ms() >= before);
    }
}
