//! Who pays for the calls of an instance: the account of a tenant, and the plugin's own figures.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::plugin::engine::TICK;
use crate::quota::{Effort, Quota};

/// What a plugin that goes on for a tick is expected to run until it comes by again.
const TICK_US: u64 = TICK.as_micros() as u64;

/// Counts what an instance runs.
#[derive(Default)]
pub(super) struct Meter {
    quota: Option<Arc<Quota>>,
    effort: Option<Arc<Effort>>,
    /// Whether long calls wait while the tenant is out of processor time.
    pub(super) is_patient: bool,
    /// Whether the call under way waits while its tenant is out of processor time.
    waits: bool,
    /// What is charged of the call under way, in microseconds.
    charged_us: u64,
    /// Of that which it will run, what was charged already. Shared with the futures of its pauses.
    prepaid_us: Arc<AtomicU64>,
}

impl Meter {
    /// Counts for a plugin.
    pub(super) fn of(effort: &Arc<Effort>) -> Self {
        Self { effort: Some(Arc::clone(effort)), is_patient: true, ..Self::default() }
    }

    /// Who pays from now on.
    pub(super) fn charge_to(&mut self, quota: Option<&Arc<Quota>>) {
        self.quota = quota.cloned();
    }

    /// A call begins.
    pub(super) fn begin(&mut self, waits: bool) {
        (self.waits, self.charged_us) = (waits && self.is_patient, 0);
    }

    /// Charges what the call under way ran, of which part was charged before.
    pub(super) fn charge(&mut self, ran: Duration) {
        let ran_us = ran.as_micros() as u64;
        let more_us = ran_us.saturating_sub(self.charged_us);
        let prepaid_us = self.prepaid_us.swap(0, Ordering::Relaxed);
        if more_us == 0 && prepaid_us == 0 {
            return;
        }
        self.charged_us = ran_us;
        if let Some(effort) = &self.effort {
            effort.count_cpu(more_us);
        }
        if let Some(quota) = &self.quota {
            quota.charge_cpu(more_us, prepaid_us);
        }
    }

    /// What a call has to wait for that goes on, if it has to.
    pub(super) fn turn(&self) -> Option<impl Future<Output = ()> + Send + use<>> {
        let quota = self.quota.as_ref().filter(|quota| self.waits && quota.is_out_of_cpu())?;
        let (line, prepaid_us) = (quota.wait_in_line(TICK_US), Arc::clone(&self.prepaid_us));
        Some(async move {
            prepaid_us.fetch_add(line.await.keep(), Ordering::Relaxed);
        })
    }

    /// A batch of so many events is handled.
    pub(super) fn count_events(&self, events: usize) {
        if let Some(effort) = &self.effort {
            effort.count_events(events);
        }
    }
}

/// Linear memory of an instance, counted until this is dropped.
#[derive(Default)]
pub(super) struct Memory {
    /// Whose.
    quota: Option<Arc<Quota>>,
    bytes: usize,
    /// Why it could not grow the last time, if that was its tenant's limit.
    pub(super) refused: Option<crate::quota::Over>,
}

impl Memory {
    pub(super) fn of(quota: Option<&Arc<Quota>>) -> Self {
        Self { quota: quota.cloned(), ..Self::default() }
    }

    /// Linear memory, over all memories.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Grows to so much. False if the tenant may not have it.
    pub(super) fn grow_to(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        if let Some(quota) = &self.quota
            && let Err(over) = quota.grow_memory(more)
        {
            self.refused = Some(over);
            return false;
        }
        self.bytes += more;
        true
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some(quota) = &self.quota {
            quota.free_memory(self.bytes);
        }
    }
}
