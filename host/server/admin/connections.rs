//! Connections: who is connected, and closing one.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use crate::connection::ConnectionStatus;
use crate::protocol::close::Close;
use crate::protocol::event::MemberId;
use crate::server::Site;
use crate::server::admin::caller::Operator;
use crate::server::admin::failure::{Failure, FailureBody};
use crate::server::admin::input::{Answer, Asked, Body, Named};
use crate::server::admin::page::{self, Page};

/// Longest reason of a close frame, in bytes (RFC 6455 section 5.5).
const REASON_BYTES_MAX: usize = 123;

/// A connection.
#[derive(Serialize, ToSchema)]
#[schema(as = Connection)]
pub(super) struct ConnectionView {
    /// Names it while the broker runs.
    id: u64,
    tenant: String,
    user: String,
    /// The role in its token.
    #[serde(skip_serializing_if = "String::is_empty")]
    role: String,
    mount: String,
    /// Where it came in.
    #[serde(skip_serializing_if = "String::is_empty")]
    endpoint: String,
    /// When it came.
    since_ms: u64,
    /// How long nothing has come from it.
    silent_ms: u64,
    /// What waits to be written to it.
    bytes_waiting: usize,
}

impl ConnectionView {
    fn of(status: &ConnectionStatus) -> Self {
        let identity = &status.identity;
        Self {
            id: status.id.0,
            tenant: identity.tenant().to_owned(),
            user: identity.user().to_owned(),
            role: identity.role().to_owned(),
            mount: status.mount.clone(),
            endpoint: identity.endpoint().to_owned(),
            since_ms: status.since_ms,
            silent_ms: status.silent_ms,
            bytes_waiting: status.bytes_waiting,
        }
    }
}

/// Which connections.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ConnectionsAsked {
    /// Only of this tenant.
    tenant: Option<String>,
    /// Rows of a page, 1 to 1,000 [default: 100].
    limit: Option<u32>,
    /// `next` of the page before.
    after: Option<String>,
}

/// Lists the open connections, the oldest first
#[utoipa::path(
    get, path = "/connections", tag = "connections", params(ConnectionsAsked),
    responses((status = 200, body = Page<ConnectionView>), (status = 400, body = FailureBody))
)]
pub(super) async fn list(
    State(site): State<Arc<Site>>,
    _: Operator,
    Asked(asked): Asked<ConnectionsAsked>,
) -> Answer<Page<ConnectionView>> {
    let (limit, after) = (page::limit(asked.limit)? as usize, page::id(asked.after.as_deref())?);
    let found = site.hub.connections(asked.tenant.as_deref(), after.map(MemberId), limit + 1);
    let items: Vec<ConnectionView> = found.iter().take(limit).map(ConnectionView::of).collect();
    let next = (found.len() > limit).then(|| items.last().map(|last| last.id.to_string())).flatten();
    Ok(Json(Page { items, next }))
}

/// The connection that a path names.
#[derive(Deserialize)]
pub(super) struct ConnectionNamed {
    id: u64,
}

/// What a connection is told when it is closed.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CloseAsked {
    /// The code of the close frame: 1000, 1001, 1008, 1011 to 1013, or 3000 to 4999 [default: 4502].
    code: Option<u16>,
    /// The words of the close frame, which go into the audit log, too; at most 123 bytes.
    reason: Option<String>,
}

/// Closes a connection with a close frame
#[utoipa::path(
    post, path = "/connections/{id}/close", tag = "connections", request_body = CloseAsked,
    params(("id" = u64, Path, description = "Its id")),
    responses((status = 200, body = ConnectionView), (status = 400, body = FailureBody), (status = 404, body = FailureBody))
)]
pub(super) async fn close(
    State(site): State<Arc<Site>>,
    Operator(caller): Operator,
    Named(ConnectionNamed { id }): Named<ConnectionNamed>,
    Body(asked): Body<CloseAsked>,
) -> Answer<ConnectionView> {
    let code = asked.code.unwrap_or(Close::REMOVED.code);
    if !matches!(code, 1000 | 1001 | 1008 | 1011..=1013 | 3000..=4999) {
        let message = format!("code is {code}; a host may close with 1000, 1001, 1008, 1011 to 1013, or 3000 to 4999");
        return Err(Failure::invalid(message));
    }
    let reason = asked.reason.unwrap_or_else(|| Close::REMOVED.reason.to_owned());
    if reason.len() > REASON_BYTES_MAX {
        return Err(Failure::invalid(format!(
            "the reason is longer than {REASON_BYTES_MAX} bytes, which a close frame has room for"
        )));
    }
    let closed = site.hub.close(MemberId(id), code, &reason);
    let missing =
        || Failure::not_found(format!("there is no connection {id}; `hotbay connection list` shows those there are"));
    let status = closed.ok_or_else(missing)?;
    let (tenant, user) = (status.identity.tenant(), status.identity.user());
    let detail = json!({ "connection": id, "user": user, "code": code, "mount": status.mount });
    site.registry
        .note(&caller.actor(Some(reason)), "connection.closed", tenant, &format!("connection/{id}"), &detail)
        .await?;
    Ok(Json(ConnectionView::of(&status)))
}
