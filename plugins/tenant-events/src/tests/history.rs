//! What is kept of the past, and how it is read.

use hotbay_sdk::harness::{Harness, Rng};
use hotbay_sdk::{Channel, ChannelInfo, HttpRequest, MemberId, Plugin, Publication, Refusal};
use serde_json::{Value, json};

use super::{Bus, answer, bus, bus_with, emit, frames, join, page, query, request, send};
use crate::budget::Budget;
use crate::history::Histories;

type Upset = fn(&mut Bus);
const UPSETS: [Upset; 3] = [|_| {}, Bus::sleep, Bus::crash];

fn with_settings(settings: &Value) -> (Bus, MemberId) {
    let mut bus: Bus = Harness::with_settings("tenant:acme", &settings.to_string());
    let ann = join(&mut bus, "ann");
    (bus, ann)
}

fn fill(bus: &mut Bus, by: MemberId, channel: &str, range: std::ops::Range<u64>) {
    for number in range {
        send(bus, by, json!({"type": "x", "data": number, "channel": channel}));
    }
}

fn data(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["data"].as_u64().unwrap()).collect()
}

fn status(bus: &mut Bus) -> Value {
    let answer = answer(bus, query(request("GET", "/status", "ann", ""), &[("detailed", "true")]));
    answer.1["websocket"]["metrics"].clone()
}

/// Events and bytes as they are in the store.
fn stored(bus: &Bus) -> (u64, u64) {
    let kv = bus.kv();
    let events = kv.iter().filter(|(key, _)| key.starts_with("h/"));
    events.fold((0, 0), |(events, bytes), (key, value)| (events + 1, bytes + (key.len() + value.len()) as u64))
}

#[test]
fn the_newest_thousand_events_of_each_channel_are_kept() {
    for upset in UPSETS {
        let (mut bus, [ann]) = bus_with(["ann"]);
        fill(&mut bus, ann, "ideas", 0..990);
        fill(&mut bus, ann, "tenant", 0..3);
        upset(&mut bus);
        fill(&mut bus, ann, "ideas", 990..1_205);
        upset(&mut bus);
        assert_eq!(status(&mut bus)["event_history_size"], 1_003);
        assert_eq!(stored(&bus).0, 1_003);
        let (events, more) = page(&mut bus, &[("channel", "ideas"), ("limit", "1000")]);
        assert_eq!((data(&events), more), ((205..1_205).collect(), false));
        let (events, more) = page(&mut bus, &[]);
        assert_eq!((data(&events), more), (vec![0, 1, 2], false));
    }
}

#[test]
fn a_page_goes_on_before_an_event() {
    let (mut bus, [ann]) = bus_with(["ann"]);
    fill(&mut bus, ann, "ideas", 0..1_100);
    for limit in ["1", "7", "10", "99", "100", "101", "250", "1000"] {
        let mut seen = Vec::new();
        let mut before = String::new();
        loop {
            let (mut events, more) = page(&mut bus, &[("channel", "ideas"), ("limit", limit), ("before", &before)]);
            before = events[0]["id"].as_str().unwrap().to_owned();
            assert_eq!(events.len(), limit.parse::<usize>().unwrap().min(1_000 - seen.len()));
            events.append(&mut seen);
            seen = events;
            if !more || (limit == "1" && seen.len() > 30) {
                break;
            }
        }
        assert_eq!(data(&seen), (1_100 - seen.len() as u64..1_100).collect::<Vec<_>>());
    }
}

#[test]
fn a_page_goes_on_before_a_time() {
    let (mut bus, [ann]) = bus_with(["ann"]);
    // Three events each second.
    for second in 0..50 {
        fill(&mut bus, ann, "ideas", second * 3..second * 3 + 3);
        bus.advance_ms(1_000);
    }
    bus.crash();
    for (before, count) in [
        ("2023-11-14T22:13:20Z", 0),
        ("2023-11-14T22:13:20.001Z", 3),
        ("2023-11-14T22:13:20.0001Z", 3),
        ("2023-11-14T22:13:21.000Z", 3),
        ("2023-11-14T22:13:45+00:00", 75),
        ("2023-11-14T22:13:45 00:00", 75),
        ("2999-01-01T00:00:00.000Z", 150),
        ("1970-01-01T00:00:00Z", 0),
    ] {
        let (events, more) = page(&mut bus, &[("channel", "ideas"), ("before", before), ("limit", "1000")]);
        assert_eq!((data(&events), more), ((0..count).collect(), false), "{before}");
    }
}

#[test]
fn before_an_event_that_is_gone_nothing_is_older() {
    let (mut bus, ann) = with_settings(&json!({"historyMax": 10}));
    let first = emit(&mut bus, ann, json!({"type": "x"}));
    fill(&mut bus, ann, "tenant", 0..20);
    assert_eq!(page(&mut bus, &[("before", &first)]), (vec![], false));
}

#[test]
fn an_event_of_another_channel_is_none_even_where_as_many_are_gone() {
    let (mut bus, ann) = with_settings(&json!({"historyMax": 10}));
    let ids: Vec<String> = (0..50).map(|_| emit(&mut bus, ann, json!({"type": "x"}))).collect();
    fill(&mut bus, ann, "ideas", 0..100);
    for id in &ids {
        let asked = query(request("GET", "/history", "ann", ""), &[("channel", "ideas"), ("before", id)]);
        assert_eq!(answer(&mut bus, asked).0, 404, "{id}");
    }
}

#[test]
fn wrong_parameters_are_refused() {
    let (mut bus, [ann]) = bus_with(["ann"]);
    let id = emit(&mut bus, ann, json!({"type": "x"}));
    let upper = id.to_ascii_uppercase();
    assert_eq!(page(&mut bus, &[("before", &upper)]).0.len(), 0);
    let almost = format!("{}{}", &id[..35], if id.ends_with('0') { '1' } else { '0' });
    let mut check = |parameters: &[(&str, &str)], status: u16, code: &str| {
        let (found, body) = answer(&mut bus, query(request("GET", "/history", "ann", ""), parameters));
        assert_eq!((found, &body["error"]["code"]), (status, &json!(code)), "{parameters:?}");
        assert_eq!(body["success"], false);
    };
    for limit in ["0", "1001", "-1", "x", "1.5"] {
        check(&[("limit", limit)], 400, "bad_request");
    }
    for before in ["x", "2023", "yesterday at noon", "2023-13-01T00:00:00Z", "1960-01-01T00:00:00Z", &"é".repeat(18)] {
        check(&[("before", before)], 400, "bad_request");
    }
    for before in [&*almost, "00000000-0000-4000-8000-000000000000"] {
        check(&[("before", before)], 404, "not_found");
    }
    check(&[("channel", "ideas:other")], 403, "forbidden");
    check(&[("channel", "a:b:c")], 400, "bad_request");
    // An event of another channel is none of this.
    check(&[("channel", "ideas"), ("before", &id)], 404, "not_found");
}

#[test]
fn large_events_come_in_pages_of_a_megabyte() {
    let (mut bus, [ann]) = bus_with(["ann"]);
    for number in 0..60 {
        send(&mut bus, ann, json!({"type": "x", "data": [number, "y".repeat(40_000)]}));
    }
    let mut seen = Vec::new();
    let mut before = String::new();
    loop {
        let (mut events, more) = page(&mut bus, &[("limit", "1000"), ("before", &before)]);
        assert_eq!(events.len(), ((1 << 20) / 40_250).min(60 - seen.len()));
        before = events[0]["id"].as_str().unwrap().to_owned();
        events.append(&mut seen);
        seen = events;
        if !more {
            break;
        }
    }
    let numbers: Vec<u64> = seen.iter().map(|event| event["data"][0].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..60).collect::<Vec<_>>());
}

#[test]
fn all_histories_together_have_a_bound_in_bytes_and_the_largest_gives_way() {
    for upset in UPSETS {
        let (mut bus, ann) = with_settings(&json!({"historyBytesMax": 200_000}));
        fill(&mut bus, ann, "quiet", 0..100);
        for number in 0..40 {
            send(&mut bus, ann, json!({"type": "x", "channel": "noisy", "data": [number, "y".repeat(20_000)]}));
            if number % 10 == 5 {
                upset(&mut bus);
            }
            let (events, bytes) = stored(&bus);
            assert!(bytes <= 200_000, "{bytes}");
            let status = status(&mut bus);
            assert_eq!((&status["event_history_size"], &status["history_bytes"]), (&json!(events), &json!(bytes)));
        }
        let quiet = page(&mut bus, &[("channel", "quiet"), ("limit", "1000")]).0.len();
        assert_eq!(quiet, 100);
        let (noisy, _) = page(&mut bus, &[("channel", "noisy")]);
        assert_eq!(noisy.last().unwrap()["data"][0], 39);
        assert!((6..9).contains(&noisy.len()), "{}", noisy.len());
    }
}

/// Stores an event under the bounds that the message says, as an instance does that starts with new settings.
struct Keeper;

impl Plugin for Keeper {
    fn open(_: &ChannelInfo, _: Option<&[u8]>, _: &mut Channel) -> Result<Self, String> {
        Ok(Self)
    }

    fn on_publish(&mut self, channel: &mut Channel, publication: Publication) -> Result<(), Refusal> {
        let bounds: (u64, u64) = serde_json::from_str(publication.payload.text().unwrap()).unwrap();
        let mut budget = Budget::new(8 << 20);
        let mut histories = Histories::recover(channel, bounds.0, bounds.1);
        let mut value = histories.header("ideas", channel.now_ms(), 0);
        value.extend([b'x'; 100]);
        let (effects, bytes) = histories.cost("ideas", value.len());
        assert!(budget.fits(effects, bytes));
        histories.append(channel, &mut budget, "ideas", &value);
        // What it said it would cost is no less than what it cost.
        assert!(budget.fits(9_000 - effects, (7 << 20) - bytes));
        Ok(())
    }
}

#[test]
fn bounds_that_were_lowered_take_hold_step_by_step() {
    let mut keeper: Harness<Keeper> = Harness::new("x");
    let mut store = |bounds: (u64, u64)| {
        let outcome = keeper.publish(json!([bounds.0, bounds.1]).to_string());
        assert_eq!(outcome.faults, [""; 0]);
        keeper.kv().keys().filter(|key| key.starts_with("h/")).count()
    };
    for count in 1..=900 {
        assert_eq!(store((1_000, 1 << 20)), count);
    }
    assert_eq!([(); 4].map(|()| store((100, 1 << 20))), [901 - 256, 902 - 512, 903 - 768, 100]);
    let size = 24 + 116;
    assert_eq!(store((100, 50 * size)), 50);
    assert_eq!(store((0, 0)), 0);
    assert_eq!(store((10, 1 << 20)), 1);
}

#[test]
fn without_history_there_is_nothing_to_replay() {
    let (mut bus, ann) = with_settings(&json!({"historyMax": 0}));
    fill(&mut bus, ann, "ideas", 0..10);
    let outcome = send(&mut bus, ann, json!({"type": "subscribe", "channel": "ideas", "replay": 5}));
    assert_eq!(frames(&outcome, ann).len(), 1);
}

#[test]
fn an_event_costs_one_write_and_one_deletion_when_over() {
    let (mut bus, ann) = with_settings(&json!({"historyMax": 50}));
    fill(&mut bus, ann, "ideas", 0..60);
    let mut before = bus.kv();
    before.remove("counters");
    fill(&mut bus, ann, "ideas", 60..61);
    let mut after = bus.kv();
    after.remove("counters");
    let new: Vec<&str> = after.keys().filter(|key| !before.contains_key(*key)).map(|key| &**key).collect();
    let gone: Vec<&str> = before.keys().filter(|key| !after.contains_key(*key)).map(|key| &**key).collect();
    assert_eq!((new, gone), (vec!["h/ideas:0000000000000061"], vec!["h/ideas:0000000000000011"]));
}

#[test]
fn a_thousand_random_pages_are_what_a_plain_list_gives() {
    for seed in 0..4 {
        let mut rng = Rng(seed);
        let (mut bus, ann) = with_settings(&json!({"historyMax": 130 + seed * 100}));
        let mut all: Vec<(String, u64)> = Vec::new();
        for turn in 0..250 {
            for _ in 0..rng.below(6) {
                // Some so large that a read of a hundred is cut short.
                let size = if rng.below(8) == 0 { 30_000 } else { 10 };
                let id = emit(&mut bus, ann, json!({"type": "x", "data": "y".repeat(size)}));
                all.push((id, bus.now_ms()));
            }
            bus.advance_ms(rng.next() % 3);
            match rng.below(30) {
                0 => bus.sleep(),
                1 => bus.crash(),
                _ => {}
            }
            let kept = &all[all.len().saturating_sub(130 + seed as usize * 100)..];
            if kept.is_empty() {
                continue;
            }
            let (limit, at) = (1 + rng.below(40), rng.below(kept.len()));
            let (end, before) = match rng.below(3) {
                0 => (kept.len(), String::new()),
                1 => (at, kept[at].0.clone()),
                _ => {
                    let time = kept[at].1;
                    (kept.iter().filter(|(_, at)| *at < time).count(), hotbay_sdk::iso8601(time))
                }
            };
            let (events, more) = page(&mut bus, &[("limit", &limit.to_string()), ("before", &before)]);
            let found: Vec<&str> = events.iter().map(|event| event["id"].as_str().unwrap()).collect();
            let bytes: usize = events.iter().map(|event| event.to_string().len()).sum();
            let expected: Vec<&str> = kept[end.saturating_sub(limit)..end].iter().map(|(id, _)| &**id).collect();
            let cut = expected.len() - found.len().min(expected.len());
            assert_eq!(found, expected[cut..], "seed {seed}, turn {turn}, limit {limit}, before {before}");
            assert!(cut == 0 || bytes > (1 << 20) - 31_000, "seed {seed}, turn {turn}: a short page of {bytes} bytes");
            assert_eq!(more, end > found.len(), "seed {seed}, turn {turn}");
        }
    }
}

#[test]
fn history_needs_no_members() {
    let mut bus = bus();
    assert_eq!(bus.publish(json!({"event": "x", "channel": "ideas"}).to_string()).refusals, []);
    bus.restart();
    let (events, _) = page(&mut bus, &[("channel", "ideas:acme")]);
    assert_eq!(events.len(), 1);
    let outcome = bus.request_with(HttpRequest {
        query: vec![("channel".to_owned(), "ideas".to_owned())],
        ..request("GET", "/history", "a", "")
    });
    let body = String::from_utf8(outcome.responses()[0].body.clone()).unwrap();
    assert!(body.starts_with("{\"success\":true,\"channel\":\"ideas:acme\",\"events\":[{\"id\":\""), "{body}");
    assert!(body.ends_with("],\"hasMore\":false}"), "{body}");
}
