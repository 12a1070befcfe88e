//! What all channels of a mount share: their plugin, their bounds, and who is connected.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use crate::channel::version::Rollout;
use crate::channel::view;
use crate::datasource::Statement;
use crate::fanout::Roster;
use crate::limits::MountLimits;
use crate::outbox::Outbox;
use crate::plugin::Stats;
use crate::protocol::close::Close;
use crate::protocol::identity::Identity;
use crate::protocol::name::{ChannelName, ChannelPattern};
use crate::store::Durability;

/// The logic behind a mount.
pub struct Logic {
    /// The mount's name.
    pub mount: String,
    /// The plugin's name in the configuration.
    pub plugin: String,
    /// Which versions of it run where.
    pub rollout: Rollout,
    /// The mount's bounds.
    pub limits: Arc<MountLimits>,
    /// The plugin's settings, as the text of a JSON object.
    pub settings: String,
    /// When a commit counts as done.
    pub durability: Durability,
    /// The statements its plugin may run, by the names it knows them by.
    pub statements: BTreeMap<String, Arc<Statement>>,
    /// The names its channels may have.
    pub patterns: Vec<ChannelPattern>,
    /// Who is connected.
    pub census: Census,
}

impl Logic {
    /// Whether a channel of this name belongs to the mount.
    pub fn serves(&self, channel: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(channel))
    }
}

/// Which of two connections of a mount came first: their order when their handshakes were accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrival(u64);

/// Counts connections, users and awake channels of a mount by tenant.
pub struct Census {
    started: Instant,
    arrivals: AtomicU64,
    tenants: Mutex<HashMap<Arc<str>, Tenant>>,
    /// What awake channels know of themselves.
    views: Mutex<HashMap<ChannelName, Weak<Mutex<view::State>>>>,
}

#[derive(Default)]
struct Tenant {
    connections: u64,
    channels: u64,
    users: HashMap<Box<str>, User>,
}

#[derive(Default)]
struct User {
    connections: u32,
    /// Oldest first; only where a newer connection takes the place of the oldest.
    seats: Vec<(Arrival, Arc<Outbox>)>,
}

impl Default for Census {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            arrivals: AtomicU64::new(0),
            tenants: Mutex::default(),
            views: Mutex::default(),
        }
    }
}

impl Census {
    /// Counts a connection. `None` if the user has as many as it may.
    pub fn connect(&self, identity: &Identity, per_user_max: usize) -> Option<Arrival> {
        let mut tenants = self.lock();
        let tenant = tenants.entry(identity.tenant().into()).or_default();
        let user = tenant.users.entry(identity.user().into()).or_default();
        if user.connections as usize >= per_user_max {
            return None;
        }
        user.connections += 1;
        tenant.connections += 1;
        Some(Arrival(self.arrivals.fetch_add(1, Ordering::Relaxed)))
    }

    /// Gives a counted connection a seat; if the user has more seats than it may, the oldest connection is closed.
    pub fn seat(&self, identity: &Identity, arrival: Arrival, outbox: &Arc<Outbox>, per_user_max: usize) {
        let mut tenants = self.lock();
        let Some(user) = tenants.get_mut(identity.tenant()).and_then(|tenant| tenant.users.get_mut(identity.user()))
        else {
            return;
        };
        user.seats.retain(|(_, seat)| seat.closed_with().is_none());
        user.seats.push((arrival, Arc::clone(outbox)));
        // Upgrades that end at the same time may come here in any order.
        user.seats.sort_by_key(|(arrival, _)| *arrival);
        let excess = user.seats.len().saturating_sub(per_user_max);
        for (_, oldest) in user.seats.drain(..excess) {
            oldest.dismiss(&Close::REPLACED);
        }
    }

    /// Counts it out again.
    pub fn disconnect(&self, identity: &Identity, outbox: Option<&Arc<Outbox>>) {
        let mut tenants = self.lock();
        let Some(tenant) = tenants.get_mut(identity.tenant()) else { return };
        tenant.connections = tenant.connections.saturating_sub(1);
        if let Some(user) = tenant.users.get_mut(identity.user()) {
            user.connections -= 1;
            user.seats.retain(|(_, seat)| outbox.is_none_or(|outbox| !Arc::ptr_eq(seat, outbox)));
            if user.connections == 0 {
                tenant.users.remove(identity.user());
            }
        }
        Self::tidy(&mut tenants, identity.tenant());
    }

    /// Counts a channel that wakes (`true`) or goes to sleep.
    pub fn channel(&self, tenant: &str, awake: bool) {
        let mut tenants = self.lock();
        if awake {
            tenants.entry(tenant.into()).or_default().channels += 1;
        } else if let Some(counts) = tenants.get_mut(tenant) {
            counts.channels = counts.channels.saturating_sub(1);
            Self::tidy(&mut tenants, tenant);
        }
    }

    /// A channel was taken over by an actor, which has its members now.
    pub(super) fn opened(&self, channel: &ChannelName, view: &Arc<Mutex<view::State>>) {
        self.views().insert(channel.clone(), Arc::downgrade(view));
    }

    /// It was given up again, unless another actor took it over meanwhile.
    pub(super) fn closed(&self, channel: &ChannelName, view: &Arc<Mutex<view::State>>) {
        let mut views = self.views();
        if views.get(channel).is_some_and(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(view))) {
            views.remove(channel);
        }
    }

    /// Looks at the members of a channel that an actor has.
    pub(super) fn members<T>(&self, channel: &ChannelName, look: impl FnOnce(&Roster) -> T) -> Option<T> {
        let view = self.views().get(channel).and_then(Weak::upgrade)?;
        let state = view.lock().unwrap_or_else(PoisonError::into_inner);
        Some(look(state.roster()))
    }

    fn views(&self) -> MutexGuard<'_, HashMap<ChannelName, Weak<Mutex<view::State>>>> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The numbers of one tenant.
    pub fn stats(&self, tenant: &str) -> Stats {
        let uptime_ms = self.started.elapsed().as_millis() as u64;
        let tenants = self.lock();
        let Some(tenant) = tenants.get(tenant) else { return Stats { uptime_ms, ..Stats::default() } };
        Stats {
            uptime_ms,
            connections: tenant.connections,
            users: tenant.users.len() as u64,
            channels: tenant.channels,
        }
    }

    fn tidy(tenants: &mut HashMap<Arc<str>, Tenant>, tenant: &str) {
        if tenants.get(tenant).is_some_and(|tenant| tenant.connections == 0 && tenant.channels == 0) {
            tenants.remove(tenant);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Tenant>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
