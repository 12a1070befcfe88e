//! What application servers publish: the body of `POST /v1/channels/{channel}/publish` is
//! `{"type", "payload", "userId"?, "toUser"?}`; `data` is another name for `payload`.
//!
//! `WIDGET_UPDATE`, `WIDGET_DELETE`, `WIDGET_BATCH`, `LAYOUT_UPDATE` and `LAYOUT_RESTORE` are done like a client's, and told to
//! all; one that clashes is refused. Every other type of 1 to 64 bytes goes out as it is, to all or to the connections of
//! `toUser`. `userId` says in whose name, otherwise it is `server`.

use hotbay_sdk::{Audience, Channel, Delivery, Payload, Refusal};

use crate::WidgetSync;
use crate::budget::FRAME_BYTES;
use crate::changes::Actor;
use crate::frame::Posting;
use crate::operation::Operation;

/// Whom messages come from that no user sent.
pub(crate) const SERVER: &str = "server";
/// Longest `type` of a server's own messages, in bytes.
const KIND_BYTES_MAX: usize = 64;
/// Longest `userId` and `toUser`, in bytes.
const USER_BYTES_MAX: usize = 128;

impl WidgetSync {
    /// Does what a server published.
    pub(crate) fn published(&mut self, channel: &mut Channel, body: &Payload) -> Result<(), Refusal> {
        let posting = Posting::parse(body)?;
        for user in [posting.user(), posting.to_user()].into_iter().flatten() {
            if user.is_empty() || user.len() > USER_BYTES_MAX {
                return Err(Refusal::bad_request("`userId` and `toUser` must have 1 to 128 bytes"));
            }
        }
        let actor = Actor { member: None, user: posting.user().unwrap_or(SERVER), answers: None };
        let (kind, payload) = (&*posting.kind, posting.payload());
        let is_batch = kind == "WIDGET_BATCH";
        if is_batch || Operation::is_kind(kind) {
            if posting.to_user().is_some() {
                return Err(Refusal::bad_request("a change is for the whole dashboard: `toUser` is not allowed"));
            }
            let changed = if is_batch {
                self.batch(channel, &actor, payload)
            } else {
                self.change(channel, &actor, kind, payload)
            };
            return changed.map(drop);
        }
        if kind.is_empty() || kind.len() > KIND_BYTES_MAX {
            return Err(Refusal::bad_request("`type` must have 1 to 64 bytes"));
        }
        self.budget.take(1, payload.len() + FRAME_BYTES)?;
        let to = posting.to_user().map_or(Audience::All, |user| Audience::User(user.to_owned()));
        let mut frame = self.envelopes.begin(channel.now_ms(), kind, actor.user, payload.len());
        frame.payload().push_str(payload);
        channel.emit(&to, frame.end(None), &Delivery::NORMAL);
        Ok(())
    }
}
