//! What requests bring: parameters of the query, and bodies of JSON within bounds of size and time.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use utoipa::ToSchema;

use crate::limits::{ADMIN_BODY_BYTES_MAX, ADMIN_BODY_MS_MAX, ADMIN_REASON_BYTES_MAX};
use crate::server::Site;
use crate::server::admin::caller::Caller;
use crate::server::admin::failure::Failure;
use crate::server::body::Bounds;

/// What a handler answers.
pub(super) type Answer<T> = Result<Json<T>, Failure>;

/// Bounds of a body of JSON.
const BOUNDS: Bounds = Bounds {
    bytes_max: (ADMIN_BODY_BYTES_MAX, "the bound of the admin API"),
    ms_max: (ADMIN_BODY_MS_MAX, "the bound of the admin API"),
};

/// The parameters of a query. One that is not known is refused: a filter that is mistyped must not count as none.
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<Arc<Site>> for Asked<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, site: &Arc<Site>) -> Result<Self, Failure> {
        let query = Query::<T>::from_request_parts(parts, site).await;
        query.map(|Query(asked)| Self(asked)).map_err(|e| Failure::invalid(format!("the query: {}", cause(&e))))
    }
}

/// The names in a path.
pub(super) struct Named<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<Site>> for Named<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, site: &Arc<Site>) -> Result<Self, Failure> {
        let path = Path::<T>::from_request_parts(parts, site).await;
        path.map(|Path(named)| Self(named)).map_err(|e| Failure::not_found(format!("the path: {}", cause(&e))))
    }
}

/// The cause of an error, without the words around it.
fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// A body of JSON.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Arc<Site>> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, site: &Arc<Site>) -> Result<Self, Failure> {
        let caller = request.extensions().get::<Caller>().cloned();
        let share = caller.as_ref().map(Caller::share).unwrap_or_default();
        let read = site.bodies.read(share, &Method::POST, request.into_body(), &BOUNDS).await;
        let (text, _room) = read.map_err(|(status, message)| refused(status, message))?;
        // An empty body asks for nothing in particular.
        let text = if text.is_empty() { b"{}".as_slice() } else { &text };
        let body = serde_json::from_slice(text);
        body.map(Self).map_err(|e| Failure::invalid(format!("the body: {e}; see /v1/admin/openapi.json")))
    }
}

fn refused(status: StatusCode, message: String) -> Failure {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => Failure::too_large(message),
        StatusCode::SERVICE_UNAVAILABLE => Failure::unavailable(message),
        StatusCode::REQUEST_TIMEOUT => Failure::new(status, "too_slow", message),
        _ => Failure::invalid(message),
    }
}

/// Why something is done, for the audit log.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Because {
    /// In words for whoever reads the audit log.
    #[serde(default)]
    reason: Option<String>,
}

impl Because {
    /// The reason, if one was given.
    pub(super) fn optional(self) -> Result<Option<String>, Failure> {
        reason(self.reason)
    }

    /// The reason, where there must be one.
    pub(super) fn required(self) -> Result<Option<String>, Failure> {
        let reason = reason(self.reason)?;
        let missing = || Failure::invalid("say why: {\"reason\":\"…\"} (`--reason`); it is written into the audit log");
        reason.map(Some).ok_or_else(missing)
    }
}

/// A reason that is one.
pub(super) fn reason(reason: Option<String>) -> Result<Option<String>, Failure> {
    let reason = reason.map(|reason| reason.trim().to_owned()).filter(|reason| !reason.is_empty());
    match reason {
        Some(reason) if reason.len() > ADMIN_REASON_BYTES_MAX => {
            Err(Failure::invalid(format!("the reason is longer than {ADMIN_REASON_BYTES_MAX} bytes")))
        }
        reason => Ok(reason),
    }
}
