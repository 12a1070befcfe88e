//! Waking and sleeping: taking the channel over, opening an instance of the version it should run, and saving its memory.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use crate::channel::actor::swap::Before;
use crate::channel::actor::{Actor, Claim, fresh_core};
use crate::channel::core::StartFailure;
use crate::channel::sleep::Wakeful;
use crate::channel::version::{Assignment, Deployed, Version};
use crate::channel::view::View;
use crate::plugin::compile::Digest;
use crate::plugin::{Fault, Instance, Opening, Recorder};
use crate::quota::{Kept, Quota, Slot};
use crate::store::{Acquired, Commit, Committed, Durability, Fence, Writes};
use crate::telemetry::now_ms;

/// What opening an instance is expected to take of a tenant that is out of processor time, until it was charged.
const OPEN_US: u64 = 1_000;

/// An open instance.
pub(super) struct Live {
    pub(super) instance: Instance,
    pub(super) permit: Permit,
    pub(super) serving: Serving,
    /// What it was opened with.
    pub(super) seed: u64,
    /// Whether its opening is on the tape, so that its calls may be, too.
    pub(super) is_taped: bool,
}

/// What an instance is opened for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A channel that has none.
    Channel,
    /// A channel whose turn to swap it is: others wait for theirs meanwhile.
    Swap,
    /// To run beside the one of a channel, off its tape.
    Shadow,
}

/// Room for an instance: of the node, and of the tenant.
pub(super) struct Permit {
    _node: OwnedSemaphorePermit,
    _tenant: Slot,
}

/// Counts a channel among those of its deployment, until it is dropped.
pub(super) struct Serving(Deployed);

impl Serving {
    pub(super) fn of(assigned: &Assignment) -> Self {
        let deployed = assigned.deployed.clone();
        deployed.tally.channels.fetch_add(1, Ordering::Relaxed);
        Self(deployed)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.tally.channels.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Claim {
    /// What a commit with these writes says about the version that made them: something only where another one wrote before. A channel
    /// in which nothing was ever written is nobody's.
    pub(super) fn pin(&mut self, digest: Digest, writes: &Writes) -> Option<[u8; 32]> {
        if self.pinned == Some(digest) || (self.pinned.is_none() && writes.is_empty()) {
            return None;
        }
        self.pinned = Some(digest);
        Some(digest.0)
    }

    /// A commit took hold: puts what the channel keeps now on its tenant's account.
    pub(super) fn keeps(&mut self, quota: &Quota, fence: Fence, committed: &Committed) {
        let kept = Kept { state: committed.state_bytes, log: committed.log_bytes };
        if std::mem::replace(&mut self.kept, kept) != kept {
            quota.keeps(fence.channel.0, (fence.epoch, fence.seq + 1), kept);
        }
    }
}

impl Actor {
    /// Takes the channel over, if need be, and opens an instance.
    pub(super) async fn start(&mut self) {
        match self.try_start().await {
            Ok(timers) => self.core.started(timers),
            Err((why, cause)) => {
                // A tenant at a limit decides how often: not for every log. Nor is that nothing may run here news each time.
                if self.over.is_some() || self.has_no_version() {
                    tracing::debug!(channel = %self.channel.name, %cause, "the channel cannot be opened yet");
                } else {
                    tracing::warn!(channel = %self.channel.name, %cause, "the channel cannot be opened");
                }
                metrics::counter!("hotbay_channel_start_failures_total").increment(1);
                let out = self.core.start_failed(why, now_ms());
                self.carry_out(out).await;
            }
        }
    }

    async fn try_start(&mut self) -> Result<Option<Vec<(String, u64)>>, (StartFailure, String)> {
        let limit = Duration::from_millis(self.channel.logic.limits.commit_ms_max);
        self.over = None;
        let quota = Arc::clone(&self.channel.quota);
        let _turn = quota.turn(OPEN_US).await;
        let slot = quota.wake().map_err(|over| (StartFailure::Unavailable, self.wait_for_room(over.to_string())))?;
        let permit = tokio::time::timeout(limit, Arc::clone(&self.directory.awake).acquire_owned());
        let Ok(Ok(permit)) = permit.await else {
            return Err((
                StartFailure::Unavailable,
                "as many channels are awake as may be (limits.channels_awake_max)".into(),
            ));
        };
        let permit = Permit { _node: permit, _tenant: slot };
        if self.has_no_version() {
            let cause = "the version of its plugin was withdrawn; deploy another one".into();
            return Err((StartFailure::Unavailable, cause));
        }
        let mut timers = None;
        if self.claim.is_none() {
            let acquired = self.acquire(limit).await.map_err(|cause| (StartFailure::Unavailable, cause))?;
            timers = Some(acquired.timers.clone());
            self.take_over(acquired);
        }
        let Some(claim) = &mut self.claim else { return Ok(None) };
        let (saved, pinned) = (claim.saved.take(), claim.pinned);
        self.choose(pinned);
        self.consider_taping();
        let logic = &self.channel.logic;
        let earlier = pinned.filter(|pinned| *pinned != self.assigned.version.digest());
        let taken = saved.clone().filter(|_| match earlier {
            None => true,
            Some(earlier) => {
                let schema = logic.rollout.schema_of(self.channel.name.tenant(), earlier);
                schema.is_some_and(|schema| self.assigned.version.takes(schema))
            }
        });
        let seed = rand::random();
        let mut opened = self.open_instance(&self.assigned.version, taken, seed, Purpose::Channel).await;
        // The version that wrote last: it goes on if the one that should take over from it cannot.
        // Not one that this channel just left.
        let back = earlier.and_then(|earlier| logic.rollout.find(self.channel.name.tenant(), earlier));
        let back = back.filter(|back| self.declined != Some(back.deployed.id));
        let failed = opened.as_ref().err().cloned();
        match (failed, back) {
            (None, Some(assigned)) => self.before = Some(Before::Saved { assigned, saved }),
            (Some(fault), Some(back)) if fault.is_plugins() => {
                self.count_fault(&fault);
                self.decline(&self.assigned.clone());
                self.assigned = back;
                opened = self.open_instance(&self.assigned.version, saved, seed, Purpose::Channel).await;
            }
            _ => {}
        }
        match opened {
            Ok(instance) => {
                let (serving, is_taped) = (Serving::of(&self.assigned), self.taping.tape().is_some());
                self.instance = Some(Live { instance, permit, serving, seed, is_taped });
                Ok(timers)
            }
            Err(fault) => {
                // The timers belong to the core, whether or not this start succeeds.
                let why = if fault.is_plugins() { StartFailure::Plugin } else { StartFailure::Unavailable };
                if let Fault::Quota { over } = &fault {
                    self.wait_for_room(over.clone());
                }
                self.drop_claim();
                self.count_fault(&fault);
                Err((why, fault.to_string()))
            }
        }
    }

    /// Whether no version may run here: all were revoked or rolled back, and operators were told so.
    fn has_no_version(&self) -> bool {
        self.channel.logic.rollout.assign(&self.channel.name, self.declined).version.is_withdrawn()
    }

    /// The tenant is at a limit: other channels of it are to sleep sooner, and whoever waits for too long is told of it.
    fn wait_for_room(&mut self, over: String) -> String {
        self.directory.hurry(&self.channel.quota);
        self.over.insert(over).clone()
    }

    /// Opens an instance of a version on the channel as it is committed.
    pub(super) fn open_instance(
        &self,
        version: &Arc<Version>,
        saved: Option<Bytes>,
        seed: u64,
        purpose: Purpose,
    ) -> impl Future<Output = Result<Instance, Fault>> + Send + use<> {
        let (channel, version) = (Arc::clone(&self.channel), Arc::clone(version));
        let view = self.claim.as_ref().map(|claim| Arc::clone(&claim.view));
        let tape = self.taping.tape().filter(|_| purpose != Purpose::Shadow).cloned();
        async move {
            let Some(view) = view else {
                return Err(Fault::Unavailable { cause: "the channel was given up".to_owned() });
            };
            let opening = Opening {
                name: &channel.name,
                now_ms: now_ms(),
                seed,
                settings: &channel.logic.settings,
                saved: saved.as_deref(),
            };
            let (limits, label) = (Arc::clone(&version.limits), channel.name.to_string());
            let quota = Some(&channel.quota);
            let mut instance = Instance::start_for(quota, &version.plugin, limits, opening.seed, &label).await?;
            instance.holds_a_turn(purpose == Purpose::Swap);
            let Some(tape) = tape else {
                instance.open(view as _, opening).await?;
                return Ok(instance);
            };
            let recorder = Recorder::new(view as _);
            let opened = instance.open(Arc::clone(&recorder) as _, opening.clone()).await;
            tape.open(version.digest(), &opening, recorder.take(), opened.as_ref().err());
            opened.map(|()| instance)
        }
    }

    async fn acquire(&mut self, limit: Duration) -> Result<Acquired, String> {
        let acquire = self.directory.store.acquire(&self.channel.name, &self.directory.owner);
        match tokio::time::timeout(limit, acquire).await {
            Ok(Ok(acquired)) => Ok(acquired),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("the store does not answer within {limit:?} (commit_ms_max)")),
        }
    }

    fn take_over(&mut self, mut acquired: Acquired) {
        let roster = std::mem::take(&mut self.roster);
        let saved = acquired.saved.take();
        let (store, logic) = (Arc::clone(&self.directory.store), Arc::clone(&self.channel.logic));
        let kept = Kept { state: acquired.state_bytes, log: acquired.log_bytes };
        let fence = acquired.fence;
        self.channel.quota.takes_over(fence.channel.0, (fence.epoch, fence.seq), kept);
        let view = View::new(store, logic, &self.channel.name, &acquired, roster);
        self.claim = Some(Claim {
            fence: acquired.fence,
            view: Arc::new(view),
            durable_timers: acquired.timers.into_iter().map(|(name, _)| name).collect(),
            saved,
            pinned: acquired.version.map(Digest),
            kept,
            is_unsure: false,
        });
    }

    /// Gives the claim up; the members stay.
    pub(super) fn drop_claim(&mut self) {
        self.before = None;
        self.shadows.end();
        if let Some(claim) = self.claim.take() {
            if !claim.is_unsure && self.commit.is_none() {
                self.channel.quota.gives_up(claim.fence.channel.0);
            }
            self.roster = claim.view.with_roster(std::mem::take);
        }
        self.spent_timers.clear();
    }

    /// Whether it is to sleep now: somebody asked, and all that was taken in is done.
    pub(super) fn is_bedtime(&mut self) -> bool {
        // Whoever asked may have given up.
        self.bedtime.take_if(|bedtime| !bedtime.is_awaited());
        if self.bedtime.is_none() {
            return false;
        }
        // Nothing more begins beside what is on its way.
        self.core.settle(true);
        self.core.is_quiet() || self.core.quarantine(now_ms()).is_some()
    }

    /// Goes to sleep because somebody wants it to, if nothing keeps it awake. False if it goes on.
    pub(super) async fn go_to_bed(&mut self) -> bool {
        let keeps_awake = match self.requests.len() {
            0 if self.courier.is_busy() => Some(Wakeful::Deliveries),
            0 => self.core.keeps_awake(now_ms()),
            count => Some(Wakeful::Requests { count }),
        };
        let Some(bedtime) = self.bedtime.take() else { return false };
        if let Some(wakeful) = keeps_awake {
            bedtime.refuse(wakeful);
            return false;
        }
        let sleeps = self.sleep().await;
        bedtime.done();
        sleeps
    }

    /// Saves the instance's memory and parks the members. False if something came in meanwhile.
    pub(super) async fn sleep(&mut self) -> bool {
        let mut saved = Vec::new();
        if let Some(mut live) = self.instance.take() {
            match self.save_instance(&mut live).await {
                Ok(memory) => saved = memory,
                Err(fault) => self.count_fault(&fault),
            }
        }
        // Also without an instance: a timer that faulted would wake the channel again and again.
        self.commit_saved(saved).await;
        self.drop_claim();
        let roster = std::mem::take(&mut self.roster);
        match self.channel.mailbox.sleep(roster) {
            Ok(()) => {
                if let Some(bedtime) = self.bedtime.take() {
                    bedtime.done();
                }
                true
            }
            Err(roster) => {
                // Something came in meanwhile. A fresh core, for what this one knew is saved or gone.
                self.roster = roster;
                self.core = fresh_core(&self.channel, &self.directory);
                false
            }
        }
    }

    /// The memory is a cache: if it cannot be kept, the next instance starts without.
    async fn commit_saved(&mut self, saved: Vec<u8>) {
        let timers = std::mem::take(&mut self.spent_timers).into_iter().map(|name| (name, None)).collect();
        let Some(claim) = &mut self.claim else { return };
        let saved = (!saved.is_empty()).then(|| saved.into());
        let mut writes = Writes { timers, saved, ..Writes::default() };
        if writes.is_empty() {
            return;
        }
        writes.version = claim.pin(self.assigned.version.digest(), &writes);
        let fence = claim.fence;
        let commit = Arc::new(Commit { fence, durability: Durability::Os, writes });
        let limit = Duration::from_millis(self.channel.logic.limits.commit_ms_max);
        match tokio::time::timeout(limit, self.directory.store.commit(commit)).await {
            Ok(Ok(committed)) => {
                claim.keeps(&self.channel.quota, fence, &committed);
            }
            Ok(Err(error)) => {
                claim.is_unsure = true;
                tracing::warn!(channel = %self.channel.name, %error, "the memory of a sleeping channel was not saved");
            }
            Err(_) => {
                claim.is_unsure = true;
                tracing::warn!(channel = %self.channel.name, "the memory of a sleeping channel was not saved in time");
            }
        }
    }
}
