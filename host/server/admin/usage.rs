//! Who is expensive: what tenants and plugins use on this node, since it started and now.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::quota::{self, PluginUsage, TenantLimits};
use crate::registry::DAY_MS;
use crate::server::Site;
use crate::server::admin::caller::{Operator, Owner};
use crate::server::admin::failure::FailureBody;
use crate::server::admin::input::{Answer, Asked};
use crate::server::admin::page;
use crate::telemetry::wall_ms;

/// What a tenant uses: what it has now, and what it used since the broker started.
#[derive(Serialize, ToSchema)]
struct TenantUse {
    /// Empty for all those together that have no account of their own, of which there may be so many.
    tenant: String,
    /// Open connections.
    connections: u64,
    /// Channels that are awake or have members.
    channels: u64,
    /// Channels with an instance.
    channels_awake: u64,
    /// Linear memory of their instances.
    plugin_memory_bytes: u64,
    /// Keys and values in the state of all its channels.
    state_bytes: u64,
    /// Entries in their logs.
    log_bytes: u64,
    /// Messages, requests and publications that came in.
    messages: u64,
    /// Their bytes.
    bytes_in: u64,
    /// Bytes of frames for its members.
    bytes_out: u64,
    /// Time its plugins ran, in microseconds.
    plugin_cpu_us: u64,
    /// How often something waited at a limit.
    waits: u64,
    /// How often something was refused at a limit.
    refusals: u64,
}

impl TenantUse {
    fn of(usage: &quota::Usage) -> Self {
        Self {
            tenant: usage.tenant.to_string(),
            connections: usage.connections,
            channels: usage.channels,
            channels_awake: usage.channels_awake,
            plugin_memory_bytes: usage.plugin_memory_bytes,
            state_bytes: usage.state_bytes,
            log_bytes: usage.log_bytes,
            messages: usage.messages,
            bytes_in: usage.bytes_in,
            bytes_out: usage.bytes_out,
            plugin_cpu_us: usage.plugin_cpu_us,
            waits: usage.waits,
            refusals: usage.refusals,
        }
    }
}

/// What a version of a plugin did since it was loaded.
#[derive(Serialize, ToSchema)]
struct PluginUse {
    /// The tenant whose version it is; absent if it is the platform's.
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    plugin: String,
    digest: String,
    /// Events it was given.
    events: u64,
    /// Time it ran, in microseconds.
    cpu_us: u64,
    /// Calls that failed.
    faults: u64,
}

impl PluginUse {
    fn of(usage: &PluginUsage) -> Self {
        Self {
            owner: Some(usage.owner.to_string()).filter(|owner| !owner.is_empty()),
            plugin: usage.plugin.to_string(),
            digest: usage.digest.to_string(),
            events: usage.events,
            cpu_us: usage.cpu_us,
            faults: usage.faults,
        }
    }
}

/// A tenant's usage and its limits.
#[derive(Serialize, ToSchema)]
pub(super) struct Usage {
    #[serde(flatten)]
    used: TenantUse,
    /// Versions uploaded within the last day.
    uploads_day: u64,
    /// Its limits; those that are absent are the node's.
    #[schema(value_type = Object)]
    limits: TenantLimits,
    /// On each mount where it has something.
    mounts: Vec<MountUsage>,
}

/// What a tenant takes up on a mount.
#[derive(Serialize, ToSchema)]
struct MountUsage {
    mount: String,
    /// Open connections.
    connections: u64,
    /// Users who have some.
    users: u64,
    /// Channels that are awake.
    channels_awake: u64,
}

/// Shows what a tenant uses
#[utoipa::path(
    get, path = "/tenants/{tenant}/usage", tag = "usage", params(("tenant" = String, Path, description = "Its name")),
    responses((status = 200, body = Usage), (status = 404, body = FailureBody))
)]
pub(super) async fn of_tenant(State(site): State<Arc<Site>>, owner: Owner) -> Answer<Usage> {
    let uploads_day = site.store.catalog().count_uploads_since(&owner.tenant, wall_ms().saturating_sub(DAY_MS)).await?;
    let mounts = site.logics().into_iter().map(|(mount, logic)| {
        let stats = logic.census.stats(&owner.tenant);
        MountUsage { mount, connections: stats.connections, users: stats.users, channels_awake: stats.channels }
    });
    let mounts = mounts.filter(|usage| usage.connections + usage.channels_awake > 0).collect();
    let quota = site.hub.directory.quotas().of(&owner.tenant);
    let used = TenantUse { tenant: owner.tenant, ..TenantUse::of(&quota.usage()) };
    Ok(Json(Usage { used, uploads_day, limits: quota.limits().unwrap_or_default(), mounts }))
}

/// How many.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct UsageAsked {
    /// Most tenants, and most plugins, 1 to 1,000 [default: 100].
    limit: Option<u32>,
}

/// Tenants and plugins.
#[derive(Serialize, ToSchema)]
pub(super) struct UsageOfAll {
    /// Those whose plugins ran longest first.
    tenants: Vec<TenantUse>,
    /// Those that ran longest first.
    plugins: Vec<PluginUse>,
}

/// Shows who is expensive: the tenants and the plugins that used most processor time
#[utoipa::path(
    get, path = "/usage", tag = "usage", params(UsageAsked),
    responses((status = 200, body = UsageOfAll), (status = 400, body = FailureBody))
)]
pub(super) async fn of_all(
    State(site): State<Arc<Site>>,
    _: Operator,
    Asked(asked): Asked<UsageAsked>,
) -> Answer<UsageOfAll> {
    let limit = page::limit(asked.limit)? as usize;
    let quotas = site.hub.directory.quotas();
    Ok(Json(UsageOfAll {
        tenants: quotas.usage().iter().take(limit).map(TenantUse::of).collect(),
        plugins: quotas.plugin_usage().iter().take(limit).map(PluginUse::of).collect(),
    }))
}
