//! Events for an owner who is away.

use hotbay_sdk::harness::{Harness, Outcome};
use hotbay_sdk::{Channel, ChannelInfo, Joined, LeaveReason, Plugin, Publication, Refusal};
use serde_json::{Value, json};

use super::{Desk, desk, desk_with, frames, join, kinds};
use crate::HangarshareMetrics;
use crate::kept::KEPT_BYTES_MAX;

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

fn publish(desk: &mut Desk, number: u64) -> Outcome {
    let outcome =
        desk.publish(json!({"type": "booking_updated", "data": {"bookingId": number, "status": "x"}}).to_string());
    assert!(outcome.refusals.is_empty() && outcome.faults.is_empty(), "{outcome:?}");
    outcome
}

/// The numbers of the events among frames, and what the welcome says was dropped.
fn numbers(frames: &[Value]) -> (Vec<u64>, u64) {
    assert_eq!(frames[0]["type"], "connection_established");
    assert_eq!(frames.last().unwrap()["type"], "metrics_update");
    let events = frames[1..frames.len() - 1].iter();
    let dropped = frames[0]["data"].get("eventsDropped").map_or(0, |dropped| dropped.as_u64().unwrap());
    (events.map(|frame| frame["data"]["bookingId"].as_u64().unwrap()).collect(), dropped)
}

/// What the next connection receives.
fn come_back(desk: &mut Desk) -> (Vec<u64>, u64) {
    let (id, frames) = join(desk, "ann");
    desk.disconnect(id);
    numbers(&frames)
}

#[test]
fn kept_events_come_in_order_right_after_the_welcome_and_once() {
    let (mut desk, _) = desk();
    let then = desk.now_ms();
    for number in 1..=3 {
        publish(&mut desk, number);
    }
    desk.advance_ms(60_000);
    let (ann, received) = join(&mut desk, "ann");
    let expected =
        ["connection_established", "booking_updated", "booking_updated", "booking_updated", "metrics_update"];
    assert_eq!(kinds(&received), expected);
    assert_eq!(numbers(&received), (vec![1, 2, 3], 0));
    assert_eq!(received[1]["data"]["timestamp"], then, "the time of the event, not of the delivery");
    let outcome = publish(&mut desk, 4);
    assert_eq!(frames(&outcome, ann).len(), 1);
    desk.disconnect(ann);
    assert_eq!(come_back(&mut desk), (vec![], 0));
    publish(&mut desk, 5);
    assert_eq!(come_back(&mut desk), (vec![5], 0));
}

#[test]
fn kept_events_survive_sleep_crash_and_restart() {
    for upset in [Desk::sleep, Desk::crash, Desk::restart] {
        let (mut desk, _) = desk();
        publish(&mut desk, 1);
        upset(&mut desk);
        publish(&mut desk, 2);
        upset(&mut desk);
        assert_eq!(come_back(&mut desk), (vec![1, 2], 0));
        upset(&mut desk);
        assert_eq!(come_back(&mut desk), (vec![], 0), "delivered once, whatever happens after");
    }
}

#[test]
fn at_most_a_hundred_are_kept_and_the_welcome_says_what_went() {
    let (mut desk, _) = desk();
    (1..=250).for_each(|number| drop(publish(&mut desk, number)));
    assert_eq!(desk.log().len(), 100);
    desk.crash();
    (251..=260).for_each(|number| drop(publish(&mut desk, number)));
    assert_eq!(desk.log().len(), 100);
    assert_eq!(come_back(&mut desk), ((161..=260).collect(), 160));
    assert_eq!(come_back(&mut desk), (vec![], 0), "told once");
}

#[test]
fn the_number_and_the_time_are_the_mounts() {
    let (mut desk, _) = desk_with(r#"{"offline_events_max":2,"offline_ttl_ms":1000}"#);
    (1..=3).for_each(|number| drop(publish(&mut desk, number)));
    assert_eq!(come_back(&mut desk), (vec![2, 3], 1));
    publish(&mut desk, 4);
    desk.advance_ms(1_000);
    assert_eq!(come_back(&mut desk), (vec![], 1));
    for none in [r#"{"offline_events_max":0}"#, r#"{"offline_ttl_ms":0}"#] {
        let (mut desk, _) = desk_with(none);
        publish(&mut desk, 1);
        assert_eq!((desk.log().len(), desk.timers().len()), (0, 0));
        assert_eq!(come_back(&mut desk), (vec![], 1));
    }
}

/// Not a moment longer than a day: neither delivered nor stored.
#[test]
fn events_are_forgotten_after_a_day() {
    let (mut desk, _) = desk();
    publish(&mut desk, 1);
    desk.advance_ms(DAY_MS / 2);
    publish(&mut desk, 2);
    desk.restart();
    desk.advance_ms(DAY_MS / 2 - 1);
    assert_eq!(desk.log().len(), 2);
    desk.advance_ms(1);
    assert_eq!(desk.log().len(), 1, "a timer forgets the first");
    desk.advance_ms(DAY_MS / 2);
    assert_eq!((desk.log().len(), desk.timers().len()), (0, 0), "and the second, and then rests");
    assert_eq!(come_back(&mut desk), (vec![], 2));
}

/// The plugin, but for its timers: as if they came late.
struct Late(HangarshareMetrics);

impl Plugin for Late {
    fn open(info: &ChannelInfo, saved: Option<&[u8]>, channel: &mut Channel) -> Result<Self, String> {
        HangarshareMetrics::open(info, saved, channel).map(Self)
    }

    fn on_start(&mut self, channel: &mut Channel) {
        self.0.on_start(channel);
    }

    fn on_join(&mut self, channel: &mut Channel, joined: Joined) -> Result<(), Refusal> {
        self.0.on_join(channel, joined)
    }

    fn on_publish(&mut self, channel: &mut Channel, publication: Publication) -> Result<(), Refusal> {
        self.0.on_publish(channel, publication)
    }
}

/// The clock alone decides, even where the timer comes late.
#[test]
fn an_event_that_is_too_old_is_not_delivered_though_it_is_still_stored() {
    let mut desk = Harness::<Late>::new("owner:ann");
    desk.publish(r#"{"type":"x","data":{"bookingId":1}}"#);
    desk.advance_ms(10);
    desk.publish(r#"{"type":"x","data":{"bookingId":2}}"#);
    desk.advance_ms(DAY_MS - 10);
    assert_eq!(desk.log().len(), 2);
    let ann = desk.connect("ann");
    let outcome = desk.join_connection(ann);
    assert_eq!(numbers(&frames(&outcome, ann)), (vec![2], 1));
}

#[test]
fn the_timer_goes_when_the_owner_comes() {
    let (mut desk, _) = desk();
    publish(&mut desk, 1);
    assert_eq!(desk.timers(), [("expire".to_owned(), desk.now_ms() + DAY_MS)]);
    come_back(&mut desk);
    assert_eq!(desk.timers(), []);
    publish(&mut desk, 2);
    assert_eq!(desk.timers().len(), 1, "and is set again");
}

#[test]
fn kept_events_have_a_bound_in_bytes() {
    let (mut desk, _) = desk();
    let body = json!({"type": "x", "data": {"bookingId": 7, "text": "x".repeat(60_000)}}).to_string();
    (0..40).for_each(|_| drop(desk.publish(body.clone())));
    let fit = KEPT_BYTES_MAX / body.len();
    assert_eq!(desk.log().len(), fit);
    assert_eq!(come_back(&mut desk), (vec![7; fit], 40 - fit as u64));
}

#[test]
fn a_hundred_large_events_cost_no_fault() {
    let (mut desk, _) = desk_with(r#"{"offline_events_max":1000}"#);
    let body = json!({"type": "x", "data": {"bookingId": 7, "text": "x".repeat(400)}}).to_string();
    (0..1_000).for_each(|_| drop(desk.publish(body.clone())));
    desk.crash();
    assert_eq!(come_back(&mut desk), (vec![7; 1_000], 0));
}

/// In one batch: who is there at the event gets it, else it is kept, and then handed to who comes.
#[test]
fn the_order_of_a_batch_decides() {
    let (mut desk, _) = desk();
    let (first, _) = join(&mut desk, "ann");
    let second = desk.connect("ann");
    let publication = |number: u64| {
        let text = json!({"type": "booking_updated", "data": {"bookingId": number}}).to_string();
        hotbay_sdk::Event::Publish(hotbay_sdk::Publication {
            source: hotbay_sdk::Source::Channel("owner:bob".to_owned()),
            payload: text.into(),
        })
    };
    let events = vec![
        publication(1),
        desk.left(first, LeaveReason::Disconnected, None),
        publication(2),
        desk.joined(second, None),
        publication(3),
    ];
    let outcome = desk.batch(events);
    let ids =
        |frames: Vec<Value>| -> Vec<Value> { frames.iter().map(|frame| frame["data"]["bookingId"].clone()).collect() };
    assert_eq!(ids(frames(&outcome, first)), [json!(1)]);
    assert_eq!(ids(frames(&outcome, second)), [json!(null), json!(2), json!(null), json!(3)]);
    assert!(desk.log().is_empty());
}

#[test]
fn a_refused_stranger_takes_nothing() {
    let (mut desk, _) = desk();
    publish(&mut desk, 1);
    let bob = desk.connect("bob");
    assert_eq!(desk.join_connection(bob).received, []);
    assert_eq!(come_back(&mut desk), (vec![1], 0));
}

/// An owner to whom nothing happened costs no read and no write.
#[test]
fn a_quiet_owner_costs_no_read() {
    let (mut desk, _) = desk();
    for _ in 0..3 {
        assert_eq!(come_back(&mut desk), (vec![], 0));
    }
    assert_eq!((desk.log_reads(), desk.kv().len()), (0, 0));
    publish(&mut desk, 1);
    come_back(&mut desk);
    let reads = desk.log_reads();
    for _ in 0..3 {
        assert_eq!(come_back(&mut desk), (vec![], 0));
    }
    assert_eq!(desk.log_reads(), reads);
}
