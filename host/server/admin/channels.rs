//! Channels: those there are, what is known of one, its members, putting it to sleep and resetting it. Looking at a channel neither wakes
//! it nor asks it.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use crate::channel::SleepError;
use crate::limits::BEDTIME_MS_MAX;
use crate::protocol::event::MemberId;
use crate::protocol::identity::Identity;
use crate::protocol::name::ChannelName;
use crate::server::Site;
use crate::server::admin::caller::Operator;
use crate::server::admin::failure::{Failure, FailureBody};
use crate::server::admin::input::{Answer, Asked, Because, Body, Named, reason};
use crate::server::admin::mounts::PageAsked;
use crate::server::admin::page::{self, Page};
use crate::store::StoreError;
use crate::store::catalog::{ChannelFilter, ChannelSummary};

/// A channel.
#[derive(Serialize, ToSchema)]
#[schema(as = Channel)]
pub(super) struct ChannelView {
    tenant: String,
    name: String,
    /// Whether it has an instance here.
    awake: bool,
    /// Members connected here; absent while it wakes.
    #[serde(skip_serializing_if = "Option::is_none")]
    members: Option<usize>,
    /// What it keeps; absent if it never kept anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<Kept>,
}

/// What a channel keeps.
#[derive(Serialize, ToSchema)]
struct Kept {
    /// How often it was taken over.
    epoch: u64,
    /// Commits since it was taken over last.
    seq: u64,
    /// When that was.
    acquired_ms: u64,
    /// Bytes of keys and values in its state.
    state_bytes: u64,
    /// Entries in its log.
    log_entries: u64,
    /// Their bytes, also of trimmed ones that are not deleted yet.
    log_bytes: u64,
    /// The version that wrote last.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
}

/// A channel with all that is known of it.
#[derive(Serialize, ToSchema)]
pub(super) struct ChannelDetail {
    #[serde(flatten)]
    channel: ChannelView,
    /// The mount it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    mount: Option<String>,
    /// Events that wait for it.
    events_waiting: usize,
    /// Their bytes.
    bytes_waiting: usize,
    /// What it should run.
    #[serde(skip_serializing_if = "Option::is_none")]
    assigned: Option<Assigned>,
    /// What should run beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    shadow: Option<Assigned>,
}

/// A version, and the deployment that says so.
#[derive(Serialize, ToSchema)]
struct Assigned {
    digest: String,
    deployment: i64,
}

impl ChannelView {
    fn of(site: &Site, name: &ChannelName, row: Option<ChannelSummary>) -> Self {
        let glance = site.hub.directory.find(name).map(|channel| channel.glance());
        let kept = |row: ChannelSummary| Kept {
            epoch: row.epoch,
            seq: row.seq,
            acquired_ms: row.acquired_ms,
            state_bytes: row.state_bytes,
            log_entries: row.log.1.saturating_sub(row.log.0),
            log_bytes: row.log_bytes,
            digest: row.version.map(hex::encode),
        };
        Self {
            tenant: name.tenant().to_owned(),
            name: name.name().to_owned(),
            awake: glance.is_some_and(|glance| glance.is_awake),
            members: glance.map_or(Some(0), |glance| glance.members),
            kept: row.map(kept),
        }
    }
}

/// Which channels.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ChannelsAsked {
    /// Only of this tenant.
    tenant: Option<String>,
    /// Only those of the tenant whose names begin so.
    prefix: Option<String>,
    /// Rows of a page, 1 to 1,000 [default: 100].
    limit: Option<u32>,
    /// `next` of the page before.
    after: Option<String>,
}

/// Lists the channels that were ever awake, by tenant and name
#[utoipa::path(
    get, path = "/channels", tag = "channels", params(ChannelsAsked),
    responses((status = 200, body = Page<ChannelView>), (status = 400, body = FailureBody))
)]
pub(super) async fn list(
    State(site): State<Arc<Site>>,
    _: Operator,
    Asked(asked): Asked<ChannelsAsked>,
) -> Answer<Page<ChannelView>> {
    let filter = match (asked.tenant, asked.prefix) {
        (Some(tenant), prefix) => ChannelFilter::Tenant { tenant, prefix: prefix.unwrap_or_default() },
        (None, None) => ChannelFilter::All,
        (None, Some(_)) => return Err(Failure::invalid("prefix needs tenant: names are those of a tenant's channels")),
    };
    let (limit, after) = (page::limit(asked.limit)?, page::cursor(asked.after.as_deref())?);
    let listing = site.store.catalog().channels(&filter, after.as_ref(), limit).await?;
    let next = listing.next.map(|cursor| cursor.to_string());
    // A row whose name is damaged is none of a channel.
    let items = listing.rows.into_iter().filter_map(|row| {
        let name = ChannelName::new(&row.tenant, &row.name).ok()?;
        Some(ChannelView::of(&site, &name, Some(row)))
    });
    Ok(Json(Page { items: items.collect(), next }))
}

/// The channel that a path names.
#[derive(Deserialize)]
pub(super) struct ChannelNamed {
    tenant: String,
    name: String,
}

impl ChannelNamed {
    pub(super) fn channel(&self) -> Result<ChannelName, Failure> {
        ChannelName::new(&self.tenant, &self.name).map_err(|e| Failure::invalid(e.to_string()))
    }
}

/// Whether a channel has members here, is awake, or keeps something.
pub(super) async fn is_there(site: &Site, name: &ChannelName) -> Result<bool, StoreError> {
    Ok(site.hub.directory.find(name).is_some() || site.store.catalog().channel(name).await?.is_some())
}

pub(super) fn missing(name: &ChannelName) -> Failure {
    Failure::not_found(format!("there is no channel {name}; `hotbay channel list` shows those there are"))
}

/// Shows a channel
#[utoipa::path(
    get, path = "/channels/{tenant}/{name}", tag = "channels",
    params(("tenant" = String, Path, description = "Whose"), ("name" = String, Path, description = "Its name")),
    responses((status = 200, body = ChannelDetail), (status = 404, body = FailureBody))
)]
pub(super) async fn show(
    State(site): State<Arc<Site>>,
    _: Operator,
    Named(named): Named<ChannelNamed>,
) -> Answer<ChannelDetail> {
    let name = named.channel()?;
    let row = site.store.catalog().channel(&name).await?;
    let here = site.hub.directory.find(&name);
    if row.is_none() && here.is_none() {
        return Err(missing(&name));
    }
    let glance = here.map(|channel| channel.glance());
    let logic = site.hub.directory.logic_of(name.name()).ok();
    let assignment = logic.map(|logic| logic.rollout.assign(&name, None));
    let assigned = assignment.as_ref().map(|assignment| Assigned {
        digest: assignment.version.digest().to_string(),
        deployment: assignment.deployed.id,
    });
    let shadow = assignment.as_ref().and_then(|assignment| {
        let (version, deployed) = assignment.shadow.as_ref()?;
        Some(Assigned { digest: version.digest().to_string(), deployment: deployed.id })
    });
    Ok(Json(ChannelDetail {
        channel: ChannelView::of(&site, &name, row),
        mount: logic.map(|logic| logic.mount.clone()),
        events_waiting: glance.map_or(0, |glance| glance.events_waiting),
        bytes_waiting: glance.map_or(0, |glance| glance.bytes_waiting),
        assigned,
        shadow,
    }))
}

/// A member of a channel.
#[derive(Serialize, ToSchema)]
#[schema(as = Member)]
pub(super) struct MemberView {
    /// Its id, which is that of its connection, too.
    id: u64,
    user: String,
    /// Where it came in.
    #[serde(skip_serializing_if = "String::is_empty")]
    endpoint: String,
}

/// Lists the members of a channel who are connected here, by their ids
#[utoipa::path(
    get, path = "/channels/{tenant}/{name}/members", tag = "channels",
    params(("tenant" = String, Path, description = "Whose"), ("name" = String, Path, description = "Its name"), PageAsked),
    responses((status = 200, body = Page<MemberView>), (status = 404, body = FailureBody))
)]
pub(super) async fn members(
    State(site): State<Arc<Site>>,
    _: Operator,
    Named(named): Named<ChannelNamed>,
    Asked(asked): Asked<PageAsked>,
) -> Answer<Page<MemberView>> {
    let name = named.channel()?;
    let (limit, after) = (page::limit(asked.limit)? as usize, page::id(asked.after.as_deref())?);
    let members: Vec<(MemberId, Identity)> = match site.hub.directory.find(&name) {
        Some(channel) => {
            channel.members().ok_or_else(|| Failure::unavailable("the channel wakes just now; ask again"))?
        }
        None if site.store.catalog().channel(&name).await?.is_some() => Vec::new(),
        None => return Err(missing(&name)),
    };
    let from = after.map_or(0, |after| members.partition_point(|(id, _)| id.0 <= after));
    let mut rest = members[from..].iter();
    let view = |(id, identity): &(MemberId, Identity)| MemberView {
        id: id.0,
        user: identity.user().to_owned(),
        endpoint: identity.endpoint().to_owned(),
    };
    let items: Vec<MemberView> = rest.by_ref().take(limit).map(view).collect();
    let next = rest.next().and(items.last()).map(|last| last.id.to_string());
    Ok(Json(Page { items, next }))
}

/// Puts a channel to sleep, as if nothing had happened in it for long
///
/// When the batch under way has ended, its instance is asked for its memory and dropped; members stay connected, and the next event wakes it.
/// One that sleeps already stays so. Refused as `conflict`, with the cause, is what keeps it awake however long nothing happens: an HTTP
/// request that waits for its plugin, a volatile timer, a quarantine.
#[utoipa::path(
    post, path = "/channels/{tenant}/{name}/sleep", tag = "channels", request_body = Because,
    params(("tenant" = String, Path, description = "Whose"), ("name" = String, Path, description = "Its name")),
    responses(
        (status = 204), (status = 404, body = FailureBody), (status = 409, body = FailureBody), (status = 503, body = FailureBody)
    )
)]
pub(super) async fn sleep(
    State(site): State<Arc<Site>>,
    Operator(caller): Operator,
    Named(named): Named<ChannelNamed>,
    Body(because): Body<Because>,
) -> Result<StatusCode, Failure> {
    let (name, because) = (named.channel()?, because.optional()?);
    if !is_there(&site, &name).await? {
        return Err(missing(&name));
    }
    let slept = site.hub.directory.put_to_sleep(&name, Duration::from_millis(BEDTIME_MS_MAX)).await;
    slept.map_err(|error| match error {
        SleepError::Wakeful(_) => Failure::conflict(format!("{name} cannot sleep: {error}")),
        error => Failure::unavailable(format!("{name} was not put to sleep: {error}; try again")),
    })?;
    site.registry.note(&caller.actor(because), "channel.slept", name.tenant(), name.name(), &json!({})).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// That a channel is meant.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ResetAsked {
    /// The channel's name, once more.
    confirm: String,
    /// Why, for the audit log.
    reason: Option<String>,
}

/// Takes away all that a channel keeps: its state, its log, its timers, its saved memory
///
/// Its members stay connected. An instance that runs is fenced out: what it is about to commit has no effect, its sender is told, and the
/// channel begins anew.
#[utoipa::path(
    post, path = "/channels/{tenant}/{name}/reset", tag = "channels", request_body = ResetAsked,
    params(("tenant" = String, Path, description = "Whose"), ("name" = String, Path, description = "Its name")),
    responses((status = 204), (status = 400, body = FailureBody), (status = 404, body = FailureBody))
)]
pub(super) async fn reset(
    State(site): State<Arc<Site>>,
    Operator(caller): Operator,
    Named(named): Named<ChannelNamed>,
    Body(asked): Body<ResetAsked>,
) -> Result<StatusCode, Failure> {
    let name = named.channel()?;
    if asked.confirm != name.name() {
        let name = name.name();
        let wanted = json!({ "confirm": name });
        let message = format!(
            "this takes away all that the channel keeps; confirm it with its name, without the tenant: {wanted}, or `--confirm {name}`"
        );
        return Err(Failure::invalid(message));
    }
    site.registry.reset_channel(&caller.actor(reason(asked.reason)?), &name).await?;
    Ok(StatusCode::NO_CONTENT)
}
