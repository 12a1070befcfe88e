//! How the statement's answer becomes figures, and what goes out when it does not come.

use hotbay_sdk::harness::Effect;
use hotbay_sdk::{Delivery, Level, Rows, SqlError, SqlValue};
use serde_json::{Value, json};

use super::{COLUMNS, Desk, desk, frames, join, kinds, lines, row};
use crate::figures::Figures;

/// The next tick's `metrics_update`.
fn tick(desk: &mut Desk, id: u64) -> Value {
    let update = frames(&desk.advance_ms(5_000), id);
    assert_eq!(kinds(&update), ["metrics_update"]);
    update[0].clone()
}

#[test]
fn an_update_has_the_shape_of_the_contract() {
    let (mut desk, database) = desk();
    let (id, first) = join(&mut desk, "ann");
    let expected = |timestamp: u64| {
        json!({
            "type": "metrics_update",
            "data": {
                "revenue": {"daily": 120.5, "monthly": 1100.0, "growth": 10.0},
                "bookings": {"pending": 2, "confirmed": 4, "total": 6},
                "listings": {"active": 3, "published": 4, "total": 5},
                "occupancy": {"percentage": 75.0, "booked": 6, "available": 8},
            },
            "timestamp": timestamp,
        })
    };
    assert_eq!(first[1], expected(desk.now_ms()));
    assert_eq!(tick(&mut desk, id), expected(desk.now_ms()));
    // 2023-11-14: today, this month, last month.
    let ms = [1_699_920_000_000, 1_698_796_800_000, 1_696_118_400_000].map(SqlValue::Integer);
    let parameters = database.parameters.borrow();
    assert_eq!((&parameters[0], &parameters[1..]), (&SqlValue::Text("ann".to_owned()), &ms[..]));
}

/// Whole amounts and percentages keep their decimal point, counts have none: a client's type never changes.
#[test]
fn numbers_are_written_alike_whether_whole_or_not() {
    let (mut desk, database) = desk();
    let (id, _) = join(&mut desk, "ann");
    let mut whole = row("ann", 0.0);
    whole.rows[0][1..].fill(SqlValue::Integer(3));
    database.answer(Ok(whole));
    let text = desk.advance_ms(5_000).texts(id).concat();
    assert!(text.contains(r#""revenue":{"daily":3.0,"monthly":3.0,"growth":0.0}"#), "{text}");
    assert!(text.contains(r#""occupancy":{"percentage":100.0,"booked":3,"available":3}"#), "{text}");
    let mut real = row("ann", 0.0);
    real.rows[0][1..].fill(SqlValue::Real(3.0));
    database.answer(Ok(real));
    assert_eq!(desk.advance_ms(5_000).texts(id).concat().len(), text.len());
}

#[test]
fn growth_and_occupancy_have_one_decimal_and_no_division_by_zero() {
    let figures = |monthly: f64, last_month: f64, booked: i64, available: i64| {
        let mut rows = row("ann", monthly);
        rows.rows[0][3] = SqlValue::Real(last_month);
        rows.rows[0][10] = SqlValue::Integer(booked);
        rows.rows[0][11] = SqlValue::Integer(available);
        let figures = Figures::read(&rows, "ann").unwrap();
        (figures.revenue.growth, figures.occupancy.percentage)
    };
    assert_eq!(figures(1_000.0, 3_000.0, 1, 3), (-66.7, 33.3));
    assert_eq!(figures(1_000.4, 1_000.0, 2, 3), (0.0, 66.7));
    assert_eq!(figures(0.0, 500.0, 0, 4), (-100.0, 0.0));
    assert_eq!(figures(500.0, 0.0, 0, 0), (100.0, 0.0));
    assert_eq!(figures(0.0, 0.0, 5, 4), (0.0, 125.0));
    assert_eq!(figures(500.0, -1.0, -1, -4), (100.0, 0.0));
    // Nothing that JSON cannot say.
    let (growth, _) = figures(f64::MAX, f64::MIN_POSITIVE, i64::MAX, 1);
    assert!(growth.is_finite());
    // A small loss rounds to zero, not to minus zero.
    assert!(figures(999.9999, 1_000.0, 0, 1).0.is_sign_positive());
}

#[test]
fn values_of_any_numeric_type_are_read() {
    let mut rows = row("ann", 0.0);
    rows.rows[0][1] = SqlValue::Text(" 12.345 ".to_owned());
    rows.rows[0][2] = SqlValue::Integer(7);
    rows.rows[0][3] = SqlValue::Null;
    rows.rows[0][4] = SqlValue::Real(2.0);
    rows.rows[0][5] = SqlValue::Text("9".to_owned());
    rows.rows[0][6] = SqlValue::Null;
    let figures = Figures::read(&rows, "ann").unwrap();
    assert_eq!((figures.revenue.daily, figures.revenue.monthly, figures.revenue.growth), (12.35, 7.0, 100.0));
    assert_eq!((figures.bookings.pending, figures.bookings.confirmed, figures.bookings.total), (2, 9, 0));
}

/// The host may answer for many owners at once; an owner sees its own row, by name, wherever it stands.
#[test]
fn only_the_owners_own_row_counts() {
    let mut rows = row("bob", 9.0);
    rows.rows.push(row("ann", 5.0).rows.remove(0));
    let monthly = |rows: &Rows, owner: &str| json!(Figures::read(rows, owner).unwrap().revenue.monthly);
    assert_eq!(monthly(&rows, "ann"), json!(5.0));
    assert_eq!(Figures::read(&rows, "cleo").unwrap(), Figures::default());
    let mut turned = rows.clone();
    turned.columns.reverse();
    turned.rows.iter_mut().for_each(|row| row.reverse());
    assert_eq!(Figures::read(&turned, "ann").unwrap(), Figures::read(&rows, "ann").unwrap());
    rows.rows[1][0] = SqlValue::Integer(17);
    assert_eq!(monthly(&rows, "17"), json!(5.0));
    assert_eq!(Figures::read(&rows, "017x").unwrap(), Figures::default());
}

#[test]
fn an_owner_without_listings_has_zeros_that_are_not_stale() {
    let (mut desk, database) = desk();
    database.answer(Ok(Rows { columns: Vec::new(), rows: Vec::new() }));
    let (_, frames) = join(&mut desk, "ann");
    assert_eq!(frames[1]["data"]["bookings"], json!({"pending": 0, "confirmed": 0, "total": 0}));
    assert_eq!(frames[1].get("stale"), None);
}

#[test]
fn an_answer_that_cannot_be_read_is_stale_and_says_why() {
    let mut missing = row("ann", 1.0);
    missing.columns[4] = "x".to_owned();
    let mut short = row("ann", 1.0);
    short.rows[0].truncate(5);
    let mut wrong = row("ann", 1.0);
    wrong.rows[0][7] = SqlValue::Text("many".to_owned());
    let mut endless = row("ann", 1.0);
    endless.rows[0][1] = SqlValue::Real(f64::NAN);
    let mut nobody = row("ann", 1.0);
    nobody.columns[0] = "owner".to_owned();
    for (answer, why) in [
        (missing, "no column `bookings_pending`"),
        (short, "no value for `occupancy_booked`"),
        (wrong, "`listings_active` is not a number"),
        (endless, "`revenue_daily` is not a number"),
        (nobody, "no column `owner_id`"),
    ] {
        let (mut desk, database) = desk();
        let (id, _) = join(&mut desk, "ann");
        database.answer(Ok(answer));
        let update = tick(&mut desk, id);
        assert_eq!((&update["stale"], &update["data"]["revenue"]["monthly"]), (&json!(true), &json!(1100.0)));
        assert_eq!(lines(&desk, why).len(), 1, "{why}: {:?}", desk.lines());
    }
}

#[test]
fn while_the_database_is_away_the_last_figures_go_on_as_stale_and_it_recovers_by_itself() {
    for error in [
        SqlError::NotGranted,
        SqlError::BadParameters("two".to_owned()),
        SqlError::Timeout,
        SqlError::Unavailable,
        SqlError::TooLarge,
        SqlError::Failed,
    ] {
        let (mut desk, database) = desk();
        let (id, _) = join(&mut desk, "ann");
        database.answer(Err(error));
        for _ in 0..3 {
            let update = tick(&mut desk, id);
            assert_eq!((&update["stale"], &update["data"]["revenue"]["monthly"]), (&json!(true), &json!(1100.0)));
            assert_eq!(update["timestamp"], desk.now_ms());
        }
        database.answer(Ok(row("ann", 2_000.0)));
        let update = tick(&mut desk, id);
        assert_eq!((update.get("stale"), &update["data"]["revenue"]["monthly"]), (None, &json!(2000.0)));
        tick(&mut desk, id);
        // Told once when it begins, once when it ends.
        let told: Vec<Level> = desk
            .lines()
            .iter()
            .filter(|(_, line)| line.starts_with("owner_metrics"))
            .map(|(level, _)| *level)
            .collect();
        assert_eq!(told, [Level::Warn, Level::Info]);
    }
}

#[test]
fn zeros_go_out_as_stale_if_there_never_were_figures() {
    let (mut desk, database) = desk();
    database.answer(Err(SqlError::Unavailable));
    let (_, frames) = join(&mut desk, "ann");
    let zeros = json!({
        "revenue": {"daily": 0.0, "monthly": 0.0, "growth": 0.0},
        "bookings": {"pending": 0, "confirmed": 0, "total": 0},
        "listings": {"active": 0, "published": 0, "total": 0},
        "occupancy": {"percentage": 0.0, "booked": 0, "available": 0},
    });
    assert_eq!((&frames[1]["stale"], &frames[1]["data"]), (&json!(true), &zeros));
}

/// A new version, or a channel that slept, knows the last figures; a crash forgets them and asks anew.
#[test]
fn the_last_figures_outlive_sleep_but_not_a_crash() {
    let (mut desk, database) = desk();
    let (id, _) = join(&mut desk, "ann");
    database.answer(Err(SqlError::Unavailable));
    tick(&mut desk, id);
    desk.sleep();
    let update = tick(&mut desk, id);
    assert_eq!((&update["stale"], &update["data"]["revenue"]["monthly"]), (&json!(true), &json!(1100.0)));
    assert_eq!(lines(&desk, "owner_metrics").len(), 1, "told once, also across a sleep");
    desk.crash();
    desk.message(id, r#"{"type":"ping"}"#);
    let update = tick(&mut desk, id);
    assert_eq!((&update["stale"], &update["data"]["revenue"]["monthly"]), (&json!(true), &json!(0.0)));
    assert!(desk.kv().is_empty(), "figures cost no write");
}

/// Whoever joins must not wait for the time-out of a database that just failed.
#[test]
fn a_joiner_does_not_ask_a_database_that_failed_just_now() {
    let (mut desk, database) = desk();
    database.answer(Err(SqlError::Timeout));
    join(&mut desk, "ann");
    assert_eq!(database.asked(), 1);
    desk.advance_ms(1_000);
    let (_, frames) = join(&mut desk, "ann");
    assert_eq!((database.asked(), &frames[1]["stale"]), (0, &json!(true)));
    desk.advance_ms(4_000);
    assert_eq!(database.asked(), 1, "the tick asks");
}

#[test]
fn a_batch_asks_once() {
    let (mut desk, database) = desk();
    let ids = [(); 3].map(|()| desk.connect("ann"));
    let events = ids.map(|id| desk.joined(id, None)).to_vec();
    let outcome = desk.batch(events);
    assert_eq!(database.asked(), 1);
    for id in ids {
        assert_eq!(kinds(&frames(&outcome, id)), ["connection_established", "metrics_update"]);
    }
    desk.advance_ms(5_000);
    assert_eq!(database.asked(), 1, "one query for all connections");
}

/// A change in the database shows in the next update, also in the first one of who joins meanwhile.
#[test]
fn no_update_is_older_than_the_database() {
    let (mut desk, database) = desk();
    let (first, _) = join(&mut desk, "ann");
    database.answer(Ok(row("ann", 7.0)));
    let (_, frames) = join(&mut desk, "ann");
    assert_eq!(frames[1]["data"]["revenue"]["monthly"], json!(7.0));
    assert_eq!(tick(&mut desk, first)["data"]["revenue"]["monthly"], json!(7.0));
}

/// A slow reader gets the newest figures, never a backlog.
#[test]
fn updates_are_conflated() {
    let (mut desk, _) = desk();
    let id = desk.connect("ann");
    let outcomes = [desk.join_connection(id), desk.advance_ms(5_000)];
    let mut updates = 0;
    for effect in outcomes.iter().flat_map(|outcome| &outcome.effects) {
        let Effect::Frame { what, how, .. } = effect else { continue };
        if what.text().unwrap().contains("metrics_update") {
            assert_eq!(*how, Delivery::NORMAL.conflated("metrics_update"));
            updates += 1;
        } else {
            assert_eq!(*how, Delivery::HIGH);
        }
    }
    assert_eq!(updates, 2);
}

#[test]
fn the_statement_names_the_columns_that_are_read() {
    let statement = include_str!("../../../../examples/hangarshare/owner_metrics.sql");
    for column in &COLUMNS[1..] {
        assert!(statement.contains(&format!(" AS {column}")), "{column}");
    }
}
