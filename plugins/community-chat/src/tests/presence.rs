//! Joins and leaves, and that sleep and crash change neither.

use hotbay_sdk::LeaveReason;
use hotbay_sdk::harness::Harness;
use serde_json::json;

use super::{Room, frames, kinds, only, room_with, say, send, subscribe};
use crate::CommunityChat;

#[test]
fn only_the_first_join_and_the_last_leave_are_announced() {
    let (mut room, [ann]) = room_with(["ann"]);
    let one = room.connect("bob");
    let outcome = send(&mut room, one, json!({"type": "SUBSCRIBE"}));
    let now = room.now_ms();
    let payload = json!({"userId": "bob", "online": 2});
    assert_eq!(
        only(&outcome, ann),
        json!({"type": "USER_JOINED", "channel": "room:1", "payload": payload, "userId": "bob", "timestamp": now})
    );
    assert_eq!(kinds(&outcome, one), ["SUBSCRIBED"]);

    let two = room.connect("bob");
    let outcome = send(&mut room, two, json!({"type": "SUBSCRIBE"}));
    assert!(frames(&outcome, ann).is_empty());
    assert!(frames(&room.disconnect(one), ann).is_empty());
    let outcome = room.disconnect(two);
    assert_eq!(only(&outcome, ann)["type"], "USER_LEFT");
    assert_eq!(only(&outcome, ann)["payload"], json!({"userId": "bob", "online": 1}));
}

#[test]
fn unsubscribing_is_answered() {
    let (mut room, [ann, bob]) = room_with(["ann", "bob"]);
    let outcome = send(&mut room, bob, json!({"type": "UNSUBSCRIBE", "id": "u"}));
    let now = room.now_ms();
    let expected =
        json!({"type": "UNSUBSCRIBED", "channel": "room:1", "payload": {}, "correlationId": "u", "timestamp": now});
    assert_eq!(only(&outcome, bob), expected);
    assert_eq!(kinds(&outcome, ann), ["USER_LEFT"]);
}

#[test]
fn subscribing_again_announces_nothing() {
    type Upset = (&'static str, fn(&mut Room));
    let upsets: [Upset; 2] = [("awake", |_| {}), ("slept", Room::sleep)];
    for (how, upset) in upsets {
        let (mut room, [ann, bob]) = room_with(["ann", "bob"]);
        upset(&mut room);
        let outcome = send(&mut room, bob, json!({"type": "SUBSCRIBE"}));
        assert_eq!(only(&outcome, bob)["payload"]["online"], json!(["ann", "bob"]), "{how}");
        assert!(frames(&outcome, ann).is_empty(), "{how}");
        assert_eq!(only(&room.disconnect(bob), ann)["payload"]["online"], 1, "{how}");
    }
}

#[test]
fn a_lost_or_sleeping_instance_loses_count_of_nobody() {
    for upset in [Room::sleep, Room::crash] {
        let (mut room, [ann, bob]) = room_with(["ann", "bob"]);
        let second = subscribe(&mut room, "bob");
        upset(&mut room);
        assert!(frames(&room.disconnect(second), ann).is_empty());
        upset(&mut room);
        assert_eq!(only(&room.disconnect(bob), ann)["payload"], json!({"userId": "bob", "online": 1}));
        upset(&mut room);
        let cleo = room.connect("cleo");
        let outcome = send(&mut room, cleo, json!({"type": "SUBSCRIBE"}));
        assert_eq!(only(&outcome, ann)["payload"], json!({"userId": "cleo", "online": 2}));
        assert_eq!(only(&outcome, cleo)["payload"]["online"], json!(["ann", "cleo"]));
    }
}

#[test]
fn joins_and_leaves_in_the_first_batch_of_an_instance_are_counted_once() {
    let (mut room, [ann, bob]) = room_with(["ann", "bob"]);
    let cleo = room.connect("cleo");
    room.crash();
    let batch = vec![room.left(bob, LeaveReason::Disconnected, None), room.joined(cleo, None)];
    let outcome = room.batch(batch);
    let online: Vec<_> =
        frames(&outcome, ann).iter().map(|frame| (frame["type"].clone(), frame["payload"]["online"].clone())).collect();
    assert_eq!(online, [(json!("USER_LEFT"), json!(1)), (json!("USER_JOINED"), json!(2))]);
}

#[test]
fn the_channel_of_a_user_is_silent_until_it_is_subscribed_to() {
    let mut own: Harness<CommunityChat> = Harness::new("user:ann");
    let one = own.connect("ann");
    assert!(own.join_connection(one).received.is_empty());
    let two = own.connect("ann");
    assert!(own.join_connection(two).received.is_empty());
    let outcome = own.publish(r#"{"type":"NOTICE","payload":{"a":1}}"#);
    assert_eq!((frames(&outcome, one).len(), frames(&outcome, two).len()), (1, 1));
    let outcome = own.frame(two, r#"{"type":"SUBSCRIBE","channel":"user:ann"}"#);
    assert_eq!((kinds(&outcome, two), frames(&outcome, one).len()), (vec!["SUBSCRIBED".to_owned()], 0));
    assert!(own.disconnect(two).received.is_empty());
}

#[test]
fn a_thousand_members_cost_a_message_nothing_more() {
    let (mut room, [ann]) = room_with(["ann"]);
    for number in 0..1_200 {
        subscribe(&mut room, &format!("user{number}"));
    }
    let late = room.connect("late");
    let outcome = send(&mut room, late, json!({"type": "SUBSCRIBE"}));
    let payload = &only(&outcome, late)["payload"];
    assert_eq!((payload["online"].as_array().unwrap().len(), &payload["onlineCount"]), (1_000, &json!(1_202)));
    let reads = room.log_reads();
    say(&mut room, ann, "hi");
    assert_eq!(room.log_reads(), reads);
}

/// Goal: whoever is refused is not counted as present, also if the frame that asked came past `route`.
#[test]
fn a_join_that_is_refused_counts_nobody() {
    let (mut room, [ann]) = room_with(["ann"]);
    for frame in ["no JSON", r#"{"type":"SUBSCRIBE","channel":"room:1","payload":{"since":"none"}}"#] {
        let bob = room.connect("bob");
        let join = room.joined(bob, Some(frame.into()));
        let outcome = room.batch(vec![join]);
        assert_eq!(outcome.refusals.len(), 1, "{frame}");
        assert!(frames(&outcome, ann).is_empty(), "{frame}");
    }

    let bob = room.connect("bob");
    let outcome = send(&mut room, bob, json!({"type": "SUBSCRIBE"}));

    assert_eq!(kinds(&outcome, ann), ["USER_JOINED"], "it is the first that came in");
    assert_eq!(only(&outcome, bob)["payload"]["online"], json!(["ann", "bob"]));
    assert_eq!(only(&room.disconnect(bob), ann)["payload"]["online"], 1);
}
