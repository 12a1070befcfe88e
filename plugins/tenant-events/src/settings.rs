//! The `settings` of the mount. Owns their names, ranges and defaults; unknown ones are ignored.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

/// What an operator may set.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "each is a maximum, and is named as the operator names it")]
pub(crate) struct Settings {
    /// `historyMax`: events kept for each event channel; 0 keeps none.
    pub(crate) history_max: u64,
    /// `historyBytesMax`: bytes of all that is kept, keys too. Must stay well below the mount's `state_bytes_max`.
    pub(crate) history_bytes_max: u64,
    /// `eventBytesMax`: bytes of an event's `data`.
    pub(crate) event_bytes_max: usize,
    /// `interestBytesMax`: bytes of all members' filters and subscriptions.
    pub(crate) interest_bytes_max: usize,
    /// `effectBytesMax`: the mount's `effect_bytes_max`, which a plugin cannot see.
    pub(crate) effect_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            history_max: 1_000,
            history_bytes_max: 32 << 20,
            event_bytes_max: 64 << 10,
            interest_bytes_max: 4 << 20,
            effect_bytes_max: 8 << 20,
        }
    }
}

impl Settings {
    /// Reads them.
    ///
    /// # Errors
    /// A sentence that names the key.
    pub(crate) fn parse(json: &str) -> Result<Self, String> {
        let map: Map<String, Value> =
            serde_json::from_str(json).map_err(|_| "the settings are not a JSON object".to_owned())?;
        let default = Self::default();
        let size = |key, default: usize, range: RangeInclusive<u64>| {
            // On wasm32 the ranges fit.
            number(&map, key, default as u64, range).map(|value| value as usize)
        };
        Ok(Self {
            history_max: number(&map, "historyMax", default.history_max, 0..=5_000)?,
            history_bytes_max: number(&map, "historyBytesMax", default.history_bytes_max, 0..=(1 << 30))?,
            event_bytes_max: size("eventBytesMax", default.event_bytes_max, 1..=(512 << 10))?,
            interest_bytes_max: size("interestBytesMax", default.interest_bytes_max, 0..=(256 << 20))?,
            effect_bytes_max: size("effectBytesMax", default.effect_bytes_max, (4 << 20)..=(1 << 30))?,
        })
    }
}

fn number(map: &Map<String, Value>, key: &str, default: u64, range: RangeInclusive<u64>) -> Result<u64, String> {
    let Some(value) = map.get(key) else { return Ok(default) };
    value
        .as_u64()
        .filter(|value| range.contains(value))
        .ok_or_else(|| format!("the setting `{key}` must be a whole number from {} to {}", range.start(), range.end()))
}
