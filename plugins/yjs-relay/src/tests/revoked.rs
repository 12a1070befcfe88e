//! Access that is taken back while somebody is here, and the statement that cannot be run.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use hotbay_sdk::harness::Outcome;
use hotbay_sdk::{SqlError, SqlValue};
use serde_json::json;

use super::access::rows;
use super::{
    BINARY_ENDPOINT, Editor, JSON_ENDPOINT, Room, binary_frames, frames, identity, join, join_binary, join_json, only,
    room, send, send_binary, send_update,
};
use crate::admission::{DENIED, TRY_AGAIN};
use crate::binary;

/// Time between two checks.
const CHECK_MS: u64 = 300_000;

/// What the statement says of each user, how often it was asked, and whether it is out of reach.
#[derive(Default)]
struct Table {
    access: BTreeMap<String, &'static str>,
    calls: usize,
    down: Option<SqlError>,
}

/// A room where everybody may write whom the table does not name.
fn room_asking() -> (Room, Rc<RefCell<Table>>) {
    let (mut room, table) = (room(), Rc::new(RefCell::new(Table::default())));
    let answers = Rc::clone(&table);
    room.set_database(move |_, parameters| {
        let mut table = answers.borrow_mut();
        table.calls += 1;
        if let Some(error) = &table.down {
            return Err(error.clone());
        }
        let SqlValue::Text(user) = &parameters[1] else { panic!("{parameters:?}") };
        let access = table.access.get(user).copied().unwrap_or("write");
        let row = [SqlValue::Text(access.to_owned())];
        Ok(rows(&["access"], (access != "none").then_some(&row[..])))
    });
    (room, table)
}

fn closed(outcome: &Outcome) -> Vec<(u64, u16)> {
    outcome.closed.iter().map(|(id, code, _)| (*id, *code)).collect()
}

#[test]
fn who_loses_access_is_closed_within_five_minutes() {
    let (mut room, table) = room_asking();
    let (ann, bob, cleo) = (join_json(&mut room, "ann"), join_binary(&mut room, "bob"), join_json(&mut room, "cleo"));
    for user in ["ann", "bob"] {
        table.borrow_mut().access.insert(user.to_owned(), "none");
    }

    assert_eq!(closed(&room.advance_ms(CHECK_MS - 1)), []);
    let checked = room.advance_ms(1);

    assert_eq!(closed(&checked), [(ann, DENIED), (bob, DENIED)]);
    assert!(checked.closed.iter().all(|(_, _, reason)| reason == "Access denied"));
    assert_eq!(room.members(), [cleo]);
    assert_eq!(send_update(&mut room, cleo, &Editor::new(5).types("on")).refusals, []);
    table.borrow_mut().access.insert("cleo".to_owned(), "none");
    assert_eq!(closed(&room.advance_ms(CHECK_MS)), [(cleo, DENIED)], "and again");
    assert_eq!(room.timers(), [], "nobody is left to ask about");
}

#[test]
fn who_may_only_read_any_more_is_told_so_and_does() {
    let (mut room, table) = room_asking();
    let (ann, bob, cleo) = (join_json(&mut room, "ann"), join_binary(&mut room, "bob"), join_binary(&mut room, "cleo"));
    for user in ["ann", "bob"] {
        table.borrow_mut().access.insert(user.to_owned(), "read");
    }

    let checked = room.advance_ms(CHECK_MS);

    let why = "you may no longer change this draft, only read it";
    assert_eq!(only(&checked, ann), json!({"type": "error", "error": why}));
    assert_eq!(binary_frames(&checked, bob), [binary::denied(why)]);
    assert_eq!((binary_frames(&checked, cleo).len(), checked.closed.len()), (0, 0));
    let update = Editor::new(5).types("no");
    assert_eq!(send_update(&mut room, ann, &update).refusals.len(), 1);
    assert_eq!(send_binary(&mut room, bob, binary::update(&update)).refusals.len(), 1);
    assert_eq!(room.log().len(), 0);
    assert_eq!(room.advance_ms(CHECK_MS).received, [], "told once");

    table.borrow_mut().access.clear();
    room.sleep();
    let checked = room.advance_ms(CHECK_MS);

    assert_eq!(binary_frames(&checked, bob), [binary::step_1(&[0])], "asked for what it could not write meanwhile");
    assert_eq!(frames(&checked, ann).len(), 0);
    assert_eq!(send_update(&mut room, ann, &update).refusals, []);
}

/// Goal: a check is due when it was due, whatever became of the instance meanwhile; and a sleeping channel is woken for
/// it.
#[test]
fn neither_sleep_nor_newcomers_put_a_check_off() {
    let (mut room, table) = room_asking();
    let ann = join_json(&mut room, "ann");
    for _ in 0..9 {
        room.advance_ms(CHECK_MS / 10);
        room.sleep();
        join_json(&mut room, "bob");
        room.sleep();
    }
    table.borrow_mut().access.insert("ann".to_owned(), "none");

    assert_eq!(closed(&room.advance_ms(CHECK_MS / 10)), [(ann, DENIED)]);
    room.crash();
    table.borrow_mut().access.insert("bob".to_owned(), "none");
    assert_eq!(room.advance_ms(CHECK_MS).closed.len(), 9, "after a crash as well");
}

/// Goal: whatever the instance crashes of, in the check itself or between two, everybody is checked again in time.
#[test]
fn a_crash_neither_ends_the_checks_nor_puts_them_off() {
    let (mut room, table) = room_asking();
    let ann = join_json(&mut room, "ann");
    let answers = Rc::clone(&table);
    room.set_database(move |_, _| {
        let mut table = answers.borrow_mut();
        table.calls += 1;
        assert_ne!(table.calls, 2, "the check crashes");
        Ok(rows(&["x"], None))
    });

    let crashed = room.advance_ms(CHECK_MS);
    assert_eq!((crashed.faults.len(), crashed.closed.len(), table.borrow().calls), (1, 0, 2));
    send(&mut room, ann, &json!({"type": "ping"}));
    for _ in 0..3 {
        assert_eq!(closed(&room.advance_ms(CHECK_MS / 4)), []);
        room.sleep();
    }
    assert_eq!(closed(&room.advance_ms(CHECK_MS / 4)), [(ann, DENIED)], "five minutes later");
    assert_eq!(room.timers(), []);

    let (mut room, table) = room_asking();
    let (ann, bob) = (join_json(&mut room, "ann"), join_json(&mut room, "bob"));
    table.borrow_mut().access.insert("ann".to_owned(), "none");
    for _ in 0..3 {
        assert_eq!(closed(&room.advance_ms(CHECK_MS / 4)), []);
        room.crash();
        send(&mut room, bob, &json!({"type": "ping"}));
    }
    assert_eq!(closed(&room.advance_ms(CHECK_MS / 4)), [(ann, DENIED)], "not put off");
    assert_eq!(room.timers().len(), 1);
}

/// Goal: many members do not keep the draft from those who write meanwhile.
#[test]
fn many_are_checked_in_several_batches() {
    let (mut room, table) = room_asking();
    let members: Vec<u64> = (0..100).map(|number| join_json(&mut room, &format!("user{number}"))).collect();
    table.borrow_mut().access.insert("user99".to_owned(), "none");
    table.borrow_mut().calls = 0;

    let first = room.advance_ms(CHECK_MS);
    assert_eq!((first.closed.len(), table.borrow().calls), (0, 32));
    let others = room.advance_ms(10);

    assert_eq!(closed(&others), [(members[99], DENIED)]);
    assert_eq!(table.borrow().calls, 100, "each once");
    room.advance_ms(CHECK_MS - 20);
    assert_eq!(table.borrow().calls, 100);
    room.advance_ms(20);
    assert_eq!(table.borrow().calls, 199);
}

/// Goal: by the rule of firms nothing can change, so nothing is asked and no timer wakes anybody.
#[test]
fn without_the_statement_nothing_is_checked() {
    let mut room = room();
    let ann = join_json(&mut room, "ann");
    assert_eq!(room.timers(), []);
    // After a crash nobody knows; it shows once.
    room.crash();
    send_update(&mut room, ann, &Editor::new(5).types("x"));
    room.sleep();
    room.advance_ms(CHECK_MS);
    assert_eq!((room.timers(), room.members()), (vec![], vec![ann]));
    room.sleep();
    send_update(&mut room, ann, &Editor::new(6).types("y"));
    assert_eq!(room.timers(), []);
}

#[test]
fn the_timer_goes_with_the_last_member() {
    let (mut room, _) = room_asking();
    let (ann, bob) = (join_json(&mut room, "ann"), join_json(&mut room, "bob"));
    assert_eq!(room.timers().len(), 1);
    room.disconnect(ann);
    assert_eq!(room.timers().len(), 1);
    room.disconnect(bob);
    assert_eq!(room.timers(), []);
    assert_eq!(room.kv().len(), 0);
}

/// Goal: a database that is down closes nobody who is here, and does not keep the draft waiting for each of them.
#[test]
fn while_the_statement_cannot_be_run_everybody_keeps_what_they_had() {
    for error in [SqlError::Timeout, SqlError::Unavailable, SqlError::Failed] {
        let (mut room, table) = room_asking();
        let members: Vec<u64> = (0..5).map(|_| join_json(&mut room, "ann")).collect();
        table.borrow_mut().access.insert("ann".to_owned(), "none");
        table.borrow_mut().down = Some(error.clone());
        table.borrow_mut().calls = 0;

        let checked = room.advance_ms(CHECK_MS);

        assert_eq!(closed(&checked), [], "{error:?}");
        assert_eq!(table.borrow().calls, if error == SqlError::Failed { 5 } else { 1 }, "{error:?}");
        assert_eq!(send_update(&mut room, members[4], &Editor::new(5).types("x")).refusals, []);
        table.borrow_mut().down = None;
        assert_eq!(room.advance_ms(CHECK_MS).closed.len(), 5, "{error:?}");
    }
}

/// Goal: a hundred who join while the database is down wait for it once, not a hundred times.
#[test]
fn a_statement_out_of_reach_is_not_waited_for_by_each_who_joins() {
    for error in [SqlError::Timeout, SqlError::Unavailable] {
        let (mut room, table) = room_asking();
        table.borrow_mut().down = Some(error);
        let joining: Vec<u64> = (0..100).map(|_| room.connect_as(identity("ann", JSON_ENDPOINT))).collect();
        let events = joining.iter().map(|id| room.joined(*id, None)).collect();

        let outcome = room.batch(events);

        assert_eq!(table.borrow().calls, 1);
        assert_eq!(closed(&outcome), joining.iter().map(|id| (*id, TRY_AGAIN)).collect::<Vec<_>>());
        assert_eq!(outcome.refusals.len(), 100);
        table.borrow_mut().down = None;
        assert_eq!(join(&mut room, identity("ann", BINARY_ENDPOINT)).1.closed, [], "the next batch tries again");
        assert_eq!(table.borrow().calls, 2);
    }
}

/// Goal: a frame of somebody on its way out finds nothing to do, and its leaving is no surprise.
#[test]
fn who_is_closed_by_a_check_does_nothing_more() {
    let (mut room, table) = room_asking();
    let (ann, bob) = (join_binary(&mut room, "ann"), join_binary(&mut room, "bob"));
    let mut states = Vec::new();
    crate::awareness::write(&mut states, [(7, 1, Some("{}"))].into_iter());
    send_binary(&mut room, ann, binary::awareness(&states));
    table.borrow_mut().access.insert("ann".to_owned(), "none");
    let timer = hotbay_sdk::Event::Timer("access".to_owned());
    let last = room.sent(ann, binary::update(&Editor::new(5).types("x")));

    let outcome = room.batch(vec![timer, last]);

    assert_eq!(closed(&outcome), [(ann, DENIED)]);
    assert_eq!((outcome.faults.len(), outcome.refusals.len(), room.log().len()), (0, 1, 0));
    assert_eq!(binary_frames(&outcome, bob).len(), 1, "its cursor goes, once");
}

/// Goal: what passes asks to come back, by the host's table and by that of y-websocket 3.1.
#[test]
fn both_kinds_of_clients_come_back_after_what_passes() {
    let ours_come_back = |code: u16| code != 1008 && !(4500..5000).contains(&code);
    let y_websocket_comes_back = |code: u16| !(4400..4500).contains(&code);
    assert!(ours_come_back(TRY_AGAIN) && y_websocket_comes_back(TRY_AGAIN));
    assert!(!ours_come_back(DENIED), "and stay away where they may not be");
}
