//! Subscribing, unsubscribing and replay.

use hotbay_sdk::harness::Effect;
use hotbay_sdk::{Audience, LeaveReason, MemberId};
use serde_json::{Value, json};

use super::{Bus, ask, assert_refused, audience, bus_with, crowd, emit, filter, frames, only, send, subscribe, types};
use crate::budget::busy;

fn events(bus: &mut Bus, by: MemberId, channel: &str, range: std::ops::Range<u32>) {
    for number in range {
        let kind = if number % 2 == 0 { "even" } else { "odd" };
        send(bus, by, json!({"type": kind, "data": number, "channel": channel}));
    }
}

fn data(frames: &[Value]) -> Vec<u64> {
    frames.iter().map(|frame| frame["data"].as_u64().unwrap()).collect()
}

#[test]
fn subscriptions_are_confirmed_by_full_names() {
    let (mut bus, [ann]) = bus_with(["ann"]);
    let data =
        ask(&mut bus, ann, json!({"type": "subscribe", "channel": "ideas", "eventTypes": ["b", "a"]}), "subscribed");
    assert_eq!(data, json!({"channel": "ideas:acme", "eventTypes": ["a", "b"], "replayed": 0, "more": false}));
    let data = ask(&mut bus, ann, json!({"type": "unsubscribe", "channel": "ideas:acme"}), "unsubscribed");
    assert_eq!(data, json!({"channel": "ideas:acme"}));
    // Again changes nothing, and is confirmed.
    ask(&mut bus, ann, json!({"type": "unsubscribe", "channel": "ideas"}), "unsubscribed");
}

#[test]
fn unsubscribed_means_nothing_more_even_of_the_first_channel() {
    let (mut bus, [ann, bob]) = bus_with(["ann", "bob"]);
    subscribe(&mut bus, ann, "ideas");
    ask(&mut bus, ann, json!({"type": "unsubscribe", "channel": "ideas"}), "unsubscribed");
    ask(&mut bus, ann, json!({"type": "unsubscribe", "channel": "tenant"}), "unsubscribed");
    for channel in ["ideas", "tenant"] {
        let outcome = send(&mut bus, bob, json!({"type": "x", "channel": channel}));
        assert!(types(&outcome, ann).is_empty());
    }
    subscribe(&mut bus, ann, "tenant:acme");
    assert_eq!(audience(&send(&mut bus, bob, json!({"type": "x"})), &bus, "x"), [ann, bob]);
}

#[test]
fn a_second_subscription_replaces_the_types() {
    let (mut bus, [ann]) = bus_with(["ann"]);
    for (kinds, expected) in [(json!(["a"]), 0), (json!(["a", "b"]), 1), (json!([]), 1), (json!(null), 1)] {
        ask(&mut bus, ann, json!({"type": "subscribe", "channel": "tenant", "eventTypes": kinds}), "subscribed");
        assert_eq!(send(&mut bus, ann, json!({"type": "b"})).received.len(), expected, "{kinds}");
    }
}

#[test]
fn malformed_subscriptions_are_refused() {
    let (mut bus, [ann]) = bus_with(["ann"]);
    emit(&mut bus, ann, json!({"type": "x"}));
    for extra in [
        json!({"channel": null}),
        json!({"channel": ["ideas"]}),
        json!({"channel": "a:b:acme"}),
        json!({"channel": "tenant", "eventTypes": "x"}),
        json!({"channel": "tenant", "eventTypes": [null]}),
        json!({"channel": "tenant", "eventTypes": vec!["x"; 65]}),
        json!({"channel": "tenant", "replay": -1}),
        json!({"channel": "tenant", "replay": 1.5}),
        json!({"channel": "tenant", "replay": "10"}),
        json!({"channel": "tenant", "replay": true}),
    ] {
        let mut frame = json!({"type": "subscribe"});
        frame.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        assert_refused(&mut bus, ann, frame, "bad_request");
    }
    assert_refused(&mut bus, ann, json!({"type": "unsubscribe"}), "bad_request");
}

#[test]
fn replay_gives_the_newest_that_pass_oldest_first_then_live_ones() {
    let (mut bus, [ann, bob]) = bus_with(["ann", "bob"]);
    events(&mut bus, ann, "ideas", 0..250);
    filter(&mut bus, bob, json!({"eventTypes": ["odd"]}));
    let outcome = send(&mut bus, bob, json!({"type": "subscribe", "channel": "ideas", "replay": 120}));
    let received = frames(&outcome, bob);
    let confirmed = json!({"channel": "ideas:acme", "eventTypes": [], "replayed": 120, "more": true});
    assert_eq!((&received[0]["eventType"], &received[0]["data"]), (&json!("subscribed"), &confirmed));
    assert_eq!(data(&received[1..]), (0..250).filter(|n| n % 2 == 1).skip(5).collect::<Vec<u64>>());
    assert!(outcome.received.iter().all(|(to, _)| *to == bob));
    // Replayed events are those that were sent, to the byte.
    let (page, _) = super::page(&mut bus, &[("channel", "ideas"), ("limit", "1")]);
    assert_eq!(page[0], received[120]);
    assert_eq!(audience(&send(&mut bus, ann, json!({"type": "odd", "channel": "ideas"})), &bus, "odd"), [bob]);
}

#[test]
fn replay_gives_all_there_is_if_that_is_less() {
    let (mut bus, [ann, bob]) = bus_with(["ann", "bob"]);
    events(&mut bus, ann, "ideas", 0..7);
    for (replay, expected) in
        [(json!(7), 7), (json!(1_000), 7), (json!(u64::MAX), 7), (json!(1), 1), (json!(0), 0), (json!(null), 0)]
    {
        let outcome = send(&mut bus, bob, json!({"type": "subscribe", "channel": "ideas", "replay": replay}));
        let received = frames(&outcome, bob);
        assert_eq!(received.len(), expected + 1, "{replay}");
        assert_eq!(data(&received[1..]), ((7 - expected as u64)..7).collect::<Vec<_>>());
        assert_eq!(received[0]["data"]["more"], expected == 1);
    }
}

#[test]
fn nothing_live_comes_before_the_replay_nor_is_lost_nor_comes_twice() {
    let (mut bus, [ann, bob]) = bus_with(["ann", "bob"]);
    events(&mut bus, ann, "ideas", 0..5);
    let event =
        |bus: &Bus, number: u64| bus.sent(ann, json!({"type": "x", "data": number, "channel": "ideas"}).to_string());
    let batch = vec![
        event(&bus, 5),
        bus.sent(bob, json!({"type": "subscribe", "channel": "ideas", "replay": 100}).to_string()),
        event(&bus, 6),
        event(&bus, 7),
    ];
    let outcome = bus.batch(batch);
    let received = frames(&outcome, bob);
    assert_eq!(received[0]["eventType"], "subscribed");
    assert_eq!(data(&received[1..]), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(data(&frames(&send(&mut bus, ann, json!({"type": "x", "data": 8, "channel": "ideas"})), bob)), [8]);
}

fn numbered(bus: &Bus, by: MemberId, number: u64) -> hotbay_sdk::Event {
    let kind = if number.is_multiple_of(2) { "even" } else { "odd" };
    bus.sent(by, json!({"type": kind, "data": number}).to_string())
}

#[test]
fn also_on_a_channel_it_is_subscribed_to_a_member_gets_the_past_first_and_nothing_twice() {
    let (mut bus, [ann, bob]) = bus_with(["ann", "bob"]);
    events(&mut bus, ann, "tenant", 0..5);
    let replay = json!({"type": "subscribe", "channel": "tenant", "replay": 2}).to_string();
    for start in [5, 9] {
        let batch = vec![
            bus.sent(bob, replay.clone()),
            numbered(&bus, ann, start),
            numbered(&bus, ann, start + 1),
            numbered(&bus, ann, start + 2),
        ];
        let outcome = bus.batch(batch);
        let received = frames(&outcome, bob);
        assert_eq!((&received[0]["eventType"], &received[0]["data"]["replayed"]), (&json!("subscribed"), &json!(5)));
        // Two of the past, and all that was sent since.
        assert_eq!(data(&received[1..]), (start - 2..start + 3).collect::<Vec<_>>());
        assert_eq!(data(&frames(&outcome, ann)), (start..start + 3).collect::<Vec<_>>());
        let outcome = bus.batch(vec![numbered(&bus, ann, start + 3)]);
        assert_eq!((data(&frames(&outcome, bob)), data(&frames(&outcome, ann))), (vec![start + 3], vec![start + 3]));
    }
}

#[test]
fn members_that_ask_at_different_times_share_the_frames_and_each_gets_its_own_past() {
    let (mut bus, [ann, bob, cleo]) = bus_with(["ann", "bob", "cleo"]);
    events(&mut bus, ann, "tenant", 0..5);
    let replay = json!({"type": "subscribe", "channel": "tenant", "replay": 2}).to_string();
    let batch = vec![
        bus.sent(bob, replay.clone()),
        numbered(&bus, ann, 5),
        numbered(&bus, ann, 6),
        numbered(&bus, ann, 7),
        bus.sent(cleo, replay),
        numbered(&bus, ann, 8),
    ];
    let outcome = bus.batch(batch);
    assert_eq!(data(&frames(&outcome, bob)[1..]), [3, 4, 5, 6, 7, 8]);
    let received = frames(&outcome, cleo);
    // It was subscribed all the time: what came before it asked came live, and is past as well.
    assert_eq!(data(&received[..3]), [5, 6, 7]);
    assert_eq!(data(&received[4..]), [6, 7, 8]);
    assert_eq!(received[3]["data"]["more"], true);
    assert_eq!(outcome.effects.len(), 4 + 2 + 6);
}

#[test]
fn what_is_sent_while_a_replay_waits_comes_behind_it_however_long_that_takes() {
    let (mut bus, [ann]) = bus_with(["ann"]);
    events(&mut bus, ann, "tenant", 0..400);
    let members: Vec<MemberId> = crowd(&mut bus, 100, |_| None);
    let batch = members.iter().enumerate().map(|(number, member)| {
        let kinds = ["even".to_owned(), "odd".to_owned(), format!("t{number}")];
        let frame = json!({"type": "subscribe", "channel": "tenant", "replay": 400, "eventTypes": kinds});
        bus.sent(*member, frame.to_string())
    });
    let mut received = bus.batch(batch.collect());
    let mut next = 400;
    for _ in 0..3 {
        assert_eq!(bus.timers().len(), 1, "some wait");
        // Another instance goes on where this one was.
        bus.sleep();
        let outcome = bus.batch(vec![numbered(&bus, ann, next), numbered(&bus, ann, next + 1)]);
        assert_eq!(outcome.faults, [""; 0]);
        received.received.extend(outcome.received);
        next += 2;
    }
    received.received.extend(bus.advance_ms(0).received);
    assert!(bus.timers().is_empty());
    for member in &members {
        let received = frames(&received, *member);
        assert_eq!(received[0]["eventType"], "subscribed");
        assert_eq!(data(&received[1..]), (0..next).collect::<Vec<_>>());
    }
}

/// Goal: what is sent while a replay waits comes behind it, all of it, also if that is more than one page can have: as much
/// as fits is accepted, and the rest refused.
#[test]
fn no_more_is_sent_while_a_replay_waits_than_can_come_behind_it() {
    for (padding, per_batch) in [(0, 200), (30_000, 20)] {
        let mut bus: Bus = hotbay_sdk::harness::Harness::with_settings("tenant:acme", r#"{"historyMax":5000}"#);
        let ann = super::join(&mut bus, "ann");
        let live = |bus: &Bus, from: u64, count: u64, padding: usize| -> Vec<hotbay_sdk::Event> {
            let event = |number| json!({"type": "x", "data": [number, "y".repeat(padding)]}).to_string();
            (from..from + count).map(|number| bus.sent(ann, event(number))).collect()
        };
        let numbers = |received: &[Value]| -> Vec<u64> {
            let events = received.iter().filter(|frame| frame["eventType"] == "x");
            events.map(|frame| frame["data"][0].as_u64().unwrap()).filter(|number| *number >= 1_000).collect()
        };
        for from in (0..1_000).step_by(250) {
            bus.batch(live(&bus, from, 250, 0));
        }
        let members = crowd(&mut bus, 100, |_| None);
        let batch = members.iter().enumerate().map(|(number, member)| {
            let kinds = ["x".to_owned(), format!("t{number}")];
            let frame = json!({"type": "subscribe", "channel": "tenant", "replay": 1_000, "eventTypes": kinds});
            bus.sent(*member, frame.to_string())
        });
        let mut received = bus.batch(batch.collect());

        for round in 0..8 {
            let outcome = bus.batch(live(&bus, 1_000 + round * per_batch, per_batch, padding));
            assert_eq!(outcome.faults, [""; 0]);
            received.received.extend(outcome.received);
        }
        received.received.extend(bus.advance_ms(0).received);

        assert!(bus.timers().is_empty());
        let accepted = numbers(&frames(&received, ann));
        for member in &members {
            assert_eq!(numbers(&frames(&received, *member)), accepted, "{padding}");
        }
        assert!((10..8 * per_batch as usize).contains(&accepted.len()), "{}", accepted.len());
        // Nobody waits any more, so everything goes.
        assert_eq!(bus.batch(live(&bus, 9_000, per_batch, padding)).refusals, []);
    }
}

#[test]
fn nothing_sent_while_a_replay_waits_is_forgotten_before_it_comes() {
    let mut bus: Bus = hotbay_sdk::harness::Harness::with_settings("tenant:acme", r#"{"historyMax":3}"#);
    let [ann, bob] = ["ann", "bob"].map(|user| super::join(&mut bus, user));
    events(&mut bus, ann, "tenant", 0..5);
    let replay = json!({"type": "subscribe", "channel": "tenant", "replay": 2}).to_string();
    let batch = [bus.sent(bob, replay)].into_iter().chain((5..11).map(|number| numbered(&bus, ann, number)));
    let outcome = bus.batch(batch.collect());
    assert_eq!(data(&frames(&outcome, bob)[1..]), (5..11).collect::<Vec<_>>());
}

/// Goal: once a replay is promised nobody takes its place, so nothing is lost of the subscription it follows.
#[test]
fn a_replay_that_waits_keeps_its_place_and_gives_it_back_with_its_member() {
    let mut bus: Bus = hotbay_sdk::harness::Harness::with_settings("tenant:acme", r#"{"interestBytesMax":10000}"#);
    let [ann, bob, cleo] = ["ann", "bob", "cleo"].map(|user| super::join(&mut bus, user));
    events(&mut bus, ann, "tenant", 0..2);
    let kinds: Vec<String> = (0..40).map(|number| format!("{number:0120}")).chain(["even".to_owned()]).collect();
    let replay = json!({"type": "subscribe", "channel": "tenant", "replay": 1, "eventTypes": kinds}).to_string();
    let large = json!({"type": "filters", "filters": {"eventTypes": kinds}}).to_string();

    let batch = vec![bus.sent(bob, &*replay), numbered(&bus, ann, 2), bus.sent(cleo, &*large)];
    let outcome = bus.batch(batch);

    assert_eq!(types(&outcome, bob), ["subscribed", "even", "even"]);
    assert_eq!(data(&frames(&outcome, bob)[1..]), [0, 2]);
    assert_eq!(frames(&outcome, cleo).pop().unwrap()["data"]["code"], "too_large");
    assert_eq!(data(&frames(&bus.batch(vec![numbered(&bus, ann, 4)]), bob)), [4]);
    bus.disconnect(bob);
    assert_eq!(types(&bus.message(cleo, &*large), cleo), ["filters_updated"]);
    filter(&mut bus, cleo, json!({}));
    let dan = super::join(&mut bus, "dan");
    let batch = vec![bus.sent(dan, &*replay), bus.left(dan, LeaveReason::Disconnected, None), bus.sent(cleo, &*large)];
    assert_eq!(types(&bus.batch(batch), cleo), ["filters_updated"]);
}

/// Goal: the place of a replay that waits for a later batch is kept by the next instance as well.
#[test]
fn a_replay_that_waits_keeps_its_place_in_the_next_instance() {
    let settings = r#"{"interestBytesMax":36000}"#;
    let mut bus: Bus = hotbay_sdk::harness::Harness::with_settings("tenant:acme", settings);
    let ann = super::join(&mut bus, "ann");
    events(&mut bus, ann, "tenant", 0..400);
    let members = crowd(&mut bus, 100, |_| None);
    let kinds = |number: usize| ["even".to_owned(), "odd".to_owned(), format!("{number:0128}")];
    let batch = members.iter().enumerate().map(|(number, member)| {
        let frame = json!({"type": "subscribe", "channel": "tenant", "replay": 400, "eventTypes": kinds(number)});
        bus.sent(*member, frame.to_string())
    });
    let mut received = bus.batch(batch.collect());
    assert_eq!(bus.timers().len(), 1, "some wait");
    bus.sleep();
    let values: Vec<String> = (0..60).map(|number| format!("{number:0128}")).collect();

    let large = json!({"type": "filters", "filters": {"eventTypes": values}});

    let refused = send(&mut bus, ann, large);
    assert_eq!(only(&refused, ann)["data"]["code"], "too_large");
    received.received.extend(refused.received);
    received.received.extend(bus.advance_ms(0).received);
    for member in &members {
        assert_eq!(types(&received, *member)[0], "subscribed");
    }
}

#[test]
fn an_admin_changes_filters_and_forgets_histories_behind_a_replay_that_waits() {
    let (mut bus, [ann, bob]) = bus_with(["ann", "bob"]);
    events(&mut bus, ann, "tenant", 0..3);
    let replay = json!({"type": "subscribe", "channel": "tenant", "replay": 2}).to_string();
    let filters = json!({"user_id": "bob", "filters": {"eventTypes": ["odd"]}});
    let change = super::body(super::request("PUT", "/", "root", "admin"), &filters);
    let forget = super::query(super::request("DELETE", "/", "root", "admin"), &[("channel", "tenant")]);
    for (request, answer) in [(change, vec!["filters_updated"]), (forget, vec![])] {
        let batch = vec![bus.sent(bob, replay.clone()), numbered(&bus, ann, 3), hotbay_sdk::Event::Request(request)];
        let received = types(&bus.batch(batch), bob);
        assert_eq!((&*received[0], received.last().unwrap() == "odd"), ("subscribed", answer.is_empty()));
        assert!(received.len() >= 3 && received.ends_with(&answer.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()));
    }
}

#[test]
fn what_a_member_sends_after_a_replay_is_handled_after_it() {
    let (mut bus, [ann, bob]) = bus_with(["ann", "bob"]);
    events(&mut bus, ann, "ideas", 0..5);
    let replay = json!({"type": "subscribe", "channel": "ideas", "replay": 2}).to_string();
    for (next, expected) in [
        (json!({"type": "unsubscribe", "channel": "ideas"}), vec!["subscribed", "odd", "even", "unsubscribed"]),
        (json!({"type": "subscribe", "channel": "ideas"}), vec!["subscribed", "odd", "even", "subscribed"]),
        (
            json!({"type": "filters", "filters": {"users": ["zoe"]}}),
            vec!["subscribed", "odd", "even", "filters_updated"],
        ),
    ] {
        let batch = vec![bus.sent(bob, replay.clone()), bus.sent(bob, next.to_string())];
        assert_eq!(types(&bus.batch(batch), bob), expected);
    }
}

#[test]
fn members_that_ask_for_the_same_share_the_frames() {
    let (mut bus, [ann]) = bus_with(["ann"]);
    events(&mut bus, ann, "ideas", 0..50);
    let members: Vec<MemberId> = crowd(&mut bus, 200, |_| None);
    let replay = json!({"type": "subscribe", "channel": "ideas", "replay": 40}).to_string();
    let outcome = bus.batch(members.iter().map(|member| bus.sent(*member, replay.clone())).collect());
    assert_eq!(outcome.faults, [""; 0]);
    for member in &members {
        assert_eq!(data(&frames(&outcome, *member)[1..]), (10..50).collect::<Vec<_>>());
    }
    let shared = outcome
        .effects
        .iter()
        .filter(|effect| matches!(effect, Effect::Frame { to: Audience::Only(to), .. } if to.len() == 200));
    assert_eq!(shared.count(), 40);
}

#[test]
fn members_of_different_filters_share_nothing() {
    let (mut bus, [ann, bob, cleo]) = bus_with(["ann", "bob", "cleo"]);
    events(&mut bus, ann, "ideas", 0..10);
    filter(&mut bus, bob, json!({"eventTypes": ["odd"]}));
    let replay = json!({"type": "subscribe", "channel": "ideas", "replay": 3}).to_string();
    let batch = [ann, bob, cleo].map(|member| bus.sent(member, replay.clone()));
    let outcome = bus.batch(batch.into());
    for (member, expected) in [(ann, [7, 8, 9]), (bob, [5, 7, 9]), (cleo, [7, 8, 9])] {
        assert_eq!(data(&frames(&outcome, member)[1..]), expected);
    }
}

#[test]
fn a_replay_ends_with_the_membership_that_asked_for_it() {
    let (mut bus, [ann, bob]) = bus_with(["ann", "bob"]);
    events(&mut bus, ann, "ideas", 0..10);
    let replay = json!({"type": "subscribe", "channel": "ideas", "replay": 3}).to_string();
    let batch = vec![bus.sent(bob, replay.clone()), bus.joined(bob, None)];
    assert_eq!(types(&bus.batch(batch), bob), ["connection"]);
    let batch = vec![bus.sent(bob, replay), bus.left(bob, LeaveReason::Disconnected, None)];
    assert_eq!(types(&bus.batch(batch), bob), [""; 0]);
    assert_eq!(bus.timers(), []);
    // Nor does it keep a channel that is not there, or hold one back.
    assert_eq!(audience(&send(&mut bus, ann, json!({"type": "x", "channel": "ideas"})), &bus, "x"), [0; 0]);
    let cleo = super::join(&mut bus, "cleo");
    let replay = json!({"type": "subscribe", "channel": "tenant", "replay": 3}).to_string();
    events(&mut bus, ann, "tenant", 0..1);
    let batch = vec![bus.sent(cleo, replay), bus.joined(cleo, None), bus.sent(ann, r#"{"type":"x"}"#)];
    assert_eq!(types(&bus.batch(batch), cleo), ["connection", "x"]);
}

#[test]
fn replays_that_a_batch_cannot_bear_wait_for_the_next() {
    let (mut bus, [ann]) = bus_with(["ann"]);
    events(&mut bus, ann, "ideas", 0..400);
    let members: Vec<MemberId> = crowd(&mut bus, 100, |_| None);
    // All different, so that nothing is shared: 40,000 frames, while a batch may make 10,000.
    let batch = members.iter().enumerate().map(|(number, member)| {
        let kinds = ["even".to_owned(), "odd".to_owned(), format!("t{number}")];
        bus.sent(
            *member,
            json!({"type": "subscribe", "channel": "ideas", "replay": 1_000, "eventTypes": kinds}).to_string(),
        )
    });
    let mut batch: Vec<_> = batch.collect();
    // What the last one sends meanwhile would have to come after its replay.
    batch.push(bus.sent(members[98], json!({"type": "x"}).to_string()));
    let mut outcome = bus.batch(batch);
    assert_eq!(outcome.refusals, [busy()]);
    assert_eq!(only(&outcome, members[98])["data"]["code"], "unavailable");
    outcome.received.retain(|(to, _)| *to != members[98]);
    assert_eq!(bus.timers().len(), 1);
    // One leaves while it waits.
    assert!(frames(&outcome, members[99]).is_empty());
    let gone = bus.disconnect(members[99]);
    assert_eq!(gone.faults, [""; 0]);
    outcome.received.extend(gone.received);
    while !bus.timers().is_empty() {
        let more = bus.advance_ms(0);
        assert_eq!(more.faults, [""; 0]);
        outcome.received.extend(more.received);
    }
    for member in &members[..99] {
        let received = frames(&outcome, *member);
        assert_eq!(received.len(), 401);
        assert_eq!(data(&received[1..]), (0..400).collect::<Vec<_>>());
    }
    assert!(frames(&outcome, members[99]).is_empty());
}

#[test]
fn a_replay_has_a_bound_in_bytes() {
    let (mut bus, [ann, bob]) = bus_with(["ann", "bob"]);
    for number in 0..40 {
        send(&mut bus, ann, json!({"type": "x", "channel": "ideas", "data": [number, "y".repeat(60_000)]}));
    }
    let outcome = send(&mut bus, bob, json!({"type": "subscribe", "channel": "ideas", "replay": 40}));
    let received = frames(&outcome, bob);
    assert_eq!((received.len(), &received[0]["data"]["more"]), (1 + (512 << 10) / 60_250, &json!(true)));
    assert_eq!(received.last().unwrap()["data"][0], 39);
    let bytes: usize = outcome.received.iter().map(|(_, what)| what.bytes().len()).sum();
    assert!(bytes < (512 << 10) + 1_000);
}

#[test]
fn a_client_has_a_bound_of_subscriptions() {
    let (mut bus, [ann]) = bus_with(["ann"]);
    for number in 0..99 {
        subscribe(&mut bus, ann, &format!("c{number}"));
    }
    assert_refused(&mut bus, ann, json!({"type": "subscribe", "channel": "c99"}), "too_large");
    subscribe(&mut bus, ann, "c98");
    ask(&mut bus, ann, json!({"type": "unsubscribe", "channel": "c0"}), "unsubscribed");
    subscribe(&mut bus, ann, "c99");
}
