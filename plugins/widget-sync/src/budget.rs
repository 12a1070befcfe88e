//! What the effects of a batch may still cost. The host undoes a batch that goes over its limits and runs its events one by
//! one; an event refused in time is cheaper, and never costs the others what only memory knows.

use hotbay_sdk::{Refusal, RefusalCode};

/// Bytes of frames and writes in one batch, of the 8 MiB the host allows: the rest is for small answers that nobody asks for.
const BYTES_MAX: usize = 7 << 20;
/// Effects of one batch, of the 10,000 the host allows; the rest likewise.
const EFFECTS_MAX: usize = 8_500;
/// Writes of a change at most: two values and a deletion.
pub(crate) const CHANGE_EFFECTS: usize = 3;
/// Bytes of answers to `SYNC_REQUEST`s in one batch, unless one alone has more: the other events need room, too.
const SYNC_BYTES_MAX: usize = 3 << 20;
/// Work of one batch, in units of about a microsecond, of the 100 ms the host allows: reading and writing takes its time, too.
const WORK_MAX: usize = 30_000;
/// Work of an operation beside that of its keys.
const OPERATION_WORK: usize = 8;
/// What a frame costs beside its payload: the envelope.
pub(crate) const FRAME_BYTES: usize = 640;

/// The costs of the running batch, as upper bounds.
#[derive(Default)]
pub(crate) struct Budget {
    bytes: usize,
    effects: usize,
    sync_bytes: usize,
    work: usize,
}

impl Budget {
    /// Whether there was no operation yet.
    pub(crate) fn is_fresh(&self) -> bool {
        self.work == 0
    }

    /// Takes the work of one more operation. What its keys cost shows later, and counts against the next one.
    ///
    /// # Errors
    /// If there was too much already; nothing is taken then.
    pub(crate) fn begin_operation(&mut self) -> Result<(), Refusal> {
        self.check_work()?;
        self.work += OPERATION_WORK;
        Ok(())
    }

    /// Checks that there was not too much work already.
    pub(crate) fn check_work(&self) -> Result<(), Refusal> {
        if self.work > WORK_MAX { Err(too_much()) } else { Ok(()) }
    }

    /// Counts keys of widgets that are read, copied or merged.
    pub(crate) fn count_keys(&mut self, keys: usize) {
        self.work += keys;
    }

    /// Whether so many bytes more fit.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.bytes + bytes <= BYTES_MAX && self.effects + CHANGE_EFFECTS <= EFFECTS_MAX
    }

    /// Whether an answer to a `SYNC_REQUEST` fits.
    pub(crate) fn has_room_for_sync(&self, bytes: usize) -> bool {
        self.has_room(bytes) && (self.sync_bytes == 0 || self.sync_bytes + bytes <= SYNC_BYTES_MAX)
    }

    /// Takes effects and their bytes, for frames or writes.
    ///
    /// # Errors
    /// If they do not fit; nothing is taken then.
    pub(crate) fn take(&mut self, effects: usize, bytes: usize) -> Result<(), Refusal> {
        if !self.has_room(bytes) {
            return Err(too_much());
        }
        self.bytes += bytes;
        self.effects += effects;
        Ok(())
    }

    /// Counts an answer to a `SYNC_REQUEST`.
    pub(crate) fn count_sync(&mut self, bytes: usize) {
        self.count(bytes);
        self.sync_bytes += bytes;
    }

    /// Counts an effect that is made in any case.
    pub(crate) fn count(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.effects += 1;
    }

    /// A new batch begins.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }
}

fn too_much() -> Refusal {
    Refusal::new(RefusalCode::Unavailable, "too much happens on this dashboard at once; send it again")
}
