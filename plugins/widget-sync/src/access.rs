//! Whose dashboard it is. Decides from the channel's name and the verified claims alone; keeps nothing.

use hotbay_sdk::Identity;

/// Whether this identity may use this channel: `dashboard:{id}` is open to the user with this id, and to users with the
/// id in claim `dashboards`, an array of strings or whole numbers.
pub(crate) fn may_use(channel: &str, identity: &Identity) -> bool {
    let Some(id) = channel.strip_prefix("dashboard:").filter(|id| !id.is_empty()) else { return false };
    id == identity.user || identity.claim_lists("dashboards", id)
}
