//! A table of figures, with the bars they are to meet.

use std::borrow::Cow;
use std::time::Duration;

/// One line: what was measured in each run, and what it must be.
pub(crate) struct Line {
    what: Cow<'static, str>,
    values: Vec<f64>,
    unit: &'static str,
    bar: Option<Bar>,
    note: String,
}

#[derive(Clone, Copy)]
pub(crate) enum Bar {
    AtMost(f64),
    AtLeast(f64),
    Below(f64),
}

impl Line {
    pub(crate) fn new(what: &'static str, unit: &'static str, values: Vec<f64>) -> Self {
        Self { what: Cow::Borrowed(what), values, unit, bar: None, note: String::new() }
    }

    pub(crate) fn owned(what: String, unit: &'static str, values: Vec<f64>) -> Self {
        Self { what: Cow::Owned(what), values, unit, bar: None, note: String::new() }
    }

    /// Stands above the lines that follow.
    pub(crate) fn title(what: String) -> Self {
        Self::owned(what, "", Vec::new())
    }

    pub(crate) fn bar(self, bar: Bar) -> Self {
        Self { bar: Some(bar), ..self }
    }

    pub(crate) fn note(self, note: impl Into<String>) -> Self {
        Self { note: note.into(), ..self }
    }

    fn runs(&self) -> String {
        if self.values.len() <= SHOWN_MAX {
            let runs: Vec<String> = self.values.iter().map(|value| number(*value)).collect();
            return runs.join(" ");
        }
        let least = self.values.iter().copied().fold(f64::INFINITY, f64::min);
        let greatest = self.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        format!("{} of {} to {}", self.values.len(), number(least), number(greatest))
    }

    fn print(&self) {
        if self.values.is_empty() {
            return println!("{}", self.what);
        }
        let median = median(&self.values);
        let (bar, verdict) = match self.bar {
            None => (String::new(), ""),
            Some(bar) => {
                let (sign, bound, met) = match bar {
                    Bar::AtMost(bound) => ("<=", bound, median <= bound),
                    Bar::AtLeast(bound) => (">=", bound, median >= bound),
                    Bar::Below(bound) => ("<", bound, median < bound),
                };
                (format!("{sign} {}", number(bound)), if met { "met" } else { "NOT MET" })
            }
        };
        let (what, unit, runs) = (&self.what, self.unit, self.runs());
        println!("{what:<52} {:>9} {unit:<6} {bar:>10}  {verdict:<8} {runs:<26} {}", number(median), self.note);
    }
}

/// So many values stand in the table; of more, the least and the greatest.
const SHOWN_MAX: usize = 5;

pub(crate) fn print(lines: &[Line]) {
    println!("\n{:<52} {:>9} {:<6} {:>10}  {:<8} {:<26} note", "", "median", "", "bar", "", "runs");
    lines.iter().for_each(Line::print);
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A value of a sorted list, in milliseconds.
pub(crate) fn percentile_ms(sorted: &[Duration], percent: f64) -> f64 {
    let last = sorted.len().saturating_sub(1) as f64;
    #[expect(clippy::cast_sign_loss, reason = "neither is below 0")]
    let at = (last * percent / 100.0).round() as usize;
    sorted.get(at).map_or(f64::NAN, |value| value.as_secs_f64() * 1e3)
}

fn number(value: f64) -> String {
    if value >= 1_000.0 {
        let digits = format!("{value:.0}");
        let groups: Vec<&str> =
            digits.as_bytes().rchunks(3).rev().filter_map(|group| str::from_utf8(group).ok()).collect();
        groups.join(",")
    } else if value >= 100.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}
