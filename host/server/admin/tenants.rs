//! Tenants: who approves their versions, what they may be granted, their limits.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use crate::limits::ADMIN_BODY_BYTES_MAX;
use crate::protocol::name::check_part;
use crate::registry::Policy;
use crate::server::Site;
use crate::server::admin::caller::Operator;
use crate::server::admin::failure::{Failure, FailureBody};
use crate::server::admin::input::{Answer, Asked, Body, Named, reason};
use crate::server::admin::mounts::PageAsked;
use crate::server::admin::page::{self, Page};
use crate::server::admin::plugins::raw;
use crate::store::catalog::Tenant;

/// A tenant.
#[derive(Serialize, ToSchema)]
#[schema(as = Tenant)]
pub(super) struct TenantView {
    name: String,
    /// Who approves its versions: `auto` (a signature by a key it trusts is enough), `review` (an operator) or `closed` (it may not
    /// upload).
    policy: String,
    /// Capabilities its plugins may be given.
    grants: Vec<String>,
    /// Its limits.
    #[schema(value_type = Object)]
    limits: Box<RawValue>,
    /// Public keys of minisign whose signatures count as its approval.
    trusted_keys: Vec<String>,
    created_ms: u64,
    changed_ms: u64,
}

impl TenantView {
    fn of(row: Tenant) -> Self {
        let Tenant { name, policy, grants, limits, trusted_keys, created_ms, changed_ms } = row;
        Self { name, policy, grants, limits: raw(limits), trusted_keys, created_ms, changed_ms }
    }
}

/// Lists the tenants of which something was said, by name
#[utoipa::path(
    get, path = "/tenants", tag = "tenants", params(PageAsked),
    responses((status = 200, body = Page<TenantView>), (status = 400, body = FailureBody))
)]
pub(super) async fn list(
    State(site): State<Arc<Site>>,
    _: Operator,
    Asked(asked): Asked<PageAsked>,
) -> Answer<Page<TenantView>> {
    let (limit, after) = (page::limit(asked.limit)?, page::cursor(asked.after.as_deref())?);
    let listing = site.store.catalog().tenants(after.as_ref(), limit).await?;
    Ok(Json(Page::of(listing, TenantView::of)))
}

/// The tenant that a path names.
#[derive(Deserialize)]
pub(super) struct TenantNamed {
    tenant: String,
}

/// Shows a tenant
#[utoipa::path(
    get, path = "/tenants/{tenant}", tag = "tenants", params(("tenant" = String, Path, description = "Its name")),
    responses((status = 200, body = TenantView), (status = 404, body = FailureBody))
)]
pub(super) async fn show(
    State(site): State<Arc<Site>>,
    _: Operator,
    Named(TenantNamed { tenant }): Named<TenantNamed>,
) -> Answer<TenantView> {
    let row = site.store.catalog().tenant(&tenant).await?;
    let missing = || {
        let words = "nothing was said of the tenant";
        Failure::not_found(format!(
            "{words} {tenant:?}; `hotbay tenant set {tenant}` does, until then it has the defaults"
        ))
    };
    Ok(Json(TenantView::of(row.ok_or_else(missing)?)))
}

/// What is said of a tenant. What is absent stays as it is; of a new tenant it is the default.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TenantAsked {
    /// `auto`, `review` or `closed`.
    policy: Option<String>,
    /// Capabilities its plugins may be given: `kv`, `log`, `logging`, `sql`, `stats`.
    grants: Option<Vec<String>>,
    /// Its limits, all of them; they hold at once. Those that are absent are the node's, and `uploads_per_day` is 100.
    #[schema(value_type = Option<Object>, example = json!({ "connections_max": 100, "plugin_cpu_ms_per_second": 200 }))]
    limits: Option<serde_json::Map<String, serde_json::Value>>,
    /// Public keys of minisign whose signatures count as its approval.
    trusted_keys: Option<Vec<String>>,
    /// Why, for the audit log.
    reason: Option<String>,
}

/// Adds a tenant, or changes it
#[utoipa::path(
    put, path = "/tenants/{tenant}", tag = "tenants", request_body = TenantAsked,
    params(("tenant" = String, Path, description = "Its name")),
    responses((status = 200, body = TenantView), (status = 400, body = FailureBody))
)]
pub(super) async fn put(
    State(site): State<Arc<Site>>,
    Operator(caller): Operator,
    Named(TenantNamed { tenant }): Named<TenantNamed>,
    Body(asked): Body<TenantAsked>,
) -> Answer<TenantView> {
    check_part("tenant", &tenant).map_err(|e| Failure::invalid(e.to_string()))?;
    let who = caller.actor(reason(asked.reason)?);
    let before = match site.store.catalog().tenant(&tenant).await? {
        Some(row) => row,
        None => Tenant {
            name: tenant,
            policy: Policy::default().as_str().to_owned(),
            grants: Vec::new(),
            limits: "{}".to_owned(),
            trusted_keys: Vec::new(),
            created_ms: 0,
            changed_ms: 0,
        },
    };
    let row = Tenant {
        policy: asked.policy.unwrap_or(before.policy),
        grants: asked.grants.unwrap_or(before.grants),
        limits: asked.limits.map_or(before.limits, |limits| serde_json::Value::Object(limits).to_string()),
        trusted_keys: asked.trusted_keys.unwrap_or(before.trusted_keys),
        ..before
    };
    debug_assert!(row.limits.len() <= ADMIN_BODY_BYTES_MAX);
    Ok(Json(TenantView::of(site.registry.put_tenant(&who, row).await?)))
}

/// Why something goes, for the audit log.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct GoneAsked {
    /// In words for whoever reads the audit log.
    pub(super) reason: Option<String>,
}

/// Forgets what was said of a tenant: it has the defaults from then on
///
/// Its channels, keys and versions stay.
#[utoipa::path(
    delete, path = "/tenants/{tenant}", tag = "tenants", params(("tenant" = String, Path, description = "Its name"), GoneAsked),
    responses((status = 204), (status = 404, body = FailureBody))
)]
pub(super) async fn delete(
    State(site): State<Arc<Site>>,
    Operator(caller): Operator,
    Named(TenantNamed { tenant }): Named<TenantNamed>,
    Asked(asked): Asked<GoneAsked>,
) -> Result<StatusCode, Failure> {
    site.registry.delete_tenant(&caller.actor(reason(asked.reason)?), &tenant).await?;
    Ok(StatusCode::NO_CONTENT)
}
