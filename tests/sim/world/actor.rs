//! What the actor does around the core, and the plugin and the store it does it with.

use std::collections::BTreeMap;
use std::sync::Arc;

use hotbay::channel::core::{BatchFailure, BatchId, CommitFailure, Core, Output, StartFailure, Step};
use hotbay::protocol::event::{Batch, Event};
use hotbay::protocol::refusal::RefusalCode;
use rand::RngExt;

use super::{Attempt, IDLE_MS, Nature, POLL_MS, Prepared, WORK_PER_SECOND_MAX, World};
use crate::oracle::{Cause, number};

impl World {
    /// One turn of the actor's loop.
    pub(super) fn advance(&mut self) {
        let Some(core) = &mut self.core else { return self.asleep() };
        if std::mem::take(&mut self.poked) {
            core.poke();
        }
        let (events_max, _) = core.appetite(false);
        let take = events_max.min(self.mailbox.len());
        self.core_ms = self.core_ms.max(self.wall_ms);
        if take > 0 {
            core.accept(self.mailbox.drain(..take), self.wall_ms);
            self.last_event_ms = self.core_ms;
            if core.quarantine(self.wall_ms).is_some() {
                let mut out = Vec::new();
                core.refuse_waiting(&mut out);
                self.oracle.holds_all(Cause::Quarantined);
                self.carry_out(out, Cause::Quarantined);
            }
        }
        if self.is_to_swap() {
            self.swap();
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
    pub(super) fn worked(&mut self) {
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
        self.unavailable_until_ms = 0;
        self.pausing.clear();
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
            // Law: a store that does not answer is asked again after a pause.
            assert!(self.core_ms >= self.unavailable_until_ms, "asked the store again at once");
        }
        assert!(!self.instance, "there is an instance already");
        assert!(self.attempt.is_none(), "opened while a commit is on its way: from what is not yet committed");
        let mut timers = None;
        if !self.claim {
            if self.chance(self.weather.acquire) {
                let Some(core) = &mut self.core else { return };
                let out = core.start_failed(StartFailure::Unavailable, self.wall_ms);
                self.claim = false;
                self.unavailable_until_ms = self.core_ms + 500;
                return self.carry_out(out, Cause::StartFailed);
            }
            self.claim = true;
            self.pinned = self.store.pinned;
            self.pausing.clear();
            timers = Some(self.store.timers.clone().into_iter().collect());
        }
        if !self.open_first() {
            let Some(core) = &mut self.core else { return };
            let out = core.start_failed(StartFailure::Plugin, self.wall_ms);
            self.claim = false;
            self.oracle.faulted(None, &out, self.core_ms);
            return self.carry_out(out, Cause::StartFailed);
        }
        if let Some(core) = &mut self.core {
            core.started(timers);
        }
    }

    pub(super) fn nature(&self, event: &Event) -> Nature {
        match event {
            Event::Timer { name, .. } if name.starts_with("poison") => Nature::Poison,
            Event::Timer { name, .. } if name.starts_with("reads") => Nature::Reads,
            Event::Timer { name, .. } => Nature::Good { writes: name.len() % 2 == 0 },
            event => self.natures[&number(event).expect("a number")],
        }
    }

    pub(super) fn run(&mut self, id: BatchId, batch: &Arc<Batch>) {
        assert!(self.instance, "ran without an instance");
        if self.loses_instance_to_shadow() {
            return;
        }
        self.oracle.runs(batch, self.limits.batch_events_max, self.early);
        let took_ms = self.rng.random_range(0..3);
        self.pass(took_ms);
        let alone = batch.events.len() == 1;
        for event in &batch.events {
            if let Event::Timer { name, durable } = event {
                let pauses = self.pausing.get(name).is_some_and(|until_ms| *until_ms > batch.now_ms);
                assert!(!pauses, "timer {name} was tried again at once");
                // Law: a volatile timer outlives its instance, but not the channel's sleep, and fires once.
                let known = *durable || self.volatile.remove(name) | self.again.remove(name);
                assert!(known, "volatile timer {name} fired after its end");
            }
        }
        if self.fails_as_new(batch) {
            return;
        }
        for event in &batch.events {
            let plugins_fault = match self.nature(event) {
                Nature::Poison => true,
                Nature::TrapsInCompany if !alone => true,
                Nature::Reads if self.chance(self.weather.read) => false,
                _ => continue,
            };
            if self.goes_back(batch) || (plugins_fault && self.leaves_trial(batch)) {
                return;
            }
            let Some(core) = &mut self.core else { return };
            let out = core
                .failed(if plugins_fault { BatchFailure::Plugin } else { BatchFailure::Surroundings }, self.wall_ms);
            self.core_ms = self.core_ms.max(self.wall_ms);
            assert!(out.iter().any(|out| matches!(out, Output::DropInstance)), "a trap spends the instance");
            let cause = match (plugins_fault, alone) {
                (true, true) => Cause::EventFault,
                (true, false) => Cause::BatchFault,
                (false, _) => Cause::ReadFailed,
            };
            if cause == Cause::ReadFailed {
                let until_ms = self.core_ms + 500;
                for event in &batch.events {
                    if let Event::Timer { name, durable } = event {
                        self.pausing.insert(name.clone(), until_ms);
                        if !durable {
                            self.volatile.insert(name.clone());
                        }
                    }
                }
            }
            if cause == Cause::BatchFault {
                self.again.extend(batch.events.iter().filter_map(|event| match event {
                    Event::Timer { name, durable: false } => Some(name.clone()),
                    _ => None,
                }));
            }
            match cause {
                Cause::EventFault | Cause::ReadFailed => self.oracle.holds(&batch.events, cause),
                _ => {}
            }
            if out.iter().any(|out| matches!(out, Output::Quarantine(_))) {
                self.oracle.holds_all(Cause::Quarantined);
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
            self.pausing.remove(name);
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
        let pins = self.pin(writes || !changes.is_empty());
        let wrote = writes || !changes.is_empty() || pins.is_some();
        let kept = self.keep(batch);
        let durable = |event: &Event| match event {
            Event::Timer { name, durable: true } => Some(name.clone()),
            _ => None,
        };
        let fired = batch.events.iter().filter_map(durable).collect();
        let (ran_on, timers) = (self.assigned.version, changes.into_iter().collect());
        self.oracle.keeps(&kept, wrote);
        self.prepared.insert(id, Prepared { wrote, kept, ran_on, pins, fired, timers, early: self.early });
        self.stay_swapped();
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
                Output::Unsure(event) => {
                    assert_eq!(cause, Cause::GivenUp, "{event:?} is unsure without a try to commit it");
                    self.oracle.is_unsure(&event);
                    let poisonous = self.nature(&event) == Nature::Poison;
                    self.oracle.refused(&event, RefusalCode::Unavailable, cause, poisonous);
                }
                Output::CloseMember(member) => {
                    self.oracle.closes(member, cause);
                    if let Some(index) = self.members.iter().position(|other| *other == member) {
                        self.members.swap_remove(index);
                    }
                }
                Output::DropInstance => (self.instance, self.before) = (false, None),
                Output::DropClaim => {
                    self.before = None;
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
        // What never will succeed had no effect.
        let holds = failed != Some(CommitFailure::Final) && (failed.is_none() || self.chance(self.weather.commit_held));
        // A commit that took hold although it was reported as failed is recognised by its fence when it is repeated.
        if holds && self.take_hold(id) {
            self.oracle.seen.held += u64::from(failed.is_some());
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
        // Law: a channel with nothing on its way does not put a swap off.
        let may_swap = self.instance && self.oracle.in_flight() == 0 && self.before.is_none();
        assert!(!may_swap || self.wanted.is_none(), "the channel waits, and does not take the version it should have");
        // Law: an awake channel with nothing to do has fired what is due.
        if self.instance && self.oracle.in_flight() == 0 && !self.stopping {
            let pauses =
                |name| self.spent.contains(name) || self.pausing.get(name).is_some_and(|ms| *ms > self.core_ms);
            let late = self.store.timers.iter().find(|(name, due_ms)| **due_ms <= self.core_ms && !pauses(*name));
            assert!(late.is_none(), "the channel waits, and its timer {late:?} is due since {}", self.core_ms);
        }
        let commit_ms =
            self.attempt.as_ref().map_or(u64::MAX, |attempt| attempt.answer_at_ms.saturating_sub(self.real_ms));
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
            let forgotten = self.volatile.is_empty() && self.again.is_empty();
            assert!(forgotten, "slept with volatile timers: {:?} {:?}", self.volatile, self.again);
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
        self.fall_asleep();
        if std::mem::take(&mut self.poked) {
            self.wake(true);
        }
    }
}
