//! What tenants and plugins use, for "who is expensive": counted with relaxed atomics, read when somebody asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a tenant used since the broker started.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) messages: Count,
    pub(super) bytes_in: Count,
    pub(super) bytes_out: Count,
    pub(super) cpu_us: Count,
    pub(super) waits: Count,
    pub(super) refusals: Count,
}

/// What a version of a plugin did since it was loaded.
#[derive(Debug, Default)]
pub struct Effort {
    events: Count,
    cpu_us: Count,
    faults: Count,
}

impl Effort {
    /// It was given so many events.
    pub fn count_events(&self, events: usize) {
        self.events.add(events as u64);
    }

    /// It ran for so long, in microseconds.
    pub fn count_cpu(&self, us: u64) {
        self.cpu_us.add(us);
    }

    /// It failed: a call, or what it asked for.
    pub fn count_fault(&self) {
        self.faults.add(1);
    }
}

/// A tenant's usage: what it has now, and what it used since the broker started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Whose; `""` for all those together that have no account of their own.
    pub tenant: Arc<str>,
    /// Open connections.
    pub connections: u64,
    /// Channels that are awake or have members.
    pub channels: u64,
    /// Channels with an instance.
    pub channels_awake: u64,
    /// Linear memory of its instances, in bytes.
    pub plugin_memory_bytes: u64,
    /// Keys and values in the state of its channels, in bytes, whether awake or not.
    pub state_bytes: u64,
    /// Entries in their logs, in bytes.
    pub log_bytes: u64,
    /// Messages, requests and publications that came in.
    pub messages: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Bytes of the frames that were sent to its members.
    pub bytes_out: u64,
    /// Processor time of its plugins, in microseconds, also of those that ran beside others for comparison.
    pub plugin_cpu_us: u64,
    /// How often something had to wait: a connection that was not read, a plugin out of processor time.
    pub waits: u64,
    /// How often something was refused at a limit.
    pub refusals: u64,
}

/// What a version of a plugin did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PluginUsage {
    /// Whose it is; `""` for the platform's.
    pub owner: Arc<str>,
    /// The plugin's name.
    pub plugin: Arc<str>,
    /// SHA-256 of its component, in hex.
    pub digest: Arc<str>,
    /// Events it was given.
    pub events: u64,
    /// Processor time, in microseconds.
    pub cpu_us: u64,
    /// Calls that failed.
    pub faults: u64,
}

impl PluginUsage {
    pub(super) fn of(owner: &Arc<str>, plugin: &Arc<str>, digest: &Arc<str>, effort: &Effort) -> Self {
        Self {
            owner: Arc::clone(owner),
            plugin: Arc::clone(plugin),
            digest: Arc::clone(digest),
            events: effort.events.get(),
            cpu_us: effort.cpu_us.get(),
            faults: effort.faults.get(),
        }
    }
}
