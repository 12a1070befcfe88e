//! The `settings` of the mount: what may be set, within which bounds, and the defaults. Unknown keys are ignored.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::dashboard::DASHBOARD_BYTES_MAX;

/// What the operator set.
#[derive(Debug, PartialEq)]
pub(crate) struct Settings {
    /// `enableConflictDetection`: whether an old `baseVersion` is a conflict. Otherwise it is ignored.
    pub(crate) detect_conflicts: bool,
    /// `maxPendingOperations`: operations of one `WIDGET_BATCH`, and unresolved conflicts of one client.
    pub(crate) pending_max: usize,
    /// `maxQueueSize`: operations of one `SYNC_UPDATE` or `POST`. A client sends there what it could not send for a while.
    pub(crate) queue_max: usize,
    /// `operationTimeoutMs`: how long a conflict waits for its resolution.
    pub(crate) operation_timeout_ms: u64,
    /// `heartbeatIntervalMs`: between two `PING`s.
    pub(crate) heartbeat_interval_ms: u64,
    /// `heartbeatMisses`: unanswered `PING`s after which a client is disconnected.
    pub(crate) heartbeat_misses: u32,
    /// `layoutVersionsMax`: layouts kept for `LAYOUT_RESTORE`, the current one among them.
    pub(crate) layout_versions_max: u64,
    /// `operationsKeptMax`: results kept to answer repeated operations, of all users together: at least two queues, so that
    /// one user's does not push out what another is about to repeat. They take about 250 bytes each.
    pub(crate) operations_kept_max: usize,
    /// `dashboardBytesMax`: all widgets of a dashboard together.
    pub(crate) dashboard_bytes_max: usize,
    /// `serverEvents`: whether members with role `server` are told of what clients do.
    pub(crate) server_events: bool,
    /// `wsUrl`: what `GET /` answers; otherwise made from the request.
    pub(crate) ws_url: Option<String>,
}

impl Settings {
    /// Reads the settings.
    ///
    /// # Errors
    /// A sentence that names the key whose value is of the wrong type or out of bounds.
    pub(crate) fn read(json: &str) -> Result<Self, String> {
        let map: Map<String, Value> =
            serde_json::from_str(json).map_err(|error| format!("the settings are not a JSON object: {error}"))?;
        let queue_max = whole(&map, "maxQueueSize", 1..=1_000, 500)?;
        Ok(Self {
            detect_conflicts: flag(&map, "enableConflictDetection", true)?,
            pending_max: whole(&map, "maxPendingOperations", 1..=1_000, 100)? as usize,
            queue_max: queue_max as usize,
            operation_timeout_ms: whole(&map, "operationTimeoutMs", 100..=3_600_000, 30_000)?,
            heartbeat_interval_ms: whole(&map, "heartbeatIntervalMs", 100..=3_600_000, 30_000)?,
            heartbeat_misses: whole(&map, "heartbeatMisses", 1..=100, 2)? as u32,
            layout_versions_max: whole(&map, "layoutVersionsMax", 1..=100, 20)?,
            operations_kept_max: whole(&map, "operationsKeptMax", 2 * queue_max..=10_000, 5_000)? as usize,
            dashboard_bytes_max: whole(&map, "dashboardBytesMax", 1_024..=2 * DASHBOARD_BYTES_MAX, DASHBOARD_BYTES_MAX)?
                as usize,
            server_events: flag(&map, "serverEvents", false)?,
            ws_url: text(&map, "wsUrl")?,
        })
    }
}

fn flag(map: &Map<String, Value>, key: &str, default: bool) -> Result<bool, String> {
    match map.get(key) {
        None => Ok(default),
        Some(Value::Bool(value)) => Ok(*value),
        Some(_) => Err(format!("settings.{key} must be true or false")),
    }
}

fn whole(map: &Map<String, Value>, key: &str, range: RangeInclusive<u64>, default: u64) -> Result<u64, String> {
    let Some(value) = map.get(key) else { return Ok(default) };
    let value = value.as_u64().filter(|value| range.contains(value));
    value.ok_or_else(|| format!("settings.{key} must be a whole number from {} to {}", range.start(), range.end()))
}

fn text(map: &Map<String, Value>, key: &str) -> Result<Option<String>, String> {
    match map.get(key) {
        None => Ok(None),
        Some(Value::String(value)) if !value.is_empty() => Ok(Some(value.clone())),
        Some(_) => Err(format!("settings.{key} must be a text, not empty")),
    }
}
