//! Answers of the broker's own endpoints.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;

use crate::config::ErrorForm;

/// A JSON answer.
pub(super) fn json_response(status: StatusCode, body: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A refusal: `{"success":false,"error":"…"}`, which all five systems' clients understand.
pub(super) fn refusal(status: StatusCode, message: &str) -> Response<Body> {
    let mut response = json_response(status, &json!({ "success": false, "error": message }));
    mark(&mut response, status);
    response
}

/// A refusal with the time after which it may be tried again.
pub(super) fn later(mut response: Response<Body>, wait: Duration) -> Response<Body> {
    let wait_s = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait_s));
    response
}

fn mark(response: &mut Response<Body>, status: StatusCode) {
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
}

/// A refusal in the form a mount's clients know.
pub(super) fn refusal_as(form: ErrorForm, status: StatusCode, message: &str) -> Response<Body> {
    match form {
        ErrorForm::Text => refusal(status, message),
        ErrorForm::Object => {
            let error = json!({ "code": code(status), "message": message });
            let body = json!({ "success": false, "error": error });
            let mut response = json_response(status, &body);
            mark(&mut response, status);
            response
        }
    }
}

/// A status in the words of refusals.
fn code(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 => "bad_request",
        401 => "unauthorized",
        403 => "forbidden",
        404 => "not_found",
        405 => "method_not_allowed",
        408 | 504 => "timeout",
        409 => "conflict",
        413 => "too_large",
        426 => "upgrade_required",
        429 => "rate_limited",
        503 => "unavailable",
        _ => "internal",
    }
}
