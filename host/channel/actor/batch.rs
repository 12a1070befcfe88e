//! One batch: run through the instance, turned into writes and a plan of who gets what, and let out after its commit.

use std::sync::Arc;

use bytes::Bytes;

use crate::channel::actor::Actor;
use crate::channel::actor::lifecycle::Live;
use crate::channel::core::{BatchFailure, BatchId};
use crate::channel::mailbox::Reply;
use crate::channel::publish::encode_position;
use crate::channel::tail::{Position, Told};
use crate::channel::view::View;
use crate::fanout::{Change, Plan, Recipient, plan};
use crate::limits::{PUBLISH_HOPS_MAX, TIMERS_MAX};
use crate::plugin::{Channel as _, Effects, Entry, Fault, Reads, Recorder, account};
use crate::protocol::event::{Batch, Event, HttpResponse, MemberId, RequestId, Source};
use crate::protocol::frame::Payload;
use crate::protocol::name::ChannelName;
use crate::protocol::refusal::Refusal;
use crate::quota::{Kept, Quota, Room};
use crate::store::{Answer, Commit, LogEntry, Writes};
use crate::telemetry::{hot, now_ms};

/// A batch that ran, until it may be seen.
pub(super) struct Prepared {
    /// Its writes, if it made any.
    pub(super) commit: Option<Arc<Commit>>,
    batch: Arc<Batch>,
    plan: Plan,
    /// Who became a member in it.
    joined: Vec<MemberId>,
    closes: Vec<(MemberId, u16, String)>,
    rejects: Vec<(u32, Refusal)>,
    publishes: Vec<(String, Payload)>,
    responses: Vec<(RequestId, HttpResponse)>,
    /// Epoch and sequence number it depends on.
    position: (u64, u64),
    /// Its number on the tape.
    taped: Option<u64>,
    /// Room for what it adds, until its commit told what there is.
    room: Option<Room>,
    /// What those are told who follow the channel.
    told: Option<Box<Told>>,
}

/// What a batch did, besides its effects.
struct Accounted {
    /// Its number on the tape.
    taped: Option<u64>,
    /// What it was answered.
    reads: Reads,
    /// Its effects; absent if it failed.
    told: Option<Vec<Entry>>,
}

impl Actor {
    pub(super) async fn run_batch(&mut self, id: BatchId, batch: Arc<Batch>) {
        if self.assigned.shadow.is_some() {
            Box::pin(self.tend_shadow()).await;
            if self.instance.is_none() {
                self.core.undo();
                return self.core.lose_instance();
            }
        }
        let changes = self.change_members(&batch);
        let (Some(claim), Some(live)) = (&self.claim, self.instance.take()) else {
            let out = self.core.failed(BatchFailure::Surroundings, now_ms());
            return self.carry_out(out).await;
        };
        let Live { mut instance, permit, serving, seed, is_taped } = live;
        // Right after a swap others wait for their turn to swap.
        instance.holds_a_turn(self.holds_a_turn());
        let is_taped = is_taped && self.taping.tape().is_some();
        let recorder = (is_taped || self.shadows.is_running()).then(|| Recorder::new(Arc::clone(&claim.view) as _));
        let channel = recorder.clone().map_or_else(|| Arc::clone(&claim.view) as _, |recorder| recorder as _);
        let (instance, result) = instance.handle(channel, Arc::clone(&batch)).await;
        if let Some(mut instance) = instance {
            let ran = instance.take_ran();
            hot::PLUGIN_CPU.increment(ran.as_micros() as u64);
            self.assigned.deployed.tally.ran(batch.events.len(), ran);
            self.instance = Some(Live { instance, permit, serving, seed, is_taped });
        }
        hot::BATCHES.increment(1);
        hot::BATCH_EVENTS.record(batch.events.len() as f64);
        let accounted = recorder.map(|recorder| self.account(&batch, &recorder, &result, is_taped));
        let taped = accounted.as_ref().and_then(|accounted| accounted.taped);
        let result = result.and_then(|effects| {
            let timers = effects.timers.iter().map(|(name, timer)| (name, timer.is_some()));
            match self.core.timers_after(timers) {
                ..=TIMERS_MAX => Ok(effects),
                _ => Err(Fault::refused(format!("more than {TIMERS_MAX} timers"))),
            }
        });
        let result = match result {
            Ok(effects) => {
                let view = self.claim.as_ref().map(|claim| Arc::clone(&claim.view));
                let room = make_room(&Arc::clone(&self.channel.quota), view, &effects).await;
                room.map(|room| (effects, room))
            }
            Err(fault) => Err(fault),
        };
        let out = match result {
            Ok((effects, room)) => {
                self.over = None;
                self.stay_swapped();
                // Not before there is room for it: without, the same events run once more.
                if let Some(Accounted { reads, told: Some(told), .. }) = accounted {
                    self.shadow_batch(&batch, reads, told);
                }
                let timers: Vec<_> = effects
                    .timers
                    .iter()
                    .map(|(name, timer)| (name.clone(), timer.map(|timer| (timer.due_ms, timer.durable))))
                    .collect();
                let mut prepared = self.prepare(batch, effects, changes);
                prepared.taped = taped;
                prepared.room = room;
                let wrote = prepared.commit.is_some();
                self.prepared.push((id, prepared));
                self.core.ran(wrote, timers)
            }
            Err(fault) => {
                self.taping.discard(taped);
                self.take_back(
                    changes.iter().filter(|change| change.from.is_some()).map(|change| change.recipient.member),
                );
                self.count_fault(&fault);
                // What is around it would have failed the version before as well.
                if fault.is_plugins() && self.before.is_some() && Box::pin(self.go_back()).await {
                    return;
                }
                if fault.is_plugins() && self.leave_trial() {
                    return;
                }
                let why = match &fault {
                    Fault::Quota { over } => {
                        self.over = Some(over.clone());
                        BatchFailure::TooMuch
                    }
                    fault if fault.is_plugins() => BatchFailure::Plugin,
                    _ => BatchFailure::Surroundings,
                };
                self.core.failed(why, now_ms())
            }
        };
        self.carry_out(out).await;
    }

    /// What a batch did, for whoever wants to know: told to the tape here, and kept for what runs beside.
    fn account(
        &mut self,
        batch: &Arc<Batch>,
        recorder: &Recorder,
        result: &Result<Effects, Fault>,
        is_taped: bool,
    ) -> Accounted {
        let told = result.as_ref().map(account).map_err(Clone::clone);
        let reads = recorder.take();
        let taped = is_taped.then(|| self.taping.batch(batch, reads.clone(), &told)).flatten();
        Accounted { taped, reads, told: told.ok() }
    }

    /// Lets the batch's joins and leaves take hold on the roster, before the plugin runs.
    fn change_members(&mut self, batch: &Batch) -> Vec<Change> {
        let mut changes: Vec<Change> = Vec::new();
        for (event, index) in batch.events.iter().zip(0_u32..) {
            match event {
                Event::Join { member, .. } => {
                    if let Some(recipient) = self.joiner(*member)
                        && self.with_roster(|roster| roster.insert(recipient.clone()))
                    {
                        changes.push(Change { recipient, from: Some(index), until: None });
                    }
                }
                Event::Leave { member, .. } => {
                    let gone = self.with_roster(|roster| roster.remove(*member));
                    let Some(recipient) = gone.or_else(|| self.leaving.get(member).cloned()) else { continue };
                    self.leaving.insert(*member, recipient.clone());
                    match changes.iter_mut().find(|change| change.recipient.member == *member) {
                        Some(change) => change.until = Some(index),
                        None => changes.push(Change { recipient, from: None, until: Some(index) }),
                    }
                }
                _ => {}
            }
        }
        changes
    }

    /// Who joined in a batch that failed is no member. Who left stays away; only its last frames are open.
    fn take_back(&mut self, joined: impl Iterator<Item = MemberId>) {
        for member in joined {
            self.with_roster(|roster| drop(roster.remove(member)));
        }
    }

    pub(super) fn take_prepared(&mut self, id: BatchId) -> Option<Prepared> {
        let at = self.prepared.iter().position(|(prepared, _)| *prepared == id)?;
        Some(self.prepared.remove(at).1)
    }

    /// The writes of a batch were given up: it leaves no trace.
    pub(super) fn discard(&mut self, id: BatchId) {
        if let Some(prepared) = self.take_prepared(id) {
            self.taping.discard(prepared.taped);
            self.take_back(prepared.joined.into_iter());
        }
    }

    /// Joins that the plugin rejects end where they began: such a member gets what was sent to it alone, and nothing else; and
    /// what it sent meanwhile is not run.
    fn end_rejected_joins(&mut self, rejects: &[(u32, Refusal)], changes: &mut Vec<Change>) {
        let is_rejected =
            |change: &Change| change.from.is_some_and(|from| rejects.iter().any(|(rejected, _)| *rejected == from));
        let rejected: Vec<usize> = (0..changes.len()).filter(|at| is_rejected(&changes[*at])).collect();
        for at in rejected.into_iter().rev() {
            let member = changes[at].recipient.member;
            self.with_roster(|roster| drop(roster.remove(member)));
            self.rejected.insert(member);
            self.orphans.extend(self.core.forget(member));
            if changes[..at].iter().any(|earlier| earlier.recipient.member == member) {
                // It left in this very batch, and gets what was sent before that.
                changes.remove(at);
            } else {
                changes[at].until = changes[at].from;
            }
        }
    }

    fn prepare(&mut self, batch: Arc<Batch>, mut effects: Effects, mut changes: Vec<Change>) -> Prepared {
        self.end_rejected_joins(&effects.rejects, &mut changes);
        let followed = self.directory.tails.is_followed(&self.channel.name);
        let told = followed.then(|| Box::new(Told::of(&batch, &effects, self.assigned.version.digest())));
        let burst = std::mem::take(&mut effects.frames).finish();
        let plan = self.with_roster(|roster| plan(burst, roster, &changes));
        let joined =
            changes.iter().filter(|change| change.from.is_some()).map(|change| change.recipient.member).collect();
        let writes = self.writes(&batch, &mut effects);
        let mut position = (0, 0);
        let mut commit = None;
        if let Some(claim) = &mut self.claim {
            if !writes.is_empty() {
                let durability = self.channel.logic.durability;
                let submitted = Arc::new(Commit { fence: claim.fence, durability, writes });
                claim.view.submitted(&submitted);
                claim.fence.seq += 1;
                commit = Some(submitted);
            }
            position = (claim.fence.epoch, claim.fence.seq);
        }
        Prepared {
            commit,
            batch,
            plan,
            joined,
            closes: effects.closes,
            rejects: effects.rejects,
            publishes: effects.publishes,
            responses: effects.responses,
            position,
            taped: None,
            room: None,
            told,
        }
    }

    /// The effects that the store keeps.
    fn writes(&mut self, batch: &Batch, effects: &mut Effects) -> Writes {
        let spent = std::mem::take(&mut self.spent_timers);
        let Some(claim) = &mut self.claim else { return Writes::default() };
        let (first, next) = claim.view.log_bounds();
        let appends: Vec<LogEntry> = std::mem::take(&mut effects.appends)
            .into_iter()
            .zip(next..)
            .map(|(data, offset)| LogEntry { offset, at_ms: batch.now_ms, data })
            .collect();
        let mut timers: std::collections::BTreeMap<String, Option<u64>> =
            spent.into_iter().map(|name| (name, None)).collect();
        for event in &batch.events {
            if let Event::Timer { name, durable: true } = event {
                timers.insert(name.clone(), None);
            }
        }
        for (name, timer) in &effects.timers {
            match timer {
                Some(timer) if timer.durable => drop(timers.insert(name.clone(), Some(timer.due_ms))),
                // Volatile timers are not written; but one may take the place of a durable one.
                _ if claim.durable_timers.contains(name) => drop(timers.insert(name.clone(), None)),
                _ => {}
            }
        }
        for (name, due_ms) in &timers {
            match due_ms {
                Some(_) => drop(claim.durable_timers.insert(name.clone())),
                None => drop(claim.durable_timers.remove(name)),
            }
        }
        let position = (claim.fence.epoch, claim.fence.seq + 1);
        let answers = batch.events.iter().zip(0_u32..).filter_map(|(event, index)| {
            let Event::Publish { source: Source::Api(sender), idempotency_key: Some(key), .. } = event else {
                return None;
            };
            let rejected = effects.rejects.iter().any(|(rejected, _)| *rejected == index);
            (!rejected).then(|| Answer {
                sender: sender.to_string(),
                key: key.to_string(),
                answer: encode_position(position),
                at_ms: batch.now_ms,
            })
        });
        let answers = answers.collect();
        let length = next + appends.len() as u64 - first;
        let trim_before =
            effects.trim_before.max(over(length, self.channel.logic.limits.log_entries_max).map(|over| first + over));
        let mut writes = Writes {
            state: std::mem::take(&mut effects.state).into_iter().collect::<Vec<(String, Option<Bytes>)>>(),
            appends,
            replaces: std::mem::take(&mut effects.replaces).into_iter().collect(),
            trim_before,
            timers: timers.into_iter().collect(),
            answers,
            ..Writes::default()
        };
        writes.version = claim.pin(self.assigned.version.digest(), &writes);
        writes
    }

    /// Lets a batch out: frames first, then what follows from it.
    pub(super) async fn release(&mut self, id: BatchId) {
        let Some((_, prepared)) = self.prepared.iter_mut().find(|(prepared, _)| *prepared == id) else { return };
        let plan = std::mem::take(&mut prepared.plan);
        // With durability `none` the writes are still on their way: keep them until they are committed.
        let keep = prepared.commit.is_some() && self.channel.logic.durability == crate::store::Durability::None;
        let batch = Arc::clone(&prepared.batch);
        let closes = std::mem::take(&mut prepared.closes);
        let rejects = std::mem::take(&mut prepared.rejects);
        let publishes = std::mem::take(&mut prepared.publishes);
        let responses = std::mem::take(&mut prepared.responses);
        prepared.joined.clear(); // They are members now, whatever becomes of the writes.
        let (epoch, seq) = prepared.position;
        let (told, wrote) = (prepared.told.take(), prepared.commit.is_some());
        if !keep {
            drop(self.take_prepared(id));
        }
        if !plan.is_empty() {
            self.channel.quota.count_sent(plan.send().await);
        }
        // Found now: a rejected join ends a membership.
        let closing: Vec<_> = closes
            .into_iter()
            .filter_map(|(member, code, reason)| Some((self.recipient(member)?, code, reason)))
            .collect();
        for (event, why) in &rejects {
            if let Some(event) = batch.events.get(*event as usize) {
                Box::pin(self.reject(event, why)).await;
            }
        }
        for (request, response) in responses {
            self.answer(Some(request), Reply::Response(response));
        }
        for (event, index) in batch.events.iter().zip(0_u32..) {
            match event {
                Event::Join { member, .. } => self.settle_join(*member),
                Event::Leave { member, .. } => self.forget_left(*member),
                Event::Publish { request, .. } if !rejects.iter().any(|(rejected, _)| *rejected == index) => {
                    self.answer(*request, Reply::Published { epoch, seq });
                }
                _ => {}
            }
        }
        for (recipient, code, reason) in closing {
            recipient.outbox.close_with(code, &reason);
        }
        let hops = batch.events.iter().map(hops).max().unwrap_or(0);
        for (name, payload) in publishes {
            self.publish(&name, payload, hops);
        }
        if let Some(told) = told {
            let line = told.at(Position { at: (epoch, seq), wrote });
            self.directory.tails.tell(&self.channel.name, &line.into());
        }
    }

    pub(super) fn joiner(&self, member: MemberId) -> Option<Recipient> {
        self.joining.get(&member).map(|(recipient, _)| recipient.clone())
    }

    /// A join took hold, or was refused. The member may have sent another one behind it.
    pub(super) fn settle_join(&mut self, member: MemberId) {
        if let Some((_, joins)) = self.joining.get_mut(&member) {
            *joins -= 1;
            if *joins == 0 {
                self.joining.remove(&member);
            }
        }
    }

    /// A leave took hold. If the connection joined again meanwhile, that membership goes on.
    pub(super) fn forget_left(&mut self, member: MemberId) {
        self.leaving.remove(&member);
        let stays = self.joining.contains_key(&member) || self.with_roster(|roster| roster.find(member).is_some());
        if !stays && let Some(membership) = self.memberships.remove(&member) {
            membership.end();
        }
    }

    /// Sends a message to another channel, without waiting for it.
    fn publish(&mut self, name: &str, payload: Payload, hops: u8) {
        let from = &self.channel.name;
        if hops >= PUBLISH_HOPS_MAX {
            tracing::warn!(channel = %from, to = name, "a chain of publishes from channel to channel is cut here");
            metrics::counter!("hotbay_publishes_dropped_total").increment(1);
            return;
        }
        let Ok(to) = ChannelName::new(from.tenant(), name) else { return };
        let source = Source::Channel(from.name().into());
        let event = Event::Publish { source, payload, request: None, idempotency_key: None, hops: hops + 1 };
        self.courier.send(&self.directory, &self.channel.logic, to, event);
    }
}

/// Takes room for what a batch adds to what its tenant keeps, if that has a limit. What is replaced is looked up only where all of it
/// together would be too much.
async fn make_room(quota: &Arc<Quota>, view: Option<Arc<View>>, effects: &Effects) -> Result<Option<Room>, Fault> {
    let Some(view) = view.filter(|_| quota.limits_storage()) else { return Ok(None) };
    let bytes = |key: &str, value: Option<&Bytes>| value.map_or(0, |value| (key.len() + value.len()) as u64);
    let state = effects.state.iter().map(|(key, value)| bytes(key, value.as_ref())).sum();
    let appended = effects.appends.iter().map(|data| data.len() as u64).sum::<u64>();
    let log = appended + effects.replaces.values().map(|data| data.len() as u64).sum::<u64>();
    if let Ok(room) = quota.try_room(Kept { state, log }) {
        return Ok(Some(room));
    }
    let mut before = Kept::default();
    for key in effects.state.keys() {
        before.state += bytes(key, view.get(key).await?.as_ref());
    }
    for offset in effects.replaces.keys() {
        let entries = view.read_log(*offset, offset + 1, 1).await?;
        before.log += entries.iter().map(|(.., data)| data.len() as u64).sum::<u64>();
    }
    let more = Kept { state: state.saturating_sub(before.state), log: log.saturating_sub(before.log) };
    quota.make_room(more).map(Some).map_err(|over| Fault::Quota { over: over.to_string() })
}

fn hops(event: &Event) -> u8 {
    match event {
        Event::Publish { hops, .. } => *hops,
        _ => 0,
    }
}

/// By how much a number is over its bound.
fn over(number: u64, max: u64) -> Option<u64> {
    (number > max).then(|| number - max)
}
