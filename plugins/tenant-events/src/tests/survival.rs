//! What survives sleep, a crash and a restart.

use hotbay_sdk::LeaveReason;
use serde_json::{Value, json};

use super::{Bus, answer, ask, audience, bus_with, crowd, filter, join, request, send, subscribe};

type Upset = fn(&mut Bus);
const UPSETS: [Upset; 3] = [|_| {}, Bus::sleep, Bus::crash];

fn rows(bus: &Bus) -> Vec<String> {
    bus.kv().into_keys().filter(|key| key.starts_with("m/")).collect()
}

fn metrics(bus: &mut Bus) -> Value {
    answer(bus, request("GET", "/status", "ann", "")).1["websocket"]["metrics"].clone()
}

#[test]
fn filters_and_subscriptions_survive_sleep_and_crash() {
    for upset in UPSETS {
        let (mut bus, [ann, bob, cleo]) = bus_with(["ann", "bob", "cleo"]);
        filter(&mut bus, ann, json!({"eventTypes": ["a\"\\é"], "priority": ["high", "low"], "users": ["cleo"]}));
        ask(&mut bus, bob, json!({"type": "subscribe", "channel": "ideas", "eventTypes": ["b"]}), "subscribed");
        ask(&mut bus, bob, json!({"type": "unsubscribe", "channel": "tenant"}), "unsubscribed");
        upset(&mut bus);
        let outcome = send(&mut bus, cleo, json!({"type": "a\"\\é", "priority": "low"}));
        assert_eq!(audience(&outcome, &bus, "a\"\\é"), [ann, cleo]);
        upset(&mut bus);
        let outcome = send(&mut bus, cleo, json!({"type": "b"}));
        assert_eq!(audience(&outcome, &bus, "b"), [cleo]);
        let outcome = send(&mut bus, cleo, json!({"type": "b", "channel": "ideas"}));
        assert_eq!(audience(&outcome, &bus, "b"), [bob]);
        let outcome = send(&mut bus, cleo, json!({"type": "c", "channel": "ideas"}));
        assert_eq!(audience(&outcome, &bus, "c"), [0; 0]);
        // What was found again can be changed.
        filter(&mut bus, ann, json!({}));
        upset(&mut bus);
        let outcome = send(&mut bus, cleo, json!({"type": "c"}));
        assert_eq!(audience(&outcome, &bus, "c"), [ann, cleo]);
    }
}

#[test]
fn only_what_differs_from_the_start_is_stored_and_it_goes_with_the_member() {
    for upset in UPSETS {
        let (mut bus, [ann, bob]) = bus_with(["ann", "bob"]);
        assert_eq!(rows(&bus).len(), 0);
        filter(&mut bus, ann, json!({"eventTypes": ["a"]}));
        subscribe(&mut bus, bob, "ideas");
        upset(&mut bus);
        assert_eq!(rows(&bus), ["m/00000000000000000001", "m/00000000000000000002"]);
        filter(&mut bus, ann, json!({"eventTypes": []}));
        assert_eq!(rows(&bus), ["m/00000000000000000002"]);
        upset(&mut bus);
        ask(&mut bus, bob, json!({"type": "unsubscribe", "channel": "ideas"}), "unsubscribed");
        assert_eq!(rows(&bus).len(), 0);
        subscribe(&mut bus, bob, "ideas");
        upset(&mut bus);
        bus.disconnect(bob);
        assert_eq!(rows(&bus).len(), 0);
    }
}

#[test]
fn after_a_restart_members_that_reuse_ids_start_afresh() {
    let (mut bus, [ann, bob]) = bus_with(["ann", "bob"]);
    for member in [ann, bob] {
        filter(&mut bus, member, json!({"eventTypes": ["never"]}));
    }
    let kv = bus.kv();
    // Another life of the broker, with the same state: the harness counts on, so a first batch in which the row's member joins is
    // made by leaving its leave out.
    bus.crash();
    assert_eq!(kv, bus.kv());
    let batch = vec![
        bus.joined(ann, None),
        bus.sent(ann, r#"{"type":"x"}"#),
        bus.sent(ann, r#"{"type":"filters","filters":{"eventTypes":["y"]}}"#),
    ];
    let outcome = bus.batch(batch);
    assert_eq!(super::types(&outcome, ann), ["connection", "x", "filters_updated"]);
    // What it wants now is not taken for what is left of the life before.
    bus.crash();
    assert_eq!(super::types(&send(&mut bus, ann, json!({"type": "x"})), ann), [""; 0]);
    assert_eq!(super::types(&send(&mut bus, ann, json!({"type": "y"})), ann), ["y"]);
    assert_eq!(rows(&bus).len(), 2);
}

#[test]
fn rows_of_members_that_are_gone_are_swept_step_by_step() {
    let (mut bus, _) = bus_with::<0>([]);
    let long = json!({"users": ["x".repeat(100), "y".repeat(100), "z".repeat(100)]});
    crowd(&mut bus, 1_500, |_| Some(long.clone()));
    assert_eq!(rows(&bus).len(), 1_500);
    bus.restart();
    let ann = join(&mut bus, "ann");
    assert_eq!(rows(&bus).len(), 500);
    filter(&mut bus, ann, json!({"users": ["ann"]}));
    assert_eq!(bus.advance_ms(0).faults, [""; 0]);
    assert_eq!((rows(&bus).len(), bus.timers().len()), (1, 0));
}

#[test]
fn more_rows_than_one_read_answers_are_found() {
    let (mut bus, _) = bus_with::<0>([]);
    // 120 rows of some 17 KB do not fit into one answer, and 1,300 rows neither.
    let members = crowd(&mut bus, 1_300, |number| {
        let mut values = vec![format!("t{}", number % 7)];
        if number % 12 == 0 {
            values.extend((0..60).map(|value| format!("{value:0120}")));
        }
        Some(json!({"eventTypes": values}))
    });
    bus.crash();
    let outcome = send(&mut bus, members[0], json!({"type": "t3"}));
    assert_eq!(audience(&outcome, &bus, "t3"), members.iter().copied().skip(3).step_by(7).collect::<Vec<_>>());
}

#[test]
fn more_bytes_of_rows_than_one_read_answers_are_found() {
    let (mut bus, _) = bus_with::<0>([]);
    let values = |number: usize| (0..60).map(move |value| format!("{number:03}{value:0117}")).collect::<Vec<_>>();
    let members = crowd(&mut bus, 200, |number| Some(json!({"eventTypes": values(number)})));
    bus.crash();
    for number in [0, 99, 142, 143, 199] {
        let kind = values(number)[30].clone();
        let outcome = send(&mut bus, members[0], json!({"type": kind}));
        assert_eq!(audience(&outcome, &bus, &kind), [members[number]]);
    }
}

#[test]
fn a_batch_of_joins_and_leaves_right_after_a_crash_finds_everybody() {
    let (mut bus, [ann, bob, cleo]) = bus_with(["ann", "bob", "cleo"]);
    filter(&mut bus, bob, json!({"eventTypes": ["x"]}));
    filter(&mut bus, cleo, json!({"eventTypes": ["y"]}));
    bus.crash();
    let dan = bus.connect_as(super::identity("dan", ""));
    let batch = vec![
        bus.sent(ann, r#"{"type":"x","data":1}"#),
        bus.left(bob, LeaveReason::Disconnected, None),
        bus.joined(dan, None),
        bus.sent(ann, r#"{"type":"x","data":2}"#),
    ];
    let outcome = bus.batch(batch);
    assert_eq!(super::types(&outcome, bob), ["x"]);
    assert_eq!(super::types(&outcome, dan), ["connection", "x"]);
    assert_eq!(super::types(&outcome, cleo), [""; 0]);
    assert_eq!(super::types(&outcome, ann), ["x", "x"]);
    assert_eq!(rows(&bus), ["m/00000000000000000003"]);
}

#[test]
fn what_was_discovered_and_which_channels_there_are_survives_everything() {
    let upsets: [Upset; 4] = [|_| {}, Bus::sleep, Bus::crash, Bus::restart];
    for upset in upsets {
        let (mut bus, [ann]) = bus_with(["ann"]);
        send(&mut bus, ann, json!({"type": "order_paid", "source": "shop", "channel": "orders"}));
        upset(&mut bus);
        let overview = answer(&mut bus, request("GET", "/", "ann", "")).1["websocket"].clone();
        assert_eq!(overview["channels"], json!(["ideas:acme", "orders:acme", "tenant:acme"]));
        assert_eq!(overview["event_types"].as_array().unwrap().last().unwrap(), "order_paid");
        assert_eq!(overview["sources"].as_array().unwrap().last().unwrap(), "shop");
    }
}

#[test]
fn counters_survive_sleep_and_but_for_the_last_seconds_a_crash() {
    let (mut bus, [ann, _bob]) = bus_with(["ann", "bob"]);
    send(&mut bus, ann, json!({"type": "x"}));
    bus.advance_ms(20_000);
    send(&mut bus, ann, json!({"type": "x"}));
    let before = metrics(&mut bus);
    assert_eq!(before["total_connections"], 2);
    assert_eq!((&before["events_received"], &before["events_sent"]), (&json!(2), &json!(2 + 4)));
    bus.sleep();
    assert_eq!(metrics(&mut bus), before);
    bus.crash();
    assert_eq!(metrics(&mut bus), before);
    // Less than ten seconds after that write, and then more.
    bus.advance_ms(9_000);
    send(&mut bus, ann, json!({"type": "x"}));
    bus.crash();
    let after = metrics(&mut bus);
    assert_eq!(after["events_received"], 2);
    assert_eq!((&after["event_history_size"], &after["active_connections"]), (&json!(3), &json!(2)));
    bus.advance_ms(1_000);
    send(&mut bus, ann, json!({"type": "x"}));
    bus.crash();
    assert_eq!(metrics(&mut bus)["events_received"], 3);
    bus.disconnect(ann);
    let last = metrics(&mut bus);
    assert_eq!((&last["active_connections"], &last["total_connections"]), (&json!(1), &json!(2)));
}

#[test]
fn memory_that_cannot_be_read_is_found_again_in_the_store() {
    let (mut bus, [ann]) = bus_with(["ann"]);
    filter(&mut bus, ann, json!({"eventTypes": ["x"]}));
    send(&mut bus, ann, json!({"type": "x"}));
    bus.sleep();
    let saved = bus.saved().unwrap().to_vec();
    assert!(serde_json::from_slice::<crate::Saved>(&saved).is_ok());
    for garbage in [&b""[..], b"{}", b"nonsense", &saved[..saved.len() / 2]] {
        assert!(serde_json::from_slice::<crate::Saved>(garbage).is_err());
    }
}

#[test]
fn settings_and_the_channels_name_are_checked_when_it_opens() {
    let open = |name: &str, settings: &str| {
        let mut bus: Bus = hotbay_sdk::harness::Harness::with_settings(name, settings);
        bus.request("GET", "/").faults.first().cloned()
    };
    assert_eq!(open("tenant:acme", r#"{"unknown":true,"historyMax":5000}"#), None);
    let why = open("tenant:acme", r#"{"historyMax":"many"}"#).unwrap();
    assert_eq!(why, "open: the setting `historyMax` must be a whole number from 0 to 5000");
    for key in ["historyMax", "historyBytesMax", "eventBytesMax", "interestBytesMax", "effectBytesMax"] {
        for value in ["null", "-1", "1.5", "true", "99999999999"] {
            let why = open("tenant:acme", &format!(r#"{{"{key}":{value}}}"#)).unwrap();
            assert!(why.contains(&format!("`{key}`")), "{why}");
        }
    }
    for name in ["acme", "tenant:", "rooms:acme"] {
        assert!(open(name, "{}").unwrap().contains("tenant:{tenant}"), "{name}");
    }
}
