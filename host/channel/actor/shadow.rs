//! Another version that runs beside the one that counts: it gets the same batches and the same answers to its reads, and what it would have
//! done is compared and counted, never applied. It has a task of its own, so that nobody waits for it; one that fails or falls behind
//! begins anew, from what the version that counts saves.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;

use crate::channel::actor::Actor;
use crate::channel::actor::lifecycle::Purpose;
use crate::channel::version::{self, Deployed, Version};
use crate::channel::view::View;
use crate::plugin::{Channel, Entry, Fault, Instance, Playback, Reads, account, differences};
use crate::protocol::event::Batch;
use crate::telemetry::now_ms;

/// Batches that wait to be compared.
const QUEUE_MAX: usize = 32;
/// How long a channel waits before it tries again with a shadow that failed or fell behind.
const PAUSE: Duration = Duration::from_secs(5);
/// Characters of the last difference that are kept.
const WORDS_MAX: usize = 2_000;

/// What the version that counts did.
struct Done {
    batch: Arc<Batch>,
    reads: Reads,
    effects: Vec<Entry>,
}

/// A shadow of this channel.
pub(super) struct Shadow {
    deployment: i64,
    batches: mpsc::Sender<Done>,
}

/// What the actor knows of its shadow.
#[derive(Default)]
pub(super) struct Shadows {
    running: Option<Shadow>,
    /// Not before this time another one.
    not_before: Option<Instant>,
}

impl Shadows {
    /// The instance it ran beside is gone, and what it had in memory with it.
    pub(super) fn end(&mut self) {
        self.running = None;
    }

    /// Whether there is one, which needs to know what the instance read and did.
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    fn pause(&mut self) {
        self.running = None;
        self.not_before = Some(Instant::now() + PAUSE);
    }
}

impl Actor {
    /// Before a batch runs: begins or ends a shadow, as the plan says. The instance may be lost by that, if it cannot save.
    pub(super) async fn tend_shadow(&mut self) {
        let wanted = self.assigned.shadow.as_ref().filter(|(version, _)| !version.is_withdrawn());
        let running = self.shadows.running.as_ref().filter(|running| !running.batches.is_closed());
        let (Some((version, deployed)), true) = (wanted, self.before.is_none()) else {
            return self.shadows.end();
        };
        if running.is_some_and(|running| running.deployment == deployed.id) {
            return;
        }
        if self.shadows.running.take().is_some_and(|running| running.batches.is_closed()) {
            self.shadows.pause();
        }
        if self.shadows.not_before.is_some_and(|not_before| not_before > Instant::now()) {
            return;
        }
        let (version, deployed) = (Arc::clone(version), deployed.clone());
        let Ok(permit) = Arc::clone(&self.directory.shadows).try_acquire_owned() else {
            return self.shadows.pause();
        };
        let Some(mut live) = self.instance.take() else { return };
        let seed = live.seed;
        let saved = self.save_instance(&mut live).await;
        if !matches!(&saved, Err(fault) if !matches!(fault, Fault::Refused { .. })) {
            self.instance = Some(live);
        }
        let saved = match saved {
            Ok(saved) => (!saved.is_empty() && version.takes(self.assigned.version.schema)).then(|| saved.into()),
            Err(fault) => {
                // A failure of what is compared with, not of the shadow.
                self.count_fault(&fault);
                return self.shadows.pause();
            }
        };
        match self.open_instance(&version, saved, seed, Purpose::Shadow).await {
            Ok(instance) => self.begin_shadow(instance, version, deployed, permit),
            Err(fault) => {
                version::count_fault(&version, &deployed, &fault);
                tracing::warn!(channel = %self.channel.name, digest = %version.digest(), %fault, "the shadow cannot be opened");
                self.shadows.pause();
            }
        }
    }

    fn begin_shadow(
        &mut self,
        instance: Instance,
        version: Arc<Version>,
        deployed: Deployed,
        permit: OwnedSemaphorePermit,
    ) {
        let Some(claim) = &self.claim else { return };
        let (batches, waiting) = mpsc::channel(QUEUE_MAX);
        let deployment = deployed.id;
        let beside = Beside { instance, view: Arc::clone(&claim.view), version, deployed, _permit: permit };
        let name = self.channel.name.to_string();
        self.directory.spawn_counted("shadow", beside.run(name, waiting));
        self.shadows = Shadows { running: Some(Shadow { deployment, batches }), not_before: None };
    }

    /// After a batch succeeded: lets the shadow run it, too.
    pub(super) fn shadow_batch(&mut self, batch: &Arc<Batch>, reads: Reads, effects: Vec<Entry>) {
        let Some(running) = &self.shadows.running else { return };
        if running.batches.try_send(Done { batch: Arc::clone(batch), reads, effects }).is_err() {
            if let Some((_, deployed)) = &self.assigned.shadow {
                deployed.tally.shadow_skipped.fetch_add(1, Ordering::Relaxed);
            }
            self.shadows.pause();
        }
    }
}

/// The shadow's own side.
struct Beside {
    instance: Instance,
    view: Arc<View>,
    version: Arc<Version>,
    deployed: Deployed,
    _permit: OwnedSemaphorePermit,
}

impl Beside {
    async fn run(self, channel: String, mut waiting: mpsc::Receiver<Done>) {
        let Self { instance, view, version, deployed, _permit } = self;
        let tally = &deployed.tally;
        // What `open` asks for comes with the first batch. That of the version that counts was long ago.
        let nothing = Arc::new(Batch { now_ms: now_ms(), seed: 0, events: Vec::new() });
        let (mut instance, mut result) = instance.handle(Arc::clone(&view) as _, nothing).await;
        while let (Some(live), Ok(_)) = (instance.take(), &result) {
            let Some(done) = waiting.recv().await else { return };
            if version.is_withdrawn() {
                return;
            }
            let reads = Playback::new(done.reads, Some(Arc::clone(&view) as Arc<dyn Channel>));
            (instance, result) = live.handle(reads as _, Arc::clone(&done.batch)).await;
            tally.shadow_events.fetch_add(done.batch.events.len() as u64, Ordering::Relaxed);
            if let Some(live) = &mut instance {
                tally.cpu_us.fetch_add(live.take_ran().as_micros() as u64, Ordering::Relaxed);
            }
            let Ok(effects) = &result else { break };
            let found = differences(&done.effects, &account(effects));
            if let Some(first) = found.first() {
                tally.shadow_differences.fetch_add(1, Ordering::Relaxed);
                let words = first.told(Some(&done.batch)).chars().take(WORDS_MAX).collect();
                *tally.last_difference.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(words);
            }
        }
        if let Err(fault) = result {
            version::count_fault(&version, &deployed, &fault);
            tracing::warn!(channel, digest = %version.digest(), deployment = deployed.id, %fault, "the shadow failed");
        }
    }
}
