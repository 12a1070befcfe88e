//! Versions of plugins: what there is, what was found out about each, and what is decided about it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use crate::limits::CATALOG_ROWS_MAX;
use crate::server::Site;
use crate::server::admin::caller::{Caller, Owner};
use crate::server::admin::deployments::{DeploymentView, views};
use crate::server::admin::failure::{Failure, FailureBody};
use crate::server::admin::input::{Answer, Asked, Because, Body, Named};
use crate::server::admin::page::{self, Page};
use crate::store::catalog::{Approval, DeploymentFilter, Verdict, Version, VersionFilter, Vetting};

/// A version of a plugin.
#[derive(Serialize, ToSchema)]
#[schema(as = Version)]
pub(super) struct VersionView {
    /// Whose it is; absent if it is the platform's.
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    /// SHA-256 of the component, which names the version.
    digest: String,
    /// The plugin.
    name: String,
    /// Semantic version.
    version: String,
    /// `uploaded`, `vetting`, `vetted`, `rejected`, `approved` or `revoked`.
    status: &'static str,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Version of the WIT package it was built for.
    contract: String,
    /// Schema of what it saves and keeps.
    schema: u32,
    /// Schemas of other versions it takes over.
    accepts: Vec<u32>,
    /// What it may import.
    capabilities: Vec<String>,
    /// Of the component.
    bytes: u64,
    /// Who uploaded it.
    uploader: String,
    /// When, in milliseconds since the Unix epoch, as all times here.
    uploaded_ms: u64,
}

impl VersionView {
    pub(super) fn of(row: Version) -> Self {
        Self {
            tenant: Some(row.tenant).filter(|tenant| !tenant.is_empty()),
            digest: hex::encode(row.digest),
            name: row.name,
            version: row.version,
            status: row.status.as_str(),
            reason: row.reason,
            contract: row.contract,
            schema: row.schema,
            accepts: row.accepts,
            capabilities: row.capabilities,
            bytes: row.bytes,
            uploader: row.uploader,
            uploaded_ms: row.uploaded_ms,
        }
    }
}

/// A version with all that is known of it.
#[derive(Serialize, ToSchema)]
pub(super) struct VersionDetail {
    #[serde(flatten)]
    version: VersionView,
    /// The text of its `plugin.toml`.
    manifest: String,
    /// Its last vetting; absent if there was none yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    vetting: Option<VettingView>,
    /// Who approved it.
    approvals: Vec<ApprovalView>,
    /// Where it runs and ran, the latest first; at most a page of them.
    deployments: Vec<DeploymentView>,
}

/// A version that was revoked.
#[derive(Serialize, ToSchema)]
pub(super) struct RevokedDetail {
    #[serde(flatten)]
    version: VersionDetail,
    /// Mounts that have no version left that may run, by name: their channels are unavailable until another one is deployed.
    mounts_without_version: Vec<String>,
}

/// The vetting of a version.
#[derive(Serialize, ToSchema)]
#[schema(as = Vetting)]
struct VettingView {
    /// `passed` or `failed`; absent while it goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<&'static str>,
    started_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_ms: Option<u64>,
    /// The steps that ended, in their order.
    steps: Vec<StepView>,
}

/// A step of a vetting.
#[derive(Serialize, ToSchema)]
#[schema(as = VettingStep)]
struct StepView {
    step: String,
    /// `passed`, `failed` or `skipped`.
    verdict: &'static str,
    /// How long it took.
    ms: u64,
    /// What shows it.
    #[schema(value_type = Object)]
    evidence: Box<RawValue>,
}

/// An approval of a version.
#[derive(Serialize, ToSchema)]
#[schema(as = Approval)]
struct ApprovalView {
    by: String,
    /// The trusted key, if it is by signature.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<String>,
    at_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl VettingView {
    fn of(vetting: Vetting) -> Self {
        let steps = vetting.steps.into_iter().map(|step| StepView {
            step: step.step,
            verdict: step.verdict.as_str(),
            ms: step.ms,
            evidence: raw(step.evidence),
        });
        Self {
            verdict: vetting.verdict.map(Verdict::as_str),
            started_ms: vetting.started_ms,
            ended_ms: vetting.ended_ms,
            steps: steps.collect(),
        }
    }
}

impl ApprovalView {
    fn of(approval: Approval) -> Self {
        Self { by: approval.by, key_id: approval.key_id, at_ms: approval.at_ms, reason: approval.reason }
    }
}

/// JSON that the store keeps as text, and has checked.
pub(super) fn raw(text: String) -> Box<RawValue> {
    RawValue::from_string(text).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// Which versions.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct VersionsAsked {
    /// Only of this plugin.
    name: Option<String>,
    /// Only in this status.
    #[param(value_type = Option<String>)]
    status: Option<crate::store::catalog::Status>,
    /// Of the platform and of all tenants; for operators, where the path names no tenant.
    #[serde(default)]
    all_tenants: bool,
    /// Rows of a page, 1 to 1,000 [default: 100].
    limit: Option<u32>,
    /// `next` of the page before.
    after: Option<String>,
}

/// Lists versions, the latest upload first
#[utoipa::path(
    get, path = "/plugins", tag = "plugins", params(VersionsAsked),
    responses((status = 200, body = Page<VersionView>), (status = 400, body = FailureBody))
)]
pub(super) async fn list(
    State(site): State<Arc<Site>>,
    owner: Owner,
    Asked(asked): Asked<VersionsAsked>,
) -> Answer<Page<VersionView>> {
    if asked.all_tenants && !owner.tenant.is_empty() {
        return Err(Failure::invalid("all_tenants is for /v1/admin/plugins; this path names a tenant"));
    }
    let tenant = (!asked.all_tenants).then_some(owner.tenant);
    let filter = VersionFilter { tenant, name: asked.name, status: asked.status };
    let (limit, after) = (page::limit(asked.limit)?, page::cursor(asked.after.as_deref())?);
    let listing = site.store.catalog().versions(&filter, after.as_ref(), limit).await?;
    Ok(Json(Page::of(listing, VersionView::of)))
}

/// The version that a path names.
#[derive(Deserialize)]
pub(super) struct VersionNamed {
    version: String,
}

/// Shows a version with its manifest, its vetting, its approvals and where it runs
///
/// `version` is `NAME@VERSION`, a digest, or at least 8 digits of one.
#[utoipa::path(
    get, path = "/plugins/{version}", tag = "plugins", params(("version" = String, Path, description = "NAME@VERSION or digest")),
    responses((status = 200, body = VersionDetail), (status = 404, body = FailureBody))
)]
pub(super) async fn show(
    State(site): State<Arc<Site>>,
    owner: Owner,
    Named(VersionNamed { version }): Named<VersionNamed>,
) -> Answer<VersionDetail> {
    let row = site.registry.find(&owner.tenant, &version).await?;
    Ok(Json(detail(&site, row).await?))
}

/// All that is known of a version.
async fn detail(site: &Site, row: Version) -> Result<VersionDetail, Failure> {
    let catalog = site.store.catalog();
    let vetting = catalog.vetting(&row.tenant, &row.digest).await?;
    let approvals = catalog.approvals(&row.tenant, &row.digest, None, CATALOG_ROWS_MAX).await?;
    let filter = DeploymentFilter { digest: Some(row.digest), ..DeploymentFilter::default() };
    let mut deployments = site.registry.deployments(&filter, None, CATALOG_ROWS_MAX).await?;
    deployments.rows.retain(|status| status.row.owner == row.tenant);
    let deployments = views(site, deployments.rows).await?;
    Ok(VersionDetail {
        manifest: row.manifest.clone(),
        version: VersionView::of(row),
        vetting: vetting.map(VettingView::of),
        approvals: approvals.rows.into_iter().map(ApprovalView::of).collect(),
        deployments,
    })
}

/// Somebody decides about a version: only an operator may.
struct Decision {
    row: Version,
    caller: Caller,
}

impl Decision {
    async fn about(site: &Site, owner: Owner, version: &str) -> Result<Self, Failure> {
        let Owner { caller, tenant } = owner;
        caller.must_be_operator()?;
        Ok(Self { row: site.registry.find(&tenant, version).await?, caller })
    }
}

/// Approves a version that passed vetting: it may be deployed
#[utoipa::path(
    post, path = "/plugins/{version}/approve", tag = "plugins", request_body = Because,
    params(("version" = String, Path, description = "NAME@VERSION or digest")),
    responses((status = 200, body = VersionDetail), (status = 404, body = FailureBody), (status = 409, body = FailureBody))
)]
pub(super) async fn approve(
    State(site): State<Arc<Site>>,
    owner: Owner,
    Named(VersionNamed { version }): Named<VersionNamed>,
    Body(because): Body<Because>,
) -> Answer<VersionDetail> {
    let Decision { row, caller } = Decision::about(&site, owner, &version).await?;
    site.registry.approve(&caller.actor(because.optional()?), &row, None).await?;
    after(&site, &row).await
}

/// Refuses a version: it will never run
#[utoipa::path(
    post, path = "/plugins/{version}/reject", tag = "plugins", request_body = Because,
    params(("version" = String, Path, description = "NAME@VERSION or digest")),
    responses((status = 200, body = VersionDetail), (status = 404, body = FailureBody), (status = 409, body = FailureBody))
)]
pub(super) async fn reject(
    State(site): State<Arc<Site>>,
    owner: Owner,
    Named(VersionNamed { version }): Named<VersionNamed>,
    Body(because): Body<Because>,
) -> Answer<VersionDetail> {
    let Decision { row, caller } = Decision::about(&site, owner, &version).await?;
    site.registry.reject(&caller.actor(because.required()?), &row).await?;
    after(&site, &row).await
}

/// Takes an approval back: the version runs no more, nowhere, at once
///
/// Its channels get what they had before. It will never run again. Of one that was revoked already it does what is left to be done, as after
/// an answer of 503.
#[utoipa::path(
    post, path = "/plugins/{version}/revoke", tag = "plugins", request_body = Because,
    params(("version" = String, Path, description = "NAME@VERSION or digest")),
    responses((status = 200, body = RevokedDetail), (status = 404, body = FailureBody), (status = 409, body = FailureBody))
)]
pub(super) async fn revoke(
    State(site): State<Arc<Site>>,
    owner: Owner,
    Named(VersionNamed { version }): Named<VersionNamed>,
    Body(because): Body<Because>,
) -> Answer<RevokedDetail> {
    let Decision { row, caller } = Decision::about(&site, owner, &version).await?;
    let revoked = site.registry.revoke(&caller.actor(because.required()?), &row).await?;
    let Json(version) = after(&site, &row).await?;
    Ok(Json(RevokedDetail { version, mounts_without_version: revoked.mounts_without_version }))
}

/// The version as it is after a decision.
async fn after(site: &Site, row: &Version) -> Answer<VersionDetail> {
    let row = site.registry.find(&row.tenant, &hex::encode(row.digest)).await?;
    Ok(Json(detail(site, row).await?))
}
