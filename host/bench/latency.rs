//! How long things took: histograms, and what is reported of them.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest time that is told apart.
const LONGEST_NS: u64 = 3_600_000_000_000;
/// Points of the curve between one nine and the next.
const POINTS_PER_NINE: u32 = 20;
/// More values than that are not counted.
const NINES_MAX: u32 = 20;

/// Times, counted to three digits.
pub(super) struct Times(Histogram<u64>);

/// Times in figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Latency {
    pub count: u64,
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
    /// The whole curve.
    pub points: Vec<Point>,
}

/// One point of the curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// How many of all, between 0 and 1, …
    pub share: f64,
    /// … took at most so long, in milliseconds.
    pub ms: f64,
}

impl Times {
    /// None yet.
    #[expect(clippy::expect_used, reason = "fails only for bounds that are none, and these are constants")]
    pub(super) fn new() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("bounds"))
    }

    /// Adds one.
    #[inline]
    pub(super) fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns);
    }

    /// In figures; `None` if there were none.
    pub(super) fn latency(&self) -> Option<Latency> {
        let count = self.0.len();
        if count == 0 {
            return None;
        }
        let ms = |ns: u64| ns as f64 / 1e6;
        let at = |share: f64| ms(self.0.value_at_quantile(share));
        let points = shares(count).map(|share| Point { share, ms: at(share) }).collect();
        Some(Latency {
            count,
            mean_ms: self.0.mean() / 1e6,
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: ms(self.0.max()),
            points,
        })
    }
}

/// Shares at even distances on an axis of nines (0 %, 90 %, 99 %, …), as far as so many values tell, and then all.
fn shares(count: u64) -> impl Iterator<Item = f64> {
    let nines = (count as f64).log10();
    let steps = 0..=NINES_MAX * POINTS_PER_NINE;
    let steps = steps.take_while(move |step| f64::from(*step) <= nines * f64::from(POINTS_PER_NINE));
    steps.map(|step| 1.0 - 10_f64.powf(-f64::from(step) / f64::from(POINTS_PER_NINE))).chain(std::iter::once(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_values() {
        let mut times = Times::new();
        assert_eq!(times.latency(), None);
        for ms in 1..=10_000 {
            times.record(ms * 1_000_000);
        }

        let latency = times.latency().unwrap();

        assert_eq!(latency.count, 10_000);
        for (figure, expected) in [
            (latency.mean_ms, 5_000.5),
            (latency.p50_ms, 5_000.0),
            (latency.p90_ms, 9_000.0),
            (latency.p99_ms, 9_900.0),
            (latency.p999_ms, 9_990.0),
            (latency.max_ms, 10_000.0),
        ] {
            assert!((figure / expected - 1.0).abs() < 0.002, "{figure} is not {expected}");
        }
    }

    #[test]
    fn the_curve_rises_to_the_slowest() {
        let mut times = Times::new();
        for ns in 0..5_000 {
            times.record(ns * ns);
        }
        let latency = times.latency().unwrap();
        let rises = |pair: &[Point]| pair[0].share < pair[1].share && pair[0].ms <= pair[1].ms;
        assert!(latency.points.windows(2).all(rises), "{:?}", latency.points);
        let (first, last) = (latency.points[0], latency.points[latency.points.len() - 1]);
        assert!(first.share.abs() < 1e-9 && (last.share - 1.0).abs() < 1e-9);
        assert!((last.ms - latency.max_ms).abs() < 1e-9);
        assert!(latency.points.iter().any(|point| (point.share - 0.99).abs() < 1e-6));
    }

    #[test]
    fn a_time_beyond_all_bounds_counts_as_the_longest() {
        let mut times = Times::new();
        times.record(u64::MAX);
        assert_eq!(times.latency().unwrap().count, 1);
    }
}
