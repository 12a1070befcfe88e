//! The answers to plain HTTP requests on the mount: `GET /` says whose token it was and where to connect.

use hotbay_sdk::{HttpRequest, HttpResponse, Identity};
use serde::Serialize;

use crate::calendar::iso8601;
use crate::settings::Settings;

/// Longest `host` header that `wsUrl` is made of, in bytes.
const HOST_BYTES_MAX: usize = 255;

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
    let ws_url = settings.ws_url.clone().or_else(|| ws_url(request, &identity.endpoint));
    let answer = Answer { success: true, owner_id: owner, ws_url, connections, timestamp: iso8601(now_ms) };
    // Texts and numbers always serialise.
    let body = serde_json::to_vec(&answer).unwrap_or_default();
    HttpResponse::json(200, body).with_header("cache-control", "no-store")
}

/// An answer that says what is wrong.
pub(crate) fn error(status: u16, sentence: &str) -> HttpResponse {
    HttpResponse::json(status, format!("{{\"success\":false,\"error\":\"{sentence}\"}}"))
}

/// The address the request came to, as seen from outside a proxy that ends TLS.
fn ws_url(request: &HttpRequest, endpoint: &str) -> Option<String> {
    let host = request.header("host").filter(|host| is_host(host))?;
    let outside = request.header("x-forwarded-proto").and_then(|all| all.split(',').next()).map(str::trim);
    let tls = outside.is_some_and(|proto| proto.eq_ignore_ascii_case("https") || proto.eq_ignore_ascii_case("wss"));
    let scheme = if tls { "wss" } else { "ws" };
    let path = endpoint.trim_start_matches('/');
    Some(format!("{scheme}://{host}/{path}"))
}

/// Whether it can be the host of an address, so that no header smuggles a path or another user into it.
fn is_host(host: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    (1..=HOST_BYTES_MAX).contains(&host.len()) && host.bytes().all(allowed)
}
