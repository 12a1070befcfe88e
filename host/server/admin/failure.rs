//! What a refusal looks like: a status, and `{"error":{"code","message"}}`. The one place where errors of other modules become that.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;

use crate::registry::RegistryError;
use crate::server::respond::{json_response, later};
use crate::store::StoreError;

/// A refusal.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    code: &'static str,
    message: String,
    retry_after: Option<Duration>,
}

/// Its body.
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
pub(super) struct FailureBody {
    error: FailureWords,
}

/// What went wrong.
#[derive(Serialize, ToSchema)]
#[schema(as = ErrorWords)]
struct FailureWords {
    /// For programs: `invalid`, `unauthorized`, `forbidden`, `not_found`, `method_not_allowed`, `conflict`, `too_large`, `too_many`,
    /// `too_slow`, `rate_limited`, `unavailable` or `internal`.
    code: &'static str,
    /// For people: the cause, and what to do.
    message: String,
}

impl Failure {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), retry_after: None }
    }

    /// The request makes no sense.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", message)
    }

    /// Nobody said who asks, or it is not true.
    pub(super) fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    /// Whoever asks may not.
    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    /// There is no such thing.
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// It contradicts what is there.
    pub(super) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", message)
    }

    /// Too many bytes.
    pub(super) fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }

    /// The broker cannot do it now.
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    /// The same, with the time after which it may be tried again.
    pub(super) fn after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response<Body> {
        let body = FailureBody { error: FailureWords { code: self.code, message: self.message } };
        let mut response = json_response(self.status, &serde_json::to_value(body).unwrap_or_default());
        if let Some(wait) = self.retry_after {
            response = later(response, wait);
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        let message = error.to_string();
        match error {
            RegistryError::NotFound { .. } => Self::not_found(message),
            RegistryError::Conflict(_) | RegistryError::Schema { .. } | RegistryError::Refused(_) => {
                Self::conflict(message)
            }
            RegistryError::Forbidden(_) => Self::forbidden(message),
            RegistryError::Invalid(_) | RegistryError::Manifest(_) | RegistryError::Strategy(_) => {
                Self::invalid(message)
            }
            RegistryError::TooMuch(_) => Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many", message),
            RegistryError::Store(error) => error.into(),
            // What is wrong with a component is found by its vetting. This is a version that may run, and cannot be loaded.
            RegistryError::Plugin(_) | RegistryError::Vetting(_) | RegistryError::Folder { .. } => {
                Self::unavailable(message)
            }
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Constraint { detail } => Self::invalid(detail),
            error => Self::unavailable(error.to_string()),
        }
    }
}
