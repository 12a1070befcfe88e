//! Bounds that all callers share, of which none may take the most: so many requests that wait, so many bytes of bodies.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many must come together to fill a bound.
const CALLERS_MIN: usize = 10;

/// A bound. A caller may have a tenth of it; or, where that is less, one thing however large.
pub(super) struct Shares {
    max: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by_caller: HashMap<Box<str>, usize>,
}

/// What one thing takes of a bound, until it is dropped.
pub(super) struct Share {
    shares: Arc<Shares>,
    caller: Box<str>,
    amount: usize,
}

impl Shares {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, taken: Mutex::default() })
    }

    /// Nothing yet, for this caller.
    pub(super) fn begin(self: &Arc<Self>, caller: &str) -> Share {
        Share { shares: Arc::clone(self), caller: caller.into(), amount: 0 }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Takes so much more. False, and nothing is taken, if that is too much for all or for this caller.
    pub(super) fn grow(&mut self, amount: usize) -> bool {
        let mut taken = self.shares.lock();
        let own = taken.by_caller.get(&self.caller).copied().unwrap_or_default();
        let alone = own == self.amount;
        if taken.all + amount > self.shares.max || !(alone || own + amount <= self.shares.max / CALLERS_MIN) {
            return false;
        }
        taken.all += amount;
        *taken.by_caller.entry(self.caller.clone()).or_default() += amount;
        self.amount += amount;
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.shares.lock();
        taken.all -= self.amount;
        if let Some(own) = taken.by_caller.get_mut(&self.caller) {
            *own -= self.amount;
            if *own == 0 {
                taken.by_caller.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Law: everything has a bound, and nobody fills it alone.
    #[test]
    fn a_caller_has_a_tenth_and_all_together_the_whole() {
        let shares = Shares::new(100);
        let take = |caller: &str, amount: usize| {
            let mut share = shares.begin(caller);
            share.grow(amount).then_some(share)
        };

        let ann: Vec<_> = (0..20).map_while(|_| take("ann", 1)).collect();
        assert_eq!(ann.len(), 10);
        let large = take("bob", 50).expect("one thing, however large");
        assert!(take("bob", 1).is_none() && take("cleo", 41).is_none());
        let mut rest = take("cleo", 30).expect("what is left");
        assert!(rest.grow(10) && !rest.grow(1));

        drop((ann, large, rest));
        let taken = shares.lock();
        assert_eq!((taken.all, taken.by_caller.len()), (0, 0));
        drop(taken);
        assert!(take("ann", 100).is_some());
    }
}
