//! What happens to a channel in a conformance run, from a seed: joins, messages, publications, requests, timers and leaves, in batches as the
//! broker makes them. It goes by what became of the batches before, so it is written along the way, on the channel of one instance.

use crate::limits::MountLimits;
use crate::protocol::event::{Event, LeaveReason, MemberId, Source};
use crate::protocol::frame::Payload;
use crate::protocol::identity::Identity;
use crate::protocol::name::ChannelName;
use crate::registry::conformance::garbage::Garbage;
use crate::registry::scratch::{Released, Scratch};

/// Members there are most of the time.
const MEMBERS: (usize, usize) = (3, 8);
/// Most timers that fire in one batch.
const TIMERS_MAX: usize = 8;
/// Most events of a batch: a few tens of messages come in while a batch runs, and its plugin has its time for all of them.
const EVENTS_MAX: u64 = 32;
/// Bytes of a batch, about.
const BYTES_MAX: usize = 64 << 10;
const USERS: [&str; 5] = ["ann", "bob", "eve", "auth0|5f", "zo@example.org"];
const ROLES: [&str; 4] = ["", "member", "moderator", "admin"];
const HOUR_MS: u64 = 60 * 60 * 1_000;

/// Frames by which the plugin has a connection join or leave, where one socket carries many channels. If it knows none, connections join
/// as such.
#[derive(Debug, Clone, Default)]
pub(super) struct Frames {
    pub(super) joins: Vec<Payload>,
    pub(super) leaves: Vec<Payload>,
}

/// See the module.
pub(super) struct Script {
    garbage: Garbage,
    /// How many messages are still to be sent.
    messages: u32,
    batches_max: usize,
    events_max: u64,
    /// What follows from the batch before.
    next: Vec<Event>,
    begun: bool,
    parted: bool,
    frames: Frames,
    /// Whether an instance took over since the batch before.
    turned: bool,
}

impl Script {
    pub(super) fn new(seed: u64, messages: u32, channel: &ChannelName, limits: &MountLimits, frames: Frames) -> Self {
        Self {
            garbage: Garbage::new(seed, channel.name(), limits),
            messages,
            batches_max: limits.batch_bytes_max.min(BYTES_MAX),
            events_max: EVENTS_MAX.min(limits.batch_events_max as u64),
            next: Vec::new(),
            begun: false,
            parted: false,
            frames,
            turned: false,
        }
    }

    /// How many messages are still to be sent.
    pub(super) fn messages_left(&self) -> u32 {
        self.messages
    }

    /// An instance takes over before the next batch. In that one nobody joins a second time: the instance would take it for the first.
    pub(super) fn turned(&mut self) {
        self.turned = true;
    }

    /// The events of the next batch; `None` at the end.
    pub(super) fn next(&mut self, scratch: &mut Scratch) -> Option<Vec<Event>> {
        let mut events = std::mem::take(&mut self.next);
        if !self.begun {
            self.begun = true;
            events.extend((0..MEMBERS.0).filter_map(|_| self.join(scratch)));
            return Some(events);
        }
        if self.messages == 0 {
            return self.last(scratch, events);
        }
        if self.garbage.percent(40) {
            let by_ms = match self.garbage.below(20) {
                0 => HOUR_MS,
                1..4 => 60_000,
                _ => 5_000,
            };
            scratch.advance_ms(1 + self.garbage.below(by_ms));
        }
        events.extend(scratch.due().into_iter().take(TIMERS_MAX));
        let count = match self.garbage.below(10) {
            0..6 => 1 + self.garbage.below(3),
            6..9 => 1 + self.garbage.below(12),
            _ => 1 + self.garbage.below(self.events_max),
        };
        let mut bytes = 0;
        // Who leaves in this batch sends nothing after that.
        let mut gone: Vec<MemberId> = events.iter().filter(|event| is_leave(event)).filter_map(Event::member).collect();
        for _ in 0..count.min(self.events_max) {
            let Some(event) = self.event(scratch, &mut gone) else { continue };
            bytes += event.bytes();
            events.push(event);
            if bytes > self.batches_max || self.messages == 0 {
                break;
            }
        }
        self.turned = false;
        Some(events)
    }

    /// What became of a batch.
    pub(super) fn released(&mut self, scratch: &mut Scratch, released: Released) {
        self.next.extend(released.leaves);
        for (channel, payload) in released.publishes.into_iter().take(TIMERS_MAX) {
            // One to itself comes back; others would go to channels that are not there.
            if channel == scratch.name().name() {
                let source = Source::Channel(channel.into());
                self.next.push(scratch.publishes(source, payload));
            }
        }
    }

    fn event(&mut self, scratch: &mut Scratch, gone: &mut Vec<MemberId>) -> Option<Event> {
        let members: Vec<MemberId> = scratch.members().into_iter().filter(|member| !gone.contains(member)).collect();
        let one = |script: &mut Self| members.get(script.garbage.below(members.len() as u64) as usize).copied();
        match self.garbage.below(100) {
            0..4 if members.len() < MEMBERS.1 => self.join(scratch),
            4..6 if !self.turned && !self.frames.joins.is_empty() => {
                // A member joins again.
                let frame = one_of(&mut self.garbage, &self.frames.joins);
                one(self).and_then(|member| scratch.joins(member, frame))
            }
            6..9 if members.len() > MEMBERS.0 => {
                let member = one(self)?;
                let asks = self.garbage.percent(50);
                let frame = one_of(&mut self.garbage, &self.frames.leaves).filter(|_| asks);
                let why = if frame.is_some() { LeaveReason::Asked } else { LeaveReason::Disconnected };
                gone.push(member);
                scratch.leaves(member, why, frame)
            }
            9..14 => {
                let source = if self.garbage.percent(70) {
                    Source::Api("conformance".into())
                } else {
                    Source::Channel("other".into())
                };
                let payload = self.garbage.payload();
                Some(scratch.publishes(source, payload))
            }
            14..20 => {
                let identity = self.garbage.percent(60).then(|| self.identity(scratch.name()));
                let http = self.garbage.request(identity);
                Some(scratch.requests(http))
            }
            _ => {
                self.messages -= 1;
                let payload = self.garbage.payload();
                match one(self) {
                    Some(member) => scratch.sends(member, payload),
                    // A plugin that wants no members.
                    None => self.join(scratch),
                }
            }
        }
    }

    /// Everybody leaves, and the timers fire that are due within an hour.
    fn last(&mut self, scratch: &mut Scratch, mut events: Vec<Event>) -> Option<Vec<Event>> {
        if !self.parted {
            self.parted = true;
            let leaves = scratch.members().into_iter();
            let known: Vec<MemberId> = events.iter().filter_map(Event::member).collect();
            let leaves = leaves.filter(|member| !known.contains(member));
            events.extend(leaves.filter_map(|member| scratch.leaves(member, LeaveReason::Disconnected, None)));
            scratch.advance_ms(HOUR_MS);
            events.extend(scratch.due().into_iter().take(TIMERS_MAX));
        }
        (!events.is_empty()).then_some(events)
    }

    fn join(&mut self, scratch: &mut Scratch) -> Option<Event> {
        let identity = self.identity(scratch.name());
        let member = scratch.connect(identity);
        let frame = one_of(&mut self.garbage, &self.frames.joins);
        scratch.joins(member, frame)
    }

    /// Somebody whose claims would let it into a channel of this name, as far as names tell.
    fn identity(&mut self, name: &ChannelName) -> Identity {
        let user = USERS[self.garbage.below(USERS.len() as u64) as usize];
        let role = ROLES[self.garbage.below(ROLES.len() as u64) as usize];
        let (_, own) = name.name().split_once(':').unwrap_or(("", name.name()));
        let claims = serde_json::json!({
            "sub": user, "userId": user, "id": user, "role": role, "email": "conformance@example.org",
            "tenant": name.tenant(), "tenantId": own, "ownerId": own, "firmId": own, "groups": [own], "dashboards": [own],
        });
        Identity::new(name.tenant(), user, role, &claims.to_string(), None).by("/conformance")
    }
}

fn one_of(garbage: &mut Garbage, frames: &[Payload]) -> Option<Payload> {
    frames.get(garbage.below(frames.len() as u64) as usize).cloned()
}

fn is_leave(event: &Event) -> bool {
    matches!(event, Event::Leave { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::Effects;

    fn frames() -> Frames {
        Frames { joins: vec![Payload::text("join")], leaves: vec![Payload::text("leave")] }
    }

    /// Goal: the whole of a channel's life comes in, as many messages as were asked for, and never what the broker would not hand over.
    #[test]
    fn a_script_has_everything_and_ends() {
        for seed in 0..20 {
            let limits = MountLimits::default();
            let mut scratch = Scratch::new(ChannelName::new("default", "room:1").unwrap(), "{}");
            let mut script = Script::new(seed, 1_000, &scratch.name().clone(), &limits, frames());
            let (mut messages, mut joins, mut leaves, mut publishes, mut requests) = (0, 0, 0, 0, 0);
            while let Some(events) = script.next(&mut scratch) {
                assert!(events.len() <= limits.batch_events_max);
                let mut gone: Vec<MemberId> = Vec::new();
                for event in &events {
                    assert!(event.member().is_none_or(|member| !gone.contains(&member)), "seed {seed}");
                    match event {
                        Event::Join { .. } => joins += 1,
                        Event::Leave { member, .. } => {
                            leaves += 1;
                            gone.push(*member);
                        }
                        Event::Message { member, .. } => {
                            messages += 1;
                            assert!(scratch.is_member(*member));
                        }
                        Event::Publish { .. } => publishes += 1,
                        Event::Request { .. } => requests += 1,
                        Event::Timer { .. } => {}
                    }
                }
                let batch = scratch.batch(events);
                let released = scratch.apply(&batch, Effects::default()).unwrap();
                script.released(&mut scratch, released);
            }
            assert_eq!((messages, scratch.members()), (1_000, vec![]), "seed {seed}");
            assert!(
                joins > 20 && leaves > 10 && publishes > 30 && requests > 30,
                "seed {seed}: {joins} {leaves} {publishes} {requests}"
            );
        }
    }

    /// A plugin that rejects every join still gets to its end.
    #[test]
    fn a_script_without_members_ends() {
        let mut scratch = Scratch::new(ChannelName::new("default", "room:1").unwrap(), "{}");
        let mut script = Script::new(1, 100, &scratch.name().clone(), &MountLimits::default(), Frames::default());
        while let Some(events) = script.next(&mut scratch) {
            let batch = scratch.batch(events);
            scratch.fail();
            drop(batch);
        }
        assert_eq!(script.messages_left(), 0);
    }
}
