//! Where days and months begin: at year ends, leap days, and for ever.

use hotbay_sdk::iso8601;

use crate::calendar::Periods;

/// Points in time, and the beginnings of their day, month and last month; all as of GNU date.
#[test]
fn periods_begin_right_at_month_ends_year_ends_and_leap_days() {
    for (now, day, month, last_month) in [
        // 2023-11-14T22:13:20Z
        (1_700_000_000_000, 1_699_920_000_000, 1_698_796_800_000, 1_696_118_400_000),
        // 2024-02-29T23:59:59.999Z: a leap day
        (1_709_251_199_999, 1_709_164_800_000, 1_706_745_600_000, 1_704_067_200_000),
        // 2024-03-01T00:00:00Z: after it; last month had 29 days
        (1_709_251_200_000, 1_709_251_200_000, 1_709_251_200_000, 1_706_745_600_000),
        // 2023-03-31T12:00:00Z: last month had 28
        (1_680_264_000_000, 1_680_220_800_000, 1_677_628_800_000, 1_675_209_600_000),
        // 2024-12-31T23:59:59Z
        (1_735_689_599_000, 1_735_603_200_000, 1_733_011_200_000, 1_730_419_200_000),
        // 2025-01-01T00:00:00Z: last month is last year's December
        (1_735_689_600_000, 1_735_689_600_000, 1_735_689_600_000, 1_733_011_200_000),
        // 2100-03-01T00:00:00Z: 2100 has no leap day
        (4_107_542_400_000, 4_107_542_400_000, 4_107_542_400_000, 4_105_123_200_000),
        // 2000-03-31T00:00:00Z: 2000 has one
        (954_460_800_000, 954_460_800_000, 951_868_800_000, 949_363_200_000),
        // The first month of all has none before it.
        (5, 0, 0, 0),
    ] {
        let expected = Periods { day_ms: day, month_ms: month, last_month_ms: last_month };
        assert_eq!(Periods::at(now), expected, "{}", iso8601(now));
    }
}

/// Four hundred years day by day, against counting the days of the months.
#[test]
fn periods_follow_the_months_day_by_day() {
    const DAY: u64 = 86_400_000;
    let (mut now, mut last_month) = (0, 0);
    for year in 1970..2370_u32 {
        let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        for days in [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
            let month = now;
            for _ in 0..days {
                let expected = Periods { day_ms: now, month_ms: month, last_month_ms: last_month };
                assert_eq!(Periods::at(now + 1), expected, "{}", iso8601(now));
                assert_eq!(Periods::at(now + DAY - 1), expected, "{}", iso8601(now));
                now += DAY;
            }
            last_month = month;
        }
    }
}

#[test]
fn no_time_is_too_late() {
    assert_eq!(iso8601(1_709_164_800_123), "2024-02-29T00:00:00.123Z");
    assert_eq!(iso8601(253_402_300_799_999), "9999-12-31T23:59:59.999Z");
    assert_eq!(iso8601(253_402_300_800_000), "");
    for now in [253_402_300_799_999, 253_402_300_800_000, u64::MAX / 2, u64::MAX] {
        let periods = Periods::at(now);
        assert!(
            periods.last_month_ms <= periods.month_ms && periods.month_ms <= periods.day_ms && periods.day_ms <= now
        );
    }
}
