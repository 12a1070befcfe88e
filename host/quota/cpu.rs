//! Processor time of a tenant's plugins. While it is within its limit everything runs; beyond it, those who want to run wait in line, and
//! the first of them goes when the tenant has time again.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::quota::Quota;
use crate::quota::bucket::Bucket;
use crate::quota::limits::Limit;
use crate::telemetry::now_ms;

/// How long the first in line waits before it looks again: what others gave back, or another limit, may have let it go.
const LOOK_MS: u64 = 5;

/// A tenant's processor time.
#[derive(Debug)]
pub(super) struct Cpu {
    /// In microseconds.
    pub(super) bucket: Bucket,
    /// One at a time is first in line. Fair: they come in the order in which they asked.
    line: Semaphore,
}

impl Cpu {
    pub(super) fn new() -> Self {
        Self { bucket: Bucket::default(), line: Semaphore::new(1) }
    }

    pub(super) fn set(&self, ms_per_second: Option<u64>) {
        self.bucket.set(ms_per_second.map(|ms| ms.saturating_mul(1_000)));
    }
}

/// A place in the line; resolves to the turn.
pub type InLine = Pin<Box<dyn Future<Output = Turn> + Send>>;

/// The right to run. So much time is held back for it, until this is dropped or [kept](Turn::keep), that those behind it do not go all at
/// once before it was charged.
#[derive(Debug)]
pub struct Turn {
    quota: Arc<Quota>,
    held_us: u64,
}

impl Turn {
    /// What was held back counts as charged; returns it, in microseconds, to be [given back](Quota::charge_cpu) with the next charge.
    pub fn keep(mut self) -> u64 {
        std::mem::take(&mut self.held_us)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.held_us > 0 {
            self.quota.cpu.bucket.give_back(self.held_us);
        }
    }
}

impl Quota {
    /// Counts what a plugin ran. `prepaid_us` of it was charged before.
    pub fn charge_cpu(&self, ran_us: u64, prepaid_us: u64) {
        self.counts.cpu_us.add(ran_us);
        if prepaid_us > ran_us {
            self.cpu.bucket.give_back(prepaid_us - ran_us);
        } else if ran_us > prepaid_us {
            self.cpu.bucket.take(ran_us - prepaid_us, now_ms());
        }
    }

    /// Whether its plugins must [wait](Self::wait_in_line) before they run.
    pub fn is_out_of_cpu(&self) -> bool {
        // The first comparison is all there is where there is no limit.
        self.cpu.bucket.rate().is_some()
            && !self.is_lifted()
            && (self.cpu.line.available_permits() == 0 || self.cpu.bucket.wait_ms(now_ms()) > 0)
    }

    /// Waits for a turn to run for about so long, in microseconds. Whoever needs no turn gets one at once.
    pub fn wait_in_line(self: &Arc<Self>, about_us: u64) -> InLine {
        let quota = Arc::clone(self);
        Box::pin(async move {
            quota.count_wait(Limit::PluginCpu);
            // Never closed.
            let first = quota.cpu.line.acquire().await;
            while !quota.is_lifted() {
                match quota.cpu.bucket.wait_ms(now_ms()) {
                    0 => break,
                    wait_ms => tokio::time::sleep(Duration::from_millis(wait_ms.min(LOOK_MS))).await,
                }
            }
            quota.cpu.bucket.take(about_us, now_ms());
            drop(first);
            Turn { quota, held_us: about_us }
        })
    }

    /// A turn, if one is needed.
    pub async fn turn(self: &Arc<Self>, about_us: u64) -> Option<Turn> {
        if self.is_out_of_cpu() { Some(self.wait_in_line(about_us).await) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::{Quotas, TenantLimits};

    fn quota(ms_per_second: u64) -> Arc<Quota> {
        let quotas = Quotas::new(100);
        quotas.set("acme", TenantLimits { plugin_cpu_ms_per_second: Some(ms_per_second), ..TenantLimits::default() });
        quotas.of("acme")
    }

    /// Law: a tenant at its limit runs one after another, in the order in which they asked, and no more than the limit.
    #[tokio::test]
    async fn those_who_are_out_of_time_take_turns() {
        let quota = quota(500);
        assert!(!quota.is_out_of_cpu());
        // Before what is too much: from then on it is paid off, also while this test does not run.
        let began_ms = now_ms();
        quota.charge_cpu(520_000, 0);
        assert!(quota.is_out_of_cpu());
        let order = std::sync::Mutex::new(Vec::new());

        let runs = (0..10).map(|number| {
            let (quota, order) = (Arc::clone(&quota), &order);
            async move {
                let turn = quota.wait_in_line(1_000).await;
                order.lock().unwrap().push(number);
                tokio::task::yield_now().await;
                quota.charge_cpu(10_000, turn.keep());
            }
        });
        futures_util::future::join_all(runs).await;

        assert_eq!(*order.lock().unwrap(), (0..10).collect::<Vec<_>>());
        // 20 ms too much before, then 90 ms of nine; the tenth may have gone just now.
        assert!(now_ms() - began_ms >= 2 * (20 + 90) - 20, "took {} ms", now_ms() - began_ms);
    }

    /// Goal: what was held back and not used comes back, so that many short calls are not taken for long ones.
    #[tokio::test]
    async fn a_turn_that_was_short_gives_the_rest_back() {
        let quota = quota(10);
        quota.charge_cpu(10_100, 0);
        for _ in 0..100 {
            let turn = quota.wait_in_line(1_000).await;
            quota.charge_cpu(1, turn.keep());
        }
        assert_eq!(quota.usage().plugin_cpu_us, 10_200);
    }

    /// Goal: whoever waits is let go when the limit is lifted, or when the node goes down.
    #[tokio::test]
    async fn a_line_is_let_go() {
        for stops in [false, true] {
            let quotas = Quotas::new(100);
            let limits = TenantLimits { plugin_cpu_ms_per_second: Some(1), ..TenantLimits::default() };
            quotas.set("acme", limits);
            let quota = quotas.of("acme");
            quota.charge_cpu(3_600_000_000, 0);
            let let_go = async {
                tokio::task::yield_now().await;
                if stops { quotas.lift() } else { quotas.set("acme", TenantLimits::default()) }
            };
            let line = [quota.wait_in_line(1_000), quota.wait_in_line(1_000)];
            tokio::join!(futures_util::future::join_all(line), let_go);
        }
    }
}
