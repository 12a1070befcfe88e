//! Answers of the broker's own endpoints, and the bodies of requests.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use serde_json::json;

use crate::limits::MountLimits;

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
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// Reads a request's body within the mount's bounds of size and time.
///
/// # Errors
/// Status and words of the refusal, if it is over a bound or breaks off.
pub(super) async fn read_body(body: Body, limits: &MountLimits) -> Result<Bytes, (StatusCode, String)> {
    let (bytes_max, time) = (limits.request_bytes_max, Duration::from_millis(limits.request_ms_max));
    match tokio::time::timeout(time, to_bytes(body, bytes_max)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => {
            let message = format!("the body is over {bytes_max} bytes (request_bytes_max), or broke off");
            Err((StatusCode::PAYLOAD_TOO_LARGE, message))
        }
        Err(_) => {
            let message = format!("the body took longer than {time:?} (request_ms_max)");
            Err((StatusCode::REQUEST_TIMEOUT, message))
        }
    }
}
