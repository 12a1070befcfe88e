//! How a deployment spreads, and what makes it roll back by itself: rules without IO.

use serde::{Deserialize, Serialize};

use crate::channel::{CANARY_PARTS, RuleKind};

/// Faults below this number are no rate.
const FAULTS_MIN: u64 = 3;
/// Events below this number give no average.
const EVENTS_MIN: u64 = 100;
/// Steps a canary may have.
const STEPS_MAX: usize = 32;
/// Longest time between two steps: a week.
const STEP_S_MAX: u64 = 7 * 24 * 60 * 60;

/// How a deployment spreads, as it is written in JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Strategy {
    /// To whom.
    pub kind: Kind,
    /// For a canary: how many of a hundred channels, to begin with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<f64>,
    /// For a canary: how many after each step, ascending. After the last one, and its time, it is for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<f64>,
    /// For a canary: seconds between two steps; without steps, it stays as it is until somebody says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_s: Option<u64>,
    /// What makes it roll back by itself.
    #[serde(default)]
    pub budget: Budget,
}

/// To whom a deployment goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// To all channels of its scope at once.
    All,
    /// To some first.
    Canary,
    /// To none: it runs beside the current version on the same batches, and its effects are compared.
    Shadow,
}

/// What a deployment may do before it is rolled back. All are rates over its own events.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Budget {
    /// Traps of the plugin, failures of its `open` and `save`, and channels that could not be swapped to it, of 1,000 events.
    pub traps_per_1000: f64,
    /// Calls that took too long, of 1,000 events.
    pub deadlines_per_1000: f64,
    /// Batches that broke a bound, of 1,000 events.
    pub refusals_per_1000: f64,
    /// Processor time of an event, in microseconds, on average. Without one, any.
    pub cpu_us_per_event: Option<f64>,
    /// Batches of a shadow whose effects differ, of 1,000 events. Without one, any.
    pub shadow_differences_per_1000: Option<f64>,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            traps_per_1000: 5.0,
            deadlines_per_1000: 5.0,
            refusals_per_1000: 20.0,
            cpu_us_per_event: None,
            shadow_differences_per_1000: None,
        }
    }
}

/// What a deployment did, as counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Counts {
    /// Events that counted.
    pub events: u64,
    /// Traps, and failures of `open` and `save`.
    pub traps: u64,
    /// Calls that took too long.
    pub deadlines: u64,
    /// Batches that broke a bound.
    pub refusals: u64,
    /// Processor time, in microseconds.
    pub cpu_us: u64,
    /// Channels that run it.
    pub channels: u64,
    /// Channels that were swapped to it.
    pub swaps: u64,
    /// Channels that could not be.
    pub swaps_failed: u64,
    /// Longest pause for a swap, in microseconds.
    pub swap_us_max: u64,
    /// Events that ran beside others.
    pub shadow_events: u64,
    /// Batches among them that differed.
    pub shadow_differences: u64,
    /// Batches the shadow could not keep up with.
    pub shadow_skipped: u64,
}

/// A strategy that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("strategy: {0}")]
pub struct StrategyError(String);

fn refuse<T>(why: impl Into<String>) -> Result<T, StrategyError> {
    Err(StrategyError(why.into()))
}

impl Strategy {
    /// To all at once.
    pub fn all() -> Self {
        Self { kind: Kind::All, percent: None, steps: Vec::new(), step_s: None, budget: Budget::default() }
    }

    /// Reads it from JSON, and judges it.
    ///
    /// # Errors
    /// If it is none, or makes no sense.
    pub fn parse(json: &str) -> Result<Self, StrategyError> {
        let strategy: Self = serde_json::from_str(json).map_err(|e| StrategyError(e.to_string()))?;
        strategy.check()?;
        Ok(strategy)
    }

    /// Its JSON.
    pub fn to_json(&self) -> String {
        // Numbers and words always serialise.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Judges it.
    ///
    /// # Errors
    /// If it makes no sense.
    pub fn check(&self) -> Result<(), StrategyError> {
        let is_share = |percent: f64| percent > 0.0 && percent <= 100.0;
        if self.kind != Kind::Canary && (self.percent.is_some() || !self.steps.is_empty() || self.step_s.is_some()) {
            return refuse("`percent`, `steps` and `step_s` are for `\"kind\": \"canary\"`");
        }
        if self.kind == Kind::Canary {
            let Some(percent) = self.percent else {
                return refuse("a canary needs `percent`, for example 5");
            };
            let shares: Vec<f64> = [percent].into_iter().chain(self.steps.iter().copied()).collect();
            if !shares.iter().all(|share| is_share(*share)) {
                return refuse("`percent` and `steps` are above 0 and at most 100");
            }
            if !shares.is_sorted_by(|before, after| before < after) {
                return refuse("`steps` grow, and begin above `percent`");
            }
            if self.steps.len() > STEPS_MAX {
                return refuse(format!("at most {STEPS_MAX} steps"));
            }
            match self.step_s {
                Some(seconds) if !(1..=STEP_S_MAX).contains(&seconds) => {
                    return refuse(format!("`step_s` is between 1 and {STEP_S_MAX}"));
                }
                None if !self.steps.is_empty() => return refuse("`steps` need `step_s`, the seconds between them"),
                _ => {}
            }
        }
        let Budget { traps_per_1000, deadlines_per_1000, refusals_per_1000, .. } = self.budget;
        let given = [self.budget.cpu_us_per_event, self.budget.shadow_differences_per_1000];
        let rates =
            [traps_per_1000, deadlines_per_1000, refusals_per_1000].into_iter().chain(given.into_iter().flatten());
        if rates.into_iter().any(|rate| !rate.is_finite() || rate < 0.0) {
            return refuse("the rates of `budget` are not below 0");
        }
        Ok(())
    }

    /// The rule it makes for channels.
    pub fn rule(&self) -> RuleKind {
        match self.kind {
            Kind::All => RuleKind::All,
            Kind::Shadow => RuleKind::Shadow,
            Kind::Canary => {
                let parts = self.percent.unwrap_or(0.0) * f64::from(CANARY_PARTS) / 100.0;
                #[expect(clippy::cast_sign_loss, reason = "a share is not below 0")]
                RuleKind::Canary(parts.round() as u32)
            }
        }
    }

    /// What a canary is after its next step: the next share, or, after the last one, for all. `None` if it has none.
    pub fn next(&self) -> Option<Self> {
        self.step_s?;
        let mut next = self.clone();
        if next.steps.is_empty() {
            return Some(Self { budget: self.budget, ..Self::all() });
        }
        next.percent = Some(next.steps.remove(0));
        Some(next)
    }
}

impl Budget {
    /// Why a deployment that did this must be rolled back, if it must.
    pub fn broken(&self, counts: &Counts) -> Option<String> {
        let events = (counts.events + counts.shadow_events).max(1);
        let traps = counts.traps.max(counts.swaps_failed);
        let rates = [
            ("traps", traps, Some(self.traps_per_1000), "traps_per_1000"),
            ("calls over their time", counts.deadlines, Some(self.deadlines_per_1000), "deadlines_per_1000"),
            ("refused batches", counts.refusals, Some(self.refusals_per_1000), "refusals_per_1000"),
            (
                "batches with other effects",
                counts.shadow_differences,
                self.shadow_differences_per_1000,
                "shadow_differences_per_1000",
            ),
        ];
        for (what, number, rate_max, key) in rates {
            let Some(rate_max) = rate_max else { continue };
            if number >= FAULTS_MIN && number as f64 * 1_000.0 > rate_max * events as f64 {
                return Some(format!("{number} {what} in {events} events; the budget is {rate_max} of 1,000 ({key})"));
            }
        }
        let cpu = counts.cpu_us as f64 / events as f64;
        match self.cpu_us_per_event {
            Some(cpu_max) if events >= EVENTS_MIN && cpu > cpu_max => Some(format!(
                "{cpu:.0} us of processor time for each of {events} events; the budget is {cpu_max} us (cpu_us_per_event)"
            )),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Strategy, String> {
        Strategy::parse(json).map_err(|error| error.to_string())
    }

    #[test]
    fn strategies_are_judged_with_the_remedy() {
        for (json, words) in [
            (r#"{"kind":"canary"}"#, "needs `percent`"),
            (r#"{"kind":"canary","percent":0}"#, "above 0"),
            (r#"{"kind":"canary","percent":101}"#, "at most 100"),
            (r#"{"kind":"canary","percent":5,"steps":[20,10],"step_s":1}"#, "grow"),
            (r#"{"kind":"canary","percent":5,"steps":[5],"step_s":1}"#, "grow"),
            (r#"{"kind":"canary","percent":5,"steps":[20]}"#, "need `step_s`"),
            (r#"{"kind":"canary","percent":5,"step_s":0}"#, "between 1"),
            (r#"{"kind":"all","percent":5}"#, "are for"),
            (r#"{"kind":"all","budget":{"traps_per_1000":-1}}"#, "not below 0"),
            (r#"{"kind":"most"}"#, "unknown variant"),
            (r#"{"kind":"all","speed":1}"#, "unknown field"),
        ] {
            let error = parse(json).unwrap_err();
            assert!(error.contains(words), "{json}: {error}");
        }
    }

    #[test]
    fn a_canary_grows_in_its_steps_and_is_for_all_at_last() {
        let mut strategy = parse(r#"{"kind":"canary","percent":1,"steps":[10,50],"step_s":60}"#).unwrap();
        let mut kinds = vec![strategy.rule()];
        while let Some(next) = strategy.next() {
            assert_eq!(parse(&next.to_json()), Ok(next.clone()));
            strategy = next;
            kinds.push(strategy.rule());
        }
        assert_eq!(kinds, [RuleKind::Canary(100), RuleKind::Canary(1_000), RuleKind::Canary(5_000), RuleKind::All]);
        let stays = parse(r#"{"kind":"canary","percent":1}"#).unwrap();
        assert_eq!(stays.next(), None);
    }

    /// Goal: a budget breaks soon where everything fails, and not for a few faults among many events.
    #[test]
    fn a_budget_breaks_by_rate_and_says_why() {
        let budget =
            Budget { cpu_us_per_event: Some(100.0), shadow_differences_per_1000: Some(0.0), ..Budget::default() };
        let good = Counts { events: 10_000, traps: 50, cpu_us: 999_999, ..Counts::default() };
        assert_eq!(budget.broken(&good), None);
        for (counts, words) in [
            (Counts { events: 3, traps: 3, ..Counts::default() }, "3 traps in 3 events"),
            (Counts { swaps_failed: 3, ..Counts::default() }, "3 traps"),
            (Counts { events: 9_999, traps: 50, ..Counts::default() }, "traps_per_1000"),
            (Counts { events: 100, deadlines: 3, ..Counts::default() }, "deadlines_per_1000"),
            (Counts { events: 100, refusals: 3, ..Counts::default() }, "refusals_per_1000"),
            (Counts { events: 100, cpu_us: 10_001, ..Counts::default() }, "cpu_us_per_event"),
            (Counts { shadow_events: 100_000, shadow_differences: 3, ..Counts::default() }, "other effects"),
        ] {
            let why = budget.broken(&counts).unwrap();
            assert!(why.contains(words), "{why}");
        }
        assert_eq!(budget.broken(&Counts { events: 2, traps: 2, ..Counts::default() }), None, "two are no rate");
    }
}
