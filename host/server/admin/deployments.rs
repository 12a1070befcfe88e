//! Deployments: which version runs where, and what it did there.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use crate::registry::strategy::{Counts, Strategy};
use crate::registry::{Deploy, DeploymentStatus};
use crate::server::Site;
use crate::server::admin::caller::{Operator, Owner};
use crate::server::admin::failure::{Failure, FailureBody};
use crate::server::admin::input::{Answer, Asked, Because, Body, Named, reason};
use crate::server::admin::page::{self, Page};
use crate::server::admin::plugins::raw;
use crate::store::catalog::{DeploymentFilter, DeploymentState};

/// A deployment, and what it did.
#[derive(Serialize, ToSchema)]
#[schema(as = Deployment)]
pub(super) struct DeploymentView {
    id: i64,
    /// To which mount.
    mount: String,
    /// To whose channels; absent: to those of all tenants.
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    /// To which channels; absent: to all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pattern: Option<String>,
    /// The plugin, as `NAME@VERSION`.
    #[serde(skip_serializing_if = "Option::is_none")]
    plugin: Option<String>,
    /// Whose version it is; absent if it is the platform's.
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    /// The version.
    digest: String,
    /// How it spreads, and what makes it roll back by itself.
    #[schema(value_type = Strategy)]
    strategy: Box<RawValue>,
    /// `active`, `superseded`, `rolled_back` or `stopped`.
    state: &'static str,
    /// Why it is in that state, or why it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Who deployed it.
    by: String,
    created_ms: u64,
    /// When its strategy or state changed last.
    changed_ms: u64,
    /// What it did since the broker started; absent if it is not in force, as of those of the past in lists: the audit log has what they had
    /// done when they were rolled back.
    #[serde(skip_serializing_if = "Option::is_none")]
    counts: Option<Counts>,
    /// The last difference of a shadow, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_difference: Option<String>,
}

/// Shows deployments, each version with its name.
pub(super) async fn views(site: &Site, rows: Vec<DeploymentStatus>) -> Result<Vec<DeploymentView>, Failure> {
    let mut names: HashMap<(String, [u8; 32]), Option<String>> = HashMap::new();
    let mut views = Vec::with_capacity(rows.len());
    for DeploymentStatus { row, counts, last_difference } in rows {
        let key = (row.owner.clone(), row.digest);
        let plugin = if let Some(known) = names.get(&key) {
            known.clone()
        } else {
            let version = site.store.catalog().version(&row.owner, &row.digest).await?;
            let name = version.map(|version| format!("{}@{}", version.name, version.version));
            names.insert(key, name.clone());
            name
        };
        views.push(DeploymentView {
            id: row.id,
            mount: row.mount,
            tenant: row.tenant,
            pattern: row.pattern,
            plugin,
            owner: Some(row.owner).filter(|owner| !owner.is_empty()),
            digest: hex::encode(row.digest),
            strategy: raw(row.strategy),
            state: row.state.as_str(),
            reason: row.reason,
            by: row.by,
            created_ms: row.created_ms,
            changed_ms: row.changed_ms,
            counts,
            last_difference,
        });
    }
    Ok(views)
}

async fn view(site: &Site, id: i64) -> Result<DeploymentView, Failure> {
    let status = site.registry.deployment(id).await?;
    let missing = || Failure::not_found(format!("there is no deployment {id}"));
    views(site, vec![status]).await?.pop().ok_or_else(missing)
}

/// Which deployments.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DeploymentsAsked {
    /// Only to this mount.
    mount: Option<String>,
    /// Only to this tenant's channels alone, not those to all tenants.
    tenant: Option<String>,
    /// Only in this state.
    #[param(value_type = Option<String>)]
    state: Option<DeploymentState>,
    /// Rows of a page, 1 to 1,000 [default: 100].
    limit: Option<u32>,
    /// `next` of the page before.
    after: Option<String>,
}

async fn listed(site: &Site, asked: DeploymentsAsked) -> Answer<Page<DeploymentView>> {
    let DeploymentsAsked { mount, tenant, state, limit, after } = asked;
    let filter = DeploymentFilter { mount, tenant, state, digest: None };
    let (limit, after) = (page::limit(limit)?, page::cursor(after.as_deref())?);
    let listing = site.registry.deployments(&filter, after.as_ref(), limit).await?;
    let next = listing.next.map(|cursor| cursor.to_string());
    Ok(Json(Page { items: views(site, listing.rows).await?, next }))
}

/// Lists deployments, the latest first
#[utoipa::path(
    get, path = "/deployments", tag = "deployments", params(DeploymentsAsked),
    responses((status = 200, body = Page<DeploymentView>), (status = 400, body = FailureBody))
)]
pub(super) async fn list(
    State(site): State<Arc<Site>>,
    _: Operator,
    Asked(asked): Asked<DeploymentsAsked>,
) -> Answer<Page<DeploymentView>> {
    listed(&site, asked).await
}

/// The mount that a path names.
#[derive(Deserialize)]
pub(super) struct MountNamed {
    mount: String,
}

/// Lists the deployments to a mount, the latest first
#[utoipa::path(
    get, path = "/mounts/{mount}/deployments", tag = "deployments",
    params(("mount" = String, Path, description = "Its name in the configuration"), DeploymentsAsked),
    responses((status = 200, body = Page<DeploymentView>), (status = 404, body = FailureBody))
)]
pub(super) async fn list_of_mount(
    State(site): State<Arc<Site>>,
    _: Operator,
    Named(MountNamed { mount }): Named<MountNamed>,
    Asked(asked): Asked<DeploymentsAsked>,
) -> Answer<Page<DeploymentView>> {
    site.check_mount(&mount)?;
    listed(&site, DeploymentsAsked { mount: Some(mount), ..asked }).await
}

/// Lists the deployments to a tenant's channels alone, the latest first
#[utoipa::path(
    get, path = "/tenants/{tenant}/deployments", tag = "deployments",
    params(("tenant" = String, Path, description = "Whose channels"), DeploymentsAsked),
    responses((status = 200, body = Page<DeploymentView>), (status = 404, body = FailureBody))
)]
pub(super) async fn list_of_tenant(
    State(site): State<Arc<Site>>,
    owner: Owner,
    Asked(asked): Asked<DeploymentsAsked>,
) -> Answer<Page<DeploymentView>> {
    listed(&site, DeploymentsAsked { tenant: Some(owner.tenant), ..asked }).await
}

/// The deployment that a path names.
#[derive(Deserialize)]
pub(super) struct DeploymentNamed {
    id: i64,
}

/// Shows a deployment and what it did
#[utoipa::path(
    get, path = "/deployments/{id}", tag = "deployments", params(("id" = i64, Path, description = "Its number")),
    responses((status = 200, body = DeploymentView), (status = 404, body = FailureBody))
)]
pub(super) async fn show(
    State(site): State<Arc<Site>>,
    _: Operator,
    Named(DeploymentNamed { id }): Named<DeploymentNamed>,
) -> Answer<DeploymentView> {
    Ok(Json(view(&site, id).await?))
}

/// What to deploy, and how.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DeployAsked {
    /// `NAME@VERSION`, a digest, or at least 8 digits of one.
    version: String,
    /// Whose version it is; absent for the platform's.
    owner: Option<String>,
    /// Only to this tenant's channels; a tenant's own version needs it.
    tenant: Option<String>,
    /// Only to channels with such names: a name, or one whose last part is `*`.
    pattern: Option<String>,
    /// How it spreads, and what makes it roll back by itself; to all at once if absent.
    strategy: Option<Strategy>,
    /// Why, for the audit log.
    reason: Option<String>,
}

/// Deploys a version to the channels of a mount
///
/// It takes hold in awake channels within moments, and in sleeping ones when they wake. No connection is closed.
#[utoipa::path(
    post, path = "/mounts/{mount}/deployments", tag = "deployments", request_body = DeployAsked,
    params(("mount" = String, Path, description = "Its name in the configuration")),
    responses(
        (status = 201, body = DeploymentView), (status = 400, body = FailureBody), (status = 403, body = FailureBody),
        (status = 404, body = FailureBody), (status = 409, body = FailureBody),
    )
)]
pub(super) async fn deploy(
    State(site): State<Arc<Site>>,
    Operator(caller): Operator,
    Named(MountNamed { mount }): Named<MountNamed>,
    Body(asked): Body<DeployAsked>,
) -> Result<(StatusCode, Json<DeploymentView>), Failure> {
    site.check_mount(&mount)?;
    let who = caller.actor(reason(asked.reason)?);
    let deploy = Deploy {
        mount,
        tenant: asked.tenant,
        pattern: asked.pattern,
        owner: asked.owner.unwrap_or_default(),
        version: asked.version,
        strategy: asked.strategy.unwrap_or_else(Strategy::all),
    };
    let row = site.registry.deploy(&who, deploy).await?;
    Ok((StatusCode::CREATED, Json(view(&site, row.id).await?)))
}

/// What is after a deployment was rolled back.
#[derive(Serialize, ToSchema)]
pub(super) struct RolledBack {
    /// What was rolled back.
    deployment: DeploymentView,
    /// What is in force again in its place; absent if that is what its channels have without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    again: Option<DeploymentView>,
}

/// Rolls a deployment back: its channels get what they had before, at once
#[utoipa::path(
    post, path = "/deployments/{id}/rollback", tag = "deployments", request_body = Because,
    params(("id" = i64, Path, description = "Its number")),
    responses((status = 200, body = RolledBack), (status = 404, body = FailureBody), (status = 409, body = FailureBody))
)]
pub(super) async fn roll_back(
    State(site): State<Arc<Site>>,
    Operator(caller): Operator,
    Named(DeploymentNamed { id }): Named<DeploymentNamed>,
    Body(because): Body<Because>,
) -> Answer<RolledBack> {
    let who = caller.actor(because.required()?);
    site.registry.deployment(id).await?;
    let again = site.registry.roll_back(&who, id).await?;
    let again = match again {
        Some(again) => Some(view(&site, again.id).await?),
        None => None,
    };
    Ok(Json(RolledBack { deployment: view(&site, id).await?, again }))
}

/// Ends a deployment that is not to all channels of a mount: its channels get what they have without it
#[utoipa::path(
    post, path = "/deployments/{id}/stop", tag = "deployments", request_body = Because,
    params(("id" = i64, Path, description = "Its number")),
    responses((status = 200, body = DeploymentView), (status = 404, body = FailureBody), (status = 409, body = FailureBody))
)]
pub(super) async fn stop(
    State(site): State<Arc<Site>>,
    Operator(caller): Operator,
    Named(DeploymentNamed { id }): Named<DeploymentNamed>,
    Body(because): Body<Because>,
) -> Answer<DeploymentView> {
    let who = caller.actor(because.required()?);
    site.registry.deployment(id).await?;
    site.registry.stop(&who, id).await?;
    Ok(Json(view(&site, id).await?))
}
