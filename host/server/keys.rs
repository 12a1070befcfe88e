//! Who publishes: API keys, and how often an address may be wrong about them. Each look at a key costs a read of the store,
//! so whoever comes with wrong ones again and again has to wait. A key that was right before is looked at all the same: one
//! address may stand for many servers, and a stranger among them must not shut them out.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::limits::{WRONG_KEY_ADDRESSES_MAX, WRONG_KEYS_PER_ADDRESS};
use crate::store::{ApiKey, Store, StoreError};

/// Keys that are remembered to have been right.
const GOOD_MAX: usize = 10_000;
/// The time a wrong key counts.
const COST: Duration = Duration::from_nanos(1_000_000_000 / WRONG_KEYS_PER_ADDRESS.per_second as u64);

/// Looks API keys up.
pub struct ApiKeys {
    store: Arc<dyn Store>,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    /// When all that an address did is forgiven.
    wrong: HashMap<IpAddr, Instant>,
    /// Hashes of keys that were right when they were last looked at.
    good: HashSet<[u8; 32]>,
}

/// What a request has as `Authorization: Bearer …`.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
}

/// Why a key does not count.
#[derive(Debug)]
pub(super) enum KeyError {
    /// Not known, or revoked.
    Unknown,
    /// The address was wrong too often.
    TooOften {
        /// When it may come again.
        wait: Duration,
    },
    /// The store cannot say.
    Store(StoreError),
}

impl ApiKeys {
    /// Over the keys of a store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, memory: Mutex::default() }
    }

    /// The key with this secret.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub(super) async fn find(&self, secret: &str, peer: IpAddr) -> Result<ApiKey, KeyError> {
        let hash: [u8; 32] = Sha256::digest(secret.as_bytes()).into();
        if let Some(wait) = self.lock().wait(&hash, peer, Instant::now()) {
            return Err(KeyError::TooOften { wait });
        }
        let found = self.store.find_key(&hash).await.map_err(KeyError::Store)?;
        self.lock().learn(hash, peer, found.is_some(), Instant::now());
        found.ok_or(KeyError::Unknown)
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    /// How long this address must wait before a key is looked at.
    fn wait(&self, hash: &[u8; 32], peer: IpAddr, now: Instant) -> Option<Duration> {
        if self.good.contains(hash) {
            return None;
        }
        let address = network(peer);
        let forgiven_at =
            self.wrong.get(&address).or_else(|| self.wrong.get(&ALL_OTHERS).filter(|_| self.is_full()))?;
        let wait =
            (forgiven_at.saturating_duration_since(now) + COST).saturating_sub(COST * WRONG_KEYS_PER_ADDRESS.burst);
        (!wait.is_zero()).then_some(wait)
    }

    /// Remembers what became of a look.
    fn learn(&mut self, hash: [u8; 32], peer: IpAddr, right: bool, now: Instant) {
        if right {
            if self.good.len() >= GOOD_MAX {
                self.good.clear();
            }
            self.good.insert(hash);
            return;
        }
        self.good.remove(&hash);
        metrics::counter!("hotbay_wrong_api_keys_total").increment(1);
        let mut address = network(peer);
        if !self.wrong.contains_key(&address) && self.is_full() {
            self.wrong.retain(|_, forgiven_at| *forgiven_at > now);
            if self.is_full() {
                address = ALL_OTHERS;
            }
        }
        let forgiven_at = self.wrong.entry(address).or_insert(now);
        *forgiven_at = (*forgiven_at).max(now) + COST;
    }

    fn is_full(&self) -> bool {
        self.wrong.len() >= WRONG_KEY_ADDRESSES_MAX
    }
}

/// Counts for the addresses there is no room for.
const ALL_OTHERS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Who has one IPv6 address usually has its /64.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: [u8; 32] = [1; 32];
    const WRONG: [u8; 32] = [2; 32];

    fn address(last: u32) -> IpAddr {
        Ipv4Addr::from_bits(0x0a00_0000 + last).into()
    }

    /// Looks as often as it is let through; answers how often that was.
    fn try_wrong(memory: &mut Memory, peer: IpAddr, now: Instant, times: u32) -> u32 {
        let mut let_through = 0;
        for _ in 0..times {
            if memory.wait(&WRONG, peer, now).is_none() {
                memory.learn(WRONG, peer, false, now);
                let_through += 1;
            }
        }
        let_through
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_with_wrong_keys_has_to_wait_and_others_have_not() {
        let mut memory = Memory::default();
        let now = Instant::now();

        assert_eq!(try_wrong(&mut memory, address(1), now, 1_000), WRONG_KEYS_PER_ADDRESS.burst);
        assert_eq!(memory.wait(&WRONG, address(1), now), Some(COST));
        assert_eq!(memory.wait(&WRONG, address(2), now), None);
        assert_eq!(try_wrong(&mut memory, address(1), now + 3 * COST, 1_000), 3);
        assert_eq!(try_wrong(&mut memory, address(1), now + 1_000 * COST, 1_000), WRONG_KEYS_PER_ADDRESS.burst);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_was_right_is_looked_at_whatever_its_address_did() {
        let mut memory = Memory::default();
        let now = Instant::now();
        memory.learn(RIGHT, address(1), true, now);
        try_wrong(&mut memory, address(1), now, 1_000);

        assert_eq!(memory.wait(&RIGHT, address(1), now), None);
        memory.learn(RIGHT, address(1), false, now);
        assert!(memory.wait(&RIGHT, address(1), now).is_some(), "it was revoked");
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_of_one_network_are_one() {
        let mut memory = Memory::default();
        let now = Instant::now();
        let in_network = |host: u16| IpAddr::from([0x2001, 0xdb8, 0, 7, host, 1, 1, host]);

        let let_through: u32 = (0..100).map(|host| try_wrong(&mut memory, in_network(host), now, 1)).sum();

        assert_eq!(let_through, WRONG_KEYS_PER_ADDRESS.burst);
        assert_eq!(memory.wait(&WRONG, IpAddr::from([0x2001, 0xdb8, 0, 8, 0, 0, 0, 1]), now), None);
    }

    /// Goal: an attacker with many addresses fills no memory, and those beyond the bound are bounded together.
    #[tokio::test(start_paused = true)]
    async fn many_addresses_are_counted_within_a_bound() {
        let mut memory = Memory::default();
        let now = Instant::now();
        let many = 3 * WRONG_KEY_ADDRESSES_MAX as u32;

        let let_through: u32 = (0..many).map(|last| try_wrong(&mut memory, address(last), now, 1)).sum();

        assert_eq!(let_through, WRONG_KEY_ADDRESSES_MAX as u32 + WRONG_KEYS_PER_ADDRESS.burst);
        assert!(memory.wrong.len() <= WRONG_KEY_ADDRESSES_MAX + 1);
        let later = now + 1_000 * COST;
        assert_eq!(try_wrong(&mut memory, address(many), later, 1), 1);
        assert!(memory.wrong.len() < 10, "what is forgiven is forgotten");
    }
}
