//! What the actor does when the version of its plugin changes: takes over from an instance that runs, goes back when that fails, leaves a
//! canary, keeps a shadow. And what happens when it is over: sleep, and the death of the process.

use hotbay::channel::core::BatchId;
use hotbay::protocol::event::{Batch, Event};
use rand::RngExt;

use super::{Attempt, Nature, Prepared, World};
use crate::oracle::number;

/// What is deployed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deployment {
    id: u64,
    pub(super) version: u32,
    flaw: Flaw,
    /// A canary, which the channel leaves at the first fault: for this version.
    trial_over: Option<u32>,
    /// Something runs beside it.
    has_shadow: bool,
}

/// What is wrong with a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    /// `open` fails, whoever saved.
    Open,
    /// `open` fails with what another version saved.
    TakeOver,
    /// The first batch after a take-over fails.
    FirstBatch,
}

/// What the channel goes back to.
#[derive(Debug, Clone)]
pub(crate) enum Before {
    /// The instance that was replaced, with its memory.
    Live(Deployment, Vec<u64>),
    /// The channel slept when its version changed: the version that wrote last.
    Saved(u32),
}

impl Deployment {
    /// What there is before anything is deployed.
    pub(crate) fn first() -> Self {
        Self { id: 0, version: 0, flaw: Flaw::None, trial_over: None, has_shadow: false }
    }

    /// What has no flaw, of any version.
    fn sound(version: u32) -> Self {
        Self { version, ..Self::first() }
    }
}

impl World {
    /// Somebody deploys another version, or rolls back to an earlier one: then what was there before may not run any more.
    pub(super) fn deploy(&mut self) {
        let id = self.next_deployment;
        self.next_deployment += 1;
        let rolls_back = self.chance(25);
        let version = if rolls_back { self.rng.random_range(0..=self.plan.version) } else { self.plan.version + 1 };
        let under = self.plan.trial_over.unwrap_or(self.plan.version);
        let on_trial = !rolls_back && !self.withdrawn.contains(&under) && self.chance(40);
        if rolls_back && version != self.plan.version {
            self.withdrawn.insert(self.plan.version);
        }
        self.withdrawn.remove(&version);
        let flaw = match self.rng.random_range(0..3) {
            _ if rolls_back || !self.chance(self.weather.flawed) => Flaw::None,
            0 => Flaw::Open,
            1 => Flaw::TakeOver,
            _ => Flaw::FirstBatch,
        };
        self.plan =
            Deployment { id, version, flaw, trial_over: on_trial.then_some(under), has_shadow: self.chance(20) };
        self.reconsider();
    }

    /// What the channel should have.
    fn assign(&self) -> Deployment {
        match self.plan.trial_over {
            Some(under) if self.declined == Some(self.plan.id) => Deployment::sound(under),
            _ => self.plan,
        }
    }

    fn reconsider(&mut self) {
        self.wanted = None;
        if self.core.is_none() {
            return;
        }
        let assigned = self.assign();
        if assigned.version == self.assigned.version {
            self.assigned = assigned;
        } else if self.declined != Some(assigned.id) || self.leaves() {
            self.wanted = Some(assigned);
        }
    }

    /// Whether what runs may not run any more.
    fn leaves(&self) -> bool {
        self.withdrawn.contains(&self.assigned.version)
    }

    pub(super) fn is_to_swap(&mut self) -> bool {
        let Some(core) = &mut self.core else { return false };
        core.settle(self.wanted.is_some()) && self.instance && self.before.is_none()
    }

    /// Replaces the instance. Laws: only when all it did is on disk; and nothing else runs meanwhile.
    pub(super) fn swap(&mut self) {
        let Some(to) = self.wanted.take() else { return };
        self.worked();
        assert_eq!(self.memory, self.store.log, "an instance was replaced while something of it was on its way");
        assert_eq!(self.oracle.in_flight(), 0, "swapped while a batch is on its way");
        let mut handed_over = self.memory.clone();
        let (fails, spent) = (self.chance(self.weather.save), self.chance(50));
        if fails && !self.leaves() {
            self.decline(to);
            if spent {
                // A trap: it is opened anew, from what is committed.
                self.lose_instance();
            }
            return; // Or too much was saved: it goes on.
        }
        if fails || self.chance(20) {
            handed_over.clone_from(&self.store.log); // It reads the store.
        }
        if to.flaw == Flaw::Open || (to.flaw == Flaw::TakeOver && !fails) {
            self.decline(to);
            if self.leaves() {
                self.lose_instance();
            }
            return;
        }
        let memory = std::mem::replace(&mut self.memory, handed_over);
        self.before = (!fails || !spent).then_some(Before::Live(self.assigned, memory));
        self.assigned = to;
        let seed = self.rng.random();
        let Some(core) = &mut self.core else { return };
        if let Some((id, batch)) = core.run_nothing(seed, self.wall_ms) {
            self.core_ms = self.core_ms.max(self.wall_ms);
            assert!(batch.events.is_empty(), "there was something to run");
            self.run(id, &batch);
        }
    }

    fn decline(&mut self, deployment: Deployment) {
        self.declined = Some(deployment.id);
        self.oracle.seen.declined += 1;
    }

    fn lose_instance(&mut self) {
        self.instance = false;
        if let Some(core) = &mut self.core {
            core.lose_instance();
        }
    }

    /// Opens the first instance after sleep, a fault or a crash. False if nothing can be opened.
    pub(super) fn open_first(&mut self) -> bool {
        self.memory.clone_from(&self.store.log);
        self.wanted = None;
        let known = self.pinned.filter(|pinned| !self.withdrawn.contains(pinned));
        self.assigned = self.assign();
        if let Some(earlier) = known.filter(|_| self.declined == Some(self.assigned.id)) {
            self.assigned = Deployment::sound(earlier);
        }
        let earlier = known.filter(|earlier| *earlier != self.assigned.version);
        // Not one that it just left.
        let earlier = earlier.filter(|earlier| *earlier != self.plan.version || self.declined != Some(self.plan.id));
        if self.chance(self.weather.open) {
            return false;
        }
        match (self.assigned.flaw, earlier) {
            (Flaw::Open | Flaw::TakeOver, Some(earlier)) => {
                self.decline(self.assigned);
                self.assigned = Deployment::sound(earlier);
            }
            // Nothing else is there. It works again some time, or this channel never would.
            (_, None) => self.assigned.flaw = Flaw::None,
            (_, Some(earlier)) => self.before = Some(Before::Saved(earlier)),
        }
        self.instance = true;
        true
    }

    /// Before a batch, what runs beside is opened from what the instance saves, which may fail. True if the instance is lost by that.
    pub(super) fn loses_instance_to_shadow(&mut self) -> bool {
        if !self.assigned.has_shadow || self.before.is_some() || !self.chance(10) || !self.chance(self.weather.save) {
            return false;
        }
        if let Some(core) = &mut self.core {
            core.undo();
        }
        self.lose_instance();
        true
    }

    /// The batch fails because the version is new. True if it did.
    pub(super) fn fails_as_new(&mut self, batch: &Batch) -> bool {
        let first = self.before.is_some() && self.assigned.flaw == Flaw::FirstBatch;
        let trial = self.before.is_none() && self.assigned.trial_over.is_some() && self.chance(self.weather.trial);
        (first && self.goes_back(batch)) || (trial && self.leaves_trial(batch))
    }

    /// The first batch of a version that took over failed. False if there is nothing to go back to.
    pub(super) fn goes_back(&mut self, batch: &Batch) -> bool {
        let Some(before) = self.before.take() else { return false };
        let may_not = matches!(&before, Before::Live(assigned, _) if self.withdrawn.contains(&assigned.version));
        if may_not || self.leaves() {
            return false;
        }
        self.decline(self.assigned);
        match before {
            Before::Live(assigned, memory) => (self.assigned, self.memory) = (assigned, memory),
            Before::Saved(version) => {
                self.assigned = Deployment::sound(version);
                self.memory.clone_from(&self.store.log);
                if self.chance(self.weather.open) {
                    return false;
                }
            }
        }
        self.oracle.seen.went_back += 1;
        self.undo(batch);
        true
    }

    /// A batch failed on a canary. False if it is none.
    pub(super) fn leaves_trial(&mut self, batch: &Batch) -> bool {
        if self.assigned.trial_over.is_none() {
            return false;
        }
        self.decline(self.assigned);
        self.oracle.seen.left_trial += 1;
        self.undo(batch);
        self.lose_instance();
        true
    }

    /// The batch is to be run again, as if nothing had been.
    fn undo(&mut self, batch: &Batch) {
        for event in &batch.events {
            if let Event::Timer { name, durable: false } = event {
                self.again.insert(name.clone());
            }
        }
        if let Some(core) = &mut self.core {
            core.undo();
        }
    }

    pub(super) fn stay_swapped(&mut self) {
        if self.before.take().is_some() {
            self.oracle.seen.swapped += 1;
        }
    }

    /// What a batch that succeeded adds to what the instance knows.
    pub(super) fn keep(&mut self, batch: &Batch) -> Vec<u64> {
        let keeps = |event: &&Event| self.nature(event) == Nature::Good { writes: true };
        let kept: Vec<u64> = batch.events.iter().filter(keeps).filter_map(number).collect();
        self.memory.extend(&kept);
        kept
    }

    /// What a commit says about the version that made it: something only where another one wrote before.
    pub(super) fn pin(&mut self, writes: bool) -> Option<u32> {
        let version = self.assigned.version;
        let says = self.pinned != Some(version) && (self.pinned.is_some() || writes);
        says.then(|| *self.pinned.insert(version))
    }

    /// The writes of a batch take hold. False if they had already.
    pub(super) fn take_hold(&mut self, id: BatchId) -> bool {
        if !self.store.applied.insert(id) {
            return false;
        }
        let Prepared { kept, ran_on, pins, fired, timers, .. } = &self.prepared[&id];
        self.store.log.extend(kept);
        self.store.pinned = pins.or(self.store.pinned);
        self.oracle.takes_hold(*ran_on);
        // Law: a timer takes hold once.
        let again = fired.iter().find(|name| !self.store.spent.insert((*name).clone()));
        assert!(again.is_none(), "timer {again:?} took hold twice");
        for (name, due_ms) in timers.clone() {
            if let Some(due_ms) = due_ms {
                self.store.spent.remove(&name);
                self.store.timers.insert(name, due_ms);
            } else {
                self.store.timers.remove(&name);
            }
        }
        true
    }

    /// The channel sleeps: whatever the actor knew is saved or gone.
    pub(super) fn fall_asleep(&mut self) {
        (self.claim, self.instance, self.core) = (false, false, None);
        (self.wanted, self.before, self.declined) = (None, None, None);
        self.memory.clear();
        self.spent.clear();
        self.volatile.clear();
        self.again.clear();
    }

    /// The process dies, and comes back. What was on its way to the disk may have arrived.
    pub(super) fn crash(&mut self) {
        if let Some(Attempt { id, .. }) = self.attempt.take()
            && self.chance(50)
        {
            self.take_hold(id);
        }
        self.oracle.crashed();
        self.oracle.kept(&self.store.log, self.store.pinned);
        self.prepared.clear();
        self.mailbox.clear();
        self.members.clear();
        (self.busy, self.poked) = (false, false);
        self.fall_asleep();
    }
}
