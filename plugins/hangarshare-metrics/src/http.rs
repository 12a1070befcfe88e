//! The answers to plain HTTP requests on the mount: `GET /` says whose token it was and where to connect.

use hotbay_sdk::{HttpRequest, HttpResponse, Identity, iso8601};
use serde::Serialize;

use crate::settings::Settings;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    success: bool,
    owner_id: &'a str,
    /// Absent (`null`) if the request does not tell.
    ws_url: Option<String>,
    connections: usize,
    timestamp: String,
}

/// What the request should have been, if it is not one for this owner.
pub(crate) fn check(request: &HttpRequest) -> Result<&Identity, HttpResponse> {
    if !request.path.trim_matches('/').is_empty() {
        return Err(error(404, "there is nothing below this path"));
    }
    if request.method != "GET" && request.method != "HEAD" {
        return Err(error(405, "use GET").with_header("allow", "GET, HEAD"));
    }
    request.identity.as_ref().ok_or_else(|| error(401, "a token is needed"))
}

/// The answer to the owner.
pub(crate) fn answer(
    request: &HttpRequest,
    identity: &Identity,
    owner: &str,
    connections: usize,
    settings: &Settings,
    now_ms: u64,
) -> HttpResponse {
    let ws_url = settings.ws_url.clone().or_else(|| request.websocket_url(&identity.endpoint));
    let answer = Answer { success: true, owner_id: owner, ws_url, connections, timestamp: iso8601(now_ms) };
    // Texts and numbers always serialise.
    let body = serde_json::to_vec(&answer).unwrap_or_default();
    HttpResponse::json(200, body).with_header("cache-control", "no-store")
}

/// An answer that says what is wrong.
pub(crate) fn error(status: u16, sentence: &str) -> HttpResponse {
    HttpResponse::json(status, format!("{{\"success\":false,\"error\":\"{sentence}\"}}"))
}
