//! Swapping the version of a channel that is awake: at a batch boundary, `save` on the old instance, `open` on the new one, then the first
//! batch, whose commit pins the version. Whatever fails on the way, the old instance goes on, and the events of that batch with it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::channel::actor::Actor;
use crate::channel::actor::lifecycle::{Live, Purpose, Serving};
use crate::channel::version::Assignment;
use crate::plugin::compile::Digest;
use crate::plugin::{Fault, Instance};
use crate::telemetry::now_ms;

/// What a swap is expected to take of a tenant that is out of processor time.
const SWAP_US: u64 = 1_000;

/// What a channel goes back to while the version that took over has not run a batch yet.
pub(super) enum Before {
    /// The instance that was replaced.
    Live {
        /// It, without its permit, which the new one has.
        instance: Instance,
        /// What it was opened with.
        seed: u64,
        /// Whether its opening is on the tape.
        is_taped: bool,
        /// What it runs.
        assigned: Assignment,
        /// The turn to swap, which ends with this.
        _extra: OwnedSemaphorePermit,
        /// When the channel began to pause.
        began: Instant,
    },
    /// The channel slept when its version changed.
    Saved {
        /// What wrote last.
        assigned: Assignment,
        /// What it saved.
        saved: Option<Bytes>,
    },
}

/// The right to swap, or a place in the line for it. Few channels swap at a time, so that each stands still for as short as it takes;
/// until it is its turn, a channel goes on with what it has.
#[derive(Default)]
pub(super) enum SwapTurn {
    #[default]
    None,
    InLine(Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send>>),
    Come(OwnedSemaphorePermit),
}

impl SwapTurn {
    /// Ready once, when it has come.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self::InLine(line) = self else { return Poll::Pending };
        match line.as_mut().poll(cx) {
            Poll::Ready(turn) => {
                *self = turn.map_or(Self::None, Self::Come);
                Poll::Ready(())
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn take(&mut self) -> Option<OwnedSemaphorePermit> {
        match std::mem::take(self) {
            Self::Come(turn) => Some(turn),
            _ => None,
        }
    }
}

impl Actor {
    /// Whether the instance is to be replaced now: another version is wanted, it is this channel's turn, and nothing of the version it has
    /// is on its way.
    pub(super) fn is_to_swap(&mut self) -> bool {
        let changes = self.channel.logic.rollout.changes();
        if changes != self.plan_seen {
            self.plan_seen = changes;
            self.reconsider();
        }
        if self.wanted.is_none() || self.instance.is_none() || self.before.is_some() {
            self.swap_turn = SwapTurn::None;
        } else if matches!(self.swap_turn, SwapTurn::None) {
            let (swaps, quota) = (Arc::clone(&self.directory.swaps), Arc::clone(&self.channel.quota));
            let leaves = self.assigned.version.is_withdrawn();
            self.swap_turn = SwapTurn::InLine(Box::pin(async move {
                // Before it keeps others from swapping. What may not run any more goes whatever its tenant has left.
                if !leaves {
                    drop(quota.turn(SWAP_US).await);
                }
                swaps.acquire_owned().await.ok()
            }));
        }
        // Whoever wakes it polls again.
        let _at_once = self.swap_turn.poll(&mut Context::from_waker(Waker::noop()));
        self.core.settle(matches!(self.swap_turn, SwapTurn::Come(_)))
    }

    /// Whether others wait to swap until the first batch of the version that took over here ran.
    pub(super) fn holds_a_turn(&self) -> bool {
        matches!(self.before, Some(Before::Live { .. }))
    }

    /// The plan has changed: what does it say about this channel?
    fn reconsider(&mut self) {
        let mut assigned = self.channel.logic.rollout.assign(&self.channel.name, None);
        if self.declined == Some(assigned.deployed.id) {
            assigned = self.channel.logic.rollout.assign(&self.channel.name, self.declined);
        }
        let current = &self.assigned.version;
        self.wanted = None;
        if assigned.version.is_withdrawn() {
            // Nothing may run here any more: what comes in waits a while for another version.
            (self.instance, self.before) = (None, None);
            self.shadows.end();
            self.core.lose_instance();
        } else if assigned.version.is(current) {
            // Perhaps of another deployment.
            self.assigned = assigned;
            if let Some(live) = &mut self.instance {
                live.serving = Serving::of(&self.assigned);
            }
        } else if self.declined != Some(assigned.deployed.id) || current.is_withdrawn() {
            self.wanted = Some(assigned);
        }
        if self.consider_taping() && self.wanted.is_none() {
            self.wanted = Some(self.assigned.clone());
        }
    }

    /// The version for an instance that is opened now. `pinned` wrote last.
    pub(super) fn choose(&mut self, pinned: Option<Digest>) {
        let rollout = &self.channel.logic.rollout;
        self.plan_seen = rollout.changes();
        self.wanted = None;
        self.assigned = rollout.assign(&self.channel.name, self.declined);
        // What counts for all cannot be passed over, but what the channel had before may still be there.
        if self.declined == Some(self.assigned.deployed.id)
            && let Some(earlier) = pinned.and_then(|pinned| rollout.find(self.channel.name.tenant(), pinned))
        {
            self.assigned = earlier;
        }
    }

    /// Does not try this deployment again.
    pub(super) fn decline(&mut self, assigned: &Assignment) {
        self.declined = Some(assigned.deployed.id);
        assigned.deployed.tally.swaps_failed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        metrics::counter!("hotbay_swaps_total", "result" => "failed").increment(1);
    }

    /// The version did not take over from another one; or, where it was only to be opened anew, for a tape, there is no tape.
    fn not_taken_over(&mut self, to: &Assignment, from: &Assignment) {
        if to.version.is(&from.version) {
            self.taping.stop();
        } else {
            self.decline(to);
        }
    }

    /// Replaces the instance. Without an event that waits, a batch of none is the first one.
    pub(super) async fn swap(&mut self) {
        let Some(to) = self.wanted.take() else { return };
        let Some(extra) = self.swap_turn.take() else { return };
        let began = Instant::now();
        self.shadows.end();
        let Some(mut live) = self.instance.take() else { return };
        let from = self.assigned.clone();
        // Leaving a version that may not run any more is never given up.
        let leaves = from.version.is_withdrawn();
        let saved = if leaves && !to.version.takes(from.version.schema) {
            Ok(None)
        } else if to.version.takes(from.version.schema) {
            live.instance.holds_a_turn(true);
            let saved = self.save_instance(&mut live).await;
            saved.map(|saved| (!saved.is_empty()).then(|| Bytes::from(saved)))
        } else {
            let what = format!("it does not take over state of schema {}", from.version.schema);
            self.not_taken_over(&to, &from);
            tracing::warn!(channel = %self.channel.name, digest = %to.version.digest(), what, "not swapped");
            self.instance = Some(live);
            return;
        };
        let (saved, spent) = match saved {
            Ok(saved) => (saved, false),
            Err(fault) => {
                self.count_fault(&fault);
                let spent = !matches!(fault, Fault::Refused { .. });
                if !leaves {
                    self.not_taken_over(&to, &from);
                    if spent {
                        // Opened anew from what is committed, with the next event.
                        return self.core.lose_instance();
                    }
                    self.instance = Some(live);
                    return;
                }
                (None, spent)
            }
        };
        let new_seed = rand::random();
        let mut opened = self.open_instance(&to.version, saved.clone(), new_seed, Purpose::Swap).await;
        if opened.is_err() && leaves && saved.is_some() {
            opened = self.open_instance(&to.version, None, new_seed, Purpose::Swap).await;
        }
        match opened {
            Ok(new) => {
                let Live { instance, permit, serving, seed, is_taped } = live;
                drop(serving);
                if !spent {
                    self.before = Some(Before::Live { instance, seed, is_taped, assigned: from, _extra: extra, began });
                }
                let is_taped = self.taping.tape().is_some();
                self.instance =
                    Some(Live { instance: new, permit, serving: Serving::of(&to), seed: new_seed, is_taped });
                self.assigned = to;
                if let Some((id, batch)) = self.core.run_nothing(rand::random(), now_ms()) {
                    self.run_batch(id, batch).await;
                }
            }
            Err(fault) => {
                self.count_fault_of(&to, &fault);
                self.not_taken_over(&to, &from);
                tracing::warn!(channel = %self.channel.name, digest = %to.version.digest(), "not swapped: the version before goes on");
                if spent || leaves {
                    return self.core.lose_instance();
                }
                self.instance = Some(live);
            }
        }
    }

    /// The first batch of a version that took over succeeded.
    pub(super) fn stay_swapped(&mut self) {
        let Some(before) = self.before.take() else { return };
        if let Some(live) = &mut self.instance {
            live.instance.holds_a_turn(false);
        }
        let pause = match before {
            // Only opened anew.
            Before::Live { assigned, .. } if assigned.version.is(&self.assigned.version) => return,
            Before::Live { began, .. } => began.elapsed(),
            Before::Saved { .. } => std::time::Duration::ZERO,
        };
        self.assigned.deployed.tally.swapped(pause);
        metrics::counter!("hotbay_swaps_total", "result" => "done").increment(1);
        if !pause.is_zero() {
            metrics::histogram!("hotbay_swap_pause_seconds").record(pause.as_secs_f64());
        }
    }

    /// A batch failed on a version that is on trial: the channel leaves it, and the batch's events are still to be run. False if it is not
    /// on trial.
    pub(super) fn leave_trial(&mut self) -> bool {
        if !self.assigned.on_trial {
            return false;
        }
        self.decline(&self.assigned.clone());
        tracing::warn!(channel = %self.channel.name, digest = %self.assigned.version.digest(), "the channel left its canary: it failed");
        self.instance = None;
        self.shadows.end();
        self.core.undo();
        self.core.lose_instance();
        true
    }

    /// The first batch of a version that took over failed: the one before is back, and the batch's events are still to be run. False if it
    /// could not be brought back.
    pub(super) async fn go_back(&mut self) -> bool {
        let Some(before) = self.before.take() else { return false };
        let failed = self.assigned.clone();
        if failed.version.is_withdrawn()
            || matches!(&before, Before::Live { assigned, .. } if assigned.version.is_withdrawn())
        {
            return false;
        }
        let permit = match self.instance.take() {
            Some(live) => live.permit,
            None => return false,
        };
        let (Before::Live { assigned: back, .. } | Before::Saved { assigned: back, .. }) = &before;
        if !back.version.is(&failed.version) {
            self.decline(&failed);
            tracing::warn!(channel = %self.channel.name, digest = %failed.version.digest(), "swapped back: its first batch failed");
        }
        let (instance, assigned, seed, is_taped) = match before {
            Before::Live { instance, assigned, seed, is_taped, .. } => {
                match self.taping.tape() {
                    Some(tape) if is_taped => tape.back(),
                    _ => self.taping.stop(),
                }
                (Ok(instance), assigned, seed, is_taped)
            }
            Before::Saved { assigned, saved } => {
                let seed = rand::random();
                let opened = self.open_instance(&assigned.version, saved, seed, Purpose::Channel).await;
                (opened, assigned, seed, self.taping.tape().is_some())
            }
        };
        self.assigned = assigned;
        match instance {
            Ok(instance) => {
                self.instance = Some(Live { instance, permit, serving: Serving::of(&self.assigned), seed, is_taped });
                self.core.undo();
                true
            }
            Err(fault) => {
                self.count_fault(&fault);
                false
            }
        }
    }
}
