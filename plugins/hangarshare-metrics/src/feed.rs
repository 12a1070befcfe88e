//! Where the figures come from, and what stands for them while they do not come: the last known ones, marked as stale.
//!
//! The last figures live in memory alone. Their truth is in the database, so after a crash the next query brings them
//! back; writing them down every few seconds for each owner would cost a disk write each, and would help only where
//! the broker falls while the database is away. Then there are zeros, marked as stale.

use hotbay_sdk::{Channel, SqlError, SqlValue, log_info, log_warn};
use serde::{Deserialize, Serialize};

use crate::calendar::Periods;
use crate::figures::Figures;

/// The statement's name.
const STATEMENT: &str = "owner_metrics";

/// The figures of one owner.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Feed {
    /// The last that came; zeros before.
    figures: Figures,
    /// When the query failed last, if it did not succeed since.
    failed_ms: Option<u64>,
    /// Asked in this batch already.
    #[serde(skip)]
    asked: bool,
}

/// A `metrics_update`.
#[derive(Serialize)]
struct Update<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    data: &'a Figures,
    timestamp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    stale: Option<bool>,
}

impl Feed {
    /// Asks the database, once in a batch at most.
    pub(crate) fn refresh(&mut self, channel: &Channel, owner: &str) {
        if std::mem::replace(&mut self.asked, true) {
            return;
        }
        match query(channel, owner) {
            Ok(figures) => {
                self.figures = figures;
                if self.failed_ms.take().is_some() {
                    log_info!(channel, "{STATEMENT}: figures come again");
                }
            }
            Err(why) => {
                if self.failed_ms.replace(channel.now_ms()).is_none() {
                    log_warn!(
                        channel,
                        "{STATEMENT}: {why}; the last known figures go out as stale until they come again"
                    );
                }
            }
        }
    }

    /// Asks for someone who waits: not if the database failed just now, or its time-out would be theirs.
    pub(crate) fn refresh_for_joiner(&mut self, channel: &Channel, owner: &str, interval_ms: u64) {
        let failed_just_now = |failed_ms: u64| channel.now_ms().saturating_sub(failed_ms) < interval_ms;
        if !self.failed_ms.is_some_and(failed_just_now) {
            self.refresh(channel, owner);
        }
    }

    /// The batch is over: what the database says may have changed.
    pub(crate) fn end_batch(&mut self) {
        self.asked = false;
    }

    /// The `metrics_update` of now.
    pub(crate) fn update(&self, now_ms: u64) -> String {
        let stale = self.failed_ms.map(|_| true);
        let update = Update { kind: "metrics_update", data: &self.figures, timestamp: now_ms, stale };
        // Numbers and fixed names always serialise.
        serde_json::to_string(&update).unwrap_or_default()
    }
}

fn query(channel: &Channel, owner: &str) -> Result<Figures, String> {
    let Periods { day_ms, month_ms, last_month_ms } = Periods::at(channel.now_ms());
    let ms = |ms: u64| SqlValue::Integer(i64::try_from(ms).unwrap_or(i64::MAX));
    let parameters = [SqlValue::Text(owner.to_owned()), ms(day_ms), ms(month_ms), ms(last_month_ms)];
    let rows = channel.query(STATEMENT, &parameters).map_err(|why| reason(&why))?;
    Figures::read(&rows, owner)
}

fn reason(why: &SqlError) -> String {
    match why {
        SqlError::NotGranted => "the mount has no statement of this name".to_owned(),
        SqlError::BadParameters(which) => {
            format!("the statement does not take (text, integer, integer, integer): {which}")
        }
        SqlError::Timeout => "the database took too long".to_owned(),
        SqlError::Unavailable => "the database cannot be reached".to_owned(),
        SqlError::TooLarge => "the answer is too large".to_owned(),
        SqlError::Failed => "the database refused the statement".to_owned(),
    }
}
