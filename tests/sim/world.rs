//! Everything around the core: members who join, write and leave, a plugin that fails, a store that fails, a clock that
//! jumps. Does what [the actor](hotbay::channel) does, with one random choice after the other from one seed.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use hotbay::channel::core::{BatchId, CommitFailure, Core, Output, StartFailure, Step};
use hotbay::limits::MountLimits;
use hotbay::protocol::event::{Batch, Event, LeaveReason, MemberId, RequestId, Source};
use hotbay::protocol::frame::Payload;
use hotbay::protocol::identity::Identity;
use hotbay::protocol::refusal::RefusalCode;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::oracle::{Cause, Oracle, number};

const IDLE_MS: u64 = 3_000;
/// How often the store is asked for due timers of sleeping channels.
const POLL_MS: u64 = 500;
/// Starts and runs within one second without anything new: more is a loop that burns a processor.
const WORK_PER_SECOND_MAX: u32 = 150;

/// What the plugin does with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nature {
    Good { writes: bool },
    /// Traps whenever it comes.
    Poison,
    /// Traps, unless it comes alone.
    TrapsInCompany,
    /// Reads the store, which may not answer.
    Reads,
}

/// What fails at the moment, in percent.
#[derive(Debug, Default, Clone, Copy)]
struct Weather {
    commit_passing: u32,
    commit_final: u32,
    /// Of the failed commits, how many took hold nevertheless.
    commit_held: u32,
    commit_ms: u64,
    acquire: u32,
    open: u32,
    read: u32,
    poison: u32,
    clock_jumps: bool,
}

struct Prepared {
    wrote: bool,
    /// Durable timers set and forgotten.
    timers: Vec<(String, Option<u64>)>,
    early: bool,
}

#[derive(Default)]
struct Store {
    timers: BTreeMap<String, u64>,
    /// Batches of this core that took hold.
    applied: HashSet<BatchId>,
}

struct Attempt {
    id: BatchId,
    answer_at_ms: u64,
}

pub(crate) struct World {
    pub(crate) oracle: Oracle,
    rng: StdRng,
    limits: Arc<MountLimits>,
    early: bool,
    /// The machine's clock, which jumps; and the time that really passed.
    wall_ms: u64,
    real_ms: u64,
    /// The latest that the clock ever showed to this core.
    core_ms: u64,
    core: Option<Core>,
    weather: Weather,
    mailbox: VecDeque<Event>,
    natures: HashMap<u64, Nature>,
    store: Store,
    attempt: Option<Attempt>,
    claim: bool,
    instance: bool,
    prepared: BTreeMap<BatchId, Prepared>,
    /// Durable timers that faulted: forgotten with the next commit.
    spent: Vec<String>,
    /// Durable timers whose reads failed, and until when they may pause.
    pausing: HashMap<String, u64>,
    /// Volatile timers the instance has set.
    volatile: HashSet<String>,
    members: Vec<MemberId>,
    last_event_ms: u64,
    busy: bool,
    stopping: bool,
    /// The clock of sleeping channels found a due timer while the channel was awake.
    poked: bool,
    next_poll_ms: u64,
    next_number: u64,
    work: (u64, u32),
}

fn identity() -> Identity {
    Identity::new("default", "user", "", "{}", None)
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let limits = MountLimits {
            batch_events_max: rng.random_range(1..=8),
            commit_ms_max: rng.random_range(200..=4_000),
            ..MountLimits::default()
        };
        let mut world = Self {
            oracle: Oracle::default(),
            early: rng.random_range(0..5) == 0,
            rng,
            limits: Arc::new(limits),
            wall_ms: 1_000_000_000,
            real_ms: 0,
            core_ms: 0,
            core: None,
            weather: Weather::default(),
            mailbox: VecDeque::new(),
            natures: HashMap::new(),
            store: Store::default(),
            attempt: None,
            claim: false,
            instance: false,
            prepared: BTreeMap::new(),
            spent: Vec::new(),
            pausing: HashMap::new(),
            volatile: HashSet::new(),
            members: Vec::new(),
            last_event_ms: 0,
            busy: false,
            stopping: false,
            poked: false,
            next_poll_ms: 0,
            next_number: 0,
            work: (0, 0),
        };
        world.change_weather();
        world
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn change_weather(&mut self) {
        let mut often = |percent: u32, most: u32| {
            if self.rng.random_range(0..100) < percent { self.rng.random_range(1..=most) } else { 0 }
        };
        self.weather = Weather {
            commit_passing: often(40, 95),
            commit_final: often(20, 20),
            commit_held: often(50, 100),
            commit_ms: u64::from(often(60, 60)),
            acquire: often(20, 100),
            open: often(25, 100),
            read: often(25, 60),
            poison: often(50, 60),
            clock_jumps: often(20, 1) == 1,
        };
    }

    /// Something happens: a member acts, the weather turns, the clock jumps, and the channel takes its next step.
    pub(crate) fn step(&mut self) {
        if self.chance(2) {
            self.change_weather();
        }
        if self.weather.clock_jumps && self.chance(3) {
            self.wall_ms = self.wall_ms + self.rng.random_range(0..7_200_000) - 3_600_000;
        }
        if self.chance(2) {
            self.busy = !self.busy;
        }
        while self.mailbox.len() < 40 && self.chance(35) {
            self.somebody_acts();
        }
        self.advance();
    }

    /// The faults stop and nobody acts any more. Law: everything comes to its end, every due timer has fired, the channel sleeps.
    pub(crate) fn calm(&mut self) {
        self.weather = Weather { commit_ms: 2, ..Weather::default() };
        self.busy = false;
        match self.rng.random_range(0..4) {
            // The node goes down, perhaps while nothing works.
            0 => {
                self.stopping = true;
                if self.chance(50) {
                    self.weather = Weather { commit_passing: 100, acquire: 100, open: 50, ..Weather::default() };
                }
                if let Some(core) = &mut self.core {
                    core.stop();
                }
            }
            _ => self.stopping = false,
        }
        // The clock may stand behind what it showed once, and timers were set by; it catches up. Then a generous quarter of an hour.
        let latest_ms = self.store.timers.values().copied().max().unwrap_or(0).max(self.core_ms);
        let end_ms = self.real_ms + latest_ms.saturating_sub(self.wall_ms) + 900_000;
        while self.core.is_some() || !self.mailbox.is_empty() || (!self.stopping && !self.store.timers.is_empty()) {
            assert!(
                self.real_ms < end_ms,
                "the channel does not come to rest: awake {}, instance {}, stopping {}, {} letters, timers {:?}, spent {:?}, {:?}",
                self.core.is_some(),
                self.instance,
                self.stopping,
                self.mailbox.len(),
                self.store.timers,
                self.spent,
                self.weather
            );
            self.advance();
        }
        self.oracle.all_ended();
        assert!(self.members.len() < 10_000, "members are bounded");
    }

    fn somebody_acts(&mut self) {
        let number = self.next_number;
        self.next_number += 1;
        let frame = Payload::text(number.to_string());
        let what = self.rng.random_range(0..100);
        let someone = (!self.members.is_empty()).then(|| self.rng.random_range(0..self.members.len()));
        let event = match (what, someone) {
            (0..10, _) | (_, None) => {
                let member = MemberId(number);
                self.members.push(member);
                Event::Join { member, identity: identity(), frame: Some(frame) }
            }
            (10..17, Some(index)) => {
                let member = self.members.swap_remove(index);
                Event::Leave { member, identity: identity(), why: LeaveReason::Disconnected, frame: Some(frame) }
            }
            (17..27, _) => Event::Publish {
                source: Source::Api("key".into()),
                payload: frame,
                request: Some(RequestId(number)),
                idempotency_key: None,
                hops: 0,
            },
            (_, Some(index)) => Event::Message { member: self.members[index], identity: identity(), payload: frame },
        };
        let nature = match self.rng.random_range(0..100) {
            poison if poison < self.weather.poison => Nature::Poison,
            0..75 => Nature::Good { writes: self.chance(70) },
            75..85 => Nature::TrapsInCompany,
            _ => Nature::Reads,
        };
        self.natures.insert(number, nature);
        self.oracle.accepted(&event);
        self.mailbox.push_back(event);
        self.work = (self.real_ms, 0);
    }

    /// One turn of the actor's loop.
    fn advance(&mut self) {
        let Some(core) = &mut self.core else { return self.asleep() };
        if std::mem::take(&mut self.poked) {
            core.poke();
        }
        let (events_max, _) = core.appetite();
        let take = events_max.min(self.mailbox.len());
        self.core_ms = self.core_ms.max(self.wall_ms);
        if take > 0 {
            core.accept(self.mailbox.drain(..take), self.wall_ms);
            self.last_event_ms = self.core_ms;
            if core.quarantine(self.wall_ms).is_some() {
                let mut out = Vec::new();
                core.refuse_waiting(&mut out);
                self.carry_out(out, Cause::Quarantined);
            }
        }
        let seed = self.rng.random();
        let Some(core) = &mut self.core else { return };
        match core.next(self.wall_ms, seed, self.busy, IDLE_MS) {
            Step::Start => {
                self.worked();
                self.start();
            }
            Step::Run(id, batch) => {
                self.worked();
                self.run(id, &batch);
            }
            Step::Sleep => self.sleep(),
            Step::Wait { until_ms } => self.wait(until_ms),
        }
    }

    /// Law: no faults make the channel burn a processor.
    fn worked(&mut self) {
        if self.real_ms.saturating_sub(self.work.0) >= 1_000 {
            self.work = (self.real_ms, 0);
        }
        self.work.1 += 1;
        assert!(self.work.1 <= WORK_PER_SECOND_MAX, "a hot loop: {} starts and runs within a second", self.work.1);
    }

    fn asleep(&mut self) {
        if !self.mailbox.is_empty() {
            return self.wake(false);
        }
        self.pass(POLL_MS);
    }

    fn wake(&mut self, poked: bool) {
        let mut core = Core::new(Arc::clone(&self.limits), self.early, self.wall_ms);
        self.core_ms = self.wall_ms;
        self.last_event_ms = self.wall_ms;
        if poked {
            core.poke();
        }
        if self.stopping {
            core.stop();
        }
        self.oracle.woke();
        self.store.applied.clear();
        self.core = Some(core);
    }

    /// Time passes, for the clock of sleeping channels, too.
    fn pass(&mut self, ms: u64) {
        self.real_ms += ms;
        self.wall_ms += ms;
        if self.real_ms < self.next_poll_ms {
            return;
        }
        self.next_poll_ms = self.real_ms + POLL_MS;
        if self.store.timers.values().any(|due_ms| *due_ms <= self.wall_ms) && !self.stopping {
            match self.core {
                None => self.wake(true),
                Some(_) => self.poked = true,
            }
        }
    }

    fn start(&mut self) {
        if !self.stopping {
            self.oracle.starts(self.core_ms);
        }
        assert!(!self.instance, "there is an instance already");
        assert!(self.attempt.is_none(), "opened while a commit is on its way: from what is not yet committed");
        let mut timers = None;
        if !self.claim {
            if self.chance(self.weather.acquire) {
                let Some(core) = &mut self.core else { return };
                let out = core.start_failed(StartFailure::Unavailable, self.wall_ms);
                self.claim = false;
                return self.carry_out(out, Cause::StartFailed);
            }
            self.claim = true;
            timers = Some(self.store.timers.clone().into_iter().collect());
        }
        if self.chance(self.weather.open) {
            let Some(core) = &mut self.core else { return };
            let out = core.start_failed(StartFailure::Plugin, self.wall_ms);
            self.claim = false;
            self.oracle.faulted(None, &out, self.core_ms);
            return self.carry_out(out, Cause::StartFailed);
        }
        self.instance = true;
        if let Some(core) = &mut self.core {
            core.started(timers);
        }
    }

    fn nature(&self, event: &Event) -> Nature {
        match event {
            Event::Timer { name, .. } if name.starts_with("poison") => Nature::Poison,
            Event::Timer { name, .. } if name.starts_with("reads") => Nature::Reads,
            Event::Timer { name, .. } => Nature::Good { writes: name.len() % 2 == 0 },
            event => self.natures[&number(event).expect("a number")],
        }
    }

    fn run(&mut self, id: BatchId, batch: &Arc<Batch>) {
        assert!(self.instance, "ran without an instance");
        self.oracle.runs(batch, self.limits.batch_events_max);
        let took_ms = self.rng.random_range(0..3);
        self.pass(took_ms);
        let alone = batch.events.len() == 1;
        for event in &batch.events {
            if let Event::Timer { name, durable: false } = event {
                self.volatile.remove(name);
            }
        }
        for event in &batch.events {
            let plugins_fault = match self.nature(event) {
                Nature::Poison => true,
                Nature::TrapsInCompany if !alone => true,
                Nature::Reads if self.chance(self.weather.read) => false,
                _ => continue,
            };
            let Some(core) = &mut self.core else { return };
            let out = core.failed(plugins_fault, self.wall_ms);
            self.core_ms = self.core_ms.max(self.wall_ms);
            assert!(out.iter().any(|out| matches!(out, Output::DropInstance)), "a trap spends the instance");
            let cause = match (plugins_fault, alone) {
                (true, true) => Cause::EventFault,
                (true, false) => Cause::BatchFault,
                (false, _) => Cause::ReadFailed,
            };
            if cause == Cause::ReadFailed {
                let until_ms = self.core_ms + 500;
                let timers = batch.events.iter().filter_map(|event| match event {
                    Event::Timer { name, durable: true } => Some((name.clone(), until_ms)),
                    _ => None,
                });
                self.pausing.extend(timers);
            }
            if cause == Cause::EventFault {
                self.oracle.faulted(event.member(), &out, self.core_ms);
            } else {
                self.oracle.seen.reruns += u64::from(cause == Cause::BatchFault);
                assert!(!out.iter().any(|out| matches!(out, Output::CloseMember(_) | Output::Quarantine(_))));
            }
            return self.carry_out(out, cause);
        }
        let set = self.set_timers(batch);
        let mut changes: BTreeMap<String, Option<u64>> = self.spent.drain(..).map(|name| (name, None)).collect();
        for event in &batch.events {
            if let Event::Timer { name, durable: true } = event {
                changes.insert(name.clone(), None);
            }
        }
        for (name, alarm) in &set {
            match alarm {
                Some((due_ms, durable)) => {
                    self.oracle.timer_set(name, *due_ms);
                    if !durable {
                        self.volatile.insert(name.clone());
                    }
                    changes.insert(name.clone(), durable.then_some(*due_ms));
                }
                None => drop(changes.insert(name.clone(), None)),
            }
        }
        let writes = batch.events.iter().any(|event| self.nature(event) == Nature::Good { writes: true });
        let wrote = writes || !changes.is_empty();
        self.prepared.insert(id, Prepared { wrote, timers: changes.into_iter().collect(), early: self.early });
        self.oracle.ran(id, batch, wrote);
        let Some(core) = &mut self.core else { return };
        let out = core.ran(wrote, set);
        self.carry_out(out, Cause::Success);
    }

    /// The timers a batch sets, mostly with names of their own.
    fn set_timers(&mut self, batch: &Batch) -> Vec<(String, Option<(u64, bool)>)> {
        let mut set = BTreeMap::new();
        if self.chance(70) || self.store.timers.len() > 20 {
            return Vec::new();
        }
        for _ in 0..self.rng.random_range(1..4) {
            let number = self.next_number;
            self.next_number += 1;
            let durable = self.chance(70);
            let kind = match self.rng.random_range(0..10) {
                0 => "poison",
                1 => "reads",
                _ => "timer",
            };
            let shared = durable && self.chance(20);
            let name = if shared { format!("{kind}-{}", number % 3) } else { format!("{kind}-{durable}-{number}") };
            let due_ms = batch.now_ms + self.rng.random_range(0..5_000);
            let cancel = shared && self.chance(30);
            set.insert(name, (!cancel).then_some((due_ms, durable)));
        }
        set.into_iter().collect()
    }

    fn carry_out(&mut self, outputs: Vec<Output>, cause: Cause) {
        for output in outputs {
            match output {
                Output::Commit(id) => self.submit(id, 0),
                Output::CommitAgain(id, pause_ms) => {
                    assert!((1..=500).contains(&pause_ms), "a pause of {pause_ms} ms");
                    self.submit(id, pause_ms);
                }
                Output::Release(id) => {
                    self.oracle.releases(id, self.early);
                    let keep = self.prepared.get(&id).is_some_and(|prepared| prepared.wrote && prepared.early);
                    if !keep {
                        self.prepared.remove(&id);
                    }
                }
                Output::Discard(id) => drop(self.prepared.remove(&id)),
                Output::Refuse(event, code) => {
                    let poisonous = self.nature(&event) == Nature::Poison;
                    self.oracle.refused(&event, code, cause, poisonous);
                    if let (Event::Timer { name, durable: true }, RefusalCode::Fault) = (event, code) {
                        self.spent.push(name);
                    }
                }
                Output::CloseMember(member) => {
                    if let Some(index) = self.members.iter().position(|other| *other == member) {
                        self.members.swap_remove(index);
                    }
                }
                Output::DropInstance => {
                    self.instance = false;
                    self.volatile.clear();
                }
                Output::DropClaim => {
                    self.claim = false;
                    self.spent.clear();
                }
                Output::Quarantine(_) => {}
            }
        }
    }

    fn submit(&mut self, id: BatchId, pause_ms: u64) {
        assert!(self.attempt.is_none(), "two commits of a channel at the same time");
        assert!(self.prepared[&id].wrote, "committed nothing");
        self.oracle.commits(id);
        let answer_at_ms = self.real_ms + pause_ms + self.rng.random_range(0..=self.weather.commit_ms);
        self.attempt = Some(Attempt { id, answer_at_ms });
    }

    /// The store answers.
    fn answer(&mut self, id: BatchId) {
        let roll = self.rng.random_range(0..100);
        let failed = if roll < self.weather.commit_passing {
            Some(CommitFailure::Passing)
        } else if roll < self.weather.commit_passing + self.weather.commit_final {
            Some(CommitFailure::Final)
        } else {
            None
        };
        let holds = failed.is_none() || self.chance(self.weather.commit_held);
        // A commit that took hold although it was reported as failed is recognised by its fence when it is repeated.
        if holds && self.store.applied.insert(id) {
            self.oracle.seen.held += u64::from(failed.is_some());
            for (name, due_ms) in self.prepared[&id].timers.clone() {
                match due_ms {
                    Some(due_ms) => drop(self.store.timers.insert(name, due_ms)),
                    None => drop(self.store.timers.remove(&name)),
                }
            }
        }
        let Some(core) = &mut self.core else { return };
        match failed {
            None => {
                let out = core.committed(id);
                if self.early {
                    self.prepared.remove(&id);
                }
                self.oracle.committed(id);
                self.carry_out(out, Cause::Success);
            }
            Some(why) => {
                let out = core.commit_failed(id, why, self.wall_ms);
                self.core_ms = self.core_ms.max(self.wall_ms);
                if !matches!(out.as_slice(), [Output::CommitAgain(..)]) {
                    self.oracle.given_up(&out);
                }
                self.carry_out(out, Cause::GivenUp);
            }
        }
    }

    fn wait(&mut self, until_ms: u64) {
        assert!(until_ms > self.wall_ms, "waits for the past");
        // Law: an awake channel with nothing to do has fired what is due.
        if self.instance && self.oracle.in_flight() == 0 && !self.stopping {
            let pauses = |name| self.spent.contains(name) || self.pausing.get(name).is_some_and(|ms| *ms > self.core_ms);
            let late = self.store.timers.iter().find(|(name, due_ms)| **due_ms <= self.core_ms && !pauses(*name));
            assert!(late.is_none(), "the channel waits, and its timer {late:?} is due since {}", self.core_ms);
        }
        let commit_ms = self.attempt.as_ref().map_or(u64::MAX, |attempt| attempt.answer_at_ms.saturating_sub(self.real_ms));
        // Somebody may act before that, and a clock that was set is noticed.
        let pause_ms = (until_ms - self.wall_ms).min(commit_ms).min(self.rng.random_range(1..=2_000));
        self.pass(pause_ms);
        if pause_ms == commit_ms
            && let Some(Attempt { id, .. }) = self.attempt.take()
        {
            self.answer(id);
        }
    }

    /// Laws: a channel sleeps only when nothing is left, and not before its time.
    fn sleep(&mut self) {
        self.oracle.sleeps(self.core_ms, self.stopping);
        assert!(self.prepared.is_empty() && self.attempt.is_none(), "slept while a batch is on its way");
        if !self.stopping {
            assert!(!self.busy, "slept while somebody waits for an answer");
            assert!(self.volatile.is_empty(), "slept with volatile timers: {:?}", self.volatile);
            let idle_ms = self.core_ms - self.last_event_ms;
            assert!(!self.instance || idle_ms >= IDLE_MS, "slept after {idle_ms} ms");
        }
        if self.mailbox.is_empty() {
            self.oracle.all_ended();
        }
        if self.claim {
            for name in self.spent.drain(..) {
                self.store.timers.remove(&name);
            }
        }
        (self.claim, self.instance, self.core) = (false, false, None);
        self.spent.clear();
        if std::mem::take(&mut self.poked) {
            self.wake(true);
        }
    }
}
