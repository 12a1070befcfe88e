//! Where days and months begin, in UTC. The calendar itself is `humantime`'s.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use humantime::format_rfc3339_seconds;

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// The beginnings that revenue is counted from, in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "units last")]
pub(crate) struct Periods {
    pub(crate) day_ms: u64,
    pub(crate) month_ms: u64,
    pub(crate) last_month_ms: u64,
}

impl Periods {
    /// Those of this point in time.
    pub(crate) fn at(now_ms: u64) -> Self {
        let day_ms = now_ms - now_ms % DAY_MS;
        let month_ms = start_of_month(day_ms);
        Self { day_ms, month_ms, last_month_ms: start_of_month(month_ms.saturating_sub(DAY_MS)) }
    }
}

/// The first day of the month of a day, both by their beginnings.
fn start_of_month(day_ms: u64) -> u64 {
    let mut date = String::with_capacity(24);
    let at = UNIX_EPOCH + Duration::from_millis(day_ms);
    // Fails after the year 9999; then the day stands for its month.
    let written = write!(date, "{}", format_rfc3339_seconds(at));
    // 2024-02-29T…
    let day: u64 = written.ok().and_then(|()| date.get(8..10)?.parse().ok()).unwrap_or(1);
    day_ms.saturating_sub((day - 1) * DAY_MS)
}
