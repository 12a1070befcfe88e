//! What one batch may cost. The host ends a batch that passes its bounds as if it had crashed; so before it acts the plugin asks
//! here, and refuses what no longer fits with `unavailable`, or puts it off to the next batch.

use hotbay_sdk::{Refusal, RefusalCode};

/// Most effects of a batch; the host's default is 10,000, and what is not asked for here must fit between: answers to joins, refusals.
const EFFECTS_MAX: usize = 9_000;
/// Bytes left for the same.
const RESERVE_BYTES: usize = 1 << 20;
/// What a frame costs the host beside its text and audience, in bytes.
pub(crate) const FRAME_BYTES: usize = 64;
/// Reading stops being started beyond this; see [`Budget::spend_read`]. It stands for some 20 ms.
const READ_MAX: usize = 8 << 20;
/// What an entry costs to read beside its bytes, in the time of so many bytes.
const READ_ENTRY: usize = 1_000;
/// Most filters evaluated in a batch. It stands for some 40 ms.
const EVALUATIONS_MAX: usize = 500_000;

/// Most bytes of filters and subscriptions taken apart and put together in a batch. It stands for some 20 ms.
const WORK_MAX: usize = 4 << 20;

/// What the batch under way has cost.
pub(crate) struct Budget {
    bytes_max: usize,
    bytes: usize,
    effects: usize,
    read: usize,
    evaluations: usize,
    work: usize,
}

impl Budget {
    /// Of a mount with this bound on the bytes of a batch's effects.
    pub(crate) fn new(effect_bytes_max: usize) -> Self {
        let bytes_max = effect_bytes_max.saturating_sub(RESERVE_BYTES);
        Self { bytes_max, bytes: 0, effects: 0, read: 0, evaluations: 0, work: 0 }
    }

    /// A new batch.
    pub(crate) fn begin(&mut self) {
        *self = Self { bytes: 0, effects: 0, read: 0, evaluations: 0, work: 0, ..*self };
    }

    /// Whether this many more effects with this many bytes can be made.
    pub(crate) fn fits(&self, effects: usize, bytes: usize) -> bool {
        self.effects + effects <= EFFECTS_MAX && self.bytes.saturating_add(bytes) <= self.bytes_max
    }

    /// The same, as a refusal.
    pub(crate) fn check(&self, effects: usize, bytes: usize) -> Result<(), Refusal> {
        if self.fits(effects, bytes) { Ok(()) } else { Err(busy()) }
    }

    /// Notes effects that are made.
    pub(crate) fn spend(&mut self, effects: usize, bytes: usize) {
        self.effects += effects;
        self.bytes += bytes;
    }

    /// Whether another read may begin. It may then read a page; pages have bounds of their own.
    pub(crate) fn may_read(&self) -> bool {
        self.read < READ_MAX
    }

    /// Notes an entry that was read.
    pub(crate) fn spend_read(&mut self, bytes: usize) {
        self.read += bytes + READ_ENTRY;
    }

    /// Whether what a member wants, which weighs this much, may be changed; if so it is noted.
    pub(crate) fn work(&mut self, weight: usize) -> Result<(), Refusal> {
        if self.work > WORK_MAX {
            return Err(busy());
        }
        self.work += weight;
        Ok(())
    }

    /// Whether this many more filters may be evaluated; if so it is noted.
    pub(crate) fn evaluate(&mut self, filters: usize) -> Result<(), Refusal> {
        // A single event may always be looked at.
        if self.evaluations > 0 && self.evaluations + filters > EVALUATIONS_MAX {
            return Err(busy());
        }
        self.evaluations += filters;
        Ok(())
    }
}

/// The refusal of what does not fit.
pub(crate) fn busy() -> Refusal {
    Refusal::new(RefusalCode::Unavailable, "too much at once; nothing was changed, send it again")
}
