//! Recording a channel: from the opening of an instance on, every call goes onto a tape. A channel that is awake is recorded from its next
//! batch boundary: its instance is replaced by one of the same version, as for a swap, so that the tape begins with an opening.

use std::sync::Arc;

use crate::channel::actor::Actor;
use crate::channel::actor::lifecycle::Live;
use crate::plugin::tape::{Call, TapeHandle};
use crate::plugin::{Channel, Entry, Fault, Reads, Recorder};
use crate::protocol::event::Batch;
use crate::telemetry::now_ms;

/// What the actor knows of its tape.
#[derive(Default)]
pub(super) struct Taping {
    /// The recording it belongs to, also when its tape has ended: there is one tape for each recording while the channel is awake.
    recording: Option<u64>,
    tape: Option<TapeHandle>,
}

impl Taping {
    /// The tape, if it takes anything.
    pub(super) fn tape(&self) -> Option<&TapeHandle> {
        self.tape.as_ref().filter(|tape| tape.is_recording())
    }

    /// Ends the tape: what follows would make no sense on it.
    pub(super) fn stop(&mut self) {
        if let Some(tape) = self.tape.take() {
            tape.stop();
        }
    }

    /// A batch was handled. Returns its number on the tape.
    pub(super) fn batch(&self, batch: &Arc<Batch>, reads: Reads, result: &Result<Vec<Entry>, Fault>) -> Option<u64> {
        Some(self.tape()?.batch_accounted(batch, reads, || result.clone()))
    }

    /// The effects of a batch never took hold.
    pub(super) fn discard(&self, number: Option<u64>) {
        if let (Some(tape), Some(number)) = (self.tape(), number) {
            tape.discard(number);
        }
    }
}

impl Actor {
    /// Begins or ends a tape, as the plan says. True if one begins.
    pub(super) fn consider_taping(&mut self) -> bool {
        let plan = self.channel.logic.rollout.plan();
        let wanted = plan.recordings.iter().find(|recording| recording.is_for(&self.channel.name));
        match wanted {
            None => {
                self.taping.stop();
                self.taping.recording = None;
                false
            }
            Some(recording) if self.taping.recording == Some(recording.id) => false,
            Some(recording) => {
                self.taping.stop();
                self.taping.recording = Some(recording.id);
                let begun = recording.tapes.begin(&self.channel.name, &self.channel.logic, &self.assigned.version);
                self.taping.tape = begun;
                self.taping.tape.is_some()
            }
        }
    }

    /// Calls `save`, onto the tape if the instance is on it.
    pub(super) async fn save_instance(&mut self, live: &mut Live) -> Result<Vec<u8>, Fault> {
        let Some(claim) = &self.claim else {
            return Err(Fault::Unavailable { cause: "the channel was given up".to_owned() });
        };
        let view: Arc<dyn Channel> = Arc::clone(&claim.view) as _;
        let now_ms = now_ms();
        let tape = self.taping.tape().filter(|_| live.is_taped).cloned();
        let Some(tape) = tape else { return live.instance.save(view, now_ms).await };
        let recorder = Recorder::new(view);
        let saved = live.instance.save(Arc::clone(&recorder) as _, now_ms).await;
        let call = Call { now_ms, reads: recorder.take(), fault: saved.as_ref().err() };
        tape.save(call, saved.as_deref().ok());
        saved
    }
}
