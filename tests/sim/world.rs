//! Everything around the core: members who join, write and leave, a plugin that fails, a store that fails, a clock that
//! jumps. Does what [the actor](hotbay::channel) does, with one random choice after the other from one seed.

mod actor;
mod swap;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use hotbay::channel::core::{BatchId, Core};
use hotbay::limits::MountLimits;
use hotbay::protocol::event::{Event, LeaveReason, MemberId, RequestId, Source};
use hotbay::protocol::frame::Payload;
use hotbay::protocol::identity::Identity;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::oracle::Oracle;
use crate::world::swap::{Before, Deployment};

const IDLE_MS: u64 = 3_000;
/// How often the store is asked for due timers of sleeping channels.
const POLL_MS: u64 = 500;
/// Starts and runs within one second without anything new: more is a loop that burns a processor.
const WORK_PER_SECOND_MAX: u32 = 150;

/// What the plugin does with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nature {
    Good {
        writes: bool,
    },
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
    /// Of deployments, how many are of a version that fails.
    flawed: u32,
    /// `save` fails.
    save: u32,
    /// A version on trial fails on a batch.
    trial: u32,
}

struct Prepared {
    wrote: bool,
    /// The events whose effects it keeps.
    kept: Vec<u64>,
    /// The version that ran it, and what its commit says about that.
    ran_on: u32,
    pins: Option<u32>,
    /// Durable timers that fired in it.
    fired: Vec<String>,
    /// Durable timers set and forgotten.
    timers: Vec<(String, Option<u64>)>,
    early: bool,
}

#[derive(Default)]
struct Store {
    /// The events whose effects are kept, in the order in which they took hold.
    log: Vec<u64>,
    /// The version that wrote last.
    pinned: Option<u32>,
    timers: BTreeMap<String, u64>,
    /// Timers that fired, and were not set again.
    spent: HashSet<String>,
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
    /// The events whose effects the instance knows: those of the store, and of what it ran since.
    memory: Vec<u64>,
    /// What the channels of the mount should run.
    plan: Deployment,
    /// What this one runs.
    assigned: Deployment,
    wanted: Option<Deployment>,
    /// Versions that may not run any more.
    withdrawn: HashSet<u32>,
    /// A deployment it does not try again.
    declined: Option<u64>,
    before: Option<Before>,
    /// The version that wrote last, or is about to.
    pinned: Option<u32>,
    next_deployment: u64,
    prepared: BTreeMap<BatchId, Prepared>,
    /// Durable timers that faulted: forgotten with the next commit.
    spent: Vec<String>,
    /// Durable timers whose reads failed, and until when they may pause.
    pausing: HashMap<String, u64>,
    /// The store could not be reached: not again before this time.
    unavailable_until_ms: u64,
    /// Volatile timers of a failed batch, which comes again.
    again: HashSet<String>,
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
            memory: Vec::new(),
            plan: Deployment::first(),
            assigned: Deployment::first(),
            wanted: None,
            withdrawn: HashSet::new(),
            declined: None,
            before: None,
            pinned: None,
            next_deployment: 1,
            prepared: BTreeMap::new(),
            spent: Vec::new(),
            pausing: HashMap::new(),
            unavailable_until_ms: 0,
            again: HashSet::new(),
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
            flawed: often(70, 100),
            save: often(30, 60),
            trial: often(50, 40),
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
        if self.chance(4) {
            self.deploy();
        }
        if self.chance(1) {
            self.crash();
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
        self.oracle.kept(&self.store.log, self.store.pinned);
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
}
