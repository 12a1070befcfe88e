//! The answer of `GET /health`, from the numbers the host gives.

use hotbay_sdk::{Channel, HttpRequest, HttpResponse, iso8601};

/// The channel on which health is asked for; it is no draft.
pub(crate) const CHANNEL: &str = "health";

/// Answers an HTTP request on the mount: `GET /health`, else 404 or 405. `rooms` is the number of drafts awake.
pub(crate) fn answer(channel: &Channel, own_name: &str, request: &HttpRequest) -> HttpResponse {
    if request.path.trim_end_matches('/') != "/health" {
        return HttpResponse::json(404, r#"{"error":{"code":"not_found","message":"there is only /health"}}"#);
    }
    if request.method != "GET" && request.method != "HEAD" {
        let body = r#"{"error":{"code":"method_not_allowed","message":"use GET"}}"#;
        return HttpResponse::json(405, body).with_header("allow", "GET, HEAD");
    }
    let stats = channel.stats();
    let rooms = stats.channels.saturating_sub(u64::from(own_name == CHANNEL));
    let timestamp = iso8601(channel.now_ms());
    let body = format!(
        r#"{{"status":"ok","timestamp":"{timestamp}","websocket":{{"connections":{},"rooms":{rooms}}}}}"#,
        stats.connections
    );
    HttpResponse::json(200, body)
}
