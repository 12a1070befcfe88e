//! A bus and a plain model of it, side by side through thousands of random steps, with sleep and crashes in between: who gets what, and what
//! is kept.

use std::collections::{BTreeMap, BTreeSet};

use hotbay_sdk::MemberId;
use hotbay_sdk::harness::Rng;
use serde_json::{Value, json};

use super::{Bus, ask, audience, bus, frames, join, page, send};

const TYPES: [&str; 4] = ["a", "b", "c", "d"];
const SOURCES: [&str; 3] = ["s", "t", "u"];
const PRIORITIES: [&str; 4] = ["low", "normal", "high", "critical"];
const USERS: [&str; 4] = ["ann", "bob", "cleo", "dan"];
const CHANNELS: [&str; 3] = ["tenant", "ideas", "orders"];

type Values = BTreeSet<String>;

/// What a member wants.
#[derive(Default)]
struct Model {
    user: String,
    /// Event types, sources, priorities, users.
    filter: [Values; 4],
    channels: BTreeMap<String, Values>,
}

fn allows(values: &Values, value: &str) -> bool {
    values.is_empty() || values.contains(value)
}

impl Model {
    fn passes(&self, event: &Value) -> bool {
        let field = |name: &str| event[name].as_str().unwrap().to_owned();
        let facts = [field("eventType"), field("source"), field("priority"), field("userId")];
        self.filter.iter().zip(&facts).all(|(values, fact)| allows(values, fact))
    }

    fn wants(&self, channel: &str, event: &Value) -> bool {
        let kind = event["eventType"].as_str().unwrap();
        self.channels.get(channel).is_some_and(|types| allows(types, kind)) && self.passes(event)
    }
}

fn some(rng: &mut Rng, from: &[&str]) -> Values {
    (0..rng.below(3)).map(|_| rng.pick(from).to_owned()).collect()
}

struct Side {
    bus: Bus,
    members: BTreeMap<MemberId, Model>,
    kept: BTreeMap<String, Vec<Value>>,
}

impl Side {
    fn step(&mut self, rng: &mut Rng, context: &str) {
        let ids: Vec<MemberId> = self.members.keys().copied().collect();
        let what = rng.below(20);
        if ids.is_empty() || what == 0 && ids.len() < 12 {
            let user = rng.pick(&USERS);
            let id = join(&mut self.bus, user);
            let channels = BTreeMap::from([("tenant".to_owned(), Values::new())]);
            self.members.insert(id, Model { user: user.to_owned(), channels, ..Model::default() });
            return;
        }
        let id = ids[rng.below(ids.len())];
        let channel = rng.pick(&CHANNELS);
        match what {
            1 => {
                assert_eq!(self.bus.disconnect(id).faults, [""; 0]);
                self.members.remove(&id);
            }
            2 => self.bus.sleep(),
            3 => self.bus.crash(),
            4 => {
                let filter = [some(rng, &TYPES), some(rng, &SOURCES), some(rng, &PRIORITIES), some(rng, &USERS)];
                let [types, sources, priority, users] = &filter;
                let filters = json!({"eventTypes": types, "sources": sources, "priority": priority, "users": users});
                ask(&mut self.bus, id, json!({"type": "filters", "filters": filters}), "filters_updated");
                self.members.get_mut(&id).unwrap().filter = filter;
            }
            5 | 6 => {
                let types = some(rng, &TYPES);
                let replay = rng.below(3) * 4;
                let frame = json!({"type": "subscribe", "channel": channel, "eventTypes": types, "replay": replay});
                let received = frames(&send(&mut self.bus, id, frame), id);
                let member = self.members.get_mut(&id).unwrap();
                member.channels.insert(channel.to_owned(), types);
                let all = self.kept.get(channel).map_or(&[][..], Vec::as_slice);
                let all = &all[all.len().saturating_sub(1_000)..];
                let passing: Vec<&Value> = all.iter().filter(|event| member.wants(channel, event)).collect();
                let expected = &passing[passing.len().saturating_sub(replay)..];
                assert_eq!(received[1..].iter().collect::<Vec<_>>(), expected, "{context}");
            }
            7 => {
                ask(&mut self.bus, id, json!({"type": "unsubscribe", "channel": channel}), "unsubscribed");
                self.members.get_mut(&id).unwrap().channels.remove(channel);
            }
            _ => {
                let (kind, source, priority) = (rng.pick(&TYPES), rng.pick(&SOURCES), rng.pick(&PRIORITIES));
                let frame =
                    json!({"type": kind, "source": source, "priority": priority, "channel": channel, "data": context});
                let outcome = send(&mut self.bus, id, frame);
                let event = page(&mut self.bus, &[("channel", channel), ("limit", "1")]).0.remove(0);
                assert_eq!((&event["data"], &event["userId"]), (&json!(context), &json!(self.members[&id].user)));
                let expected: Vec<MemberId> =
                    self.members.iter().filter(|(_, model)| model.wants(channel, &event)).map(|(id, _)| *id).collect();
                assert_eq!(audience(&outcome, &self.bus, kind), expected, "{context}: {event}");
                self.kept.entry(channel.to_owned()).or_default().push(event);
            }
        }
    }
}

#[test]
fn a_random_life_is_that_of_the_model() {
    for seed in 0..6 {
        let mut rng = Rng(seed);
        let mut side = Side { bus: bus(), members: BTreeMap::new(), kept: BTreeMap::new() };
        for turn in 0..1_000 {
            side.step(&mut rng, &format!("seed {seed}, turn {turn}"));
        }
        for (channel, kept) in &side.kept {
            let (events, _) = page(&mut side.bus, &[("channel", channel), ("limit", "1000")]);
            assert_eq!(&events, kept, "seed {seed}");
        }
        let rows = side.bus.kv().keys().filter(|key| key.starts_with("m/")).count();
        let own = side.members.values().filter(|model| {
            let first = BTreeMap::from([("tenant".to_owned(), Values::new())]);
            model.channels != first || model.filter.iter().any(|values| !values.is_empty())
        });
        assert_eq!(rows, own.count(), "seed {seed}");
    }
}
