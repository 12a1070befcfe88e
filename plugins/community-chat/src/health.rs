//! The answer of `GET /health`, from the numbers the host gives.

use hotbay_sdk::{Channel, HttpRequest, HttpResponse, LinkState, iso8601};

/// Answers an HTTP request on the mount: `GET /health`, else 404 or 405.
///
/// `status` is `ok`, or `degraded` when a link between nodes is down. `pubsub.channels` is the number of channels this node
/// listens to for other nodes; on a node that runs alone, the number of channels awake. `timestamp` is ISO 8601.
pub(crate) fn answer(channel: &Channel, request: &HttpRequest) -> HttpResponse {
    if request.path.trim_end_matches('/') != "/health" {
        return HttpResponse::json(404, r#"{"error":{"code":"not_found","message":"there is only /health"}}"#);
    }
    if request.method != "GET" && request.method != "HEAD" {
        let body = r#"{"error":{"code":"method_not_allowed","message":"use GET"}}"#;
        return HttpResponse::json(405, body).with_header("allow", "GET, HEAD");
    }
    let stats = channel.stats();
    let link = stats.cluster;
    let down = [link.publisher, link.subscriber].contains(&LinkState::Disconnected);
    let alone = [link.publisher, link.subscriber] == [LinkState::Disabled; 2];
    let average = stats.connections.saturating_mul(100).checked_div(stats.users).unwrap_or(0);
    let body = format!(
        concat!(
            r#"{{"status":"{}","websocket":{{"totalConnections":{},"uniqueUsers":{},"averageConnectionsPerUser":{}.{:02}}},"#,
            r#""pubsub":{{"publisher":"{}","subscriber":"{}","channels":{}}},"timestamp":"{}"}}"#
        ),
        if down { "degraded" } else { "ok" },
        stats.connections,
        stats.users,
        average / 100,
        average % 100,
        word(link.publisher),
        word(link.subscriber),
        if alone { stats.channels } else { link.subscribed },
        iso8601(channel.now_ms()),
    );
    HttpResponse::json(200, body)
}

fn word(state: LinkState) -> &'static str {
    match state {
        LinkState::Disabled => "disabled",
        LinkState::Connected => "connected",
        LinkState::Disconnected => "disconnected",
    }
}
