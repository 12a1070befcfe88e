//! The names clients give: of event channels, event types, sources and users. Owns what is a name; knows no state.
//!
//! An event channel is known to clients as `{name}:{tenant}`, and may be called `{name}` for short. Inside it is always the
//! short name, since one instance serves one tenant.

use hotbay_sdk::Refusal;

/// Longest name, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 128;
/// The event channel everybody starts in, and which is meant if none is named.
pub(crate) const DEFAULT_CHANNEL: &str = "tenant";
/// What only this plugin says.
pub(crate) const SYSTEM: &str = "system";
/// Event types that only this plugin sends.
pub(crate) const RESERVED_TYPES: [&str; 5] = ["connection", "filters_updated", "subscribed", "unsubscribed", "error"];

/// Whether a text can be a name: 1 to 128 bytes, no control characters.
pub(crate) fn is_name(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// The short name of the event channel that a client of this tenant means.
///
/// # Errors
/// `forbidden` if it is another tenant's, `bad_request` if it is no name.
pub(crate) fn resolve<'a>(text: &'a str, tenant: &str) -> Result<&'a str, Refusal> {
    let (name, of) = text.split_once(':').map_or((text, tenant), |(name, of)| (name, of));
    if !is_name(name) {
        return Err(Refusal::bad_request("a channel's name has 1 to 128 bytes and no control characters"));
    }
    if of == tenant {
        Ok(name)
    } else if is_name(of) && !of.contains(':') {
        Err(Refusal::forbidden("this channel belongs to another tenant"))
    } else {
        Err(Refusal::bad_request("a channel is called {name}:{tenant}, or {name} for short"))
    }
}

/// The name as clients know it.
pub(crate) fn full(name: &str, tenant: &str) -> String {
    format!("{name}:{tenant}")
}
