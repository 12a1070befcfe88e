//! Awareness: whose states count, who hears of them, and when they go.

use hotbay_sdk::harness::Outcome;
use hotbay_sdk::{Delivery, Event, Priority};

use super::{
    BINARY_ENDPOINT, Editor, Room, binary_frames, frames, join, join_binary, join_json, room, send_binary, stored,
    viewer,
};
use crate::awareness::{self, IDS_PER_MEMBER_MAX, TOTAL_BYTES_MAX};
use crate::binary;

type State<'a> = (u64, u64, Option<&'a str>);

fn frame(states: &[State<'_>]) -> Vec<u8> {
    let mut update = Vec::new();
    awareness::write(&mut update, states.iter().copied());
    binary::awareness(&update)
}

fn say(room: &mut Room, id: u64, states: &[State<'_>]) -> Outcome {
    send_binary(room, id, frame(states))
}

/// All states a new member is told.
fn told(room: &mut Room) -> Vec<Vec<u8>> {
    let (id, joined) = join(room, viewer("new", BINARY_ENDPOINT));
    room.disconnect(id);
    binary_frames(&joined, id)
}

#[test]
fn a_state_goes_to_the_other_members_of_y_websocket() {
    let mut room = room();
    let (ann, bob, cleo) = (join_binary(&mut room, "ann"), join_binary(&mut room, "bob"), join_json(&mut room, "cleo"));

    let said = say(&mut room, ann, &[(7, 1, Some(r#"{"name":"ann"}"#))]);

    assert_eq!(binary_frames(&said, bob), [frame(&[(7, 1, Some(r#"{"name":"ann"}"#))])]);
    assert_eq!((binary_frames(&said, ann).len(), frames(&said, cleo).len()), (0, 0));
    assert_eq!(room.log().len(), 0, "nobody stores it");
    assert_eq!(told(&mut room), [frame(&[(7, 1, Some(r#"{"name":"ann"}"#))])]);
    let asked = send_binary(&mut room, bob, vec![3]);
    assert_eq!(binary_frames(&asked, bob), [frame(&[(7, 1, Some(r#"{"name":"ann"}"#))])]);
}

#[test]
fn only_what_is_newer_counts() {
    let mut room = room();
    let (ann, bob) = (join_binary(&mut room, "ann"), join_binary(&mut room, "bob"));
    say(&mut room, ann, &[(7, 5, Some("1"))]);

    for (old, passed_on) in [
        ((7, 5, Some("2")), false),
        ((7, 4, Some("2")), false),
        ((7, 6, Some("3")), true),
        ((7, 5, None), false),
        ((7, 6, None), true),
        ((7, 6, None), false),
        ((7, 6, Some("4")), false),
        ((7, 7, Some("5")), true),
    ] {
        let said = say(&mut room, ann, &[old]);
        assert_eq!(binary_frames(&said, bob).len(), usize::from(passed_on), "{old:?}");
    }
    assert_eq!(told(&mut room), [frame(&[(7, 7, Some("5"))])]);
}

/// Goal: a state is as small a burden on a slow reader as it can be: the newest is enough.
#[test]
fn a_newer_state_replaces_one_that_waits() {
    let mut room = room();
    let (ann, _bob) = (join_binary(&mut room, "ann"), join_binary(&mut room, "bob"));

    let said = say(&mut room, ann, &[(7, 1, Some("1"))]);

    let hotbay_sdk::harness::Effect::Frame { how, .. } = &said.effects[0] else { panic!("{:?}", said.effects) };
    assert_eq!(*how, Delivery { priority: Priority::Low, conflate: Some("awareness:7".to_owned()) });
}

#[test]
fn nobody_moves_the_cursor_of_another_user() {
    let mut room = room();
    let (ann, bob) = (join_binary(&mut room, "ann"), join_binary(&mut room, "bob"));
    say(&mut room, ann, &[(7, 1, Some("1"))]);

    for forged in [(7, 2, Some("9")), (7, 900, Some("9")), (7, 1, None), (7, 2, None)] {
        let said = say(&mut room, bob, &[forged]);
        assert_eq!(said.received, [], "{forged:?}");
    }
    // Of a frame that says more, the rest counts.
    let said = say(&mut room, bob, &[(7, 2, Some("9")), (8, 1, Some("2"))]);
    assert_eq!(binary_frames(&said, ann), [frame(&[(8, 1, Some("2"))])]);
    // Not even once the state is gone: the number is the member's while it is here.
    room.advance_ms(31_000);
    assert_eq!(say(&mut room, bob, &[(7, 3, Some("9"))]).received, []);
    room.disconnect(ann);
    assert_eq!(told(&mut room).len(), 0);
}

/// Goal: a client that connects anew is seen although its old connection is not known to be broken, and the end of that
/// does not take its state away.
#[test]
fn a_client_that_reconnects_takes_its_number_along() {
    for same_clock in [true, false] {
        let mut room = room();
        let (old, bob) = (join_binary(&mut room, "ann"), join_binary(&mut room, "bob"));
        say(&mut room, old, &[(7, 4, Some("1"))]);

        let new = join_binary(&mut room, "ann");
        let clock = if same_clock { 4 } else { 5 };
        say(&mut room, new, &[(7, clock, Some("1"))]);
        let left = room.disconnect(old);

        assert_eq!(binary_frames(&left, bob).len(), 0);
        assert_eq!(told(&mut room), [frame(&[(7, clock, Some("1"))])]);
        let left = room.disconnect(new);
        assert_eq!(binary_frames(&left, bob), [frame(&[(7, clock, None)])]);
    }
}

/// Goal: clients of y-websocket send back what they hear; that must not make another's state theirs, nor bring it back.
#[test]
fn an_echo_changes_nothing() {
    let mut room = room();
    let (ann, tab) = (join_binary(&mut room, "ann"), join_binary(&mut room, "ann"));
    let bob = join_binary(&mut room, "bob");
    say(&mut room, ann, &[(7, 1, Some("1"))]);
    say(&mut room, tab, &[(8, 1, Some("2"))]);

    for echo in [vec![(7, 1, Some("1"))], vec![(7, 1, Some("1")), (8, 1, Some("2"))], vec![(7, 1, None)]] {
        assert_eq!(say(&mut room, tab, &echo).received, [], "{echo:?}");
        assert_eq!(say(&mut room, bob, &echo).received, [], "{echo:?}");
    }
    let left = room.disconnect(tab);
    assert_eq!(binary_frames(&left, ann), [frame(&[(8, 1, None)])], "only its own went with it");

    // One that was on its way when the owner left.
    room.disconnect(ann);
    assert_eq!(say(&mut room, bob, &[(7, 1, Some("1"))]).received, []);
    assert_eq!(told(&mut room).len(), 0);
}

#[test]
fn a_state_leaves_with_its_member() {
    let mut room = room();
    let (ann, bob) = (join_binary(&mut room, "ann"), join_binary(&mut room, "bob"));
    say(&mut room, ann, &[(7, 3, Some("1")), (9, 1, Some("2"))]);

    let left = room.disconnect(ann);

    assert_eq!(binary_frames(&left, bob), [frame(&[(7, 3, None), (9, 1, None)])]);
    assert_eq!(told(&mut room).len(), 0);
    // It comes back, as y-websocket does, with the clock it had.
    let ann = join_binary(&mut room, "ann");
    say(&mut room, ann, &[(7, 3, Some("1"))]);
    assert_eq!(told(&mut room), [frame(&[(7, 3, Some("1"))])]);
    let said = say(&mut room, ann, &[(7, 4, Some("1"))]);
    assert_eq!(binary_frames(&said, bob).len(), 1);
}

#[test]
fn a_state_goes_after_30_s_without_renewal() {
    let mut room = room();
    let (ann, bob) = (join_binary(&mut room, "ann"), join_binary(&mut room, "bob"));
    say(&mut room, ann, &[(7, 1, Some("1"))]);
    say(&mut room, bob, &[(8, 1, Some("2"))]);
    room.advance_ms(15_000);
    say(&mut room, bob, &[(8, 2, Some("2"))]);

    assert_eq!(room.advance_ms(14_999).received, []);
    let gone = room.advance_ms(1);
    assert_eq!(binary_frames(&gone, bob), [frame(&[(7, 1, None)])]);
    assert_eq!(told(&mut room), [frame(&[(8, 2, Some("2"))])]);
    assert_eq!(binary_frames(&room.advance_ms(15_000), ann), [frame(&[(8, 2, None)])]);
    assert_eq!(room.timers(), [], "nothing is left to wait for");
    // Heard of again, both are back.
    let said = say(&mut room, ann, &[(7, 2, Some("1"))]);
    assert_eq!(binary_frames(&said, bob), [frame(&[(7, 2, Some("1"))])]);
}

#[test]
fn renewals_keep_a_state_for_ever() {
    let mut room = room();
    let ann = join_binary(&mut room, "ann");
    for clock in 1..50 {
        say(&mut room, ann, &[(7, clock, Some("1"))]);
        let waited = room.advance_ms(15_000);
        assert_eq!(waited.received, []);
        assert_eq!(room.timers().len(), 1);
    }
}

#[test]
fn states_survive_sleep_and_owners_a_wake_by_their_leaving() {
    let mut room = room();
    let (ann, bob) = (join_binary(&mut room, "ann"), join_binary(&mut room, "bob"));
    say(&mut room, ann, &[(7, 1, Some("1"))]);
    room.sleep();

    assert_eq!(told(&mut room), [frame(&[(7, 1, Some("1"))])]);
    room.sleep();
    assert_eq!(say(&mut room, bob, &[(7, 2, Some("9"))]).received, [], "owners are known");
    room.sleep();
    let left = room.disconnect(ann);
    assert_eq!(binary_frames(&left, bob), [frame(&[(7, 1, None)])]);
}

/// Goal: after a crash nobody is shown who may be gone; who is there is heard of again by its next renewal.
#[test]
fn a_crash_forgets_states() {
    let mut room = room();
    let (ann, bob) = (join_binary(&mut room, "ann"), join_binary(&mut room, "bob"));
    say(&mut room, ann, &[(7, 1, Some("1"))]);
    room.crash();

    assert_eq!(told(&mut room).len(), 0);
    let said = say(&mut room, ann, &[(7, 2, Some("1"))]);
    assert_eq!(binary_frames(&said, bob).len(), 1);
}

#[test]
fn a_viewer_shows_its_cursor_too() {
    let mut room = room();
    let (bob, vera) = (join_binary(&mut room, "bob"), join(&mut room, viewer("vera", BINARY_ENDPOINT)).0);

    assert_eq!(binary_frames(&say(&mut room, vera, &[(7, 1, Some("1"))]), bob).len(), 1);
}

#[test]
fn states_are_bounded() {
    let mut room = room();
    let (ann, bob) = (join_binary(&mut room, "ann"), join_binary(&mut room, "bob"));
    let large = format!("\"{}\"", "x".repeat((16 << 10) - 2));

    assert_eq!(binary_frames(&say(&mut room, ann, &[(7, 1, Some(&large))]), bob).len(), 1);
    let larger = format!("\"{}\"", "x".repeat((16 << 10) - 1));
    let said = say(&mut room, ann, &[(7, 2, Some(&larger)), (8, 1, Some("1"))]);
    assert_eq!(binary_frames(&said, ann), [binary::denied("an awareness state is too large")]);
    assert_eq!(said.received.len(), 1);

    let many: Vec<State<'_>> = (100..200).map(|client| (client, 1, Some("1"))).collect();
    say(&mut room, ann, &many);
    let listed: Vec<u64> = (100..100 + IDS_PER_MEMBER_MAX as u64 - 1).collect();
    let mut kept: Vec<State<'_>> = vec![(7, 1, Some(&large))];
    kept.extend(listed.iter().map(|client| (*client, 1, Some("1"))));
    assert_eq!(told(&mut room), [frame(&kept)]);

    // All together.
    for user in 0..40 {
        let member = join_binary(&mut room, &format!("user{user}"));
        for client in 0..IDS_PER_MEMBER_MAX as u64 {
            say(&mut room, member, &[(1_000 + user * 100 + client, 1, Some(&large))]);
        }
    }
    let told = told(&mut room);
    assert!((TOTAL_BYTES_MAX - (20 << 10)..TOTAL_BYTES_MAX + (20 << 10)).contains(&told[0].len()), "{}", told[0].len());
}

#[test]
fn what_is_no_json_or_cut_short_is_refused_whole() {
    let mut room = room();
    let (ann, bob) = (join_binary(&mut room, "ann"), join_binary(&mut room, "bob"));
    say(&mut room, ann, &[(7, 1, Some("1"))]);
    let mut cases = vec![
        frame(&[(8, 1, Some("1")), (7, 2, Some("{"))]),
        frame(&[(7, 2, Some(""))]),
        binary::awareness(&[1, 7, 2, 1, 0xFF]),
        binary::awareness(&[1, 7, 2, 1, b'1', 0]),
        binary::awareness(&[0xFF, 0xFF, 0x03]),
    ];
    cases.push(binary::awareness(&[2, 7, 2, 1, b'1']));
    let many: Vec<State<'_>> = (0..20_000).map(|client| (client, 1, Some("1"))).collect();
    cases.push(frame(&many));

    for case in cases {
        let said = send_binary(&mut room, ann, case.clone());
        assert_eq!((binary_frames(&said, bob).len(), said.refusals.len()), (0, 1), "{case:?}");
    }

    assert_eq!(told(&mut room), [frame(&[(7, 1, Some("1"))])]);
}

/// Goal: many who come and go leave nothing behind.
#[test]
fn who_left_is_forgotten() {
    let mut room = room();
    for number in 0..3_000 {
        let ann = join_binary(&mut room, "ann");
        say(&mut room, ann, &[(number, 1, Some("\"a state of some length\""))]);
        room.disconnect(ann);
    }
    room.sleep();
    assert!(room.saved().unwrap().len() < 100_000, "{}", room.saved().unwrap().len());
    let ann = join_binary(&mut room, "ann");
    say(&mut room, ann, &[(1, 2, Some("1"))]);
    room.advance_ms(90_000);
    room.disconnect(ann);
    say_nothing(&mut room);
    room.sleep();
    assert!(room.saved().unwrap().len() < 1_000, "{}", String::from_utf8_lossy(room.saved().unwrap()));
}

fn say_nothing(room: &mut Room) {
    room.batch(vec![Event::Timer("awareness".to_owned())]);
}

/// Goal: what is not stored does not write.
#[test]
fn awareness_does_not_touch_the_store() {
    let mut room = room();
    let ann = join_binary(&mut room, "ann");
    send_binary(&mut room, ann, binary::update(&Editor::new(5).types("x")));
    let before = stored(&room);
    say(&mut room, ann, &[(7, 1, Some("1"))]);
    room.advance_ms(60_000);
    room.disconnect(ann);
    assert_eq!(stored(&room), before);
}
