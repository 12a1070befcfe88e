//! Whether the broker is alive, whether it can serve, and its metrics.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;

use crate::server::Site;
use crate::server::respond::json_response;

/// A store that takes longer to answer is not ready.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// The process answers.
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

/// The broker can take traffic: it is not shutting down and the store accepts writes.
pub(super) async fn ready(State(site): State<Arc<Site>>) -> Response<Body> {
    let store = match tokio::time::timeout(CHECK_TIMEOUT, site.store.check()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("the store does not answer within {CHECK_TIMEOUT:?}")),
    };
    let stopping = site.hub.directory.is_stopping();
    let status = match (&store, stopping) {
        (Ok(()), false) => "ready",
        (Ok(()), true) => "stopping",
        (Err(_), _) => "degraded",
    };
    let body = json!({
        "status": status,
        "store": match &store { Ok(()) => "ok", Err(error) => error.as_str() },
        "cluster": "disabled",
        "channelsAwake": site.hub.directory.awake_count(),
    });
    let code = if status == "ready" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json_response(code, &body)
}

/// Prometheus text format 0.0.4.
pub(super) async fn metrics(State(site): State<Arc<Site>>) -> Response<Body> {
    let mut response = Response::new(Body::from(site.metrics.render()));
    let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, format);
    response
}
