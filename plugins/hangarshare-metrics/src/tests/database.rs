//! The statement, schema and seed of `examples/hangarshare`, run for real on SQLite: what they say becomes the figures that
//! owners see.

use std::time::{SystemTime, UNIX_EPOCH};

use hotbay_sdk::{Rows, SqlError, SqlValue};
use rusqlite::Connection;
use rusqlite::types::{Value as Stored, ValueRef};
use serde_json::{Value, json};

use super::{COLUMNS, Desk, frames, join};

const SCHEMA: &str = include_str!("../../../../examples/hangarshare/schema.sqlite.sql");
const SEED: &str = include_str!("../../../../examples/hangarshare/seed.sqlite.sql");
const STATEMENT: &str = include_str!("../../../../examples/hangarshare/owner_metrics.sql");

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// Runs a file statement by statement, as a program without a shell for SQL does.
fn run(connection: &Connection, file: &str) {
    for statement in file.split(';').filter(|statement| !statement.trim().is_empty()) {
        connection.execute(statement, []).unwrap_or_else(|error| panic!("{error}: {statement}"));
    }
}

/// Runs the statement as the host does.
fn query(connection: &Connection, parameters: &[SqlValue]) -> rusqlite::Result<Rows> {
    let mut statement = connection.prepare(STATEMENT)?;
    assert_eq!(statement.parameter_count(), parameters.len());
    for (at, parameter) in parameters.iter().enumerate() {
        let value = match parameter {
            SqlValue::Text(text) => Stored::Text(text.clone()),
            SqlValue::Integer(number) => Stored::Integer(*number),
            other => panic!("{other:?} is no parameter of this statement"),
        };
        let index = statement.parameter_index(&format!("${}", at + 1))?.expect("a parameter of this number");
        statement.raw_bind_parameter(index, value)?;
    }
    let columns: Vec<String> = statement.column_names().iter().map(|name| (*name).to_owned()).collect();
    let mut found = statement.raw_query();
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        let values = (0..columns.len()).map(|at| {
            Ok(match row.get_ref(at)? {
                ValueRef::Null => SqlValue::Null,
                ValueRef::Integer(number) => SqlValue::Integer(number),
                ValueRef::Real(number) => SqlValue::Real(number),
                ValueRef::Text(text) => SqlValue::Text(String::from_utf8_lossy(text).into_owned()),
                ValueRef::Blob(bytes) => SqlValue::Bytes(bytes.to_vec()),
            })
        });
        rows.push(values.collect::<rusqlite::Result<_>>()?);
    }
    Ok(if rows.is_empty() { Rows { columns: Vec::new(), rows } } else { Rows { columns, rows } })
}

/// The channel of an owner on this database. The tests hold the database too, to change it.
fn desk_on(owner: &str, connection: &std::rc::Rc<Connection>) -> Desk {
    let mut desk = Desk::new(&format!("owner:{owner}"));
    let connection = std::rc::Rc::clone(connection);
    desk.set_database(move |_, parameters| query(&connection, parameters).map_err(|_| SqlError::Failed));
    desk
}

fn empty() -> std::rc::Rc<Connection> {
    let connection = Connection::open_in_memory().unwrap();
    run(&connection, SCHEMA);
    std::rc::Rc::new(connection)
}

fn list(connection: &Connection, id: &str, owner: &str, capacity: i64, status: &str, active: bool) {
    let row = (id, owner, capacity, status, active);
    let insert = "INSERT INTO listings VALUES (?1, ?2, 'Hangar', 'EDDM', ?3, 5000, ?4, ?5, 0)";
    connection.execute(insert, row).unwrap();
}

/// A booking: its listing, status, first and last moment, price and when it was made.
fn book(connection: &Connection, listing: &str, status: &str, stay: (i64, i64), cents: i64, made_ms: i64) {
    let insert = "INSERT INTO bookings
        SELECT 'booking-' || (SELECT COUNT(*) FROM bookings), ?1, 'pilot', ?2, ?3, ?4, ?5, ?6";
    connection.execute(insert, (listing, status, stay.0, stay.1, cents, made_ms)).unwrap();
}

/// The figures a connection sees first.
fn figures(desk: &mut Desk, owner: &str) -> Value {
    let (id, frames) = join(desk, owner);
    desk.disconnect(id);
    let update = frames.last().unwrap();
    assert_eq!(update.get("stale"), None, "{update}");
    update["data"].clone()
}

#[test]
fn each_figure_counts_what_it_says_and_nothing_else() {
    let database = empty();
    let mut desk = desk_on("ann", &database);
    let now = desk.now_ms().cast_signed();
    let (day, month, last_month) = (1_699_920_000_000, 1_698_796_800_000, 1_696_118_400_000);
    list(&database, "a1", "ann", 4, "published", true);
    list(&database, "a2", "ann", 2, "published", false);
    list(&database, "a3", "ann", 8, "draft", true);
    list(&database, "a4", "ann", 1, "archived", true);
    list(&database, "b1", "bob", 16, "published", true);
    let (past, today, soon) = ((0, day), (now - HOUR_MS, now + HOUR_MS), (day + DAY_MS, day + 2 * DAY_MS));
    // Revenue, by when it was made; the boundaries belong to the newer side.
    book(&database, "a1", "completed", past, 10_001, day);
    book(&database, "a1", "completed", past, 1_000, day - 1);
    book(&database, "a1", "completed", past, 100, month);
    book(&database, "a4", "completed", past, 77_700, month - 1);
    book(&database, "a1", "completed", past, 10, last_month);
    book(&database, "a1", "completed", past, 5_000_000, last_month - 1);
    book(&database, "a1", "cancelled", past, 5_000_000, now);
    book(&database, "a1", "pending", soon, 5_000_000, now);
    book(&database, "b1", "confirmed", today, 5_000_000, now);
    // Places taken today.
    book(&database, "a1", "confirmed", today, 0, 0);
    book(&database, "a1", "confirmed", (day, day + DAY_MS), 0, 0);
    book(&database, "a1", "confirmed", (0, day), 0, 0); // left as today began
    book(&database, "a1", "confirmed", soon, 0, 0);
    book(&database, "a1", "pending", today, 0, 0);
    book(&database, "a2", "confirmed", today, 0, 0); // takes no bookings now: neither booked nor available
    let expected = json!({
        "revenue": {"daily": 100.01, "monthly": 111.01, "growth": -85.7},
        "bookings": {"pending": 2, "confirmed": 5, "total": 7},
        "listings": {"active": 1, "published": 2, "total": 4},
        "occupancy": {"percentage": 50.0, "booked": 2, "available": 4},
    });
    assert_eq!(figures(&mut desk, "ann"), expected);
}

/// Where one leaves and another comes on the same day, the place is booked once.
#[test]
fn a_day_of_turnover_is_full_and_not_fuller() {
    let database = empty();
    let mut desk = desk_on("ann", &database);
    let day = 1_699_920_000_000;
    list(&database, "a1", "ann", 2, "published", true);
    list(&database, "a2", "ann", 3, "published", true);
    for _ in 0..2 {
        book(&database, "a1", "confirmed", (day - 2 * DAY_MS, day + 11 * HOUR_MS), 0, 0);
        book(&database, "a1", "confirmed", (day + 14 * HOUR_MS, day + 3 * DAY_MS), 0, 0);
    }
    assert_eq!(figures(&mut desk, "ann")["occupancy"], json!({"percentage": 40.0, "booked": 2, "available": 5}));
    // What is too many in one does not fill the other.
    book(&database, "a2", "confirmed", (day, day + DAY_MS), 0, 0);
    let figures = figures(&mut desk, "ann");
    assert_eq!(figures["occupancy"], json!({"percentage": 60.0, "booked": 3, "available": 5}));
    assert_eq!(figures["bookings"], json!({"pending": 0, "confirmed": 5, "total": 5}));
}

/// Completed bookings pile up for ever; each tick reads those of two months, and by the index alone.
#[test]
fn old_bookings_cost_nothing() {
    let database = empty();
    let plan = format!("EXPLAIN QUERY PLAN {STATEMENT}");
    let mut plan = database.prepare(&plan).unwrap();
    let rows = plan.query_map(("ann", 3, 2, 1), |row| row.get(3)).unwrap();
    let steps: Vec<String> = rows.collect::<Result<_, _>>().unwrap();
    let reads = |table: &str| -> Vec<&str> {
        steps.iter().map(String::as_str).filter(|step| step.starts_with(table)).collect()
    };
    assert!(reads("SCAN bookings").is_empty() && reads("SCAN b ").is_empty(), "{steps:#?}");
    let by = "SEARCH b USING COVERING INDEX bookings_by_listing (listing_id=? AND status=?";
    assert_eq!(reads("SEARCH b "), [format!("{by})"), format!("{by} AND created_at_ms>?)")], "{steps:#?}");
    assert!(
        reads("SEARCH listings ").iter().all(|step| step.contains("COVERING INDEX listings_by_owner")),
        "{steps:#?}"
    );
}

#[test]
fn listings_without_bookings_and_owners_without_listings_are_zeros() {
    let database = empty();
    list(&database, "a1", "ann", 3, "published", true);
    let ann = figures(&mut desk_on("ann", &database), "ann");
    assert_eq!(ann["occupancy"], json!({"percentage": 0.0, "booked": 0, "available": 3}));
    assert_eq!(ann["revenue"], json!({"daily": 0.0, "monthly": 0.0, "growth": 0.0}));
    let injected = "x') OR ('1' = '1";
    let nobody = figures(&mut desk_on(injected, &database), injected);
    assert_eq!(nobody["listings"], json!({"active": 0, "published": 0, "total": 0}));
}

/// A booking changed in the database shows in the next update.
#[test]
fn a_change_shows_in_the_next_update() {
    let database = empty();
    let mut desk = desk_on("ann", &database);
    list(&database, "a1", "ann", 3, "published", true);
    let now = desk.now_ms().cast_signed();
    book(&database, "a1", "pending", (now, now + DAY_MS), 25_050, now);
    let (ann, received) = join(&mut desk, "ann");
    assert_eq!(received[1]["data"]["bookings"], json!({"pending": 1, "confirmed": 0, "total": 1}));
    database.execute("UPDATE bookings SET status = 'confirmed'", []).unwrap();
    let update = frames(&desk.advance_ms(5_000), ann);
    assert_eq!(update[0]["data"]["bookings"], json!({"pending": 0, "confirmed": 1, "total": 1}));
    assert_eq!(update[0]["data"]["revenue"]["daily"], json!(250.5));
    assert_eq!(update[0]["data"]["occupancy"], json!({"percentage": 33.3, "booked": 1, "available": 3}));
    database.execute("DROP TABLE bookings", []).unwrap();
    let update = frames(&desk.advance_ms(5_000), ann);
    assert_eq!((&update[0]["stale"], &update[0]["data"]["revenue"]["daily"]), (&json!(true), &json!(250.5)));
}

/// Many owners at once, as the host asks where the statement has a batch key: the same rows as one by one.
#[test]
fn one_statement_for_many_owners_says_the_same() {
    assert_eq!(STATEMENT.matches("IN ($1)").count(), 1);
    let database = empty();
    run(&database, SEED);
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let times = [now_ms - now_ms % 86_400_000, now_ms - 20 * 86_400_000, now_ms - 50 * 86_400_000];
    let many = STATEMENT.replace("IN ($1)", "IN ('owner-1', 'nobody', 'bob', 'ann')");
    let many = ["$2", "$3", "$4"].iter().zip(times).fold(many, |many, (name, ms)| many.replace(name, &ms.to_string()));
    let columns = COLUMNS.len();
    let all: Vec<Vec<Stored>> = database
        .prepare(&many)
        .unwrap()
        .query_map([], |row| (0..columns).map(|at| row.get(at)).collect())
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(all.len(), 3);
    for row in all {
        let Stored::Text(owner) = &row[0] else { panic!("{row:?}") };
        let mut parameters = vec![SqlValue::Text(owner.clone())];
        parameters.extend(times.map(SqlValue::Integer));
        let alone = query(&database, &parameters).unwrap();
        let stored = alone.rows[0].iter().map(|value| match value {
            SqlValue::Text(text) => Stored::Text(text.clone()),
            SqlValue::Integer(number) => Stored::Integer(*number),
            SqlValue::Real(number) => Stored::Real(*number),
            other => panic!("{other:?}"),
        });
        assert_eq!(stored.collect::<Vec<_>>(), row);
        assert_eq!(alone.columns, COLUMNS);
    }
}

/// The demonstration has something to show, and can be loaded again and again.
#[test]
fn the_seed_is_plausible_and_can_be_run_again() {
    let database = empty();
    let count = |what: &str| -> i64 { database.query_row(what, [], |row| row.get(0)).unwrap() };
    run(&database, SEED);
    let rows = |()| (count("SELECT COUNT(*) FROM listings"), count("SELECT COUNT(*) FROM bookings"));
    let first = rows(());
    list(&database, "mine", "ann", 1, "draft", true);
    database.execute("UPDATE listings SET title = 'changed' WHERE owner_id = 'bob'", []).unwrap();
    run(&database, SCHEMA);
    run(&database, SEED);
    assert_eq!(rows(()), (first.0 + 1, first.1), "what others made stays");
    assert_eq!(count("SELECT COUNT(*) FROM listings WHERE title = 'changed'"), 0);
    assert_eq!(count("SELECT COUNT(DISTINCT owner_id) FROM listings"), 1_002);
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    for owner in ["ann", "bob", "owner-1", "owner-1000"] {
        let mut desk = desk_on(owner, &database);
        desk.advance_ms(now_ms - desk.now_ms());
        let figures = figures(&mut desk, owner);
        let number = |of: &str, what: &str| figures[of][what].as_f64().unwrap();
        assert!(number("listings", "active") >= 1.0 && number("bookings", "total") >= 1.0, "{owner}: {figures}");
        assert!(number("occupancy", "percentage") <= 100.0, "{owner}: {figures}");
    }
    // No place is booked twice at a time, and nothing was booked in the future or after it began.
    assert_eq!(count("SELECT COUNT(*) FROM bookings WHERE created_at_ms >= starts_at_ms"), 0);
    assert_eq!(count(&format!("SELECT COUNT(*) FROM bookings WHERE created_at_ms > {}", now_ms + 60_000)), 0);
}
