//! One instance on a channel of its own, as a conformance run has several.

use std::sync::Arc;
use std::time::Duration;

use crate::plugin::{Entry, Fault, Instance, Opening, Plugin, account};
use crate::protocol::event::Batch;
use crate::registry::scratch::{Released, Scratch};

/// See the module.
pub(super) struct Runner {
    pub(super) scratch: Scratch,
    instance: Option<Instance>,
}

/// What became of a batch.
pub(super) struct Handled {
    pub(super) account: Vec<Entry>,
    pub(super) released: Released,
    pub(super) ran: Duration,
    pub(super) memory_bytes: usize,
}

impl Runner {
    /// Starts an instance and opens it on this channel, on which the effects of that take hold. Returns those as well. All instances of a
    /// run are told the same random number, so that those that take over are told nothing else than those before.
    pub(super) async fn open(
        plugin: &Plugin,
        mut scratch: Scratch,
        saved: Option<&[u8]>,
    ) -> Result<(Self, Vec<Entry>), Fault> {
        const SEED: u64 = 0x5EED;
        let limits = Arc::clone(scratch.limits());
        let channel = scratch.channel();
        // As the broker does: one seed for the instance and for what `open` is told.
        let opening = Opening { seed: SEED, ..scratch.opening(saved) };
        let mut instance = Instance::start(plugin, limits, opening.seed, plugin.name()).await?;
        instance.open(channel, opening).await?;
        let effects = instance.take_effects_of_open();
        let account = account(&effects);
        let batch = scratch.batch(Vec::new());
        scratch.apply(&batch, effects)?;
        Ok((Self { scratch, instance: Some(instance) }, account))
    }

    /// Handles a batch that was made on this channel, or [followed](Scratch::follow) there. After a fault the instance is spent.
    pub(super) async fn handle(&mut self, batch: &Arc<Batch>) -> Result<Handled, Fault> {
        let instance = self.instance.take().ok_or_else(spent)?;
        let (instance, effects) = instance.handle(self.scratch.channel(), Arc::clone(batch)).await;
        let effects = effects.inspect_err(|_| self.scratch.fail())?;
        let mut instance = instance.ok_or_else(spent)?;
        let (ran, memory_bytes) = (instance.take_ran(), instance.memory_bytes());
        let account = account(&effects);
        let released = self.scratch.apply(batch, effects)?;
        self.instance = Some(instance);
        Ok(Handled { account, released, ran, memory_bytes })
    }

    /// What the instance saves. It goes on.
    pub(super) async fn save(&mut self) -> Result<Vec<u8>, Fault> {
        let instance = self.instance.as_mut().ok_or_else(spent)?;
        instance.save(self.scratch.channel(), self.scratch.now_ms()).await
    }
}

fn spent() -> Fault {
    Fault::Start { cause: "the instance is spent".to_owned() }
}
