//! Who may join, the welcome, and when updates go out.

use hotbay_sdk::{Identity, LeaveReason, RefusalCode};
use serde_json::{Value, json};

use super::{Desk, desk, desk_with, frames, join, kinds, lines};

#[test]
fn the_welcome_comes_first_and_only_to_the_joiner() {
    let (mut desk, _) = desk();
    let (first, _) = join(&mut desk, "ann");
    desk.advance_ms(17);
    let second = desk.connect("ann");
    let outcome = desk.join_connection(second);
    let received = frames(&outcome, second);
    assert_eq!(kinds(&received), ["connection_established", "metrics_update"]);
    let data = json!({
        "connectionId": format!("conn-{second}"),
        "ownerId": "ann",
        "heartbeatInterval": 30_000,
        "timestamp": desk.now_ms(),
    });
    assert_eq!(received[0], json!({"type": "connection_established", "data": data}));
    assert_eq!(frames(&outcome, first), [Value::Null; 0]);
}

#[test]
fn all_connections_of_the_owner_get_an_update_every_five_seconds() {
    let (mut desk, _) = desk();
    let ids = [(); 3].map(|()| join(&mut desk, "ann").0);
    let outcome = desk.advance_ms(60_000);
    for id in ids {
        let times: Vec<u64> = frames(&outcome, id).iter().map(|update| update["timestamp"].as_u64().unwrap()).collect();
        let from = desk.now_ms() - 60_000;
        assert_eq!(times, (1..=12).map(|tick| from + tick * 5_000).collect::<Vec<_>>());
    }
}

/// Channels tick together, at whole multiples of the interval, whenever their owners came.
#[test]
fn ticks_are_aligned_to_the_clock() {
    for (interval_ms, late_ms) in [(5_000, 1), (5_000, 4_999), (5_000, 0), (700, 333), (100, 99)] {
        let (mut desk, _) = desk_with(&format!(r#"{{"interval_ms":{interval_ms}}}"#));
        desk.advance_ms(late_ms);
        let (id, _) = join(&mut desk, "ann");
        let now_ms = desk.now_ms();
        let due_ms = now_ms - now_ms % interval_ms + interval_ms;
        assert_eq!(desk.timers(), [("tick".to_owned(), due_ms)]);
        let outcome = desk.advance_ms(10 * interval_ms);
        for update in frames(&outcome, id) {
            assert_eq!(update["timestamp"].as_u64().unwrap() % interval_ms, 0);
        }
        assert_eq!(frames(&outcome, id).len(), 10);
    }
}

#[test]
fn nothing_ticks_and_nobody_asks_without_members() {
    let (mut desk, database) = desk();
    desk.request("GET", "/");
    assert_eq!(desk.timers(), []);
    let (first, _) = join(&mut desk, "ann");
    let (second, _) = join(&mut desk, "ann");
    desk.disconnect(first);
    assert_eq!(desk.timers().len(), 1);
    desk.disconnect(second);
    assert_eq!(desk.timers(), []);
    database.asked();
    desk.advance_ms(60_000);
    assert_eq!(database.asked(), 0);
    let (id, _) = join(&mut desk, "ann");
    assert_eq!(frames(&desk.advance_ms(10_000), id).len(), 2, "it ticks again");
}

#[test]
fn joins_and_leaves_of_one_batch_leave_the_right_timer() {
    let (mut desk, _) = desk();
    let id = desk.connect("ann");
    let events = vec![desk.joined(id, None), desk.left(id, LeaveReason::Disconnected, None)];
    desk.batch(events);
    assert_eq!(desk.timers(), []);
    let (first, _) = join(&mut desk, "ann");
    let second = desk.connect("ann");
    let events = vec![desk.left(first, LeaveReason::Disconnected, None), desk.joined(second, None)];
    desk.batch(events);
    assert_eq!(frames(&desk.advance_ms(5_000), second).len(), 1);
}

#[test]
fn it_ticks_on_after_sleep_and_crash() {
    for upset in [Desk::sleep, Desk::crash] {
        let (mut desk, _) = desk();
        let (id, _) = join(&mut desk, "ann");
        upset(&mut desk);
        let outcome = desk.advance_ms(10_000);
        assert_eq!(kinds(&frames(&outcome, id)), ["metrics_update"; 2]);
        desk.disconnect(id);
        assert_eq!(desk.timers(), []);
    }
}

/// The instance that a leave woke must count the leaver as gone, and one that a join woke must count it once.
#[test]
fn an_instance_opened_by_a_leave_or_a_join_counts_right() {
    let connections = |desk: &mut Desk| super::servers::get(desk)["connections"].clone();
    let (mut desk, _) = desk();
    let (first, _) = join(&mut desk, "ann");
    let (second, _) = join(&mut desk, "ann");
    desk.crash();
    desk.disconnect(first);
    assert_eq!(connections(&mut desk), 1);
    desk.crash();
    join(&mut desk, "ann");
    assert_eq!(connections(&mut desk), 2);
    desk.join_connection(second);
    assert_eq!(connections(&mut desk), 2, "joining twice counts once");
    desk.restart();
    assert_eq!(connections(&mut desk), 0);
}

#[test]
fn another_owner_is_refused_for_good_and_learns_nothing() {
    let (mut desk, database) = desk();
    let (ann, _) = join(&mut desk, "ann");
    database.asked();
    for identity in [
        Identity::of("bob"),
        Identity { claims: r#"{"ownerId":"bob"}"#.to_owned(), ..Identity::of("bob") },
        Identity { claims: r#"{"ownerId":["ann"]}"#.to_owned(), ..Identity::of("ann ") },
        Identity { claims: "ann".to_owned(), ..Identity::of("owner:ann") },
    ] {
        let id = desk.connect_as(identity);
        let outcome = desk.join_connection(id);
        assert_eq!(outcome.closed, [(id, 1008, "Access denied".to_owned())]);
        assert_eq!(outcome.refusals[0].code, RefusalCode::Forbidden);
        assert_eq!(outcome.received, []);
    }
    assert_eq!(database.asked(), 0);
    assert_eq!(frames(&desk.advance_ms(5_000), ann).len(), 1);
}

/// The mount may take the user's id from another claim than the channel's name.
#[test]
fn the_claim_owner_id_is_enough() {
    for (channel, claims) in [("owner:ann", r#"{"ownerId":"ann"}"#), ("owner:17", r#"{"ownerId":17,"x":[]}"#)] {
        let mut desk = Desk::new(channel);
        let id = desk.connect_as(Identity { claims: claims.to_owned(), ..Identity::of("user-1") });
        let outcome = desk.join_connection(id);
        assert_eq!(kinds(&frames(&outcome, id)), ["connection_established", "metrics_update"]);
    }
}

#[test]
fn coming_and_going_is_logged() {
    let (mut desk, _) = desk();
    let (id, _) = join(&mut desk, "ann");
    desk.disconnect(id);
    assert_eq!(
        lines(&desk, "connected: "),
        ["[WebSocket] Client connected: ann".to_owned(), format!("[WebSocket] Client disconnected: conn-{id}"),]
    );
    let mut desk = Desk::new("owner:an\nn\u{202e}");
    desk.join("an\nn\u{202e}");
    assert_eq!(lines(&desk, "connected: "), [r"[WebSocket] Client connected: an\nn\u{202e}"]);
}
