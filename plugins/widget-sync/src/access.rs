//! Whose dashboard it is. Decides from the channel's name and the verified claims alone; keeps nothing.

use hotbay_sdk::Identity;
use serde::Deserialize;
use serde_json::Value;

/// Whether this identity may use this channel: `dashboard:{id}` is open to the user with this id, and to users with the
/// id in claim `dashboards`, an array of strings or whole numbers.
pub(crate) fn may_use(channel: &str, identity: &Identity) -> bool {
    let Some(id) = channel.strip_prefix("dashboard:").filter(|id| !id.is_empty()) else { return false };
    id == identity.user || in_dashboards(&identity.claims, id)
}

#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    dashboards: Value,
}

fn in_dashboards(claims: &str, id: &str) -> bool {
    let Ok(Claims { dashboards: Value::Array(dashboards) }) = serde_json::from_str(claims) else { return false };
    dashboards.iter().any(|dashboard| match dashboard {
        Value::String(dashboard) => dashboard == id,
        Value::Number(dashboard) if !dashboard.is_f64() => dashboard.to_string() == id,
        _ => false,
    })
}
