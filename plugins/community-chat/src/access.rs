//! Who may join which channel. Decides from the name and the verified claims alone; keeps nothing.

use hotbay_sdk::{Identity, Refusal};

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
        "group" if identity.claim_lists("groups", rest) => Ok(()),
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
