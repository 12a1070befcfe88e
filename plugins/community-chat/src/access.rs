//! Who may join which channel. Decides from the name and the verified claims alone; keeps nothing.

use hotbay_sdk::{Identity, Refusal};
use serde::Deserialize;
use serde_json::Value;

/// Checks that this identity may join this channel.
///
/// | channel | open to |
/// | --- | --- |
/// | `room:{id}` | every authenticated user of the tenant |
/// | `group:{id}` | users with the id in claim `groups` (an array of strings or whole numbers) |
/// | `dm:{a}:{b}` | the two users, ids in ascending order |
/// | `user:{id}` | that user |
///
/// # Errors
/// `forbidden`, or `bad-request` if the name could be right but is not well formed.
pub(crate) fn may_join(channel: &str, identity: &Identity) -> Result<(), Refusal> {
    let (kind, rest) = channel.split_once(':').unwrap_or((channel, ""));
    if matches!(kind, "room" | "group" | "dm" | "user") && rest.is_empty() {
        return Err(Refusal::bad_request("the channel's name lacks an id after the ':'"));
    }
    match kind {
        "room" => Ok(()),
        "group" if in_groups(&identity.claims, rest) => Ok(()),
        "group" => Err(Refusal::forbidden("you are not in this group")),
        "dm" => may_join_direct(rest, &identity.user),
        "user" if rest == identity.user => Ok(()),
        "user" => Err(Refusal::forbidden("this channel is another user's")),
        _ => Err(Refusal::forbidden("there are only the channels room:{id}, group:{id}, dm:{a}:{b} and user:{id}")),
    }
}

fn may_join_direct(pair: &str, user: &str) -> Result<(), Refusal> {
    match pair.split_once(':') {
        Some((a, b)) if a.is_empty() || b.is_empty() || b.contains(':') => {
            Err(Refusal::bad_request("a direct channel is dm:{a}:{b} with two user ids"))
        }
        Some((a, b)) if a != user && b != user => Err(Refusal::forbidden("this channel is between two other users")),
        Some((a, b)) if a < b => Ok(()),
        Some(_) => Err(Refusal::bad_request("a direct channel names two different users in ascending order")),
        None => Err(Refusal::bad_request("a direct channel is dm:{a}:{b} with two user ids")),
    }
}

#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    groups: Value,
}

fn in_groups(claims: &str, id: &str) -> bool {
    let Ok(Claims { groups: Value::Array(groups) }) = serde_json::from_str(claims) else { return false };
    groups.iter().any(|group| match group {
        Value::String(group) => group == id,
        Value::Number(group) if !group.is_f64() => group.to_string() == id,
        _ => false,
    })
}
