//! What the mount's `settings` say, with defaults and bounds. Unknown keys are ignored.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

const HOUR_MS: u64 = 60 * 60 * 1_000;
const WS_URL_BYTES_MAX: usize = 2_048;

/// The settings of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Time between two `metrics_update`s.
    pub(crate) interval_ms: u64,
    /// What the welcome says of the mount's heartbeat; the heartbeat itself is the host's.
    pub(crate) heartbeat_interval_ms: u64,
    /// Events kept for an owner who is away, at most.
    pub(crate) offline_events_max: usize,
    /// How long they are kept.
    pub(crate) offline_ttl_ms: u64,
    /// The address `GET /` names, if it is not to be made from the request.
    pub(crate) ws_url: Option<String>,
}

impl Settings {
    /// Reads them; an error is a sentence that names the key.
    pub(crate) fn parse(json: &str) -> Result<Self, String> {
        let map: Map<String, Value> =
            serde_json::from_str(json).map_err(|error| format!("settings: not a JSON object: {error}"))?;
        Ok(Self {
            interval_ms: whole(&map, "interval_ms", 5_000, 100..=HOUR_MS)?,
            heartbeat_interval_ms: whole(&map, "heartbeat_interval_ms", 30_000, 1..=HOUR_MS)?,
            offline_events_max: whole(&map, "offline_events_max", 100, 0..=1_000)? as usize,
            offline_ttl_ms: whole(&map, "offline_ttl_ms", 24 * HOUR_MS, 0..=30 * 24 * HOUR_MS)?,
            ws_url: ws_url(&map)?,
        })
    }
}

fn whole(map: &Map<String, Value>, key: &str, default: u64, range: RangeInclusive<u64>) -> Result<u64, String> {
    let Some(value) = map.get(key) else { return Ok(default) };
    value
        .as_u64()
        .filter(|number| range.contains(number))
        .ok_or_else(|| format!("settings.{key} must be a whole number from {} to {}", range.start(), range.end()))
}

fn ws_url(map: &Map<String, Value>) -> Result<Option<String>, String> {
    let Some(value) = map.get("ws_url") else { return Ok(None) };
    let url = value.as_str().filter(|url| {
        (url.starts_with("ws://") || url.starts_with("wss://")) && url.len() <= WS_URL_BYTES_MAX && !url.contains(' ')
    });
    url.map(|url| Some(url.to_owned())).ok_or_else(|| {
        format!("settings.ws_url must be a text of up to {WS_URL_BYTES_MAX} bytes that begins with ws:// or wss://")
    })
}
