//! API keys. The secret of one is told once, when it is made.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::registry::{NewKey, create_key, revoke_key};
use crate::server::Site;
use crate::server::admin::caller::Operator;
use crate::server::admin::failure::{Failure, FailureBody};
use crate::server::admin::input::{Answer, Asked, Body, Named, reason};
use crate::server::admin::page::{self, Page};
use crate::server::admin::tenants::GoneAsked;
use crate::store::ApiKey;

/// A key, without its secret.
#[derive(Serialize, ToSchema)]
#[schema(as = Key)]
pub(super) struct KeyView {
    tenant: String,
    /// Unique within the tenant.
    name: String,
    /// Whether it may administer the broker.
    operator: bool,
    created_ms: u64,
}

impl KeyView {
    fn of(key: ApiKey) -> Self {
        let ApiKey { tenant, name, operator, created_ms, hash: _ } = key;
        Self { tenant, name, operator, created_ms }
    }
}

/// Which keys.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct KeysAsked {
    /// Only of this tenant.
    tenant: Option<String>,
    /// Rows of a page, 1 to 1,000 [default: 100].
    limit: Option<u32>,
    /// `next` of the page before.
    after: Option<String>,
}

/// Lists the keys that were not revoked, by tenant and name
#[utoipa::path(
    get, path = "/keys", tag = "tenants", params(KeysAsked),
    responses((status = 200, body = Page<KeyView>), (status = 400, body = FailureBody))
)]
pub(super) async fn list(
    State(site): State<Arc<Site>>,
    _: Operator,
    Asked(asked): Asked<KeysAsked>,
) -> Answer<Page<KeyView>> {
    let (limit, after) = (page::limit(asked.limit)?, page::cursor(asked.after.as_deref())?);
    let listing = site.store.catalog().keys(asked.tenant.as_deref(), after.as_ref(), limit).await?;
    Ok(Json(Page::of(listing, KeyView::of)))
}

/// The key to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyAsked {
    /// Whose.
    tenant: String,
    /// Unique within the tenant; plugins see it as the source of what is published.
    name: String,
    /// Whether it may administer the broker: everything, of all tenants.
    #[serde(default)]
    operator: bool,
    /// Why, for the audit log.
    reason: Option<String>,
}

/// A key that was just made.
#[derive(Serialize, ToSchema)]
pub(super) struct KeyMade {
    #[serde(flatten)]
    key: KeyView,
    /// What is sent as `Authorization: Bearer …`. Nobody can tell it again.
    secret: String,
}

/// Makes a key, and tells its secret, once
#[utoipa::path(
    post, path = "/keys", tag = "tenants", request_body = KeyAsked,
    responses((status = 201, body = KeyMade), (status = 400, body = FailureBody), (status = 409, body = FailureBody))
)]
pub(super) async fn create(
    State(site): State<Arc<Site>>,
    Operator(caller): Operator,
    Body(asked): Body<KeyAsked>,
) -> Result<(StatusCode, Json<KeyMade>), Failure> {
    let who = caller.actor(reason(asked.reason)?);
    let made = create_key(site.store.catalog(), &who, &asked.tenant, &asked.name, asked.operator).await?;
    let NewKey { key, secret } = made;
    Ok((StatusCode::CREATED, Json(KeyMade { key: KeyView::of(key), secret })))
}

/// The key that a path names.
#[derive(Deserialize)]
pub(super) struct KeyNamed {
    tenant: String,
    name: String,
}

/// Revokes a key: it counts no more, at once
#[utoipa::path(
    delete, path = "/tenants/{tenant}/keys/{name}", tag = "tenants",
    params(("tenant" = String, Path, description = "Whose"), ("name" = String, Path, description = "Its name"), GoneAsked),
    responses((status = 204), (status = 404, body = FailureBody))
)]
pub(super) async fn revoke(
    State(site): State<Arc<Site>>,
    Operator(caller): Operator,
    Named(KeyNamed { tenant, name }): Named<KeyNamed>,
    Asked(asked): Asked<GoneAsked>,
) -> Result<StatusCode, Failure> {
    revoke_key(site.store.catalog(), &caller.actor(reason(asked.reason)?), &tenant, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}
