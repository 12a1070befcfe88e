//! What all channels of a mount share: their plugin, their bounds, and who is connected.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::limits::MountLimits;
use crate::plugin::{Plugin, Router, Stats};
use crate::protocol::identity::Identity;
use crate::protocol::name::ChannelPattern;
use crate::store::Durability;

/// The logic behind a mount.
pub struct Logic {
    /// The mount's name.
    pub mount: String,
    /// The version that runs.
    pub plugin: Arc<Plugin>,
    /// Its pure functions.
    pub router: Router,
    /// The mount's bounds.
    pub limits: Arc<MountLimits>,
    /// The plugin's settings, as the text of a JSON object.
    pub settings: String,
    /// When a commit counts as done.
    pub durability: Durability,
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

/// Counts connections, users and awake channels of a mount by tenant.
pub struct Census {
    started: Instant,
    tenants: Mutex<HashMap<Arc<str>, Tenant>>,
}

#[derive(Default)]
struct Tenant {
    connections: u64,
    channels: u64,
    users: HashMap<Box<str>, u32>,
}

impl Default for Census {
    fn default() -> Self {
        Self { started: Instant::now(), tenants: Mutex::default() }
    }
}

impl Census {
    /// Counts a connection. False if the user has as many as it may.
    pub fn connect(&self, identity: &Identity, per_user_max: usize) -> bool {
        let mut tenants = self.lock();
        let tenant = tenants.entry(identity.tenant().into()).or_default();
        let user = tenant.users.entry(identity.user().into()).or_default();
        if *user as usize >= per_user_max {
            return false;
        }
        *user += 1;
        tenant.connections += 1;
        true
    }

    /// Counts it out again.
    pub fn disconnect(&self, identity: &Identity) {
        let mut tenants = self.lock();
        let Some(tenant) = tenants.get_mut(identity.tenant()) else { return };
        tenant.connections = tenant.connections.saturating_sub(1);
        if let Some(user) = tenant.users.get_mut(identity.user()) {
            *user -= 1;
            if *user == 0 {
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
