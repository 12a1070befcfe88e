//! Filters: what they let through, their bounds, and that each is looked at once.

use hotbay_sdk::harness::Effect;
use hotbay_sdk::{Audience, MemberId};
use serde_json::{Value, json};

use super::{Bus, ask, assert_refused, audience, bus, bus_with, crowd, emit, filter, only, send, subscribe, types};

/// Whether bob gets an event of ann, under bob's filter.
fn passes(filters: &Value, event: Value) -> bool {
    let (mut bus, [ann, bob]) = bus_with(["ann", "bob"]);
    filter(&mut bus, bob, filters.clone());
    let outcome = send(&mut bus, ann, event);
    assert_eq!(types(&outcome, ann).len(), 1);
    !types(&outcome, bob).is_empty()
}

#[test]
fn dimensions_are_anded_and_values_ored() {
    let event = json!({"type": "t1", "source": "s1", "priority": "high"});
    for (filters, expected) in [
        (json!({}), true),
        (json!({"eventTypes": [], "sources": null, "priority": [], "users": []}), true),
        (json!({"eventTypes": ["t1"]}), true),
        (json!({"eventTypes": ["t2", "t1"]}), true),
        (json!({"eventTypes": ["t2"]}), false),
        (json!({"eventTypes": ["T1"]}), false),
        (json!({"sources": ["s2", "s1"]}), true),
        (json!({"sources": ["s2"]}), false),
        (json!({"priority": ["low", "high"]}), true),
        (json!({"priority": ["low", "critical"]}), false),
        (json!({"users": ["ann", "zoe"]}), true),
        (json!({"users": ["bob"]}), false),
        (json!({"eventTypes": ["t1"], "sources": ["s1"], "priority": ["high"], "users": ["ann"]}), true),
        (json!({"eventTypes": ["t1"], "sources": ["s2"], "priority": ["high"], "users": ["ann"]}), false),
        (json!({"eventTypes": ["t1"], "sources": ["s1"], "priority": ["low"], "users": ["ann"]}), false),
        (json!({"eventTypes": ["t1"], "users": ["bob"]}), false),
        (json!({"unknown": ["x"], "eventTypes": ["t1"]}), true),
    ] {
        assert_eq!(passes(&filters, event.clone()), expected, "{filters}");
    }
    let many: Vec<String> = (0..64).map(|number| format!("t{number}")).collect();
    assert!(passes(&json!({"eventTypes": many}), event));
    assert!(!passes(&json!({"eventTypes": many}), json!({"type": "t64"})));
}

#[test]
fn a_filter_replaces_the_one_before_and_is_confirmed() {
    let (mut bus, [ann]) = bus_with(["ann"]);
    let data = ask(
        &mut bus,
        ann,
        json!({"type": "filters", "filters": {"eventTypes": ["b", "a", "b"], "priority": ["high", "low"]}}),
        "filters_updated",
    );
    let expected = json!({"eventTypes": ["a", "b"], "sources": [], "priority": ["low", "high"], "users": []});
    assert_eq!(data, json!({"filters": expected}));
    assert!(send(&mut bus, ann, json!({"type": "x", "priority": "low"})).received.is_empty());
    filter(&mut bus, ann, json!({"eventTypes": ["x"]}));
    emit(&mut bus, ann, json!({"type": "x", "priority": "normal"}));
    filter(&mut bus, ann, json!({}));
    emit(&mut bus, ann, json!({"type": "y"}));
}

#[test]
fn both_the_filter_and_the_subscription_must_let_an_event_through() {
    let (mut bus, [ann]) = bus_with(["ann"]);
    ask(&mut bus, ann, json!({"type": "subscribe", "channel": "ideas", "eventTypes": ["a", "b"]}), "subscribed");
    filter(&mut bus, ann, json!({"eventTypes": ["b", "c"]}));
    for (kind, expected) in [("a", 0), ("b", 1), ("c", 0)] {
        let outcome = send(&mut bus, ann, json!({"type": kind, "channel": "ideas"}));
        assert_eq!(types(&outcome, ann).len(), expected, "{kind}");
    }
    // The subscription's types are the channel's own.
    emit(&mut bus, ann, json!({"type": "c"}));
}

#[test]
fn answers_of_the_system_pass_every_filter() {
    let (mut bus, [ann]) = bus_with(["ann"]);
    filter(
        &mut bus,
        ann,
        json!({"eventTypes": ["never"], "sources": ["never"], "priority": ["critical"], "users": ["zoe"]}),
    );
    subscribe(&mut bus, ann, "ideas");
    ask(&mut bus, ann, json!({"type": "unsubscribe", "channel": "ideas"}), "unsubscribed");
    assert_refused(&mut bus, ann, json!({"type": ""}), "bad_request");
    filter(&mut bus, ann, json!({}));
}

#[test]
fn filters_have_bounds() {
    let (mut bus, [ann]) = bus_with(["ann"]);
    let many: Vec<String> = (0..65).map(|number| number.to_string()).collect();
    for filters in [
        json!(null),
        json!([]),
        json!([["x"]]),
        json!("x"),
        json!({"eventTypes": "x"}),
        json!({"eventTypes": [1]}),
        json!({"eventTypes": [""]}),
        json!({"eventTypes": ["x".repeat(129)]}),
        json!({"eventTypes": ["a\u{1}"]}),
        json!({"eventTypes": many}),
        json!({"sources": many}),
        json!({"users": many}),
        json!({"priority": ["urgent"]}),
        json!({"priority": vec!["high"; 65]}),
        json!({"priority": {}}),
    ] {
        assert_refused(&mut bus, ann, json!({"type": "filters", "filters": filters}), "bad_request");
    }
    assert_refused(&mut bus, ann, json!({"type": "filters"}), "bad_request");
    // The largest there can be.
    let values: Vec<String> = (0..64).map(|number| format!("{number:0128}")).collect();
    filter(&mut bus, ann, json!({"eventTypes": values, "sources": values, "users": values, "priority": ["low"]}));
}

/// A hundred members with ten filters.
fn hundred() -> (Bus, Vec<MemberId>) {
    let mut bus = bus();
    let members = crowd(&mut bus, 100, |number| Some(json!({"eventTypes": [format!("t{}", number % 10), "all"]})));
    (bus, members)
}

#[test]
fn one_event_is_one_broadcast_to_exactly_those_who_want_it() {
    let (mut bus, members) = hundred();
    let outcome = send(&mut bus, members[0], json!({"type": "t3"}));
    let wanted: Vec<MemberId> = members.iter().copied().skip(3).step_by(10).collect();
    assert_eq!(audience(&outcome, &bus, "t3"), wanted);
    assert_eq!(outcome.effects.len(), 1);
    // Everybody: not named one by one.
    let outcome = send(&mut bus, members[0], json!({"type": "all"}));
    assert!(matches!(&outcome.effects[..], [Effect::Frame { to: Audience::All, .. }]), "{outcome:?}");
    assert_eq!(outcome.received.len(), 100);
    // Nobody: nothing at all.
    assert!(send(&mut bus, members[0], json!({"type": "none"})).effects.is_empty());
}

#[test]
fn equal_filters_are_kept_once_and_forgotten_with_the_last() {
    let (mut bus, members) = hundred();
    let filters = |bus: &mut Bus| {
        let mut status = super::request("GET", "/status", "ann", "");
        status.query = vec![("detailed".to_owned(), "true".to_owned())];
        super::answer(bus, status).1["websocket"]["metrics"]["distinct_filters"].as_u64().unwrap()
    };
    assert_eq!(filters(&mut bus), 11); // and the empty one
    for member in &members[..20] {
        filter(&mut bus, *member, json!({"eventTypes": ["other"]}));
    }
    assert_eq!(filters(&mut bus), 12);
    for member in members {
        bus.disconnect(member);
    }
    assert_eq!(filters(&mut bus), 1);
    assert!(bus.kv().keys().all(|key| !key.starts_with("m/")));
}

#[test]
fn events_of_servers_without_a_user_pass_no_filter_on_users() {
    let (mut bus, [ann, bob]) = bus_with(["ann", "bob"]);
    filter(&mut bus, bob, json!({"users": ["ann"]}));
    let outcome = bus.publish(json!({"event": "x"}).to_string());
    assert_eq!(only(&outcome, ann)["userId"], Value::Null);
    assert_eq!(audience(&outcome, &bus, "x"), [ann]);
    let outcome = bus.publish(json!({"event": "x", "userId": "ann"}).to_string());
    assert_eq!(audience(&outcome, &bus, "x"), [ann, bob]);
}
