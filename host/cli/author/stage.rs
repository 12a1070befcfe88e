//! Plays a scenario on a real instance of the plugin and a channel in memory, and says where what came of it is not what was wanted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::item::Item;
use super::scenario::{Happening, Join, Request, Scenario, Step, What};
use super::seen::{Seen, payload, rejects, said};
use crate::limits::MountLimits;
use crate::plugin::{Entry, Instance, Plugin, Router, account, differences};
use crate::protocol::event::{Batch, Event, HttpRequest, LeaveReason, MemberId, Source};
use crate::protocol::identity::Identity;
use crate::protocol::name::ChannelName;
use crate::protocol::refusal::Refusal;
use crate::registry::scratch::Scratch;

const TENANT: &str = "default";

/// A channel with a plugin, and who is connected to it.
pub(super) struct Stage {
    plugin: Arc<Plugin>,
    router: Router,
    scratch: Scratch,
    instance: Option<Instance>,
    saved: Option<Vec<u8>>,
    /// Connections by the names the scenario gives them.
    names: BTreeMap<String, MemberId>,
    /// All effects of all batches, of what is kept, too.
    told: Vec<(Arc<Batch>, Vec<Entry>)>,
    /// The longest call so far.
    slowest: Duration,
    /// The most memory so far, in bytes.
    memory_bytes: usize,
}

/// How a scenario went that went as wanted.
pub(super) struct Played {
    told: Vec<(Arc<Batch>, Vec<Entry>)>,
    /// CPU time of the longest call.
    pub(super) slowest: Duration,
    /// Linear memory at most, in bytes.
    pub(super) memory_bytes: usize,
}

/// Why a scenario did not.
pub(super) struct Failed {
    /// Of the step, counted from 1.
    pub(super) step: usize,
    /// Of the step, in the file, counted from 1.
    pub(super) line: usize,
    /// What happened in the step, in a few words.
    pub(super) what: String,
    /// What is wrong; many lines.
    pub(super) why: String,
}

/// Plays a scenario from an empty channel.
///
/// # Errors
/// At the first step that does not go as wanted.
pub(super) async fn play(
    plugin: &Arc<Plugin>,
    limits: &Arc<MountLimits>,
    scenario: &Scenario,
) -> Result<Played, Failed> {
    let failed = |step: usize, of: &Step, why| Failed { step: step + 1, line: of.line, what: told(&of.what), why };
    let name = ChannelName::new(TENANT, &scenario.channel);
    let name = name.map_err(|e| failed(0, &scenario.steps[0], format!("`channel` is {:?}: {e}", scenario.channel)))?;
    let scratch = Scratch::new(name, &scenario.settings).with_limits(Arc::clone(limits)).with_seed(scenario.seed);
    let mut stage = Stage {
        plugin: Arc::clone(plugin),
        router: Router::new(Arc::clone(plugin), Arc::clone(limits)),
        scratch,
        instance: None,
        saved: None,
        names: BTreeMap::new(),
        told: Vec::new(),
        slowest: Duration::ZERO,
        memory_bytes: 0,
    };
    for (index, step) in scenario.steps.iter().enumerate() {
        let went = stage.step(&step.what).await.and_then(|seen| seen.judge(&step.wanted));
        went.map_err(|why| failed(index, step, why))?;
    }
    Ok(Played { told: stage.told, slowest: stage.slowest, memory_bytes: stage.memory_bytes })
}

/// Whether a plugin did the same twice; else where it did not, for people.
pub(super) fn same(one: &Played, other: &Played) -> Result<(), String> {
    for ((batch, one), (_, other)) in one.told.iter().zip(&other.told) {
        if let Some(first) = differences(one, other).into_iter().next() {
            return Err(first.placed(batch).told(Some(batch)));
        }
    }
    Ok(())
}

impl Stage {
    async fn step(&mut self, what: &What) -> Result<Seen, String> {
        let mut seen = Seen::default();
        match what {
            What::Batch(happenings) => {
                let mut events = Vec::with_capacity(happenings.len());
                for happening in happenings {
                    events.push(self.event(happening, &events)?);
                }
                self.batches(events, &mut seen).await?;
            }
            What::After(ms) => {
                let end_ms = self.scratch.now_ms().saturating_add(*ms);
                while let Some(due_ms) = self.scratch.next_due_ms().filter(|due_ms| *due_ms <= end_ms) {
                    self.scratch.advance_ms(due_ms.saturating_sub(self.scratch.now_ms()));
                    let due = self.scratch.due();
                    self.batches(due, &mut seen).await?;
                }
                self.scratch.advance_ms(end_ms - self.scratch.now_ms());
            }
            What::Restart => {
                if let Some(mut instance) = self.instance.take() {
                    let saved = instance.save(self.scratch.channel(), self.scratch.now_ms()).await;
                    self.saved = Some(saved.map_err(|fault| format!("`save` failed: {fault}"))?);
                    self.slowest = self.slowest.max(instance.take_ran());
                }
            }
            What::Crash | What::Kill => {
                (self.instance, self.saved) = (None, None);
                if matches!(what, What::Kill) {
                    self.scratch.restart();
                    self.names.clear();
                }
            }
        }
        Ok(seen)
    }

    /// Runs a batch, and those that follow from it.
    async fn batches(&mut self, events: Vec<Event>, seen: &mut Seen) -> Result<(), String> {
        let mut next = events;
        while !next.is_empty() {
            next = self.batch(next, seen).await?;
        }
        Ok(())
    }

    async fn batch(&mut self, events: Vec<Event>, seen: &mut Seen) -> Result<Vec<Event>, String> {
        let batch = self.scratch.batch(events);
        let instance = match self.instance.take() {
            Some(instance) => instance,
            None => self.open().await?,
        };
        let (instance, effects) = instance.handle(self.scratch.channel(), Arc::clone(&batch)).await;
        let effects = effects.map_err(|fault| fault.to_string())?;
        self.instance = instance;
        if let Some(instance) = &mut self.instance {
            self.slowest = self.slowest.max(instance.take_ran());
            self.memory_bytes = self.memory_bytes.max(instance.memory_bytes());
        }
        let entries = account(&effects);
        let names = self.names.clone();
        let name = |member: MemberId| {
            let known = names.iter().find(|(_, known)| **known == member).map(|(name, _)| name.clone());
            known.unwrap_or_else(|| format!("member {}", member.0))
        };
        // Its closes end connections, whose names the accounts still need.
        let released = self.scratch.apply(&batch, effects).map_err(|fault| fault.to_string())?;
        seen.add(&entries, name);
        for (event, why) in rejects(&entries) {
            seen.frames.extend(self.refusal(batch.events.get(event), &why, name).await?);
        }
        self.told.push((batch, entries));
        Ok(released.leaves)
    }

    async fn open(&mut self) -> Result<Instance, String> {
        let saved = self.saved.take();
        let (channel, limits) = (self.scratch.channel(), Arc::clone(self.scratch.limits()));
        let opening = self.scratch.opening(saved.as_deref());
        let label = opening.name.to_string();
        let instance = Instance::start(&self.plugin, limits, opening.seed, &label).await;
        let mut instance = instance.map_err(|fault| fault.to_string())?;
        instance.open(channel, opening).await.map_err(|fault| format!("`open` failed: {fault}"))?;
        self.slowest = self.slowest.max(instance.take_ran());
        Ok(instance)
    }

    /// What the member whose event was refused is told.
    async fn refusal(
        &self,
        event: Option<&Event>,
        why: &Refusal,
        name: impl Fn(MemberId) -> String,
    ) -> Result<Option<Item>, String> {
        let (member, identity, frame) = match event {
            Some(Event::Message { member, identity, payload }) => (member, identity, Some(payload)),
            Some(Event::Join { member, identity, frame }) => (member, identity, frame.as_ref()),
            _ => return Ok(None),
        };
        let told = self.router.refused(identity, self.scratch.now_ms(), frame, why).await;
        let told = told.map_err(|fault| format!("`refused` failed: {fault}"))?;
        Ok(told.map(|payload| Item::new(format!("to {}", name(*member)), Some(said(&payload.into())))))
    }

    /// An event, which comes after others of its batch.
    fn event(&mut self, happening: &Happening, before: &[Event]) -> Result<Event, String> {
        let unknown = |name: &str| format!("there is no connection {name:?}; let it join first");
        match happening {
            Happening::Join(join) => {
                let member = self.connection(join);
                let event = self.scratch.joins(member, join.frame.as_ref().map(payload));
                event.ok_or_else(|| unknown(&join.name))
            }
            Happening::Leave(leave) => {
                let member = *self.names.get(&leave.name).ok_or_else(|| unknown(&leave.name))?;
                let event = self.scratch.leaves(member, leave.why, leave.frame.as_ref().map(payload));
                if leave.why != LeaveReason::Asked {
                    self.names.remove(&leave.name);
                }
                event.ok_or_else(|| unknown(&leave.name))
            }
            Happening::Message(message) => {
                let member = *self.names.get(&message.from).ok_or_else(|| unknown(&message.from))?;
                let payload = payload(&message.said);
                let joins = before.iter().find_map(|event| match event {
                    Event::Join { member: joins, identity, .. } if *joins == member => Some(identity.clone()),
                    _ => None,
                });
                match joins {
                    Some(identity) => Ok(Event::Message { member, identity, payload }),
                    None => self.scratch.sends(member, payload).ok_or_else(|| {
                        format!("{:?} is no member of the channel, so the plugin would not see this", message.from)
                    }),
                }
            }
            Happening::Publish(publish) => {
                let source = match &publish.channel {
                    Some(channel) => Source::Channel(channel.as_str().into()),
                    None => Source::Api(publish.key.as_str().into()),
                };
                Ok(self.scratch.publishes(source, payload(&publish.said)))
            }
            Happening::Request(request) => Ok(self.scratch.requests(http(request))),
        }
    }

    /// The connection of a name, a new one if there is none, or if it was closed.
    fn connection(&mut self, join: &Join) -> MemberId {
        if let Some(member) = self.names.get(&join.name).filter(|member| self.scratch.joins(**member, None).is_some()) {
            return *member;
        }
        let identity = Identity::new(TENANT, &join.user, &join.role, &join.claims, None).by(&join.endpoint);
        let member = self.scratch.connect(identity);
        self.names.insert(join.name.clone(), member);
        member
    }
}

fn http(request: &Request) -> HttpRequest {
    let pairs = |pairs: &BTreeMap<String, String>| pairs.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    let body = request.said.as_ref().map(payload);
    let identity = |user: &String| Identity::new(TENANT, user, &request.role, "{}", None).by("/");
    HttpRequest {
        method: request.method.clone(),
        path: request.path.clone(),
        query: pairs(&request.query),
        headers: pairs(&request.headers),
        body: body.map_or_else(Bytes::new, |body| body.bytes().clone()),
        identity: request.user.as_ref().map(identity),
    }
}

/// What happens in a step, in a few words.
fn told(what: &What) -> String {
    match what {
        What::Batch(events) => match &events[..] {
            [Happening::Join(join)] => format!("join of {}", join.name),
            [Happening::Leave(leave)] => format!("leave of {}", leave.name),
            [Happening::Message(message)] => format!("message from {}: {}", message.from, message.said),
            [Happening::Publish(publish)] => format!("publish: {}", publish.said),
            [Happening::Request(request)] => format!("request {} {}", request.method, request.path),
            events => format!("a batch of {} events", events.len()),
        },
        What::After(ms) => format!("{ms} ms pass"),
        What::Restart => "restart".to_owned(),
        What::Crash => "crash".to_owned(),
        What::Kill => "kill".to_owned(),
    }
}
