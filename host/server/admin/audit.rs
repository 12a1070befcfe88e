//! Who did what, when and why.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use crate::server::Site;
use crate::server::admin::caller::Operator;
use crate::server::admin::failure::FailureBody;
use crate::server::admin::input::{Answer, Asked};
use crate::server::admin::page::{self, Page};
use crate::server::admin::plugins::raw;
use crate::store::catalog::{AuditFilter, Audited};

/// An entry of the audit log.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditEntry)]
pub(super) struct EntryView {
    /// Grows from entry to entry.
    id: i64,
    at_ms: u64,
    /// Who: `key default/ci`, `user acme/ann`, `configuration`, `vetting`, `budget`, `strategy`.
    actor: String,
    /// Whom it concerns; absent if it is the platform.
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    /// What was done: `plugin.approved`, `deployment.created`, …
    action: String,
    /// To what.
    subject: String,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// What else is to be known.
    #[schema(value_type = Object)]
    detail: Box<RawValue>,
}

impl EntryView {
    fn of(audited: Audited) -> Self {
        let Audited { id, entry } = audited;
        Self {
            id,
            at_ms: entry.at_ms,
            actor: entry.actor,
            tenant: Some(entry.tenant).filter(|tenant| !tenant.is_empty()),
            action: entry.action,
            subject: entry.subject,
            reason: entry.reason,
            detail: raw(entry.detail),
        }
    }
}

/// Which entries.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditAsked {
    /// Only those that concern this tenant; empty for the platform.
    tenant: Option<String>,
    /// Only those about this: a digest, a mount, a tenant, a channel, `key/NAME`, `connection/ID`.
    subject: Option<String>,
    /// Only those not older than this, in milliseconds since the Unix epoch.
    since_ms: Option<u64>,
    /// Rows of a page, 1 to 1,000 [default: 100].
    limit: Option<u32>,
    /// `next` of the page before.
    after: Option<String>,
}

/// Lists the audit log, the latest first
#[utoipa::path(
    get, path = "/audit", tag = "audit", params(AuditAsked),
    responses((status = 200, body = Page<EntryView>), (status = 400, body = FailureBody))
)]
pub(super) async fn list(
    State(site): State<Arc<Site>>,
    _: Operator,
    Asked(asked): Asked<AuditAsked>,
) -> Answer<Page<EntryView>> {
    let filter = AuditFilter { tenant: asked.tenant, subject: asked.subject, since_ms: asked.since_ms };
    let (limit, after) = (page::limit(asked.limit)?, page::cursor(asked.after.as_deref())?);
    let listing = site.store.catalog().audit(&filter, after.as_ref(), limit).await?;
    Ok(Json(Page::of(listing, EntryView::of)))
}
