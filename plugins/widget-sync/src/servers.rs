//! What application servers hear of what clients do: members with role `server`, if the mount's `serverEvents` says so.
//!
//! `widget:updated {clientId, message}` when a widget was changed, by whichever message; `sync:requested {clientId}`. `message` is the client's
//! frame as it came. What came over HTTP is of no client: there `clientId` is null, and `message` the body.

use hotbay_sdk::{Audience, Channel, Delivery, MemberId, Refusal, json};

use crate::WidgetSync;
use crate::budget::FRAME_BYTES;
use crate::changes::Actor;
use crate::frame::Frame;

impl WidgetSync {
    /// Does what a client's frame asks for, and tells the servers if that changed a widget.
    pub(crate) fn telling_servers(
        &mut self,
        channel: &mut Channel,
        actor: &Actor<'_>,
        frame: &Frame<'_>,
        act: impl FnOnce(&mut Self, &mut Channel) -> Result<bool, Refusal>,
    ) -> Result<(), Refusal> {
        self.take_server_event(frame.text(), actor)?;
        if act(self, channel)? {
            self.tell_servers(channel, actor, "widget:updated", Some(frame.text()));
        }
        Ok(())
    }

    /// Takes what telling the servers of a message will cost.
    pub(crate) fn take_server_event(&mut self, message: &str, actor: &Actor<'_>) -> Result<(), Refusal> {
        if self.listeners(actor).next().is_none() {
            return Ok(());
        }
        self.budget.take(1, message.len() + FRAME_BYTES)
    }

    /// Tells the servers what somebody did.
    pub(crate) fn tell_servers(&mut self, channel: &mut Channel, actor: &Actor<'_>, kind: &str, message: Option<&str>) {
        let listeners: Vec<MemberId> = self.listeners(actor).collect();
        if listeners.is_empty() {
            return;
        }
        let mut frame = self.envelopes.begin(channel.now_ms(), kind, actor.user, 128);
        let json = frame.payload();
        match actor.member {
            Some(member) => {
                json.push_str("{\"clientId\":\"client-");
                json::number(json, member);
                json.push('"');
            }
            None => json.push_str("{\"clientId\":null"),
        }
        if let Some(message) = message {
            json.push_str(",\"message\":");
            json.push_str(message);
        }
        json.push('}');
        self.budget.count(FRAME_BYTES);
        channel.emit(&Audience::Only(listeners), frame.end(None), &Delivery::NORMAL);
    }

    /// The servers that hear of what this one does.
    fn listeners(&self, actor: &Actor<'_>) -> impl Iterator<Item = MemberId> {
        let (enabled, by) = (self.settings.server_events, actor.member);
        self.clients.servers().iter().copied().filter(move |server| enabled && Some(*server) != by)
    }
}
