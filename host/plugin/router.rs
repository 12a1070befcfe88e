//! The pure functions of a plugin, `route` and `refused`: run on a few instances that serve no channel, by whoever
//! needs them. What a plugin keeps in the memory of such an instance, though it should not, no other tenant ever meets.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use crate::limits::MountLimits;
use crate::plugin::Plugin;
use crate::plugin::bindings::exports::hotbay::channel::handler as wit;
use crate::plugin::convert;
use crate::plugin::fault::Fault;
use crate::plugin::instance::Instance;
use crate::protocol::frame::Payload;
use crate::protocol::identity::Identity;
use crate::protocol::refusal::Refusal;
use crate::quota::Quota;

/// What the host shall do with a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Routing {
    /// Hand it to a channel.
    Deliver(String),
    /// Join a channel.
    Join(String),
    /// Leave a channel.
    Leave(String),
    /// Send this back.
    Reply(Payload),
    /// Nothing.
    Ignore,
    /// Refuse it.
    Refuse(Refusal),
}

/// Runs a plugin's pure functions.
pub struct Router {
    plugin: Arc<Plugin>,
    limits: Arc<MountLimits>,
    /// How many calls may be under way.
    calls: Semaphore,
    /// Those that were used last, last.
    idle: Mutex<Vec<Own>>,
}

/// An instance of one tenant: it never hears of another.
struct Own {
    tenant: Box<str>,
    instance: Instance,
}

impl Router {
    /// Calls under way at once, and so instances; further callers wait. Calls are short and never wait for IO themselves, so
    /// more of them would only take turns.
    const CALLS_MAX: usize = 8;
    /// Instances that wait for calls: enough for a few tenants that take turns. To start one costs some 20 µs.
    const IDLE_MAX: usize = 16;

    /// A router; its first call starts its first instance.
    pub fn new(plugin: Arc<Plugin>, limits: Arc<MountLimits>) -> Self {
        Self { plugin, limits, calls: Semaphore::new(Self::CALLS_MAX), idle: Mutex::default() }
    }

    /// Asks where a frame goes.
    ///
    /// # Errors
    /// If the plugin fails; the frame is refused then.
    pub async fn route(&self, identity: &Identity, now_ms: u64, frame: &Payload) -> Result<Routing, Fault> {
        self.route_for(None, identity, now_ms, frame).await
    }

    /// The same on a tenant's account.
    ///
    /// # Errors
    /// Likewise.
    pub async fn route_for(
        &self,
        quota: Option<&Arc<Quota>>,
        identity: &Identity,
        now_ms: u64,
        frame: &Payload,
    ) -> Result<Routing, Fault> {
        let sender = wit::Sender { now_ms, identity: convert::lend_identity(identity) };
        let _turn = self.calls.acquire().await;
        let mut own = self.take(quota, identity.tenant()).await?;
        let routing = own.instance.route(sender, frame).await?;
        self.put_back(own);
        Ok(match routing {
            wit::Routing::Deliver(channel) => Routing::Deliver(channel),
            wit::Routing::Join(channel) => Routing::Join(channel),
            wit::Routing::Leave(channel) => Routing::Leave(channel),
            wit::Routing::Reply(payload) => Routing::Reply(convert::payload(payload)),
            wit::Routing::Ignore => Routing::Ignore,
            wit::Routing::Refuse(refusal) => Routing::Refuse(convert::refusal(refusal)),
        })
    }

    /// Asks how a refusal is put to a client; `None` for silence.
    ///
    /// # Errors
    /// If the plugin fails; the client is told nothing then.
    pub async fn refused(
        &self,
        identity: &Identity,
        now_ms: u64,
        frame: Option<&Payload>,
        why: &Refusal,
    ) -> Result<Option<Payload>, Fault> {
        self.refused_for(None, identity, now_ms, frame, why).await
    }

    /// The same on a tenant's account.
    ///
    /// # Errors
    /// Likewise.
    pub async fn refused_for(
        &self,
        quota: Option<&Arc<Quota>>,
        identity: &Identity,
        now_ms: u64,
        frame: Option<&Payload>,
        why: &Refusal,
    ) -> Result<Option<Payload>, Fault> {
        let sender = wit::Sender { now_ms, identity: convert::lend_identity(identity) };
        let _turn = self.calls.acquire().await;
        let mut own = self.take(quota, identity.tenant()).await?;
        let told = own.instance.refused(sender, frame, why).await?;
        self.put_back(own);
        Ok(told)
    }

    /// An instance of a tenant, whose calls are counted on this account. Its memory is on nobody's: there are few.
    async fn take(&self, quota: Option<&Arc<Quota>>, tenant: &str) -> Result<Own, Fault> {
        let known = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.iter().rposition(|own| *own.tenant == *tenant).map(|at| idle.remove(at))
        };
        let mut own = if let Some(own) = known {
            own
        } else {
            let limits = Arc::clone(&self.limits);
            let instance = Instance::start(&self.plugin, limits, 0, self.plugin.name()).await?;
            Own { tenant: tenant.into(), instance }
        };
        own.instance.charge_to(quota);
        Ok(own)
    }

    /// An instance that failed is not put back: it is spent. If there are too many, the one that waited longest goes.
    fn put_back(&self, own: Own) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = (idle.len() >= Self::IDLE_MAX).then(|| idle.remove(0));
        idle.push(own);
        drop(idle);
        drop(oldest);
    }
}
