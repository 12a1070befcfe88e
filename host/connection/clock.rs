//! One timer wheel for all connections: pings, missing pongs, messages that take too long, tokens that expire. A connection
//! costs a visit every few seconds, no task and no timer of its own.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use crate::connection::{Endpoint, Hub};
use crate::limits::LAST_WORD_MS_MAX;
use crate::outbox::Outbox;
use crate::protocol::close::Close;
use crate::protocol::event::MemberId;
use crate::protocol::frame::Delivery;
use crate::protocol::identity::Identity;
use crate::protocol::ids::Ids;
use crate::telemetry::{now_ms, wall_ms};

const TICK_MS: u64 = 100;
/// Visits further away than the wheel is round are made earlier, and made again.
const SLOTS: usize = 512;
/// How soon a token is looked at again that is over by one clock and not by the other.
const EXPIRED_LOOK_MS: u64 = 1_000;
/// An empty ping (RFC 6455 §5.5.2).
const PING: Bytes = Bytes::from_static(&[0x89, 0x00]);

/// What the clock knows of a connection.
pub(super) struct Pulse {
    outbox: Arc<Outbox>,
    endpoint: Arc<Endpoint>,
    id: MemberId,
    identity: Identity,
    /// By the clock on the wall.
    since_ms: u64,
    /// When something last came in.
    heard_ms: AtomicU64,
    pinged_ms: AtomicU64,
    /// When the message that is coming in began; 0 between messages.
    message_since_ms: AtomicU64,
    /// Whether the socket is not read because a channel has no room: its silence says nothing of the client then.
    held_up: AtomicBool,
}

impl Pulse {
    pub(super) fn new(
        outbox: Arc<Outbox>,
        endpoint: Arc<Endpoint>,
        id: MemberId,
        identity: Identity,
        now_ms: u64,
    ) -> Self {
        Self {
            outbox,
            endpoint,
            id,
            identity,
            since_ms: wall_ms(),
            heard_ms: AtomicU64::new(now_ms),
            pinged_ms: AtomicU64::new(now_ms),
            message_since_ms: AtomicU64::new(0),
            held_up: AtomicBool::new(false),
        }
    }

    /// The connection, as operators see it.
    fn status(&self, now_ms: u64) -> ConnectionStatus {
        ConnectionStatus {
            id: self.id,
            identity: self.identity.clone(),
            mount: self.endpoint.logic.mount.clone(),
            since_ms: self.since_ms,
            silent_ms: now_ms.saturating_sub(self.heard_ms.load(Ordering::Relaxed)),
            bytes_waiting: self.outbox.bytes_waiting(),
        }
    }

    fn expires_ms(&self) -> u64 {
        self.identity.expires_ms().unwrap_or(u64::MAX)
    }

    /// The way to the client.
    pub(super) fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// The socket is not read for a while, or is again.
    pub(super) fn hold_up(&self, held_up: bool) {
        self.held_up.store(held_up, Ordering::Relaxed);
    }

    /// Something came in; whether it ended within a message.
    pub(super) fn heard(&self, now_ms: u64, in_message: bool) {
        self.heard_ms.store(now_ms, Ordering::Relaxed);
        if !in_message {
            self.message_since_ms.store(0, Ordering::Relaxed);
        } else if self.message_since_ms.load(Ordering::Relaxed) == 0 {
            self.message_since_ms.store(now_ms, Ordering::Relaxed);
        }
    }

    /// Does what is due and returns when to come again; `None` when the connection is closed.
    fn visit(&self, now_ms: u64) -> Option<u64> {
        let (interval_ms, timeout_ms) = (self.endpoint.heartbeat_interval_ms, self.endpoint.heartbeat_timeout_ms);
        let message_ms_max = self.endpoint.logic.limits.message_ms_max;
        let since_ms = |at: &AtomicU64| now_ms.saturating_sub(at.load(Ordering::Relaxed));
        // A token says when it ends by the time of the world, not by ours, which never goes back.
        let expires_ms = self.expires_ms();
        if expires_ms <= now_ms && expires_ms <= wall_ms() {
            if self.outbox.dismiss(&Close::EXPIRED) {
                return Some(now_ms + 2 * LAST_WORD_MS_MAX); // The connection's task closes, unless something holds it up.
            }
            self.outbox.close(Close::EXPIRED);
            return None;
        }
        if self.held_up.load(Ordering::Relaxed) {
            self.heard(now_ms, false);
        }
        if since_ms(&self.heard_ms) >= timeout_ms {
            metrics::counter!("hotbay_heartbeat_timeouts_total").increment(1);
            self.outbox.abort();
            return None;
        }
        let message_since_ms = self.message_since_ms.load(Ordering::Relaxed);
        if message_since_ms != 0 && now_ms.saturating_sub(message_since_ms) >= message_ms_max {
            self.outbox.close(Close::MESSAGE_DEADLINE);
            return None;
        }
        if since_ms(&self.pinged_ms) >= interval_ms {
            self.pinged_ms.store(now_ms, Ordering::Relaxed);
            self.outbox.send(PING, Delivery::HIGH);
        }
        let ping_at_ms = self.pinged_ms.load(Ordering::Relaxed) + interval_ms;
        let dead_at_ms = self.heard_ms.load(Ordering::Relaxed) + timeout_ms;
        // A message may begin right after this visit.
        let slow_at_ms = now_ms + message_ms_max;
        // A token that is over by our time and not by the world's is looked at again in a while.
        let expires_at_ms = if expires_ms > now_ms { expires_ms } else { now_ms + EXPIRED_LOOK_MS };
        Some(ping_at_ms.min(dead_at_ms).min(slow_at_ms).min(expires_at_ms))
    }
}

/// The wheel.
pub struct Clock {
    wheel: Mutex<Wheel>,
}

struct Wheel {
    slots: Vec<Vec<Weak<Pulse>>>,
    /// Those of a slot that are being visited.
    away: Vec<Weak<Pulse>>,
    /// The tick whose slot comes next.
    tick: u64,
}

/// A connection, as operators see it.
#[derive(Debug, Clone)]
pub struct ConnectionStatus {
    /// Its id, which is that of its memberships, too.
    pub id: MemberId,
    /// Whose it is.
    pub identity: Identity,
    /// Its mount.
    pub mount: String,
    /// When it came, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// Since when nothing came from it, in milliseconds.
    pub silent_ms: u64,
    /// What waits to be written to it.
    pub bytes_waiting: usize,
}

impl Clock {
    pub(super) fn new() -> Self {
        let wheel = Wheel { slots: vec![Vec::new(); SLOTS], away: Vec::new(), tick: now_ms() / TICK_MS };
        Self { wheel: Mutex::new(wheel) }
    }

    /// Watches over a connection until it is dropped.
    pub(super) fn add(&self, pulse: &Arc<Pulse>) {
        let endpoint = &pulse.endpoint;
        let message_ms_max = endpoint.logic.limits.message_ms_max;
        let soon_ms = endpoint.heartbeat_interval_ms.min(message_ms_max).min(endpoint.heartbeat_timeout_ms);
        let at_ms = now_ms().saturating_add(soon_ms).min(pulse.expires_ms());
        self.lock().put(Arc::downgrade(pulse), at_ms);
    }

    /// Turns the wheel until the node stops.
    pub async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut ticks = tokio::time::interval(Duration::from_millis(TICK_MS));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                _ = ticks.tick() => self.turn(now_ms()),
            }
        }
    }

    /// The first connections behind one, in the order in which they came, at most so many; of one tenant, if one is named.
    fn list(&self, ids: &Ids, tenant: Option<&str>, after: Option<MemberId>, limit: usize) -> Vec<ConnectionStatus> {
        let after = after.map(|after| ids.number(after.0));
        let is_theirs = |pulse: &Arc<Pulse>| tenant.is_none_or(|tenant| pulse.identity.tenant() == tenant);
        let mut first: BTreeMap<u64, Arc<Pulse>> = BTreeMap::new();
        for pulse in self.lock().all().filter_map(Weak::upgrade).filter(is_theirs) {
            let number = ids.number(pulse.id.0);
            if after.is_some_and(|after| number <= after) {
                continue;
            }
            if first.len() < limit {
                first.insert(number, pulse);
            } else if first.last_key_value().is_some_and(|(last, _)| *last > number) {
                // One that is being visited may be there twice, and takes its own place then.
                if first.insert(number, pulse).is_none() {
                    first.pop_last();
                }
            }
        }
        let now_ms = now_ms();
        first.values().map(|pulse| pulse.status(now_ms)).collect()
    }

    /// Closes a connection; answers whose it was, if there is one.
    fn close(&self, id: MemberId, code: u16, reason: &str) -> Option<ConnectionStatus> {
        let found = self.lock().all().filter_map(Weak::upgrade).find(|pulse| pulse.id == id)?;
        found.outbox.close_with(code, reason);
        Some(found.status(now_ms()))
    }

    /// Closes every connection, and waits until they have all ended.
    pub(super) async fn close_all(&self, close: &'static Close) {
        const LOOK_AGAIN: Duration = Duration::from_millis(20);
        loop {
            let pulses: Vec<Arc<Pulse>> = self.lock().slots.iter().flatten().filter_map(Weak::upgrade).collect();
            if pulses.is_empty() {
                return;
            }
            for pulse in pulses {
                pulse.outbox.dismiss(close);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    fn turn(&self, now_ms: u64) {
        loop {
            let due = {
                let mut wheel = self.lock();
                // After a long pause every slot is due, and none twice.
                wheel.tick = wheel.tick.max((now_ms / TICK_MS).saturating_sub(SLOTS as u64));
                if wheel.tick > now_ms / TICK_MS {
                    return;
                }
                let slot = (wheel.tick % SLOTS as u64) as usize;
                wheel.tick += 1;
                let due = std::mem::take(&mut wheel.slots[slot]);
                wheel.away.clone_from(&due);
                due
            };
            for weak in due {
                if let Some(at_ms) = weak.upgrade().and_then(|pulse| pulse.visit(now_ms)) {
                    self.lock().put(weak, at_ms);
                }
            }
            self.lock().away.clear();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Wheel> {
        self.wheel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hub {
    /// The first connections behind one, in the order in which they came, at most so many; of one tenant, if one is named.
    pub fn connections(&self, tenant: Option<&str>, after: Option<MemberId>, limit: usize) -> Vec<ConnectionStatus> {
        self.clock.list(&self.ids, tenant, after, limit)
    }

    /// Closes a connection with a code and a reason of at most 123 bytes; answers whose it was, if there is one.
    pub fn close(&self, id: MemberId, code: u16, reason: &str) -> Option<ConnectionStatus> {
        self.clock.close(id, code, reason)
    }
}

impl Wheel {
    /// Every connection; one that is being visited perhaps twice.
    fn all(&self) -> impl Iterator<Item = &Weak<Pulse>> {
        self.slots.iter().flatten().chain(&self.away)
    }

    fn put(&mut self, pulse: Weak<Pulse>, at_ms: u64) {
        let latest = self.tick + SLOTS as u64 - 1;
        let tick = at_ms.div_ceil(TICK_MS).clamp(self.tick, latest);
        self.slots[(tick % SLOTS as u64) as usize].push(pulse);
    }
}
