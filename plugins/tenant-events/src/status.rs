//! What there is to know about the bus: the bodies of `GET /` and `GET /status`.
//!
//! No response times and no latencies: a plugin has no clock but the time of its batch, and is not told when a request or a frame
//! came in or went out. Only the host could; at `/metrics` it tells how long a batch takes to commit (`hotbay_batch_commit_seconds`).

use hotbay_sdk::{Channel, HttpRequest, HttpResponse, Identity, LinkState, Snapshot, iso8601};
use serde::Serialize;

use crate::TenantEvents;
use crate::http::json;
use crate::names;

/// Event channels that are listed although nothing happened in them yet.
const KNOWN_CHANNELS: [&str; 2] = [names::DEFAULT_CHANNEL, "ideas"];

#[derive(Serialize)]
struct Answer<T> {
    success: bool,
    websocket: T,
}

#[derive(Serialize)]
struct Overview<'a> {
    nextjs: Nextjs,
    supabase: Supabase,
    tenant_id: &'a str,
    channels: Vec<String>,
    event_types: Vec<&'a str>,
    sources: Vec<&'a str>,
}

#[derive(Serialize)]
struct Nextjs {
    /// Absent (`null`) if the request does not tell.
    url: Option<String>,
    status: &'static str,
    metrics: Metrics,
}

/// Clients expect it; there is none.
#[derive(Serialize)]
struct Supabase {
    url: Option<String>,
    key: Option<String>,
    enabled: bool,
}

#[derive(Serialize)]
struct Bus {
    server_running: bool,
    status: &'static str,
    health: &'static str,
    metrics: Metrics,
}

#[derive(Serialize)]
struct Metrics {
    total_connections: u64,
    active_connections: usize,
    events_sent: u64,
    events_received: u64,
    last_activity: Option<String>,
    event_history_size: u64,
    /// Every connection is a client.
    client_count: usize,
    #[serde(flatten)]
    detail: Option<Detail>,
}

#[derive(Serialize)]
struct Detail {
    uptime_ms: u64,
    users: usize,
    distinct_filters: usize,
    history_bytes: u64,
    channels: Vec<ChannelDetail>,
}

#[derive(Serialize)]
struct ChannelDetail {
    channel: String,
    subscribers: usize,
    history: u64,
}

impl TenantEvents {
    /// Answers `GET /`.
    pub(crate) fn overview(&self, request: &HttpRequest, by: &Identity) -> HttpResponse {
        let mut channels = self.channels();
        channels.extend(KNOWN_CHANNELS);
        let nextjs = Nextjs { url: request.websocket_url(&by.endpoint), status: "active", metrics: self.metrics(None) };
        let overview = Overview {
            nextjs,
            supabase: Supabase { url: None, key: None, enabled: false },
            tenant_id: &self.tenant,
            channels: channels.into_iter().map(|name| names::full(name, &self.tenant)).collect(),
            event_types: self.catalogue.types(),
            sources: self.catalogue.sources(),
        };
        json(200, &Answer { success: true, websocket: overview })
    }

    /// Answers `GET /status`.
    pub(crate) fn status(&self, channel: &Channel, request: &HttpRequest) -> HttpResponse {
        let stats = channel.stats();
        let detailed = matches!(request.query("detailed"), Some("true" | "1"));
        let bus = Bus {
            server_running: true,
            status: "active",
            health: health(&stats),
            metrics: self.metrics(detailed.then(|| self.detail(&stats))),
        };
        json(200, &Answer { success: true, websocket: bus })
    }

    fn metrics(&self, detail: Option<Detail>) -> Metrics {
        Metrics {
            total_connections: self.counters.connections,
            active_connections: self.interests.members(),
            events_sent: self.counters.sent,
            events_received: self.counters.received,
            last_activity: self.counters.active_ms.map(iso8601),
            event_history_size: self.histories.events(),
            client_count: self.interests.members(),
            detail,
        }
    }

    fn detail(&self, stats: &Snapshot) -> Detail {
        let channels = self.channels().into_iter().map(|name| ChannelDetail {
            channel: names::full(name, &self.tenant),
            subscribers: self.interests.subscribers(name),
            history: self.histories.extent(name).len(),
        });
        Detail {
            uptime_ms: stats.uptime_ms,
            users: self.interests.users(),
            distinct_filters: self.interests.filters(),
            history_bytes: self.histories.bytes(),
            channels: channels.collect(),
        }
    }
}

/// `degraded` when a link between nodes is down.
fn health(stats: &Snapshot) -> &'static str {
    let link = stats.cluster;
    if [link.publisher, link.subscriber].contains(&LinkState::Disconnected) { "degraded" } else { "healthy" }
}
