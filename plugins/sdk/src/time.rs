//! Points in time as text.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

/// `2023-11-14T22:13:20.000Z` (RFC 3339, ISO 8601) of milliseconds since the Unix epoch; empty after the year 9999, which has no such form.
pub fn iso8601(ms: u64) -> String {
    let mut text = String::with_capacity(24);
    match write!(text, "{}", humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms))) {
        Ok(()) => text,
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::iso8601;

    #[test]
    fn points_in_time_have_milliseconds_and_four_digits_of_years() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_709_164_800_123, "2024-02-29T00:00:00.123Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
            (253_402_300_800_000, ""),
            (u64::MAX, ""),
        ] {
            assert_eq!(iso8601(ms), text, "{ms}");
        }
    }
}
