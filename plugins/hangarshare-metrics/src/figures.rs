//! The figures of an owner, and how the answer of the statement `owner_metrics` becomes them.
//!
//! Money and percentages go out as JSON numbers with a decimal point (`75.0`), counts without. Money is rounded to two
//! decimals, percentages to one.

use hotbay_sdk::{Rows, SqlValue};
use serde::{Deserialize, Serialize};

/// The `data` of a `metrics_update`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) revenue: Revenue,
    pub(crate) bookings: Bookings,
    pub(crate) listings: Listings,
    pub(crate) occupancy: Occupancy,
}

/// Of bookings that are confirmed or completed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Revenue {
    /// Today's, in UTC.
    pub(crate) daily: f64,
    /// This month's, in UTC.
    pub(crate) monthly: f64,
    /// This month beside the last, in percent.
    pub(crate) growth: f64,
}

/// Those that are open: `total` is of both kinds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Bookings {
    pub(crate) pending: i64,
    pub(crate) confirmed: i64,
    pub(crate) total: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Listings {
    pub(crate) active: i64,
    pub(crate) published: i64,
    pub(crate) total: i64,
}

/// Places booked today. `available` is the capacity, not what is left of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Occupancy {
    pub(crate) percentage: f64,
    pub(crate) booked: i64,
    pub(crate) available: i64,
}

impl Figures {
    /// Reads an owner's row. An owner without a row has nothing: all zeros.
    pub(crate) fn read(rows: &Rows, owner: &str) -> Result<Self, String> {
        if rows.rows.is_empty() {
            return Ok(Self::default());
        }
        let owner_id = column(rows, "owner_id")?;
        let Some(row) = rows.rows.iter().find(|row| row.get(owner_id).is_some_and(|id| is_owner(id, owner))) else {
            return Ok(Self::default());
        };
        let row = Row { rows, row };
        let (monthly, last_month) = (row.amount("revenue_monthly")?, row.amount("revenue_last_month")?);
        let (booked, available) = (row.count("occupancy_booked")?, row.count("occupancy_available")?);
        Ok(Self {
            revenue: Revenue {
                daily: rounded(row.amount("revenue_daily")?, 100.0),
                monthly: rounded(monthly, 100.0),
                growth: growth(monthly, last_month),
            },
            bookings: Bookings {
                pending: row.count("bookings_pending")?,
                confirmed: row.count("bookings_confirmed")?,
                total: row.count("bookings_total")?,
            },
            listings: Listings {
                active: row.count("listings_active")?,
                published: row.count("listings_published")?,
                total: row.count("listings_total")?,
            },
            occupancy: Occupancy { percentage: percentage(booked, available), booked, available },
        })
    }
}

/// This month beside the last, in percent. Beside a month without revenue any revenue counts as 100.
fn growth(monthly: f64, last_month: f64) -> f64 {
    if last_month > 0.0 {
        rounded((monthly - last_month) / last_month * 100.0, 10.0)
    } else if monthly > 0.0 {
        100.0
    } else {
        0.0
    }
}

/// Booked places among those there are. Without places: 0.
fn percentage(booked: i64, available: i64) -> f64 {
    if available > 0 { rounded(booked as f64 / available as f64 * 100.0, 10.0) } else { 0.0 }
}

/// Rounds to 1/`scale`. JSON has neither infinity nor a use for a negative zero.
fn rounded(number: f64, scale: f64) -> f64 {
    let rounded = (number * scale).round() / scale + 0.0;
    if rounded.is_finite() { rounded } else { number.clamp(f64::MIN, f64::MAX) }
}

fn column(rows: &Rows, name: &str) -> Result<usize, String> {
    let found = rows.columns.iter().position(|column| column == name);
    found.ok_or_else(|| format!("the answer has no column `{name}`"))
}

fn is_owner(id: &SqlValue, owner: &str) -> bool {
    match id {
        SqlValue::Text(id) => id == owner,
        SqlValue::Integer(id) => owner.parse() == Ok(*id),
        _ => false,
    }
}

/// One owner's row.
struct Row<'a> {
    rows: &'a Rows,
    row: &'a [SqlValue],
}

impl Row<'_> {
    fn value(&self, name: &str) -> Result<&SqlValue, String> {
        self.row.get(column(self.rows, name)?).ok_or_else(|| format!("a row has no value for `{name}`"))
    }

    fn amount(&self, name: &str) -> Result<f64, String> {
        let number = match self.value(name)? {
            SqlValue::Null => Some(0.0),
            SqlValue::Integer(number) => Some(*number as f64),
            SqlValue::Real(number) => Some(*number),
            // PostgreSQL's `numeric`, where the statement does not cast it.
            SqlValue::Text(number) => number.trim().parse().ok(),
            SqlValue::Boolean(_) | SqlValue::Bytes(_) => None,
        };
        number.filter(|number| number.is_finite()).ok_or_else(|| format!("`{name}` is not a number"))
    }

    fn count(&self, name: &str) -> Result<i64, String> {
        match self.value(name)? {
            SqlValue::Integer(number) => Ok(*number),
            _ => self.amount(name).map(|number| number.round() as i64),
        }
    }
}
