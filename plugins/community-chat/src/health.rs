//! The answer of `GET /health`, from the numbers the host gives.

use std::fmt::Write as _;

use hotbay_sdk::{Channel, HttpRequest, HttpResponse, LinkState};

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

/// `2023-11-14T22:13:20.000Z`. The calendar is counted from 1 March of year 0, so that leap days come last.
pub(crate) fn iso8601(ms: u64) -> String {
    let (days, of_day) = (ms / 86_400_000, ms % 86_400_000);
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march + 2) / 5 + 1;
    let month = if march < 10 { march + 3 } else { march - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (seconds, ms) = (of_day / 1_000, of_day % 1_000);
    let mut text = String::with_capacity(24);
    // Writing to a string cannot fail.
    _ = write!(
        text,
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{ms:03}Z",
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60
    );
    text
}
