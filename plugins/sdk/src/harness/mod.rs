//! A host in memory, for unit tests of a plugin's logic without WebAssembly.
//!
//! It holds one channel and runs batches by the same rules as the broker: effects take hold together after the batch; a panic
//! undoes the batch, the instance is opened anew without `saved`, and the events are run again one by one, so that only
//! the one at fault is refused; timers fire when the clock is advanced. It must not depend on wall-clock time or chance.

#![expect(clippy::panic, reason = "a harness says what is wrong with a test by panicking")]

mod chance;
mod outcome;
mod state;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

pub use chance::Rng;
pub use outcome::{Effect, Outcome};
pub use state::{
    CHANNEL_NAME_BYTES_MAX, EFFECT_BYTES_MAX, EFFECTS_MAX, HostHandle, READ_BYTES_MAX, READ_ENTRIES_MAX,
    STATE_KEY_BYTES_MAX, STATE_VALUE_BYTES_MAX, TIMER_NAME_BYTES_MAX, TIMERS_MAX,
};

use crate::instance::Instance;
use crate::{
    Audience, Batch, ChannelInfo, Event, HttpRequest, Identity, Joined, LeaveReason, Left, Level, MemberId, Message,
    Payload, Plugin, Publication, Refusal, RefusalCode, Routing, Rows, Sender, Snapshot, Source, SqlError, SqlValue,
    TimerKeep,
};

/// Events in one batch, at most.
pub const BATCH_EVENTS_MAX: usize = 256;
/// What [`Plugin::save`] may return, in bytes.
pub const SAVED_BYTES_MAX: usize = 16 << 20;

/// One channel with its plugin, in memory.
pub struct Harness<P: Plugin> {
    info: ChannelInfo,
    host: HostHandle,
    instance: Option<Instance<P>>,
    saved: Option<Vec<u8>>,
    /// All connections, members or not.
    connections: BTreeMap<MemberId, Identity>,
    next_member: MemberId,
    next_request: u64,
    seed: u64,
}

impl<P: Plugin> Harness<P> {
    /// A channel of tenant `default` with this name, on 2023-11-14 at 22:13:20 UTC.
    pub fn new(name: &str) -> Self {
        Self::with_settings(name, "{}")
    }

    /// The same, with the settings of its mount as a JSON object.
    pub fn with_settings(name: &str, settings: &str) -> Self {
        let now_ms = 1_700_000_000_000;
        let info = ChannelInfo {
            tenant: "default".to_owned(),
            name: name.to_owned(),
            now_ms,
            seed: 1,
            settings: settings.to_owned(),
        };
        Self {
            info,
            host: HostHandle(Rc::new(RefCell::new(state::State::new(now_ms)))),
            instance: None,
            saved: None,
            connections: BTreeMap::new(),
            next_member: 1,
            next_request: 1,
            seed: 1,
        }
    }

    /// Milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        self.host.0.borrow().now_ms
    }

    /// What `stats` answers from now on.
    pub fn set_stats(&mut self, stats: Snapshot) {
        self.host.0.borrow_mut().stats = stats;
    }

    /// What answers [`Channel::query`](crate::Channel::query) from now on; before that every statement is `not-granted`.
    pub fn set_database(&mut self, answer: impl Fn(&str, &[SqlValue]) -> Result<Rows, SqlError> + 'static) {
        self.host.0.borrow_mut().database = Box::new(answer);
    }

    /// Most bytes of the effects of one batch from now on, as a mount may set it.
    pub fn set_effect_bytes_max(&mut self, bytes_max: usize) {
        self.host.0.borrow_mut().effect_bytes_max = bytes_max;
    }

    /// The committed log: offsets and data.
    pub fn log(&self) -> Vec<(u64, Vec<u8>)> {
        self.host.0.borrow().log.iter().map(|entry| (entry.offset, entry.data.clone())).collect()
    }

    /// The committed key-value state.
    pub fn kv(&self) -> BTreeMap<String, Vec<u8>> {
        self.host.0.borrow().kv.clone()
    }

    /// The timers that are set: name and due time.
    pub fn timers(&self) -> Vec<(String, u64)> {
        self.host.0.borrow().timers.iter().map(|(name, timer)| (name.clone(), timer.due_ms)).collect()
    }

    /// Lines the plugin wrote for the operator, also those of batches that failed.
    pub fn lines(&self) -> Vec<(Level, String)> {
        self.host.0.borrow().lines.clone()
    }

    /// How often the plugin has read the log.
    pub fn log_reads(&self) -> u64 {
        self.host.0.borrow().log_reads
    }

    /// The members.
    pub fn members(&self) -> Vec<MemberId> {
        self.host.0.borrow().members.keys().copied().collect()
    }

    /// A connection of a user without role or claims, joined to no channel yet.
    pub fn connect(&mut self, user: &str) -> MemberId {
        self.connect_as(Identity::of(user))
    }

    /// A connection with this identity, joined to no channel yet.
    pub fn connect_as(&mut self, identity: Identity) -> MemberId {
        let id = self.next_member;
        self.next_member += 1;
        self.connections.insert(id, identity);
        id
    }

    /// A connection of a user, joined to the channel without a frame.
    pub fn join(&mut self, user: &str) -> MemberId {
        let id = self.connect(user);
        self.join_connection(id);
        id
    }

    /// Joins a connection to the channel without a frame.
    pub fn join_connection(&mut self, id: MemberId) -> Outcome {
        let joined = self.joined(id, None);
        self.batch(vec![joined])
    }

    /// The join event of a connection, for a batch of several events.
    pub fn joined(&self, id: MemberId, frame: Option<Payload>) -> Event {
        Event::Join(Joined { member: id, identity: self.identity(id), frame })
    }

    /// The leave event of a member, for a batch of several events.
    pub fn left(&self, id: MemberId, why: LeaveReason, frame: Option<Payload>) -> Event {
        Event::Leave(Left { member: id, user: self.identity(id).user, why, frame })
    }

    /// The message event of a member, for a batch of several events.
    pub fn sent(&self, id: MemberId, what: impl Into<Payload>) -> Event {
        Event::Message(Message { member: id, user: self.identity(id).user, payload: what.into() })
    }

    /// The connection breaks; if it was a member it leaves.
    pub fn disconnect(&mut self, id: MemberId) -> Outcome {
        let left = self.left(id, LeaveReason::Disconnected, None);
        let member = self.host.0.borrow().members.contains_key(&id);
        let outcome = if member { self.batch(vec![left]) } else { Outcome::default() };
        self.connections.remove(&id);
        outcome
    }

    /// A member sends a message.
    pub fn message(&mut self, id: MemberId, what: impl Into<Payload>) -> Outcome {
        let message = self.sent(id, what);
        self.batch(vec![message])
    }

    /// A connection of a mount with `route = true` sends a frame: it goes through [`Plugin::route`] first. The harness
    /// holds only its own channel; a frame to another shows as [`Outcome::routed_elsewhere`].
    pub fn frame(&mut self, id: MemberId, what: impl Into<Payload>) -> Outcome {
        let frame = what.into();
        let sender = self.sender(id);
        let routing = match catch_unwind(|| P::route(&sender, frame.clone())) {
            Ok(routing) => routing,
            Err(panic) => {
                let mut outcome = Outcome::default();
                let why = fault(&mut outcome, &*panic);
                self.tell_refusal(&mut outcome, id, Some(&frame), why);
                return outcome;
            }
        };
        let member = self.host.0.borrow().members.contains_key(&id);
        let mut outcome = Outcome::default();
        match routing {
            Routing::Deliver(channel) | Routing::Join(channel) | Routing::Leave(channel)
                if channel != self.info.name =>
            {
                outcome.routed_elsewhere = Some(channel);
            }
            Routing::Join(_) => return self.batch(vec![self.joined(id, Some(frame))]),
            Routing::Deliver(_) if member => return self.batch(vec![self.sent(id, frame)]),
            Routing::Leave(_) if member => return self.batch(vec![self.left(id, LeaveReason::Asked, Some(frame))]),
            Routing::Deliver(_) | Routing::Leave(_) => {
                let why = Refusal::new(RefusalCode::NotJoined, "not a member of this channel");
                self.tell_refusal(&mut outcome, id, Some(&frame), why);
            }
            Routing::Reply(reply) => outcome.received.push((id, reply)),
            Routing::Ignore => {}
            Routing::Refuse(why) => self.tell_refusal(&mut outcome, id, Some(&frame), why),
        }
        outcome
    }

    /// An application server publishes.
    pub fn publish(&mut self, what: impl Into<Payload>) -> Outcome {
        let publication = Publication { source: Source::Api("test".to_owned()), payload: what.into() };
        self.batch(vec![Event::Publish(publication)])
    }

    /// An HTTP request without query, headers, body or identity.
    pub fn request(&mut self, method: &str, path: &str) -> Outcome {
        self.request_with(HttpRequest::new(method, path))
    }

    /// An HTTP request; its id is given here.
    pub fn request_with(&mut self, request: HttpRequest) -> Outcome {
        let id = self.next_request;
        self.next_request += 1;
        self.batch(vec![Event::Request(HttpRequest { id, ..request })])
    }

    /// Moves the clock on and fires the timers that become due on the way, each at its time.
    pub fn advance_ms(&mut self, by_ms: u64) -> Outcome {
        let until_ms = self.now_ms().saturating_add(by_ms);
        let mut outcome = Outcome::default();
        loop {
            let due = {
                let state = self.host.0.borrow();
                let timers = state.timers.iter().map(|(name, timer)| (timer.due_ms, name.clone()));
                timers.filter(|(due_ms, _)| *due_ms <= until_ms).min()
            };
            let Some((due_ms, name)) = due else { break };
            {
                let mut state = self.host.0.borrow_mut();
                state.timers.remove(&name);
                state.now_ms = state.now_ms.max(due_ms);
            }
            outcome.absorb(self.batch(vec![Event::Timer(name)]));
        }
        self.host.0.borrow_mut().now_ms = until_ms;
        outcome
    }

    /// The instance saves its memory and is dropped, as when the channel sleeps or changes version.
    pub fn sleep(&mut self) {
        if let Some(mut instance) = self.instance.take() {
            let saved = instance.save();
            assert!(saved.len() <= SAVED_BYTES_MAX, "`save` returned more than {SAVED_BYTES_MAX} bytes");
            self.saved = Some(saved);
        }
    }

    /// What the next instance will find in `saved`.
    pub fn saved(&self) -> Option<&[u8]> {
        self.saved.as_deref()
    }

    /// The instance is lost, as after a trap: members and timers stay, memory is gone.
    pub fn crash(&mut self) {
        self.instance = None;
        self.saved = None;
    }

    /// The process is lost: members and volatile timers are gone too.
    pub fn restart(&mut self) {
        self.crash();
        self.host.0.borrow_mut().timers.retain(|_, timer| timer.keep == TimerKeep::Durable);
        self.connections.clear();
        self.host.0.borrow_mut().members.clear();
    }

    /// Runs a batch; should it fail, each of its events by itself.
    pub fn batch(&mut self, events: Vec<Event>) -> Outcome {
        assert!(events.len() <= BATCH_EVENTS_MAX, "a batch has at most {BATCH_EVENTS_MAX} events");
        let before = self.host.0.borrow().members.clone();
        let mut outcome = Outcome::default();
        match self.attempt(&events) {
            Ok(effects) => self.release(&mut outcome, &events, before, effects),
            Err(panic) => {
                let why = fault(&mut outcome, &*panic);
                self.host.0.borrow_mut().members = before;
                self.crash();
                match <[Event; 1]>::try_from(events) {
                    Ok([event]) => {
                        // Who came or went did so, whatever the plugin makes of it.
                        self.turn_over(std::slice::from_ref(&event));
                        self.refuse_event(&mut outcome, &event, why);
                    }
                    Err(events) => {
                        for event in events {
                            outcome.absorb(self.batch(vec![event]));
                        }
                    }
                }
            }
        }
        outcome
    }

    fn attempt(&mut self, events: &[Event]) -> Result<Vec<Effect>, Box<dyn std::any::Any + Send>> {
        self.turn_over(events);
        self.host.0.borrow_mut().begin(events);
        self.seed += 1;
        let now_ms = self.now_ms();
        let batch = Batch { now_ms, seed: self.seed, events: events.to_vec() };
        let info = ChannelInfo { now_ms, seed: self.seed, ..self.info.clone() };
        let host = self.host.clone();
        let saved = self.saved.take();
        let instance = &mut self.instance;
        let ran = catch_unwind(AssertUnwindSafe(|| {
            if instance.is_none() {
                let opened = Instance::open(host, &info, saved.as_deref());
                *instance = Some(opened.unwrap_or_else(|why| panic!("open: {why}")));
            }
            if let Some(instance) = instance {
                instance.handle(batch);
            }
        }));
        match ran {
            Ok(()) => Ok(self.host.0.borrow_mut().commit()),
            Err(panic) => {
                self.host.0.borrow_mut().roll_back();
                Err(panic)
            }
        }
    }

    fn turn_over(&mut self, events: &[Event]) {
        let mut state = self.host.0.borrow_mut();
        for event in events {
            match event {
                Event::Join(joined) => {
                    state.members.insert(joined.member, joined.identity.clone());
                }
                Event::Leave(left) => {
                    state.members.remove(&left.member);
                }
                _ => {}
            }
        }
    }

    /// Delivers the effects of a batch that committed.
    fn release(
        &mut self,
        outcome: &mut Outcome,
        events: &[Event],
        before: BTreeMap<MemberId, Identity>,
        effects: Vec<Effect>,
    ) {
        // The members as of each event, so that a frame goes to those present at the event that caused it.
        let mut present = before;
        let mut stages = Vec::with_capacity(events.len().max(1));
        let mut leaving = BTreeSet::new();
        for event in events {
            match event {
                Event::Join(joined) => {
                    present.insert(joined.member, joined.identity.clone());
                }
                Event::Leave(left) => {
                    leaving.insert(left.member);
                    present.remove(&left.member);
                }
                _ => {}
            }
            stages.push(present.iter().map(|(id, identity)| (*id, identity.user.clone())).collect::<Vec<_>>());
        }
        let nobody = Vec::new();
        let mut closed = Vec::new();
        for effect in &effects {
            match effect {
                Effect::Frame { event, to, what, .. } => {
                    let present = stages.get(*event as usize).unwrap_or(&nobody);
                    let mut deliver = |id: MemberId| outcome.received.push((id, what.clone()));
                    match to {
                        Audience::All => present.iter().for_each(|(id, _)| deliver(*id)),
                        Audience::Except(out) => {
                            present.iter().filter(|(id, _)| id != out).for_each(|(id, _)| deliver(*id));
                        }
                        Audience::User(user) => {
                            present.iter().filter(|(_, of)| of == user).for_each(|(id, _)| deliver(*id));
                        }
                        Audience::Only(ids) => {
                            let reachable =
                                |id: &&MemberId| leaving.contains(id) || present.iter().any(|(other, _)| other == *id);
                            ids.iter().filter(reachable).for_each(|id| deliver(*id));
                        }
                    }
                }
                Effect::Close { member, code, reason } if self.connections.contains_key(member) => {
                    closed.push(*member);
                    outcome.closed.push((*member, *code, reason.clone()));
                }
                Effect::Reject { event, why } => {
                    if let Some(event) = events.get(*event as usize) {
                        self.refuse_event(outcome, event, why.clone());
                    }
                }
                Effect::Close { .. } | Effect::Publish { .. } | Effect::Respond { .. } => {}
            }
        }
        outcome.effects.extend(effects);
        for id in closed {
            if self.host.0.borrow().members.contains_key(&id) {
                let left = self.left(id, LeaveReason::Closed, None);
                outcome.absorb(self.batch(vec![left]));
            }
            self.connections.remove(&id);
        }
    }

    fn refuse_event(&self, outcome: &mut Outcome, event: &Event, why: Refusal) {
        match event {
            Event::Message(message) => self.tell_refusal(outcome, message.member, Some(&message.payload), why),
            Event::Join(joined) => self.tell_refusal(outcome, joined.member, joined.frame.as_ref(), why),
            Event::Leave(left) => self.tell_refusal(outcome, left.member, left.frame.as_ref(), why),
            Event::Timer(_) | Event::Publish(_) | Event::Request(_) => outcome.refusals.push(why),
        }
    }

    fn tell_refusal(&self, outcome: &mut Outcome, id: MemberId, frame: Option<&Payload>, why: Refusal) {
        if let Some(words) = P::refused(&self.sender(id), frame, &why) {
            outcome.received.push((id, words));
        }
        outcome.refusals.push(why);
    }

    fn identity(&self, id: MemberId) -> Identity {
        self.connections.get(&id).cloned().unwrap_or_else(|| panic!("there is no connection {id}"))
    }

    fn sender(&self, id: MemberId) -> Sender {
        Sender { now_ms: self.now_ms(), identity: self.identity(id) }
    }
}

/// Notes a panic and makes the refusal of the event that caused it.
fn fault(outcome: &mut Outcome, panic: &(dyn std::any::Any + Send)) -> Refusal {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    outcome.faults.push(text.unwrap_or("a panic without a message").to_owned());
    Refusal::new(RefusalCode::Fault, "the plugin failed on this message")
}
