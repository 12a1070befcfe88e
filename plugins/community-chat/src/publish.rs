//! Events from application servers: the body of `POST /v1/channels/{channel}/publish` is
//! `{"type", "payload" | "data", "userId"?, "toUser"?}`.
//!
//! | type | payload | does |
//! | --- | --- | --- |
//! | `CHAT_MESSAGE` | `content, clientId?, …` | stores and sends a message of `userId` (required) |
//! | `TYPING` | `isTyping` | shows `userId` (required) typing, for 5 s |
//! | `USER_JOINED`, `USER_LEFT` | | announces `userId` (required); who is online stays as it is |
//! | `MESSAGE_EDIT` | `id, content` | changes any message |
//! | `MESSAGE_DELETE` | `id` | deletes any message |
//! | any other | anything | sends it as it is |
//!
//! `userId` may stand beside the payload or in it. `toUser` addresses one user's connections instead of all; not for types
//! that are stored. Frames that only answer clients (`SUBSCRIBED`, `ERROR`, …) cannot be published.

use hotbay_sdk::json::Text;
use hotbay_sdk::{Audience, Channel, Delivery, Payload, Refusal};

use crate::frame::{Chat, Posting, Presence, Typing};
use crate::{Actor, CHAT_EXPECTED, CommunityChat, DELETE_EXPECTED, EDIT_EXPECTED, TYPING_EXPECTED};

/// Longest `type` of a server's own events, in bytes.
const KIND_BYTES_MAX: usize = 64;

impl CommunityChat {
    /// Does what a server published.
    pub(crate) fn published(&mut self, channel: &mut Channel, body: &Payload) -> Result<(), Refusal> {
        let posting = Posting::parse(body)?;
        let kind = &*posting.kind.0;
        let by = posting.user_id.as_ref();
        let audience = match &posting.to_user {
            None => Audience::All,
            Some(_) if matches!(kind, "CHAT_MESSAGE" | "MESSAGE_EDIT" | "MESSAGE_DELETE") => {
                return Err(Refusal::bad_request("messages are for the whole channel: `toUser` is not allowed"));
            }
            Some(user) => Audience::User(user.0.to_string()),
        };
        let server = Actor::Server { user: by.map(|user| &*user.0) };
        match kind {
            "CHAT_MESSAGE" => {
                let chat: Chat<'_> = posting.payload(CHAT_EXPECTED)?;
                self.chat(channel, &server, user(by, chat.user_id.as_ref())?, &chat)
            }
            "TYPING" => {
                let typing: Typing<'_> = posting.payload(TYPING_EXPECTED)?;
                let user = user(by, typing.user_id.as_ref())?;
                match audience {
                    Audience::All => self.typing(channel, None, user, typing.is_typing),
                    one => self.announce_typing(channel, &one, user, typing.is_typing),
                }
                Ok(())
            }
            "USER_JOINED" | "USER_LEFT" => {
                let presence: Presence<'_> = posting.payload("this type takes {userId: text}")?;
                self.announce_presence(channel, &audience, kind, user(by, presence.user_id.as_ref())?);
                Ok(())
            }
            "MESSAGE_EDIT" => self.edit(channel, &server, &posting.payload(EDIT_EXPECTED)?),
            "MESSAGE_DELETE" => self.delete(channel, &server, &posting.payload(DELETE_EXPECTED)?),
            "SUBSCRIBE" | "SUBSCRIBED" | "UNSUBSCRIBE" | "UNSUBSCRIBED" | "ERROR" => {
                Err(Refusal::bad_request("this type belongs to a client's own dialogue and cannot be published"))
            }
            _ => self.pass_on(channel, &audience, kind, &posting),
        }
    }

    /// Sends a server's own event as it is.
    fn pass_on(&self, channel: &mut Channel, to: &Audience, kind: &str, posting: &Posting<'_>) -> Result<(), Refusal> {
        if kind.is_empty() || kind.len() > KIND_BYTES_MAX {
            return Err(Refusal::bad_request("`type` must have 1 to 64 bytes"));
        }
        if serde_json::from_str::<serde_json::Value>(posting.raw()).is_err() {
            return Err(Refusal::bad_request("the payload is not valid JSON, or too deep"));
        }
        let mut frame = self.outgoing(kind, posting.raw().len());
        frame.payload().push_str(posting.raw());
        let frame = match &posting.user_id {
            Some(user) => frame.by(&user.0),
            None => frame,
        };
        channel.emit(to, frame.end(None, channel.now_ms()), &Delivery::NORMAL);
        Ok(())
    }
}

/// The user a server speaks of.
fn user<'a>(beside: Option<&'a Text<'_>>, inside: Option<&'a Text<'_>>) -> Result<&'a str, Refusal> {
    let user = beside.or(inside).map(|user| &*user.0);
    user.filter(|user| !user.is_empty()).ok_or_else(|| Refusal::bad_request("the publication lacks `userId`"))
}
