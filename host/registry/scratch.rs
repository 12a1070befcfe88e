//! A channel in memory, for plugins that are tried out: it answers reads as a channel of the broker does, and what a batch did takes hold
//! on it by the same rules. There is no socket, no disk and no clock but its own, so that the same calls give the same answers.
//!
//! A batch goes `events → `[`Scratch::batch`]` → `[`Instance::handle`](crate::plugin::Instance::handle)` → `[`Scratch::apply`]`, or
//! [`Scratch::fail`] where the plugin failed.

mod kept;
mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use crate::limits::{MountLimits, TIMERS_MAX};
use crate::plugin::{Channel, Effects, Fault, Opening, Stats, Timer};
use crate::protocol::event::{Batch, Event, HttpRequest, HttpResponse, LeaveReason, MemberId, RequestId, Source};
use crate::protocol::frame::Payload;
use crate::protocol::identity::Identity;
use crate::protocol::name::ChannelName;
use crate::protocol::sql::SqlError;
use crate::registry::scratch::read::{Held, State};

pub use crate::registry::scratch::read::Database;

/// The time it begins at, in milliseconds since the Unix epoch: 2023-11-14 at 22:13:20 UTC, as in the SDK's harness.
pub const BEGINS_MS: u64 = 1_700_000_000_000;

/// See the module.
pub struct Scratch {
    name: ChannelName,
    settings: Box<str>,
    limits: Arc<MountLimits>,
    held: Arc<Held>,
    /// All of them, members or not.
    connections: BTreeMap<MemberId, Identity>,
    timers: BTreeMap<String, Timer>,
    /// Who became a member in the batch that was made last, and with which of its events.
    joined: Vec<(u32, MemberId)>,
    /// Names that are taken.
    next_member: u64,
    next_request: u64,
    seed: u64,
    now_ms: u64,
}

/// What followed from a batch, beside what the channel keeps.
#[derive(Debug, Default)]
pub struct Released {
    /// Those whose join was rejected: they are no members.
    pub rejected: Vec<MemberId>,
    /// The leaves of members that the plugin closed, for the next batch; their connections are gone.
    pub leaves: Vec<Event>,
    /// Messages to other channels: name and payload.
    pub publishes: Vec<(String, Payload)>,
    /// Answers to HTTP requests.
    pub responses: Vec<(RequestId, HttpResponse)>,
}

impl Scratch {
    /// An empty channel. `settings` is the text of a JSON object.
    pub fn new(name: ChannelName, settings: &str) -> Self {
        let database: Database = Arc::new(|_, _| Err(SqlError::NotGranted));
        Self {
            name,
            settings: settings.into(),
            limits: Arc::default(),
            held: Arc::new(Held { state: Mutex::default(), database }),
            connections: BTreeMap::new(),
            timers: BTreeMap::new(),
            joined: Vec::new(),
            next_member: 1,
            next_request: 1,
            seed: 1,
            now_ms: BEGINS_MS,
        }
    }

    /// The same with the limits of a mount.
    #[must_use]
    pub fn with_limits(self, limits: Arc<MountLimits>) -> Self {
        Self { limits, ..self }
    }

    /// The same with other random numbers for its batches.
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// The same with a database. Without one every statement is not granted.
    #[must_use]
    pub fn with_database(self, database: Database) -> Self {
        let state = Mutex::new(self.lock().clone());
        Self { held: Arc::new(Held { state, database }), ..self }
    }

    /// A channel of its own that is as this one is now.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self {
            name: self.name.clone(),
            settings: self.settings.clone(),
            limits: Arc::clone(&self.limits),
            held: Arc::new(Held { state: Mutex::new(self.lock().clone()), database: Arc::clone(&self.held.database) }),
            connections: self.connections.clone(),
            timers: self.timers.clone(),
            joined: self.joined.clone(),
            ..*self
        }
    }

    /// The channel as its plugin reads it. What is applied later shows in it.
    pub fn channel(&self) -> Arc<dyn Channel> {
        Arc::clone(&self.held) as _
    }

    /// What `open` is told. Each call has another random number.
    pub fn opening<'a>(&'a mut self, saved: Option<&'a [u8]>) -> Opening<'a> {
        let seed = self.random();
        Opening { name: &self.name, now_ms: self.now_ms, seed, settings: &self.settings, saved }
    }

    /// Its name.
    pub fn name(&self) -> &ChannelName {
        &self.name
    }

    /// The limits of its mount.
    pub fn limits(&self) -> &Arc<MountLimits> {
        &self.limits
    }

    /// Milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Moves the clock on.
    pub fn advance_ms(&mut self, by_ms: u64) {
        self.now_ms = self.now_ms.saturating_add(by_ms);
        self.lock().uptime_ms += by_ms;
    }

    /// What `stats` answers from now on; otherwise it counts this channel alone.
    pub fn set_stats(&mut self, stats: Stats) {
        self.lock().stats = Some(stats);
    }

    /// A new connection. It becomes a member by a batch with [`Scratch::joins`].
    pub fn connect(&mut self, identity: Identity) -> MemberId {
        let member = MemberId(self.next_member);
        self.next_member += 1;
        self.connections.insert(member, identity);
        member
    }

    /// The members, in the order in which the plugin sees them.
    pub fn members(&self) -> Vec<MemberId> {
        self.lock().members.iter().map(|(member, _)| *member).collect()
    }

    /// Whether a connection is a member.
    pub fn is_member(&self, member: MemberId) -> bool {
        self.lock().member(member).is_some()
    }

    /// The state: keys and values.
    pub fn kv(&self) -> BTreeMap<String, Bytes> {
        self.lock().kept.state().clone()
    }

    /// The log: offsets, times in milliseconds, data.
    pub fn log(&self) -> Vec<(u64, u64, Bytes)> {
        self.lock().kept.log().map(|(offset, at_ms, data)| (offset, at_ms, data.clone())).collect()
    }

    /// The timers that are set.
    pub fn timers(&self) -> &BTreeMap<String, Timer> {
        &self.timers
    }

    /// A connection asks to join. `None` if there is no such connection.
    pub fn joins(&self, member: MemberId, frame: Option<Payload>) -> Option<Event> {
        Some(Event::Join { member, identity: self.connections.get(&member)?.clone(), frame })
    }

    /// A member leaves. `None` if there is no such connection.
    pub fn leaves(&self, member: MemberId, why: LeaveReason, frame: Option<Payload>) -> Option<Event> {
        Some(Event::Leave { member, identity: self.connections.get(&member)?.clone(), why, frame })
    }

    /// A member sends a message. `None` if it is no member: the broker refuses it then, and no plugin sees it.
    pub fn sends(&self, member: MemberId, payload: Payload) -> Option<Event> {
        let identity = self.lock().member(member)?.clone();
        Some(Event::Message { member, identity, payload })
    }

    /// A server publishes.
    pub fn publishes(&mut self, source: Source, payload: Payload) -> Event {
        let request = matches!(source, Source::Api(_)).then(|| self.request_id());
        Event::Publish { source, payload, request, idempotency_key: None, hops: 0 }
    }

    /// An HTTP request.
    pub fn requests(&mut self, http: HttpRequest) -> Event {
        Event::Request { request: self.request_id(), http: Box::new(http) }
    }

    /// The timers that are due, the earliest first. They are set no longer, whatever becomes of their events: a timer that makes its
    /// plugin fail does so once.
    pub fn due(&mut self) -> Vec<Event> {
        let mut due: Vec<(u64, String)> =
            self.timers.iter().map(|(name, timer)| (timer.due_ms, name.clone())).collect();
        due.retain(|(due_ms, _)| *due_ms <= self.now_ms);
        due.sort();
        due.into_iter()
            .filter_map(|(_, name)| {
                let durable = self.timers.remove(&name)?.durable;
                Some(Event::Timer { name, durable })
            })
            .collect()
    }

    /// When the next timer is due.
    pub fn next_due_ms(&self) -> Option<u64> {
        self.timers.values().map(|timer| timer.due_ms).min()
    }

    /// Makes a batch of events, and lets its joins and leaves take hold, as they do before the plugin runs.
    pub fn batch(&mut self, events: Vec<Event>) -> Arc<Batch> {
        let batch = Batch { now_ms: self.now_ms, seed: self.random(), events };
        self.turn_over(&batch.events);
        Arc::new(batch)
    }

    /// Takes over a batch that was made on a [fork](Self::fork) of this channel: its time, its joins and leaves, and its timers, which
    /// are due here too.
    pub fn follow(&mut self, batch: &Batch) {
        let passed = batch.now_ms.saturating_sub(self.now_ms);
        self.advance_ms(passed);
        for event in &batch.events {
            match event {
                Event::Timer { name, .. } => drop(self.timers.remove(name)),
                Event::Join { member, identity, .. } => drop(self.connections.insert(*member, identity.clone())),
                _ => {}
            }
        }
        self.turn_over(&batch.events);
    }

    fn turn_over(&mut self, events: &[Event]) {
        self.joined.clear();
        let mut state = self.held.lock();
        for (event, index) in events.iter().zip(0_u32..) {
            match event {
                Event::Join { member, identity, .. } if state.member(*member).is_none() => {
                    state.members.push((*member, identity.clone()));
                    self.joined.push((index, *member));
                }
                Event::Leave { member, .. } => state.forget(*member),
                _ => {}
            }
        }
    }

    /// Lets the effects of the batch that was made last take hold.
    ///
    /// # Errors
    /// If they are refused, as too many timers are. Nothing took hold then: as after [`Scratch::fail`].
    pub fn apply(&mut self, batch: &Batch, mut effects: Effects) -> Result<Released, Fault> {
        if let Err(fault) = self.write(batch, &mut effects) {
            self.fail();
            return Err(fault);
        }
        let is_rejected = |index: u32| effects.rejects.iter().any(|(rejected, _)| *rejected == index);
        let rejected: Vec<MemberId> =
            self.joined.drain(..).filter(|(index, _)| is_rejected(*index)).map(|(_, member)| member).collect();
        for member in rejected.iter().copied() {
            self.lock().forget(member);
        }
        for (name, timer) in effects.timers {
            match timer {
                Some(timer) => drop(self.timers.insert(name, timer)),
                None => drop(self.timers.remove(&name)),
            }
        }
        let mut leaves = Vec::new();
        for (member, _, _) in effects.closes {
            let member_leaves = self.is_member(member).then(|| self.leaves(member, LeaveReason::Closed, None));
            leaves.extend(member_leaves.flatten());
            self.connections.remove(&member);
        }
        let mut answered = BTreeSet::new();
        // The first answer counts.
        let responses = effects.responses.into_iter().filter(|(request, _)| answered.insert(*request)).collect();
        Ok(Released { rejected, leaves, publishes: effects.publishes, responses })
    }

    fn write(&self, batch: &Batch, effects: &mut Effects) -> Result<(), Fault> {
        let is_set = |name: &&String| effects.timers.get(*name).is_none_or(Option::is_some);
        let names: BTreeSet<&String> = self.timers.keys().chain(effects.timers.keys()).collect();
        if names.into_iter().filter(is_set).count() > TIMERS_MAX {
            return Err(Fault::refused(format!("more than {TIMERS_MAX} timers")));
        }
        self.lock().kept.write(effects, batch.now_ms, &self.limits)
    }

    /// The batch that was made last failed: who joined in it is no member. Who left stays away.
    pub fn fail(&mut self) {
        let mut state = self.held.lock();
        for (_, member) in self.joined.drain(..) {
            state.forget(member);
        }
    }

    /// What a restart of the broker leaves: no connections, no volatile timers.
    pub fn restart(&mut self) {
        self.connections.clear();
        self.timers.retain(|_, timer| timer.durable);
        self.joined.clear();
        self.lock().members.clear();
    }

    fn request_id(&mut self) -> RequestId {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        request
    }

    fn random(&mut self) -> u64 {
        next_random(&mut self.seed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.held.lock()
    }
}

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
pub(super) fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::refusal::{Refusal, RefusalCode};

    fn scratch() -> Scratch {
        Scratch::new(ChannelName::new("default", "room:1").unwrap(), "{}")
    }

    fn join(scratch: &mut Scratch, user: &str) -> MemberId {
        let member = scratch.connect(Identity::new("default", user, "", "{}", None));
        let joins = scratch.joins(member, None).unwrap();
        let batch = scratch.batch(vec![joins]);
        scratch.apply(&batch, Effects::default()).unwrap();
        member
    }

    #[expect(clippy::unnecessary_wraps, reason = "effects have it so")]
    fn timer(due_ms: u64, durable: bool) -> Option<Timer> {
        Some(Timer { due_ms, durable })
    }

    #[test]
    fn members_are_there_when_the_plugin_runs_and_go_again_if_it_fails() {
        let mut scratch = scratch();
        let ann = join(&mut scratch, "ann");
        let bob = scratch.connect(Identity::new("default", "bob", "", "{}", None));
        assert!(scratch.sends(bob, Payload::text("x")).is_none(), "bob is no member yet");
        let events = vec![scratch.joins(bob, None).unwrap(), scratch.leaves(ann, LeaveReason::Asked, None).unwrap()];

        scratch.batch(events.clone());
        assert_eq!((scratch.members(), scratch.channel().stats().users), (vec![bob], 1));
        scratch.fail();
        assert_eq!(scratch.members(), [], "who left stays away");

        let batch = scratch.batch(events);
        let mut effects = Effects::default();
        effects.rejects.push((0, Refusal::new(RefusalCode::Forbidden, "no")));
        assert_eq!(scratch.apply(&batch, effects).unwrap().rejected, [bob]);
        assert!(!scratch.is_member(bob) && scratch.joins(bob, None).is_some(), "the connection goes on");
    }

    /// Goal: as in the broker, a second join of a member is no new membership, so rejecting it ends none.
    #[test]
    fn a_rejected_second_join_ends_nothing() {
        let mut scratch = scratch();
        let ann = join(&mut scratch, "ann");
        let again = scratch.joins(ann, None).unwrap();
        let batch = scratch.batch(vec![again]);
        let mut effects = Effects::default();
        effects.rejects.push((0, Refusal::new(RefusalCode::Forbidden, "no")));

        assert_eq!(scratch.apply(&batch, effects).unwrap().rejected, []);
        assert!(scratch.is_member(ann));
    }

    #[test]
    fn closed_members_leave_once() {
        let mut scratch = scratch();
        let ann = join(&mut scratch, "ann");
        let batch = scratch.batch(vec![scratch.sends(ann, Payload::text("x")).unwrap()]);
        let mut effects = Effects::default();
        effects.closes =
            vec![(ann, 1000, String::new()), (ann, 1008, String::new()), (MemberId(77), 1000, String::new())];

        let released = scratch.apply(&batch, effects).unwrap();

        assert!(
            matches!(&released.leaves[..], [Event::Leave { member, why: LeaveReason::Closed, .. }] if *member == ann)
        );
        assert!(scratch.is_member(ann) && scratch.joins(ann, None).is_none());
        scratch.batch(released.leaves);
        assert!(!scratch.is_member(ann));
    }

    #[test]
    fn timers_fire_once_in_order_and_durable_ones_survive() {
        let mut scratch = scratch();
        let batch = scratch.batch(Vec::new());
        let mut effects = Effects::default();
        let now_ms = scratch.now_ms();
        effects.timers = BTreeMap::from([
            ("a".into(), timer(now_ms + 20, true)),
            ("b".into(), timer(now_ms + 10, false)),
            ("c".into(), timer(now_ms + 99, true)),
            ("d".into(), timer(now_ms + 99, false)),
        ]);
        scratch.apply(&batch, effects).unwrap();

        assert!(scratch.due().is_empty());
        assert_eq!(scratch.next_due_ms(), Some(now_ms + 10));
        scratch.advance_ms(20);
        let due = scratch.due();
        assert!(matches!(&due[..], [Event::Timer { name: b, durable: false }, Event::Timer { name: a, durable: true }]
            if a == "a" && b == "b"));
        assert!(scratch.due().is_empty());
        scratch.restart();
        assert_eq!(scratch.timers().keys().collect::<Vec<_>>(), ["c"]);
    }

    /// Law: as in the broker, more timers than allowed refuse the whole batch.
    #[test]
    fn too_many_timers_leave_no_trace() {
        let mut scratch = scratch();
        let timers = |count: usize| (0..count).map(|number| (number.to_string(), timer(u64::MAX, true))).collect();
        let mut effects = Effects::default();
        effects.timers = timers(TIMERS_MAX);
        let batch = scratch.batch(Vec::new());
        scratch.apply(&batch, effects).unwrap();
        let mut effects = Effects::default();
        effects.timers = BTreeMap::from([("one more".to_owned(), timer(0, true))]);
        effects.state.insert("k".into(), Some(Bytes::new()));

        assert!(matches!(scratch.apply(&batch, effects), Err(Fault::Refused { .. })));
        assert_eq!((scratch.timers().len(), scratch.kv().len()), (TIMERS_MAX, 0));
        let mut effects = Effects::default();
        effects.timers = BTreeMap::from([("one more".to_owned(), timer(0, true)), ("0".to_owned(), None)]);
        scratch.apply(&batch, effects).unwrap();
    }

    /// Goal: what is tried on a fork does not show in the other, and both go on alike.
    #[tokio::test]
    async fn forks_go_on_alike_and_apart() {
        let mut one = scratch().with_database(Arc::new(|_, _| Err(SqlError::Unavailable)));
        let ann = join(&mut one, "ann");
        let mut other = one.fork();
        let batches = [&mut one, &mut other].map(|scratch| {
            let events = vec![scratch.sends(ann, Payload::text("x")).unwrap()];
            let batch = scratch.batch(events);
            (batch.now_ms, batch.seed, scratch.opening(None).seed)
        });
        one.advance_ms(7);
        let batch = one.batch(vec![one.leaves(ann, LeaveReason::Asked, None).unwrap()]);
        other.follow(&batch);
        assert_eq!(
            (other.now_ms(), other.members(), other.channel().stats()),
            (one.now_ms(), vec![], one.channel().stats())
        );
        let mut effects = Effects::default();
        effects.state.insert("k".into(), Some(Bytes::new()));
        effects.appends.push(Bytes::new());
        one.apply(&batch, effects).unwrap();

        assert_eq!(batches[0], batches[1]);
        assert_eq!((one.kv().len(), one.log().len(), other.kv().len(), other.log().len()), (1, 1, 0, 0));
        assert_eq!(one.channel().get("k").await, Ok(Some(Bytes::new())));
        assert_eq!(other.channel().query("x", Vec::new()).await, Ok(Err(SqlError::Unavailable)));
        assert_eq!(scratch().channel().query("x", Vec::new()).await, Ok(Err(SqlError::NotGranted)));
    }
}
