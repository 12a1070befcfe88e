//! How long an event takes, natively and without the host. Prints, asserts nothing: run it in release, with `--ignored --nocapture`.

use std::cell::Cell;
use std::time::{Duration, Instant};

use hotbay_sdk::harness::Harness;
use hotbay_sdk::{Channel, ChannelInfo, Event, Joined, MemberId, Message, Plugin, Refusal};
use serde_json::json;

use super::{Bus, identity, join};
use crate::TenantEvents;

/// The bus, with a clock at its door: what the harness takes for delivering is not the plugin's.
struct Timed(TenantEvents);

thread_local! {
    static TAKEN: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

impl Plugin for Timed {
    fn open(info: &ChannelInfo, saved: Option<&[u8]>, channel: &mut Channel) -> Result<Self, String> {
        TenantEvents::open(info, saved, channel).map(Self)
    }

    fn on_join(&mut self, channel: &mut Channel, joined: Joined) -> Result<(), Refusal> {
        self.0.on_join(channel, joined)
    }

    fn on_message(&mut self, channel: &mut Channel, message: Message) -> Result<(), Refusal> {
        let start = Instant::now();
        let result = self.0.on_message(channel, message);
        TAKEN.set(TAKEN.get() + start.elapsed());
        result
    }

    fn on_batch_end(&mut self, channel: &mut Channel) {
        let start = Instant::now();
        self.0.on_batch_end(channel);
        TAKEN.set(TAKEN.get() + start.elapsed());
    }
}

/// The time of an event in the best of some batches.
fn measure(what: &str, bus: &mut Harness<Timed>, events: &[Event]) {
    let mut best = f64::MAX;
    for _ in 0..20 {
        TAKEN.set(Duration::ZERO);
        let outcome = bus.batch(events.to_vec());
        assert!(outcome.faults.is_empty());
        best = best.min(TAKEN.get().as_secs_f64() * 1e6 / events.len() as f64);
    }
    println!("{what:<60} {best:>9.2} µs per event");
}

#[test]
#[ignore = "a measurement"]
fn microseconds_per_event() {
    let mut bus: Harness<Timed> = Harness::new("tenant:acme");
    let members: Vec<MemberId> =
        (0..1_000).map(|number| bus.connect_as(identity(&format!("user-{number}"), ""))).collect();
    for member in &members {
        bus.join_connection(*member);
    }
    let frame = |kind: &str| json!({"type": kind, "data": {"id": 17, "title": "An idea", "tags": ["a", "b"]}, "source": "idea_service"});
    let batch = |bus: &Harness<Timed>, kind: &str| {
        let frame = frame(kind).to_string();
        (0..256).map(|number| bus.sent(members[number], frame.clone())).collect::<Vec<_>>()
    };
    let all = batch(&bus, "idea_created");
    measure("1,000 members, no filter", &mut bus, &all);
    for (number, member) in members.iter().enumerate() {
        let number = number % 50;
        let types: Vec<String> = (0..8).map(|at| format!("type_{}", number * 3 + at)).collect();
        let sources = ["idea_service", "user_service"];
        let filters = json!({"eventTypes": types, "sources": sources, "priority": ["normal", "high"]});
        bus.message(*member, json!({"type": "filters", "filters": filters}).to_string());
    }
    for (what, kind) in [("none matches", "type_999"), ("60 match", "type_100"), ("refused at once", "")] {
        let events = batch(&bus, kind);
        measure(&format!("1,000 members, 50 filters: {what}"), &mut bus, &events);
    }
    inside(&members);
}

/// What the parts take, without the harness.
fn inside(members: &[MemberId]) {
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

#[test]
#[ignore = "a measurement"]
fn the_heaviest_batches() {
    let values: Vec<String> = (0..64).map(|number| format!("{}{number:03}", "\"".repeat(125))).collect();
    let settings = json!({"interestBytesMax": 64 << 20});
    let mut bus: Bus = hotbay_sdk::harness::Harness::with_settings("tenant:acme", &settings.to_string());
    let members: Vec<MemberId> = (0..256).map(|number| join(&mut bus, &format!("u{number}"))).collect();
    for number in 0..6 {
        for (at, member) in members.iter().enumerate() {
            let mut values = values.clone();
            values[63] = format!("x{at}");
            let frame = json!({"type": "subscribe", "channel": format!("c{number}"), "eventTypes": values});
            super::send(&mut bus, *member, frame);
        }
    }
    for frame in [
        json!({"type": "filters", "filters": {"priority": ["low"]}}),
        json!({"type": "unsubscribe", "channel": "c0"}),
        json!({"type": "subscribe", "channel": "c1"}),
    ] {
        let batch: Vec<Event> = members.iter().map(|member| bus.sent(*member, frame.to_string())).collect();
        let start = Instant::now();
        let outcome = bus.batch(batch);
        println!("{:>4} refused, {:>6.1} ms: {frame}", outcome.refusals.len(), start.elapsed().as_secs_f64() * 1e3);
    }
    bus.crash();
    let start = Instant::now();
    bus.request("GET", "/");
    println!("{:>6.1} ms to find them again", start.elapsed().as_secs_f64() * 1e3);
}
