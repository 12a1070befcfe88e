//! The mount's settings. Owns their names, defaults and bounds.

use hotbay_sdk::ChannelInfo;
use serde_json::{Map, Value};

/// Endpoint that speaks the binary protocol if nothing else is set.
pub(crate) const BINARY_ENDPOINT: &str = "/yjs/{draftId}";

/// What the mount may set.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    /// Endpoints whose members speak the y-websocket protocol; all others speak JSON.
    pub(crate) binary_endpoints: Vec<String>,
    /// Largest document, in bytes.
    pub(crate) document_bytes_max: usize,
    /// Updates in the log after which they are folded into the snapshot.
    pub(crate) fold_updates_max: usize,
    /// Bytes of updates in the log after which they are folded into the snapshot.
    pub(crate) fold_bytes_max: usize,
    /// Time without renewal after which an awareness state goes, in milliseconds.
    pub(crate) awareness_timeout_ms: u64,
    /// Largest awareness state, in bytes.
    pub(crate) awareness_bytes_max: usize,
    /// Bytes the plugin sends and stores in one batch: the mount's limit of the same name.
    pub(crate) effect_bytes_max: usize,
    /// What is deleted gives up its content when the document is folded.
    pub(crate) garbage_collection: bool,
    /// Time after which the statement `draft_access` is asked again about the members, in milliseconds.
    pub(crate) access_check_ms: u64,
}

impl Settings {
    /// Reads them.
    ///
    /// # Errors
    /// A sentence that names the key.
    pub(crate) fn read(info: &ChannelInfo) -> Result<Self, String> {
        let settings: Map<String, Value> =
            serde_json::from_str(&info.settings).map_err(|_| "the settings are not a JSON object".to_owned())?;
        Ok(Self {
            binary_endpoints: texts(&settings, "binary_endpoints", &[BINARY_ENDPOINT])?,
            document_bytes_max: number(&settings, "document_bytes_max", 1 << 10, 64 << 20, 16 << 20)? as usize,
            fold_updates_max: number(&settings, "fold_updates_max", 1, 100_000, 500)? as usize,
            fold_bytes_max: number(&settings, "fold_bytes_max", 1 << 10, 64 << 20, 1 << 20)? as usize,
            awareness_timeout_ms: number(&settings, "awareness_timeout_ms", 1_000, 3_600_000, 30_000)?,
            awareness_bytes_max: number(&settings, "awareness_bytes_max", 64, 1 << 20, 16 << 10)? as usize,
            effect_bytes_max: number(&settings, "effect_bytes_max", 1 << 20, 1 << 30, 96 << 20)? as usize,
            garbage_collection: switch(&settings, "garbage_collection", true)?,
            access_check_ms: number(&settings, "access_check_ms", 1_000, 86_400_000, 300_000)?,
        })
    }
}

fn number(settings: &Map<String, Value>, key: &str, min: u64, max: u64, default: u64) -> Result<u64, String> {
    let Some(value) = settings.get(key) else { return Ok(default) };
    let number = value.as_u64().filter(|number| (min..=max).contains(number));
    number.ok_or_else(|| format!("the setting `{key}` must be a whole number from {min} to {max}"))
}

fn switch(settings: &Map<String, Value>, key: &str, default: bool) -> Result<bool, String> {
    let Some(value) = settings.get(key) else { return Ok(default) };
    value.as_bool().ok_or_else(|| format!("the setting `{key}` must be true or false"))
}

fn texts(settings: &Map<String, Value>, key: &str, default: &[&str]) -> Result<Vec<String>, String> {
    let Some(value) = settings.get(key) else { return Ok(default.iter().map(|text| (*text).to_owned()).collect()) };
    let list = value.as_array().map(|list| list.iter().map(|text| text.as_str().map(str::to_owned)));
    let list = list.and_then(Iterator::collect::<Option<Vec<String>>>);
    list.ok_or_else(|| format!("the setting `{key}` must be an array of texts"))
}
