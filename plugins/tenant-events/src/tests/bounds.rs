//! Everything has a bound, and reaching one is said in words: no batch that the host allows makes it end one.

use hotbay_sdk::harness::{Harness, Outcome};
use hotbay_sdk::{Event, LeaveReason, MemberId, RefusalCode};
use serde_json::{Value, json};

use super::{
    Bus, answer, ask, assert_refused, body, bus, bus_with, crowd, emit, filter, join, page, query, request, send,
    subscribe,
};

/// Runs a batch that must not fault; gives how many of its events were refused as too much.
fn run(bus: &mut Bus, events: Vec<Event>) -> (Outcome, usize) {
    let outcome = bus.batch(events);
    assert_eq!(outcome.faults, [""; 0]);
    assert!(outcome.refusals.iter().all(|why| why.code == RefusalCode::Unavailable), "{:?}", outcome.refusals);
    let refused = outcome.refusals.len();
    (outcome, refused)
}

fn sent(bus: &Bus, by: MemberId, frame: &Value, count: usize) -> Vec<Event> {
    (0..count).map(|_| bus.sent(by, frame.to_string())).collect()
}

/// A request with an id of its own.
fn asked(mut request: hotbay_sdk::HttpRequest, id: u64) -> Event {
    request.id = id;
    Event::Request(request)
}

/// A filter for the first member alone, so that the others must be named one by one.
fn first_has_a_filter(number: usize) -> Option<Value> {
    (number == 0).then(|| json!({"eventTypes": ["never"]}))
}

#[test]
fn a_full_batch_for_two_thousand_members_with_filters_is_served() {
    let mut bus = bus();
    let members = crowd(&mut bus, 2_000, first_has_a_filter);
    let batch = sent(&bus, members[1], &json!({"type": "x", "data": "y".repeat(200)}), 256);
    let (outcome, refused) = run(&mut bus, batch);
    assert_eq!((refused, outcome.effects.len()), (0, 256));
}

#[test]
fn what_a_batch_cannot_bear_is_refused_and_leaves_no_trace() {
    let settings = |bytes: usize| json!({"effectBytesMax": bytes}).to_string();
    let mut bus: Bus = Harness::with_settings("tenant:acme", &settings(4 << 20));
    bus.set_effect_bytes_max(4 << 20);
    let members = crowd(&mut bus, 2_500, first_has_a_filter);
    let batch = sent(&bus, members[1], &json!({"type": "x"}), 256);
    let (outcome, refused) = run(&mut bus, batch);
    assert!((100..150).contains(&refused), "{refused}");
    let stored = bus.kv().keys().filter(|key| key.starts_with("h/")).count();
    assert_eq!(stored + refused, 256);
    assert_eq!(outcome.received.len(), stored * 2_499 + refused);
    // The next batch starts anew, and a mount may allow more.
    assert_eq!(send(&mut bus, members[1], json!({"type": "x"})).received.len(), 2_499);
    let mut large: Bus = Harness::with_settings("tenant:acme", &settings(16 << 20));
    large.set_effect_bytes_max(16 << 20);
    let members = crowd(&mut large, 2_500, first_has_a_filter);
    let batch = sent(&large, members[1], &json!({"type": "x"}), 256);
    assert_eq!(run(&mut large, batch).1, 0);
}

#[test]
fn many_different_filters_cost_time_that_has_a_bound() {
    let mut bus: Bus = Harness::with_settings("tenant:acme", r#"{"interestBytesMax":16777216}"#);
    let members = crowd(&mut bus, 4_000, |number| {
        Some(json!({"eventTypes": ["x".repeat(1 + number % 100)], "users": [format!("u{number}")]}))
    });
    let batch = sent(&bus, members[0], &json!({"type": "zzz"}), 256);
    assert_eq!(run(&mut bus, batch).1, 256 - 125);
}

#[test]
fn pages_and_overviews_of_a_batch_have_a_bound_together() {
    let (mut bus, [ann]) = bus_with(["ann"]);
    for number in 0..100 {
        send(&mut bus, ann, json!({"type": "x", "data": [number, "y".repeat(20_000)]}));
    }
    let requests = |name: &str| {
        let request = query(request("GET", name, "ann", ""), &[("limit", "1000"), ("detailed", "true")]);
        (0..256).map(|id| asked(request.clone(), id)).collect::<Vec<_>>()
    };
    let (outcome, _) = run(&mut bus, requests("/history"));
    let statuses: Vec<u16> = outcome.responses().iter().map(|response| response.status).collect();
    let served = statuses.iter().filter(|status| **status == 200).count();
    assert_eq!(statuses.len(), 256);
    assert!((4..8).contains(&served), "{served}");
    assert!(statuses.iter().all(|status| matches!(status, 200 | 503)));
    for name in 0..899 {
        send(
            &mut bus,
            ann,
            json!({"type": format!("{name:0128}"), "source": format!("{name:0128}"), "channel": format!("{name:0128}")}),
        );
    }
    for path in ["/", "/status"] {
        let (outcome, _) = run(&mut bus, requests(path));
        let served = outcome.responses().iter().filter(|response| response.status == 200).count();
        assert!((20..100).contains(&served), "{path}: {served}");
    }
}

/// Channels that are marked as having a history.
fn marks(bus: &Bus) -> Vec<String> {
    bus.kv().keys().filter_map(|key| key.strip_prefix("c/")).map(str::to_owned).collect()
}

#[test]
fn a_new_channel_takes_the_place_of_the_oldest_without_subscribers() {
    let (mut bus, [ann, bob]) = bus_with(["ann", "bob"]);
    for number in 0..920 {
        send(&mut bus, ann, json!({"type": "x", "channel": format!("c{number}")}));
        bus.advance_ms(1);
    }
    for number in 0..79 {
        subscribe(&mut bus, bob, &format!("s{number}"));
    }
    // These two are the oldest; one has a subscriber, in the other something happens.
    subscribe(&mut bus, ann, "c0");
    send(&mut bus, ann, json!({"type": "x", "channel": "c1"}));
    for (turn, upset) in [|_: &mut Bus| {}, Bus::sleep, Bus::crash].into_iter().enumerate() {
        upset(&mut bus);
        let (gone, other) = (format!("c{}", 2 + 2 * turn), format!("c{}", 3 + 2 * turn));
        send(&mut bus, ann, json!({"type": "x", "channel": format!("new{turn}"), "data": turn}));
        let left = marks(&bus);
        assert!(left.len() == 920 && !left.contains(&gone) && left.contains(&other), "{turn}");
        assert!(bus.kv().keys().all(|key| !key.starts_with(&format!("h/{gone}:"))));
        assert_eq!(page(&mut bus, &[("channel", &format!("new{turn}"))]).0[0]["data"], turn);
        ask(&mut bus, bob, json!({"type": "unsubscribe", "channel": format!("s{turn}")}), "unsubscribed");
        subscribe(&mut bus, bob, &format!("t{turn}"));
        assert_eq!(marks(&bus).len(), 920);
        subscribe(&mut bus, bob, &format!("s{turn}"));
        assert!(marks(&bus).len() == 919 && !marks(&bus).contains(&other));
        ask(&mut bus, bob, json!({"type": "unsubscribe", "channel": format!("t{turn}")}), "unsubscribed");
        send(&mut bus, ann, json!({"type": "x", "channel": other}));
    }
    assert!(marks(&bus).starts_with(&["c0".to_owned(), "c1".to_owned()]));
    let (_, status) = answer(&mut bus, query(request("GET", "/status", "ann", ""), &[("detailed", "true")]));
    assert_eq!(status["websocket"]["metrics"]["channels"].as_array().unwrap().len(), 1_000);
}

#[test]
fn channels_with_subscribers_give_way_to_none() {
    let mut bus = bus();
    let members: Vec<MemberId> = (0..11).map(|number| join(&mut bus, &format!("u{number}"))).collect();
    for number in 0..999 {
        subscribe(&mut bus, members[number / 99], &format!("s{number}"));
    }
    let ann = members[10];
    for upset in [|_: &mut Bus| {}, Bus::sleep, Bus::crash] {
        upset(&mut bus);
        for kind in ["x", "subscribe"] {
            assert_refused(&mut bus, ann, json!({"type": kind, "channel": "new"}), "too_large");
        }
    }
    let (status, refused) =
        answer(&mut bus, body(request("POST", "/", "ann", ""), &json!({"event": "x", "channel": "new"})));
    assert_eq!((status, &refused["error"]["code"]), (413, &json!("too_large")));
    // Those that are there go on.
    subscribe(&mut bus, ann, "s1");
    emit(&mut bus, ann, json!({"type": "x", "channel": "s1"}));
    // A channel nobody wants and nothing is kept of is none.
    ask(&mut bus, members[0], json!({"type": "unsubscribe", "channel": "s0"}), "unsubscribed");
    subscribe(&mut bus, ann, "new");
    assert_refused(&mut bus, ann, json!({"type": "x", "channel": "newer"}), "too_large");
    // One that nobody wants any more is forgotten when its place is needed.
    emit(&mut bus, ann, json!({"type": "x", "channel": "new"}));
    ask(&mut bus, ann, json!({"type": "unsubscribe", "channel": "new"}), "unsubscribed");
    subscribe(&mut bus, ann, "newer");
    assert_eq!(marks(&bus), ["s1"]);
}

#[test]
fn making_room_has_a_bound_in_each_batch() {
    let mut bus: Bus = Harness::with_settings("tenant:acme", r#"{"historyMax":5000}"#);
    let ann = join(&mut bus, "ann");
    for channel in ["a", "b"] {
        for _ in 0..20 {
            let batch = sent(&bus, ann, &json!({"type": "x", "channel": channel}), 250);
            assert_eq!(run(&mut bus, batch).1, 0);
        }
    }
    bus.advance_ms(1);
    let fresh = |bus: &Bus, name: &str, count: usize| -> Vec<Event> {
        let event = |number| json!({"type": "x", "channel": format!("{name}{number}")}).to_string();
        (0..count).map(|number| bus.sent(ann, event(number))).collect()
    };
    for name in ["c", "d", "e", "f"] {
        let batch = fresh(&bus, name, if name == "f" { 247 } else { 250 });
        assert_eq!(run(&mut bus, batch).1, 0);
    }
    // The oldest two are as large as a history can be: one goes, then the other.
    for left in [vec!["b"], vec![]] {
        let batch = fresh(&bus, "g", 2);
        assert_eq!(run(&mut bus, batch).1, left.len());
        assert_eq!(marks(&bus).into_iter().filter(|name| name.len() == 1).collect::<Vec<_>>(), left);
    }
    let batch = fresh(&bus, "h", 250);
    assert_eq!(run(&mut bus, batch).1, 0);
    assert_eq!(marks(&bus).len(), 999);
}

#[test]
fn filters_of_a_tenant_have_a_bound_together() {
    let mut bus: Bus = Harness::with_settings("tenant:acme", r#"{"interestBytesMax":100000}"#);
    let members: Vec<MemberId> = (0..5).map(|number| join(&mut bus, &format!("u{}", number / 3))).collect();
    let values: Vec<String> = (0..64).map(|number| format!("{number:0128}")).collect();
    let large = json!({"type": "filters", "filters": {"eventTypes": values, "sources": values, "users": values}});
    for upset in [|_: &mut Bus| {}, Bus::crash] {
        upset(&mut bus);
        for member in &members[..3] {
            ask(&mut bus, *member, large.clone(), "filters_updated");
        }
        assert_refused(&mut bus, members[3], large.clone(), "too_large");
    }
    filter(&mut bus, members[4], json!({"priority": ["low"]}));
    // Less is always allowed, and makes room.
    filter(&mut bus, members[0], json!({}));
    ask(&mut bus, members[3], large.clone(), "filters_updated");
    // All of a user's connections or none.
    let rows = bus.kv();
    let change = body(request("PUT", "/", "root", "admin"), &json!({"user_id": "u1", "filters": large["filters"]}));
    assert_eq!(answer(&mut bus, change).0, 413);
    assert_eq!(bus.kv(), rows);
}

#[test]
fn a_clients_wishes_have_a_bound_together_and_fit_into_a_value() {
    let (mut bus, [ann]) = bus_with(["ann"]);
    // Quotes double when they are written.
    let values: Vec<String> = (0..64).map(|number| format!("{}{number:03}", "\"".repeat(125))).collect();
    let mut accepted = 0;
    loop {
        let frame = json!({"type": "subscribe", "channel": format!("c{accepted}"), "eventTypes": values});
        let outcome = send(&mut bus, ann, frame);
        if !outcome.refusals.is_empty() {
            assert_eq!(outcome.refusals[0].code, RefusalCode::TooLarge);
            break;
        }
        accepted += 1;
    }
    assert_eq!(accepted, 6);
    bus.crash();
    let outcome = send(&mut bus, ann, json!({"type": values[0], "channel": "c5"}));
    assert_eq!(outcome.received.len(), 1);
}

#[test]
fn a_full_batch_of_the_heaviest_frames_never_faults() {
    let values: Vec<String> = (0..64).map(|number| format!("{}{number:03}", "\"".repeat(125))).collect();
    let settings = json!({"interestBytesMax": 64 << 20});
    let mut bus: Bus = Harness::with_settings("tenant:acme", &settings.to_string());
    let members: Vec<MemberId> = (0..64).map(|number| join(&mut bus, &format!("u{}", number % 2))).collect();
    for number in 0..6 {
        for member in &members {
            let frame = json!({"type": "subscribe", "channel": format!("c{number}"), "eventTypes": values});
            let outcome = send(&mut bus, *member, frame);
            assert!(outcome.refusals.is_empty());
        }
    }
    let replay = json!({"type": "subscribe", "channel": "tenant", "replay": 1_000, "eventTypes": ["x"]});
    for number in 0..300 {
        send(&mut bus, members[0], json!({"type": "x", "data": [number, "y".repeat(3_000)]}));
    }
    for frame in [
        json!({"type": "filters", "filters": {"priority": ["low"]}}),
        json!({"type": "unsubscribe", "channel": "c0"}),
        json!({"type": "subscribe", "channel": "c1"}),
        replay,
    ] {
        let batch = members.iter().cycle().take(256).map(|member| bus.sent(*member, frame.to_string())).collect();
        let (_, _) = run(&mut bus, batch);
        while !bus.timers().is_empty() {
            assert_eq!(bus.advance_ms(0).faults, [""; 0]);
        }
    }
    let change =
        body(request("PUT", "/", "root", "admin"), &json!({"user_id": "u0", "filters": {"priority": ["high"]}}));
    let closing = query(request("DELETE", "/", "root", "admin"), &[("user_id", "u0")]);
    let batch = (0..128).map(|id| asked(change.clone(), id)).chain((128..256).map(|id| asked(closing.clone(), id)));
    let (outcome, _) = run(&mut bus, batch.collect());
    assert!(outcome.responses().iter().all(|response| matches!(response.status, 200 | 503)));
    let batch = bus.members().iter().map(|member| bus.left(*member, LeaveReason::Disconnected, None)).collect();
    run(&mut bus, batch);
    assert!(bus.kv().keys().all(|key| !key.starts_with("m/")));
}

#[test]
fn forgetting_histories_has_a_bound_too() {
    let mut bus: Bus = Harness::with_settings("tenant:acme", r#"{"historyMax":5000}"#);
    let ann = join(&mut bus, "ann");
    for channel in ["a", "b", "c"] {
        for _ in 0..20 {
            let batch = sent(&bus, ann, &json!({"type": "x", "channel": channel}), 250);
            assert_eq!(run(&mut bus, batch).1, 0);
        }
    }
    let forget = |id, channel: &str| asked(query(request("DELETE", "/", "root", "admin"), &[("channel", channel)]), id);
    let (outcome, _) = run(&mut bus, vec![forget(1, "a"), forget(2, "b"), forget(3, "c")]);
    let statuses: Vec<u16> = outcome.responses().iter().map(|response| response.status).collect();
    assert_eq!(statuses, [200, 503, 503]);
    assert_eq!(bus.kv().keys().filter(|key| key.starts_with("h/")).count(), 10_000);
}
