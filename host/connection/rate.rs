//! Message rates: the generic cell rate algorithm (ITU-T I.371) in one number per bucket.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::limits::Rate;
use crate::protocol::identity::Identity;

/// A bucket that lets `per_second` messages through on average and `burst` at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    rate: Rate,
    /// When the bucket is full again, in microseconds since the Unix epoch.
    full_at_us: u64,
}

impl Bucket {
    pub(super) fn new(rate: Rate, now_ms: u64) -> Self {
        Self { rate, full_at_us: now_ms * 1_000 }
    }

    /// Takes one message through, if there is room.
    pub(super) fn take(&mut self, now_ms: u64) -> bool {
        let now_us = now_ms * 1_000;
        let cost_us = 1_000_000 / u64::from(self.rate.per_second.max(1));
        let full_at_us = self.full_at_us.max(now_us) + cost_us;
        if full_at_us - now_us > cost_us * u64::from(self.rate.burst.max(1)) {
            return false;
        }
        self.full_at_us = full_at_us;
        true
    }

    fn is_full(&self, now_ms: u64) -> bool {
        self.full_at_us <= now_ms * 1_000
    }
}

/// The buckets of a mount's users, where it limits them over all their connections.
pub struct UserRates {
    rate: Option<Rate>,
    buckets: Mutex<Buckets>,
}

#[derive(Default)]
struct Buckets {
    /// By tenant and user.
    by_user: HashMap<(Box<str>, Box<str>), Bucket>,
    sweep_at: usize,
}

impl UserRates {
    /// Full buckets are forgotten when there are more than so many, and twice as many as were left the last time.
    const SWEEP_AT: usize = 10_000;

    /// Buckets of this rate, or none.
    pub fn new(rate: Option<Rate>) -> Self {
        Self { rate, buckets: Mutex::default() }
    }

    /// Takes one message of a user through, if there is room.
    pub fn take(&self, identity: &Identity, now_ms: u64) -> bool {
        self.take_as(identity.tenant(), identity.user(), now_ms)
    }

    /// The same of somebody who is known by another name.
    pub fn take_as(&self, tenant: &str, user: &str, now_ms: u64) -> bool {
        let Some(rate) = self.rate else { return true };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.by_user.len() > buckets.sweep_at.max(Self::SWEEP_AT) {
            buckets.by_user.retain(|_, bucket| !bucket.is_full(now_ms));
            buckets.sweep_at = 2 * buckets.by_user.len();
        }
        let key = (tenant.into(), user.into());
        buckets.by_user.entry(key).or_insert_with(|| Bucket::new(rate, now_ms)).take(now_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_lets_the_burst_through_and_then_the_rate() {
        let mut bucket = Bucket::new(Rate { per_second: 50, burst: 100 }, 1_000);

        assert_eq!((0..200).filter(|_| bucket.take(1_000)).count(), 100);

        assert_eq!((0..200).filter(|_| bucket.take(2_000)).count(), 50);
        assert_eq!((0..500).filter(|_| bucket.take(60_000)).count(), 100);
    }
}
