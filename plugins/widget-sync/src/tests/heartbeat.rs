//! The application's own heartbeat.

use serde_json::json;

use super::{Board, board_with, frames, join, kinds, only, request, send, with_settings};

#[test]
fn all_are_pinged_every_30_seconds_by_one_timer() {
    let (mut board, [ann, bob]) = board_with(["ann", "bob"]);
    assert_eq!(board.timers().len(), 1);
    assert!(board.advance_ms(29_999).received.is_empty());
    let outcome = board.advance_ms(1);
    let ping = only(&outcome, ann);
    assert_eq!((&ping["type"], &ping["payload"], &ping["userId"]), (&json!("PING"), &json!({}), &json!("server")));
    assert_eq!(kinds(&outcome, bob), ["PING"]);
    assert_eq!(outcome.effects.len(), 1);
    assert!(board.kv().is_empty() && board.log().is_empty());
}

#[test]
fn two_misses_close_with_a_code_to_reconnect_and_others_stay() {
    let (mut board, [ann, bob, cleo]) = board_with(["ann", "bob", "cleo"]);
    for round in 0..5 {
        let outcome = board.advance_ms(30_000);
        assert_eq!(kinds(&outcome, ann), ["PING"], "{round}");
        send(&mut board, ann, "ann", "PONG", json!({}));
        // Whoever speaks is alive, whatever it says.
        board.message(cleo, "nonsense");
        match round {
            0 | 1 => assert_eq!(kinds(&outcome, bob), ["PING"]),
            2 => {
                let last = only(&outcome, bob);
                let said = (&last["type"], &last["payload"], &last["userId"]);
                assert_eq!(said, (&json!("DISCONNECT"), &json!({"reason": "Heartbeat timeout"}), &json!("bob")));
                assert_eq!(outcome.closed, [(bob, 4410, "Heartbeat timeout".to_owned())]);
            }
            _ => assert!(outcome.closed.is_empty() && frames(&outcome, bob).is_empty()),
        }
    }
    assert_eq!(board.members(), [ann, cleo]);
}

#[test]
fn is_alive_tells_who_missed_a_ping() {
    let (mut board, [ann, bob]) = board_with(["ann", "bob"]);
    let alive = |board: &mut Board| {
        let (_, stats) = request(board, "GET", "/stats", "");
        [0, 1].map(|at| stats["clients"][at]["isAlive"].as_bool().unwrap())
    };
    board.advance_ms(30_000);
    assert_eq!(alive(&mut board), [true, true]);
    send(&mut board, ann, "ann", "PONG", json!({}));
    board.advance_ms(30_000);
    assert_eq!(alive(&mut board), [true, false]);
    send(&mut board, bob, "bob", "PONG", json!({}));
    assert_eq!(alive(&mut board), [true, true]);
}

#[test]
fn misses_count_on_after_sleep_and_anew_after_a_crash() {
    let (mut board, [ann]) = board_with(["ann"]);
    board.advance_ms(60_000);
    board.sleep();
    assert_eq!(kinds(&board.advance_ms(30_000), ann), ["DISCONNECT"]);
    let (mut crashed, [bob]) = board_with(["bob"]);
    crashed.advance_ms(60_000);
    crashed.crash();
    // It goes on by itself, and whoever was silent gets the whole time again.
    for _ in 0..2 {
        assert_eq!(kinds(&crashed.advance_ms(30_000), bob), ["PING"]);
    }
    assert_eq!(kinds(&crashed.advance_ms(30_000), bob), ["DISCONNECT"]);
}

#[test]
fn without_clients_no_timer_keeps_the_channel_awake() {
    let (mut board, [ann]) = board_with(["ann"]);
    board.disconnect(ann);
    assert!(board.timers().is_empty());
    let bob = join(&mut board, "bob");
    assert_eq!(board.timers().len(), 1);
    assert_eq!(kinds(&board.advance_ms(30_000), bob), ["PING"]);
}

#[test]
fn interval_and_misses_can_be_set() {
    let (mut board, [ann]) = with_settings(r#"{"heartbeatIntervalMs":1000,"heartbeatMisses":1}"#, ["ann"]);
    assert_eq!(kinds(&board.advance_ms(1_000), ann), ["PING"]);
    let outcome = board.advance_ms(1_000);
    assert_eq!(kinds(&outcome, ann), ["DISCONNECT"]);
    assert_eq!(outcome.closed.len(), 1);
}

#[test]
fn a_crowd_that_died_is_closed_in_bounded_steps() {
    let mut board = Board::with_settings("dashboard:d", r#"{"heartbeatMisses":1}"#);
    for _ in 0..600 {
        join(&mut board, "ann");
    }
    board.advance_ms(30_000);
    let steps: Vec<usize> = (0..4).map(|_| board.advance_ms(30_000).closed.len()).collect();
    assert_eq!(steps, [250, 250, 100, 0]);
}
