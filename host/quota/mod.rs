//! What a tenant may use of this node, and what it does use.
//!
//! [`Quotas`] has the account of every tenant, a [`Quota`]: its [limits](TenantLimits), which may be changed while it is being served, and
//! its usage. Who is about to use something asks the quota: connections and channels when they come, a connection's socket for what it
//! read, plugins for memory and processor time, batches for what they write. The account is looked up once for each connection, channel
//! and request; from then on a question costs a few relaxed atomics.
//!
//! A leaf: whoever asks waits, refuses and tells; nothing here knows of sockets, plugins or stores.

mod bucket;
mod count;
mod cpu;
mod exposition;
mod level;
mod limits;
mod storage;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use tokio::sync::Notify;

use crate::limits::{QUOTA_PLUGINS_MAX, QUOTA_TENANTS_MAX};
use crate::quota::bucket::Bucket;
use crate::quota::count::Counts;
use crate::quota::cpu::Cpu;
use crate::quota::exposition::Exposition;
use crate::quota::level::Level;
use crate::quota::storage::Storage;

pub use crate::quota::count::{Effort, PluginUsage, Usage};
pub use crate::quota::cpu::{InLine, Turn};
pub use crate::quota::exposition::describe_metrics;
pub use crate::quota::limits::{Limit, LimitsError, Over, TenantLimits};
pub use crate::quota::storage::{Kept, Room};

/// The accounts of all tenants.
#[derive(Debug)]
pub struct Quotas {
    accounts: RwLock<Accounts>,
    plugins: RwLock<HashMap<Listing, Listed>>,
    exposition: Exposition,
    /// Connections of a tenant that has no limit of its own.
    connections_max: u64,
}

#[derive(Debug)]
struct Accounts {
    by_tenant: HashMap<Arc<str>, Arc<Quota>>,
    /// For tenants beyond the number of accounts: without limits of their own they share one.
    shared: Arc<Quota>,
    /// How often there was no room for one more, since there was.
    missed: usize,
    lifted: bool,
}

/// The owner of a version, `""` for the platform, and its component.
type Listing = (Arc<str>, [u8; 32]);

/// A plugin that somebody uses.
#[derive(Debug)]
struct Listed {
    name: Arc<str>,
    digest: Arc<str>,
    effort: Arc<Effort>,
}

/// The account of one tenant.
#[derive(Debug)]
pub struct Quota {
    tenant: Arc<str>,
    /// As they were set; absent if they never were.
    limits: RwLock<Option<TenantLimits>>,
    connections: Level,
    connections_node_max: u64,
    channels: Level,
    awake: Level,
    memory: Level,
    storage: Storage,
    messages: Bucket,
    bytes: Bucket,
    cpu: Cpu,
    counts: Counts,
    /// How often the limits were changed, and who waits for that.
    changes: AtomicU64,
    changed: Notify,
    lifted: AtomicBool,
}

/// One of something, counted until this is dropped.
#[derive(Debug)]
pub struct Slot {
    quota: Arc<Quota>,
    of: fn(&Quota) -> &Level,
}

impl Drop for Slot {
    fn drop(&mut self) {
        (self.of)(&self.quota).sub(1);
    }
}

impl Slot {
    /// Whose.
    pub fn quota(&self) -> &Arc<Quota> {
        &self.quota
    }
}

/// While this is pending, a connection is not to be read.
pub type Hold = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

impl Quotas {
    /// No tenants yet. Each may have so many connections, unless its own limit says otherwise.
    pub fn new(connections_per_tenant_max: usize) -> Arc<Self> {
        let connections_max = connections_per_tenant_max as u64;
        let accounts = Accounts {
            by_tenant: HashMap::new(),
            shared: Arc::new(Quota::new("", connections_max)),
            missed: 0,
            lifted: false,
        };
        Arc::new(Self {
            accounts: RwLock::new(accounts),
            plugins: RwLock::default(),
            exposition: Exposition::default(),
            connections_max,
        })
    }

    /// A tenant's account. One that has no limits of its own has the node's.
    pub fn of(&self, tenant: &str) -> Arc<Quota> {
        if let Some(known) = self.read().by_tenant.get(tenant) {
            return Arc::clone(known);
        }
        let mut accounts = self.accounts.write().unwrap_or_else(PoisonError::into_inner);
        if !accounts.by_tenant.contains_key(tenant) && !self.make_way(&mut accounts) {
            return Arc::clone(&accounts.shared);
        }
        self.open(&mut accounts, tenant)
    }

    fn open(&self, accounts: &mut Accounts, tenant: &str) -> Arc<Quota> {
        if let Some(known) = accounts.by_tenant.get(tenant) {
            return Arc::clone(known);
        }
        let quota = Arc::new(Quota::new(tenant, self.connections_max));
        quota.lifted.store(accounts.lifted, Ordering::Relaxed);
        accounts.by_tenant.insert(Arc::clone(&quota.tenant), Arc::clone(&quota));
        quota
    }

    /// Forgets accounts that nobody uses and that say nothing, if there are too many. False if there still are.
    fn make_way(&self, accounts: &mut Accounts) -> bool {
        /// Looking at all of them takes a moment, in which nobody finds theirs.
        const LOOK_EVERY: usize = 1_000;
        if accounts.by_tenant.len() < QUOTA_TENANTS_MAX {
            return true;
        }
        accounts.missed += 1;
        if accounts.missed % LOOK_EVERY != 1 {
            return false;
        }
        accounts.by_tenant.retain(|_, quota| {
            let stays = Arc::strong_count(quota) > 1 || !quota.says_nothing();
            if !stays {
                self.exposition.close(quota);
            }
            stays
        });
        let is_there_room = accounts.by_tenant.len() < QUOTA_TENANTS_MAX;
        if is_there_room {
            accounts.missed = 0;
        }
        is_there_room
    }

    /// Changes a tenant's limits; they hold at once.
    pub fn set(&self, tenant: &str, limits: TenantLimits) {
        // Whoever has limits has an account, however many there are: an operator gave them.
        let quota = self.open(&mut self.accounts.write().unwrap_or_else(PoisonError::into_inner), tenant);
        quota.set(Some(limits));
    }

    /// Takes a tenant's limits away; it has the node's.
    pub fn unset(&self, tenant: &str) {
        if let Some(quota) = self.read().by_tenant.get(tenant) {
            quota.set(None);
        }
    }

    /// A tenant's limits, if it has its own.
    pub fn limits(&self, tenant: &str) -> Option<TenantLimits> {
        self.read().by_tenant.get(tenant)?.limits()
    }

    /// The usage of all tenants, the one that used most processor time first.
    pub fn usage(&self) -> Vec<Usage> {
        let mut usage: Vec<Usage> = self.all().iter().map(|quota| quota.usage()).collect();
        usage.retain(|usage| {
            !usage.tenant.is_empty() || usage.messages > 0 || usage.connections > 0 || usage.channels > 0
        });
        usage.sort_by(|one, other| (other.plugin_cpu_us, &one.tenant).cmp(&(one.plugin_cpu_us, &other.tenant)));
        usage
    }

    /// The usage of one tenant; none if it never used anything here.
    pub fn usage_of(&self, tenant: &str) -> Option<Usage> {
        Some(self.read().by_tenant.get(tenant)?.usage())
    }

    /// All accounts, with the shared one.
    fn all(&self) -> Vec<Arc<Quota>> {
        let accounts = self.read();
        accounts.by_tenant.values().chain([&accounts.shared]).cloned().collect()
    }

    /// Lists a version of a plugin, by its owner and the digest of its component, so that its usage is known.
    pub fn list(&self, owner: &str, name: &str, digest: [u8; 32], effort: &Arc<Effort>) {
        let listing: Listing = (owner.into(), digest);
        let is_listed = |listed: &HashMap<Listing, Listed>| {
            listed.get(&listing).is_some_and(|listed| Arc::ptr_eq(&listed.effort, effort))
        };
        if is_listed(&self.plugins.read().unwrap_or_else(PoisonError::into_inner)) {
            return;
        }
        let mut plugins = self.plugins.write().unwrap_or_else(PoisonError::into_inner);
        if plugins.len() >= QUOTA_PLUGINS_MAX {
            // Those that are not loaded any more.
            plugins.retain(|_, listed| Arc::strong_count(&listed.effort) > 1);
        }
        if plugins.len() < QUOTA_PLUGINS_MAX {
            let listed = Listed { name: name.into(), digest: hex::encode(digest).into(), effort: Arc::clone(effort) };
            plugins.insert(listing, listed);
        }
    }

    /// The usage of all versions of plugins that ran, the one that used most processor time first.
    pub fn plugin_usage(&self) -> Vec<PluginUsage> {
        let plugins = self.plugins.read().unwrap_or_else(PoisonError::into_inner);
        let of = |((owner, _), listed): (&Listing, &Listed)| {
            PluginUsage::of(owner, &listed.name, &listed.digest, &listed.effort)
        };
        let mut usage: Vec<PluginUsage> = plugins.iter().map(of).collect();
        let key = |usage: &PluginUsage| (Arc::clone(&usage.digest), Arc::clone(&usage.owner));
        usage.sort_by(|one, other| (other.cpu_us, key(one)).cmp(&(one.cpu_us, key(other))));
        usage
    }

    /// Usage as metrics, in the text format of Prometheus. The tenants' names are in it.
    pub fn expose(&self) -> String {
        self.exposition.text(&self.all(), &self.plugin_usage())
    }

    /// The node goes down: from now on nobody waits.
    pub fn lift(&self) {
        let mut accounts = self.accounts.write().unwrap_or_else(PoisonError::into_inner);
        accounts.lifted = true;
        for quota in accounts.by_tenant.values().chain([&accounts.shared]) {
            quota.lifted.store(true, Ordering::Relaxed);
            quota.tell_of_change();
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Accounts> {
        self.accounts.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Quota {
    fn new(tenant: &str, connections_node_max: u64) -> Self {
        Self {
            tenant: tenant.into(),
            limits: RwLock::default(),
            connections: Level::new(Limit::Connections),
            connections_node_max,
            channels: Level::new(Limit::Channels),
            awake: Level::new(Limit::ChannelsAwake),
            memory: Level::new(Limit::PluginMemory),
            storage: Storage::new(),
            messages: Bucket::default(),
            bytes: Bucket::default(),
            cpu: Cpu::new(),
            counts: Counts::default(),
            changes: AtomicU64::new(0),
            changed: Notify::new(),
            lifted: AtomicBool::new(false),
        }
    }

    /// Whose account it is.
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// Its limits, if they were set.
    pub fn limits(&self) -> Option<TenantLimits> {
        *self.limits.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, to: Option<TenantLimits>) {
        let mut limits = self.limits.write().unwrap_or_else(PoisonError::into_inner);
        if *limits == to {
            return;
        }
        let before = limits.unwrap_or_default();
        *limits = to;
        let now = to.unwrap_or_default();
        self.connections.set_max(now.connections_max);
        self.channels.set_max(now.channels_max);
        self.awake.set_max(now.channels_awake_max);
        self.memory.set_max(now.plugin_memory_bytes_max);
        self.storage.state.set_max(now.state_bytes_max);
        self.storage.log.set_max(now.log_bytes_max);
        // A bucket whose rate stays keeps its debt.
        if before.messages_per_second != now.messages_per_second {
            self.messages.set(now.messages_per_second);
        }
        if before.bytes_per_second != now.bytes_per_second {
            self.bytes.set(now.bytes_per_second);
        }
        if before.plugin_cpu_ms_per_second != now.plugin_cpu_ms_per_second {
            self.cpu.set(now.plugin_cpu_ms_per_second);
        }
        self.tell_of_change();
    }

    fn tell_of_change(&self) {
        self.changes.fetch_add(1, Ordering::Release);
        self.changed.notify_waiters();
    }

    fn is_lifted(&self) -> bool {
        self.lifted.load(Ordering::Relaxed)
    }

    /// Whether a new account would say the same.
    fn says_nothing(&self) -> bool {
        self.limits().is_none() && self.storage.state.kept() == 0 && self.storage.log.kept() == 0
    }

    /// Counts a connection.
    ///
    /// # Errors
    /// If there are as many as may be.
    pub fn connect(self: &Arc<Self>) -> Result<Slot, Over> {
        // The tenant's own limit takes the place of the node's.
        let node_max = if self.connections.max().is_some() { u64::MAX } else { self.connections_node_max };
        self.slot(|quota| &quota.connections, node_max)
    }

    /// Counts a channel that wakes.
    ///
    /// # Errors
    /// If as many are awake as may be.
    pub fn wake(self: &Arc<Self>) -> Result<Slot, Over> {
        self.slot(|quota| &quota.awake, u64::MAX)
    }

    fn slot(self: &Arc<Self>, of: fn(&Self) -> &Level, node_max: u64) -> Result<Slot, Over> {
        self.counted(of(self).try_add(1, node_max))?;
        Ok(Slot { quota: Arc::clone(self), of })
    }

    fn counted(&self, result: Result<(), Over>) -> Result<(), Over> {
        result.inspect_err(|over| self.count_refusal(over.limit))
    }

    /// Whether nearly as many channels are awake as may be: then they should sleep sooner.
    pub fn is_crowded(&self) -> bool {
        self.awake.max().is_some_and(|max| self.awake.used() * 4 > max * 3)
    }

    /// Counts a channel, until [`Quota::forget_channel`].
    ///
    /// # Errors
    /// If there are as many as may be.
    pub fn add_channel(&self) -> Result<(), Over> {
        self.counted(self.channels.try_add(1, u64::MAX))
    }

    /// Counts it out again.
    pub fn forget_channel(&self) {
        self.channels.sub(1);
    }

    /// Counts linear memory of an instance, in bytes.
    ///
    /// # Errors
    /// If it would be more than there may be.
    pub fn grow_memory(&self, bytes: usize) -> Result<(), Over> {
        self.counted(self.memory.try_add(bytes as u64, u64::MAX))
    }

    /// Counts it out again.
    pub fn free_memory(&self, bytes: usize) {
        self.memory.sub(bytes as u64);
    }

    /// Whether messages have to [wait in turn](Self::receive_in_turn).
    pub fn limits_messages(&self) -> bool {
        self.messages.rate().or(self.bytes.rate()).is_some()
    }

    /// Counts a message that was read and is not handed over yet. Returns how long it is to wait: until those before it are paid for, so
    /// that what comes at once is not handed over at once.
    pub fn receive_in_turn(self: &Arc<Self>, bytes: usize, now_ms: u64) -> Option<Hold> {
        // Before the buckets are asked: with other limits the answer would be another one.
        let changes = self.changes.load(Ordering::Acquire);
        self.count_in(1, bytes);
        let waits_ms = (self.messages.take_in_turn(1, now_ms), self.bytes.take_in_turn(bytes as u64, now_ms));
        self.hold_for(waits_ms, changes)
    }

    /// Counts what a connection read and nobody waited for. Returns how long it is not to be read.
    pub fn receive(self: &Arc<Self>, messages: usize, bytes: usize, now_ms: u64) -> Option<Hold> {
        let changes = self.changes.load(Ordering::Acquire);
        self.count_in(messages, bytes);
        // Whoever brings no message, but a pong, does not wait for those who brought too many.
        let messages_ms = if messages > 0 { self.messages.take(messages as u64, now_ms) } else { 0 };
        self.hold_for((messages_ms, self.bytes.take(bytes as u64, now_ms)), changes)
    }

    fn hold_for(self: &Arc<Self>, (messages_ms, bytes_ms): (u64, u64), changes: u64) -> Option<Hold> {
        let limit = if messages_ms >= bytes_ms { Limit::Messages } else { Limit::Bytes };
        let wait_ms = messages_ms.max(bytes_ms);
        (wait_ms > 0 && !self.is_lifted()).then(|| self.hold(wait_ms, limit, changes))
    }

    fn count_in(&self, messages: usize, bytes: usize) {
        self.counts.messages.add(messages as u64);
        self.counts.bytes_in.add(bytes as u64);
    }

    fn hold(self: &Arc<Self>, wait_ms: u64, limit: Limit, changes: u64) -> Hold {
        self.count_wait(limit);
        let quota = Arc::clone(self);
        Box::pin(async move {
            let changed = quota.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if quota.changes.load(Ordering::Acquire) == changes {
                drop(tokio::time::timeout(Duration::from_millis(wait_ms), changed).await);
            }
        })
    }

    /// Counts a request or publication, if the tenant may bring one more now. Its bytes are [counted](Self::receive_body) when they
    /// have come.
    ///
    /// # Errors
    /// The limit, and when to come again.
    pub fn admit(&self, now_ms: u64) -> Result<(), (Over, Duration)> {
        let later = |limit: Limit, rate: Option<u64>, wait_ms: u64| {
            self.count_refusal(limit);
            Err((Over { limit, max: rate.unwrap_or(u64::MAX) }, Duration::from_millis(wait_ms)))
        };
        let wait_ms = self.bytes.wait_ms(now_ms);
        if wait_ms > 0 {
            return later(Limit::Bytes, self.bytes.rate(), wait_ms);
        }
        match self.messages.try_take(1, now_ms) {
            Ok(()) => {
                self.count_in(1, 0);
                Ok(())
            }
            Err(wait_ms) => later(Limit::Messages, self.messages.rate(), wait_ms),
        }
    }

    /// Counts the body of a request that was admitted.
    pub fn receive_body(&self, bytes: usize, now_ms: u64) {
        self.count_in(0, bytes);
        self.bytes.take(bytes as u64, now_ms);
    }

    /// Counts what was sent to members, in bytes.
    pub fn count_sent(&self, bytes: u64) {
        self.counts.bytes_out.add(bytes);
    }

    fn count_wait(&self, limit: Limit) {
        self.counts.waits.add(1);
        metrics::counter!("hotbay_quota_waits_total", "limit" => limit.as_str()).increment(1);
    }

    fn count_refusal(&self, limit: Limit) {
        self.counts.refusals.add(1);
        metrics::counter!("hotbay_quota_refusals_total", "limit" => limit.as_str()).increment(1);
    }

    /// What it uses.
    pub fn usage(&self) -> Usage {
        Usage {
            tenant: Arc::clone(&self.tenant),
            connections: self.connections.used(),
            channels: self.channels.used(),
            channels_awake: self.awake.used(),
            plugin_memory_bytes: self.memory.used(),
            state_bytes: self.storage.state.kept(),
            log_bytes: self.storage.log.kept(),
            messages: self.counts.messages.get(),
            bytes_in: self.counts.bytes_in.get(),
            bytes_out: self.counts.bytes_out.get(),
            plugin_cpu_us: self.counts.cpu_us.get(),
            waits: self.counts.waits.get(),
            refusals: self.counts.refusals.get(),
        }
    }
}

#[cfg(test)]
mod tests;
