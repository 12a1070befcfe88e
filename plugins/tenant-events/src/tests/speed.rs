//! How long an event takes, natively and without the host. Prints, asserts nothing: run it in release, with `--ignored --nocapture`.

use std::time::Instant;

use hotbay_sdk::{Event, MemberId};
use serde_json::json;

use super::{Bus, bus, filter, join};

/// The plugin's time for an event: that of a batch less that of the same batch of frames which are refused at once, since the harness takes
/// most of it; and what the harness takes for delivering.
fn measure(what: &str, bus: &mut Bus, events: &[Event]) {
    const ROUNDS: usize = 40;
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let batch = events.to_vec();
        let start = Instant::now();
        let outcome = bus.batch(batch);
        best = best.min(start.elapsed().as_secs_f64() * 1e6 / events.len() as f64);
        assert!(outcome.faults.is_empty());
    }
    println!("{what:<60} {best:>9.2} µs per event, with the harness");
}

#[test]
#[ignore = "a measurement"]
fn microseconds_per_event() {
    let mut bus = bus();
    let members: Vec<MemberId> = (0..1_000).map(|number| join(&mut bus, &format!("user-{number}"))).collect();
    let frame = |kind: &str| json!({"type": kind, "data": {"id": 17, "title": "An idea", "tags": ["a", "b"]}, "source": "idea_service"});
    let batch = |bus: &Bus, kind: &str| {
        let frame = frame(kind).to_string();
        (0..256).map(|number| bus.sent(members[number], frame.clone())).collect::<Vec<_>>()
    };
    let all = batch(&bus, "idea_created");
    measure("1,000 members, no filter", &mut bus, &all);
    for (number, member) in members.iter().enumerate() {
        let number = number % 50;
        let types: Vec<String> = (0..8).map(|at| format!("type_{}", number * 3 + at)).collect();
        let sources = ["idea_service", "user_service"];
        filter(&mut bus, *member, json!({"eventTypes": types, "sources": sources, "priority": ["normal", "high"]}));
    }
    for (what, kind) in [("none matches", "type_999"), ("60 match", "type_100"), ("refused at once", "")] {
        let events = batch(&bus, kind);
        measure(&format!("1,000 members, 50 filters: {what}"), &mut bus, &events);
    }
    inside(&bus, &members);
}

/// What the parts take, without the harness.
fn inside(_: &Bus, members: &[MemberId]) {
    use crate::filter::{Facts, Filter, Priority};
    use crate::interests::{Interests, Wishes};

    let mut interests = Interests::new(usize::MAX);
    for (number, member) in members.iter().enumerate() {
        interests.join(*member, "user");
        let number = number % 50;
        let types: Vec<String> = (0..8).map(|at| format!("type_{}", number * 3 + at)).collect();
        let filter: Filter = serde_json::from_value(json!({"eventTypes": types, "sources": ["idea_service"]})).unwrap();
        interests.set(*member, Wishes { filter, ..Wishes::default() }, true);
    }
    for kind in ["type_999", "type_100"] {
        let facts = Facts { event_type: kind, source: "idea_service", priority: Priority::Normal, user: Some("user") };
        let start = Instant::now();
        let mut reached = 0;
        for _ in 0..100_000 {
            reached += std::hint::black_box(&interests).reach("tenant", std::hint::black_box(&facts)).members;
        }
        let each = start.elapsed().as_secs_f64() * 1e6 / 1e5;
        println!("finding the {:>3} of 1,000 members with 50 filters that want it {each:>6.3} µs", reached / 100_000);
    }
}
