//! The rules of a channel, without IO: what to do next, what a fault costs and whom, when effects may leave, when to sleep.
//! The [actor](super::actor) does what the core says and tells it how it went; the simulator in `tests/sim` does the same
//! with a fake plugin and a fake store.
//!
//! A batch goes through [`Core::next`] (`Run`), [`Core::ran`], a commit, [`Core::committed`], and leaves by
//! [`Output::Release`]. The next one runs when it came back, so that what came in meanwhile is one batch; only where effects do
//! not wait for the disk, two may be on the way. They are committed one after another and leave in that order.

mod step;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use crate::channel::sleep::Wakeful;
use crate::limits::{BATCHES_ON_THE_WAY_MAX, FAULTS_IN_A_ROW_MAX, MountLimits, QUARANTINE_MS};
use crate::protocol::event::{Batch, Event, MemberId};
use crate::protocol::refusal::RefusalCode;

pub use crate::channel::core::step::{BatchFailure, BatchId, CommitFailure, Output, StartFailure, Step};

/// First pause before something that failed for a passing reason is tried again; it doubles up to
/// [`RETRY_MS_MAX`].
const RETRY_MS_MIN: u64 = 20;
const RETRY_MS_MAX: u64 = 500;

/// The rules of one channel.
pub struct Core {
    limits: Arc<MountLimits>,
    /// Effects leave without waiting for their commit.
    release_early: bool,
    awake: bool,
    /// Woken for a timer that only the store knows.
    poked: bool,
    stopping: bool,
    /// No batch begins beside one that is on its way: the instance is to be replaced when that has left.
    settling: bool,
    now_ms: u64,
    /// Events taken from the mailbox, not yet run.
    fresh: VecDeque<Event>,
    /// Events of a failed batch, to be run one by one.
    again: VecDeque<Event>,
    timers: BTreeMap<String, Alarm>,
    running: Option<Running>,
    pipeline: VecDeque<OnTheWay>,
    /// Refusals that follow what is on its way: a client must not learn of a later message before an earlier one.
    held: Vec<Output>,
    next_batch: u64,
    last_event_ms: u64,
    member_faults: HashMap<MemberId, u32>,
    /// Faults in a row; those of one member after another count once.
    channel_faults: u32,
    last_culprit: Option<MemberId>,
    quarantined_until_ms: u64,
    quarantine_ms: u64,
    unavailable_since_ms: Option<u64>,
    retry_at_ms: u64,
}

#[derive(Debug, Clone, Copy)]
struct Alarm {
    due_ms: u64,
    durable: bool,
}

struct Running {
    id: BatchId,
    batch: Arc<Batch>,
    alone: bool,
}

struct OnTheWay {
    id: BatchId,
    batch: Arc<Batch>,
    commit: CommitState,
    released: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CommitState {
    /// Waits for those before it.
    Ready,
    /// At the store since then, the `u32`th time.
    UnderWay { since_ms: u64, tries: u32 },
    /// On disk, or nothing was written.
    Done,
}

impl Core {
    /// A channel with neither claim nor instance. `release_early` is durability `none`.
    pub fn new(limits: Arc<MountLimits>, release_early: bool, now_ms: u64) -> Self {
        Self {
            limits,
            release_early,
            awake: false,
            poked: false,
            stopping: false,
            settling: false,
            now_ms,
            fresh: VecDeque::new(),
            again: VecDeque::new(),
            timers: BTreeMap::new(),
            running: None,
            pipeline: VecDeque::new(),
            held: Vec::new(),
            next_batch: 0,
            last_event_ms: now_ms,
            member_faults: HashMap::new(),
            channel_faults: 0,
            last_culprit: None,
            quarantined_until_ms: 0,
            quarantine_ms: 0,
            unavailable_since_ms: None,
            retry_at_ms: 0,
        }
    }

    /// How many events and bytes the core takes from the mailbox now: a batch's worth, once it has run what it took.
    /// `early` also while a batch is on the way: then it waits here.
    pub fn appetite(&self, early: bool) -> (usize, usize) {
        let full = (self.is_full() && !early) || !self.held.is_empty();
        if full || !self.fresh.is_empty() || !self.again.is_empty() {
            (0, 0)
        } else {
            (self.limits.batch_events_max, self.limits.batch_bytes_max)
        }
    }

    fn is_full(&self) -> bool {
        let beside = self.release_early && !self.settling;
        self.pipeline.len() >= if beside { BATCHES_ON_THE_WAY_MAX } else { 1 }
    }

    /// Takes events from the mailbox.
    pub fn accept(&mut self, events: impl IntoIterator<Item = Event>, now_ms: u64) {
        self.tick(now_ms);
        let before = self.fresh.len();
        self.fresh.extend(events);
        if self.fresh.len() > before {
            self.last_event_ms = self.now_ms;
        }
    }

    /// A timer of the channel is due: take it over to see which.
    pub fn poke(&mut self) {
        self.poked = !self.awake;
    }

    /// Finish what is there, then sleep.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Whether it was told to stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Whether nothing is on its way and an instance is open, so that another one may take its place. With `wanted`, it will be as soon as
    /// what is on its way has left.
    pub fn settle(&mut self, wanted: bool) -> bool {
        self.settling = wanted;
        wanted && self.awake && self.pipeline.is_empty() && self.again.is_empty()
    }

    /// A batch without events: what `open` of an instance that took another one's place asked for takes hold with it. Then
    /// [`Core::ran`], or [`Core::undo`].
    pub fn run_nothing(&mut self, seed: u64, now_ms: u64) -> Option<(BatchId, Arc<Batch>)> {
        self.tick(now_ms);
        if !self.fresh.is_empty() || !self.again.is_empty() {
            return None; // The next batch is the first one.
        }
        Some(self.begin(Vec::new(), false, seed))
    }

    /// The batch that ran failed on an instance that had just taken another one's place, and left no trace: that one is back, and runs its
    /// events as if nothing had been.
    pub fn undo(&mut self) {
        let Some(running) = self.running.take() else { return };
        // Where it came from: what was to run alone goes before what is fresh.
        let queue = if running.alone { &mut self.again } else { &mut self.fresh };
        running.batch.events.iter().rev().for_each(|event| queue.push_front(event.clone()));
    }

    /// The instance is spent, though no batch of it failed.
    pub fn lose_instance(&mut self) {
        self.awake = false;
    }

    /// Says what to do next. `busy` keeps the channel awake: somebody waits for an answer.
    pub fn next(&mut self, now_ms: u64, seed: u64, busy: bool, idle_ms: u64) -> Step {
        self.tick(now_ms);
        let timer_ms = self.timers.values().map(|alarm| alarm.due_ms).min().unwrap_or(u64::MAX);
        // A node that goes down leaves timers to the store.
        let timer_due = !self.stopping && (timer_ms <= self.now_ms || self.poked);
        let due = !self.fresh.is_empty() || !self.again.is_empty() || timer_due;
        if due && !self.is_full() {
            let ready_ms = self.quarantined_until_ms.max(self.retry_at_ms);
            if self.awake {
                return self.run(seed);
            }
            // A node that goes down tries once more at once: if that fails, whoever waits is told.
            if ready_ms > self.now_ms && !self.stopping {
                return Step::Wait { until_ms: ready_ms };
            }
            // An instance is opened from what is committed, so what is on its way goes first.
            if self.pipeline.is_empty() {
                return Step::Start;
            }
        }
        if !self.pipeline.is_empty() {
            let runs_beside = self.awake && !self.is_full() && !self.stopping;
            return Step::Wait { until_ms: if runs_beside { timer_ms } else { u64::MAX } };
        }
        let idle_until_ms = self.last_event_ms.saturating_add(idle_ms).max(self.remember_until_ms());
        let volatile = self.timers.values().any(|alarm| !alarm.durable);
        let sleepy = self.stopping || (!busy && !volatile && idle_until_ms <= self.now_ms);
        if !due && sleepy {
            return Step::Sleep;
        }
        let idle_until_ms = if busy || volatile { u64::MAX } else { idle_until_ms };
        Step::Wait { until_ms: timer_ms.min(idle_until_ms) }
    }

    /// Whether nothing that was taken in is left to do.
    pub fn is_quiet(&self) -> bool {
        let done = self.running.is_none() && self.pipeline.is_empty() && self.held.is_empty();
        done && self.fresh.is_empty() && self.again.is_empty()
    }

    /// What keeps it awake, however long nothing happens. Timers of the store do not: they wake it.
    pub fn keeps_awake(&mut self, now_ms: u64) -> Option<Wakeful> {
        self.tick(now_ms);
        let left_ms = self.remember_until_ms().saturating_sub(self.now_ms);
        if left_ms > 0 {
            return Some(Wakeful::Faults { left_ms });
        }
        let (name, _) = self.timers.iter().find(|(_, alarm)| !alarm.durable)?;
        Some(Wakeful::VolatileTimer { name: name.clone() })
    }

    /// Faults are remembered for as long again as the quarantine they led to.
    fn remember_until_ms(&self) -> u64 {
        self.quarantined_until_ms + self.quarantine_ms
    }

    /// The channel was taken over and an instance is open. `timers` are those the store has: name and due time.
    pub fn started(&mut self, timers: Option<Vec<(String, u64)>>) {
        self.awake = true;
        self.poked = false;
        self.unavailable_since_ms = None;
        for (name, due_ms) in timers.into_iter().flatten() {
            if !self.again.iter().chain(&self.fresh).any(|event| is_timer(event, &name)) {
                self.timers.insert(name, Alarm { due_ms, durable: true });
            }
        }
    }

    /// No instance could be opened.
    pub fn start_failed(&mut self, why: StartFailure, now_ms: u64) -> Vec<Output> {
        self.tick(now_ms);
        let mut out = vec![Output::DropInstance];
        match why {
            StartFailure::Plugin => self.count_fault(None, &mut out),
            StartFailure::Unavailable => {
                out.push(Output::DropClaim);
                let since_ms = *self.unavailable_since_ms.get_or_insert(self.now_ms);
                self.retry_at_ms = self.now_ms + RETRY_MS_MAX;
                if self.now_ms.saturating_sub(since_ms) >= self.limits.commit_ms_max || self.stopping {
                    self.refuse_waiting(&mut out);
                }
                self.keep_volatile_timers();
            }
        }
        out
    }

    /// The batch ran. `wrote` says whether there is something to commit.
    pub fn ran(&mut self, wrote: bool, timers: impl IntoIterator<Item = (String, Option<(u64, bool)>)>) -> Vec<Output> {
        let mut out = Vec::new();
        let Some(running) = self.running.take() else { return out };
        self.channel_faults = 0;
        self.quarantine_ms = 0;
        self.last_culprit = None;
        if !self.member_faults.is_empty() {
            running.batch.events.iter().filter_map(Event::member).for_each(|member| {
                self.member_faults.remove(&member);
            });
        }
        for (name, alarm) in timers {
            // Also one that fired, and waits to be run again.
            self.again.retain(|event| !is_timer(event, &name));
            self.fresh.retain(|event| !is_timer(event, &name));
            match alarm {
                Some((due_ms, durable)) => drop(self.timers.insert(name, Alarm { due_ms, durable })),
                None => drop(self.timers.remove(&name)),
            }
        }
        let commit = if wrote { CommitState::Ready } else { CommitState::Done };
        let released = self.release_early;
        if released {
            out.push(Output::Release(running.id));
        }
        self.pipeline.push_back(OnTheWay { id: running.id, batch: running.batch, commit, released });
        self.pump(&mut out);
        out
    }

    /// The batch failed and left no trace.
    pub fn failed(&mut self, why: BatchFailure, now_ms: u64) -> Vec<Output> {
        self.tick(now_ms);
        let Some(running) = self.running.take() else { return Vec::new() };
        self.awake = false;
        let mut out = vec![Output::DropInstance, Output::Discard(running.id)];
        let events = running.batch.events.iter().cloned();
        // A part of it may fit, where all of it was too much.
        if why == BatchFailure::Surroundings || (why == BatchFailure::TooMuch && running.alone) {
            for event in events {
                match event {
                    Event::Timer { name, durable } => {
                        self.timers.insert(name, Alarm { due_ms: self.now_ms + RETRY_MS_MAX, durable });
                    }
                    event => self.in_turn(Output::Refuse(event, RefusalCode::Unavailable), &mut out),
                }
            }
        } else if !running.alone {
            self.again = events.collect();
        } else {
            let culprit = running.batch.events.first().and_then(Event::member);
            for event in events {
                self.in_turn(Output::Refuse(event, RefusalCode::Fault), &mut out);
            }
            if let Some(member) = culprit {
                let faults = self.member_faults.entry(member).or_insert(0);
                *faults += 1;
                if *faults >= FAULTS_IN_A_ROW_MAX {
                    self.member_faults.remove(&member);
                    self.in_turn(Output::CloseMember(member), &mut out);
                }
            }
            self.count_fault(culprit, &mut out);
        }
        out
    }

    /// A commit succeeded.
    pub fn committed(&mut self, id: BatchId) -> Vec<Output> {
        let mut out = Vec::new();
        if let Some(entry) = self.pipeline.front_mut().filter(|entry| entry.id == id) {
            entry.commit = CommitState::Done;
        }
        self.pump(&mut out);
        out
    }

    /// A commit failed.
    pub fn commit_failed(&mut self, id: BatchId, why: CommitFailure, now_ms: u64) -> Vec<Output> {
        self.tick(now_ms);
        let now_ms = self.now_ms;
        let Some(entry) = self.pipeline.front_mut().filter(|entry| entry.id == id) else { return Vec::new() };
        if let (CommitFailure::Passing, CommitState::UnderWay { since_ms, tries }) = (why, entry.commit) {
            if now_ms.saturating_sub(since_ms) < self.limits.commit_ms_max {
                let pause_ms = (RETRY_MS_MIN << tries.min(10)).min(RETRY_MS_MAX);
                entry.commit = CommitState::UnderWay { since_ms, tries: tries + 1 };
                return vec![Output::CommitAgain(id, pause_ms)];
            }
            // Who waits behind it waited for the same store: it has no time of its own to come back.
            self.unavailable_since_ms.get_or_insert(since_ms);
        }
        // Refused at the first try, it certainly had no effect.
        let unsure = why == CommitFailure::Passing || !matches!(entry.commit, CommitState::UnderWay { tries: 0, .. });
        // The instance is ahead of the store: begin anew.
        self.awake = false;
        self.keep_volatile_timers();
        let mut out = vec![Output::DropInstance, Output::DropClaim];
        for entry in std::mem::take(&mut self.pipeline) {
            out.push(Output::Discard(entry.id));
            if !entry.released {
                let tried = entry.id == id && unsure;
                let refuse = |event| {
                    if tried { Output::Unsure(event) } else { Output::Refuse(event, RefusalCode::Unavailable) }
                };
                out.extend(entry.batch.events.iter().cloned().map(refuse));
            }
        }
        out.append(&mut self.held);
        out
    }

    fn run(&mut self, seed: u64) -> Step {
        let (events, alone) = if let Some(event) = self.again.pop_front() {
            (vec![event], true)
        } else {
            let mut events = self.due_timers();
            let room = self.limits.batch_events_max.saturating_sub(events.len()).max(1);
            self.take_fresh(room, &mut events);
            let alone = events.len() == 1;
            (events, alone)
        };
        let (id, batch) = self.begin(events, alone, seed);
        Step::Run(id, batch)
    }

    fn begin(&mut self, events: Vec<Event>, alone: bool, seed: u64) -> (BatchId, Arc<Batch>) {
        let id = BatchId(self.next_batch);
        self.next_batch += 1;
        let batch = Arc::new(Batch { now_ms: self.now_ms, seed, events });
        self.running = Some(Running { id, batch: Arc::clone(&batch), alone });
        (id, batch)
    }

    /// Takes what came from the mailbox. A batch ends before the first event of a member that joins in it: whether the join
    /// holds is known only when the batch has run.
    fn take_fresh(&mut self, room: usize, events: &mut Vec<Event>) {
        let mut joining: Vec<MemberId> = Vec::new();
        for _ in 0..room {
            let Some(event) = self.fresh.front() else { return };
            let member = event.member();
            if member.is_some_and(|member| joining.contains(&member)) {
                return;
            }
            if matches!(event, Event::Join { .. }) {
                joining.extend(member);
            }
            events.extend(self.fresh.pop_front());
        }
    }

    /// A member's join was refused: what it sent meanwhile, and has not run, comes back.
    pub fn forget(&mut self, member: MemberId) -> Vec<Event> {
        let mut orphans = Vec::new();
        for queue in [&mut self.again, &mut self.fresh] {
            for event in std::mem::take(queue) {
                if event.member() == Some(member) {
                    orphans.push(event);
                } else {
                    queue.push_back(event);
                }
            }
        }
        orphans
    }

    /// Takes the timers that are due, earliest first. Those of a failed batch come back with its events.
    fn due_timers(&mut self) -> Vec<Event> {
        let now_ms = self.now_ms;
        let is_due = |(name, alarm): (&String, &Alarm)| (alarm.due_ms <= now_ms).then(|| (alarm.due_ms, name.clone()));
        let mut due: Vec<(u64, String)> = self.timers.iter().filter_map(is_due).collect();
        due.sort_unstable();
        due.truncate(self.limits.batch_events_max);
        let take = |(_, name): (u64, String)| {
            let alarm = self.timers.remove(&name)?;
            Some(Event::Timer { name, durable: alarm.durable })
        };
        due.into_iter().filter_map(take).collect()
    }

    /// Lets out, in order, what is committed, and submits the next commit.
    fn pump(&mut self, out: &mut Vec<Output>) {
        while let Some(entry) = self.pipeline.front_mut() {
            match entry.commit {
                CommitState::Done => {
                    if !entry.released {
                        out.push(Output::Release(entry.id));
                    }
                    self.pipeline.pop_front();
                }
                CommitState::Ready => {
                    entry.commit = CommitState::UnderWay { since_ms: self.now_ms, tries: 0 };
                    out.push(Output::Commit(entry.id));
                    return;
                }
                CommitState::UnderWay { .. } => return,
            }
        }
        out.append(&mut self.held);
    }

    /// Puts something out once everything before it has left. Nobody is told of timers, so they need not wait.
    fn in_turn(&mut self, output: Output, out: &mut Vec<Output>) {
        let told = !matches!(output, Output::Refuse(Event::Timer { .. }, _));
        if told && !self.pipeline.is_empty() { self.held.push(output) } else { out.push(output) }
    }

    /// Counts a fault of the channel. One member's faults in a row count once: closing it removes the cause.
    fn count_fault(&mut self, culprit: Option<MemberId>, out: &mut Vec<Output>) {
        if culprit.is_none() || culprit != self.last_culprit {
            self.channel_faults += 1;
        }
        self.last_culprit = culprit;
        if self.channel_faults < FAULTS_IN_A_ROW_MAX {
            return;
        }
        let (first_ms, longest_ms) = QUARANTINE_MS;
        self.quarantine_ms = (self.quarantine_ms * 2).clamp(first_ms, longest_ms);
        self.quarantined_until_ms = self.now_ms + self.quarantine_ms;
        // One more fault afterwards is enough for the next, longer one.
        self.channel_faults = FAULTS_IN_A_ROW_MAX - 1;
        out.push(Output::Quarantine(self.quarantined_until_ms));
        self.refuse_waiting(out);
    }

    /// Whether the channel takes no events now, and until when.
    pub fn quarantine(&self, now_ms: u64) -> Option<u64> {
        (self.quarantined_until_ms > now_ms).then_some(self.quarantined_until_ms)
    }

    /// The claim is gone, and durable timers come back with it. Volatile ones outlive an instance: nobody would set them again, and a
    /// channel with members may wait for nothing else.
    fn keep_volatile_timers(&mut self) {
        self.timers.retain(|_, alarm| !alarm.durable);
    }

    /// Refuses what waits, because the channel cannot serve it now. Timers wait on: nobody would set them again.
    pub fn refuse_waiting(&mut self, out: &mut Vec<Output>) {
        self.poked = false; // The store's timers wake the channel again.
        let waiting: Vec<Event> = self.again.drain(..).chain(self.fresh.drain(..)).collect();
        for event in waiting {
            match event {
                Event::Timer { name, durable } => {
                    self.timers.insert(name, Alarm { due_ms: self.now_ms, durable });
                }
                event => self.in_turn(Output::Refuse(event, RefusalCode::Unavailable), out),
            }
        }
    }

    /// How many timers are set when these are set or cancelled.
    pub fn timers_after<'a>(&self, changes: impl IntoIterator<Item = (&'a String, bool)>) -> usize {
        changes.into_iter().fold(self.timers.len(), |count, (name, set)| match (self.timers.contains_key(name), set) {
            (false, true) => count + 1,
            (true, false) => count - 1,
            _ => count,
        })
    }

    /// Time never goes back for a channel, whatever the machine's clock does.
    fn tick(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
    }
}

/// Whether it is that timer that fired.
fn is_timer(event: &Event, name: &str) -> bool {
    matches!(event, Event::Timer { name: fired, .. } if fired == name)
}
