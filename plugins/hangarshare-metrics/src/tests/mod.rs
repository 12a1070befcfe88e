//! The rules of the owner metrics, one test for each, on the harness.

mod calendar;
mod database;
mod figures;
mod garbage;
mod kept;
mod members;
mod messages;
mod publications;
mod servers;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use hotbay_sdk::harness::{Harness, Outcome};
use hotbay_sdk::{MemberId, Rows, SqlError, SqlValue};
use serde_json::Value;

use crate::HangarshareMetrics;

pub(super) type Desk = Harness<HangarshareMetrics>;

/// The columns of the statement, in its order.
pub(super) const COLUMNS: [&str; 12] = [
    "owner_id",
    "revenue_daily",
    "revenue_monthly",
    "revenue_last_month",
    "bookings_pending",
    "bookings_confirmed",
    "bookings_total",
    "listings_active",
    "listings_published",
    "listings_total",
    "occupancy_booked",
    "occupancy_available",
];

/// A database that answers what it is told, and counts how often it was asked.
#[derive(Clone)]
pub(super) struct Database {
    pub(super) answer: Rc<RefCell<Result<Rows, SqlError>>>,
    pub(super) asked: Rc<Cell<u32>>,
    pub(super) parameters: Rc<RefCell<Vec<SqlValue>>>,
}

impl Database {
    pub(super) fn answer(&self, answer: Result<Rows, SqlError>) {
        *self.answer.borrow_mut() = answer;
    }

    /// How often it was asked since the last time.
    pub(super) fn asked(&self) -> u32 {
        self.asked.take()
    }
}

/// One row of an owner: revenue and occupancy of the contract's example.
pub(super) fn row(owner: &str, monthly: f64) -> Rows {
    let mut values = vec![SqlValue::Text(owner.to_owned())];
    values.extend([120.5, monthly, 1_000.0].map(SqlValue::Real));
    values.extend([2, 4, 6, 3, 4, 5, 6, 8].map(SqlValue::Integer));
    Rows { columns: COLUMNS.map(str::to_owned).to_vec(), rows: vec![values] }
}

/// The channel of an owner before anybody came, with these settings.
pub(super) fn desk_with(settings: &str) -> (Desk, Database) {
    let mut desk = Desk::with_settings("owner:ann", settings);
    let database = Database {
        answer: Rc::new(RefCell::new(Ok(row("ann", 1_100.0)))),
        asked: Rc::default(),
        parameters: Rc::default(),
    };
    let door = database.clone();
    desk.set_database(move |statement, parameters| {
        assert_eq!(statement, "owner_metrics");
        door.asked.set(door.asked.get() + 1);
        *door.parameters.borrow_mut() = parameters.to_vec();
        door.answer.borrow().clone()
    });
    (desk, database)
}

/// The channel of an owner before anybody came.
pub(super) fn desk() -> (Desk, Database) {
    desk_with("{}")
}

/// A connection joins; what it received.
pub(super) fn join(desk: &mut Desk, user: &str) -> (MemberId, Vec<Value>) {
    let id = desk.connect(user);
    let outcome = desk.join_connection(id);
    assert_eq!(outcome.faults, [""; 0]);
    (id, frames(&outcome, id))
}

/// What a member received, parsed.
pub(super) fn frames(outcome: &Outcome, id: MemberId) -> Vec<Value> {
    outcome.texts(id).iter().map(|text| serde_json::from_str(text).unwrap()).collect()
}

/// The types of frames.
pub(super) fn kinds(frames: &[Value]) -> Vec<&str> {
    frames.iter().map(|frame| frame["type"].as_str().unwrap()).collect()
}

/// The log lines that contain this text.
pub(super) fn lines(desk: &Desk, text: &str) -> Vec<String> {
    desk.lines().into_iter().map(|(_, line)| line).filter(|line| line.contains(text)).collect()
}
