//! Ids that plugins see. Each is given out once, and none tells how many others there are: a tenant that counted its own would otherwise
//! know what goes on at others.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// Half the bits of an id. Together they are a number that JavaScript keeps whole.
const HALF_BITS: u32 = 26;
const HALF: u64 = (1 << HALF_BITS) - 1;
/// Luby and Rackoff (How to construct pseudorandom permutations, 1988): with four, nobody tells it from a random permutation.
const ROUNDS: u32 = 4;

/// Numbers from 0 on, handed out as a secret permutation has them: a Feistel network, mixed by the hash that protects maps.
pub struct Ids {
    next: AtomicU64,
    secret: RandomState,
}

impl Default for Ids {
    fn default() -> Self {
        Self { next: AtomicU64::new(0), secret: RandomState::new() }
    }
}

impl Ids {
    /// The next id.
    pub fn give(&self) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (mut left, mut right) = halves(number);
        for round in 0..ROUNDS {
            (left, right) = (right, left ^ self.mix(round, right));
        }
        (left << HALF_BITS) | right
    }

    /// How many ids were given out before this one.
    pub fn number(&self, id: u64) -> u64 {
        let (mut left, mut right) = halves(id);
        for round in (0..ROUNDS).rev() {
            (left, right) = (right ^ self.mix(round, left), left);
        }
        (left << HALF_BITS) | right
    }

    fn mix(&self, round: u32, half: u64) -> u64 {
        self.secret.hash_one((round, half)) & HALF
    }
}

fn halves(number: u64) -> (u64, u64) {
    ((number >> HALF_BITS) & HALF, number & HALF)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Goal: ids are unique, fit into the numbers of JavaScript, lie nowhere near each other, and still are in an order for the host.
    #[test]
    fn ids_are_unique_and_tell_nothing() {
        const NEAR: u64 = 1 << 20;
        let ids = Ids::default();

        let given: Vec<u64> = (0..100_000).map(|_| ids.give()).collect();

        assert_eq!(given.iter().collect::<HashSet<_>>().len(), given.len());
        assert!(given.iter().all(|id| *id < 1 << 52));
        assert!(given.iter().zip(0..).all(|(id, number)| ids.number(*id) == number));
        let near = given.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) < NEAR).count();
        assert!(near < 10, "{near} ids are near the one before");
        assert_ne!(Ids::default().give(), ids.give());
    }
}
