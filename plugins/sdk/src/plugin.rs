//! The trait a plugin implements. Owns only its default answers.

use crate::{
    Audience, Channel, ChannelInfo, Delivery, HttpRequest, HttpResponse, Joined, Left, Message, Payload, Publication,
    Refusal, Routing, Sender,
};

/// What a channel means. One value serves one channel, one event at a time.
///
/// An event that must have no effect returns `Err`: its sender is told in the words of [`Plugin::refused`]. Effects made
/// before the `Err` still hold, so check first, then act. A panic undoes the whole batch and drops the instance; the
/// next one is opened without `saved`.
pub trait Plugin: Sized {
    /// Starts an instance. `saved` is what [`Plugin::save`] of the instance before returned; it is absent at the first
    /// start and after a crash. Whatever counts must be found in [`Channel::kv`], [`Channel::log`] and the member list.
    ///
    /// # Errors
    /// A sentence for the operator; the channel does not start.
    fn open(info: &ChannelInfo, saved: Option<&[u8]>, channel: &mut Channel) -> Result<Self, String>;

    /// Called once, before the first event: the place to rebuild who is present, by
    /// [`Channel::members_before_batch`].
    fn on_start(&mut self, channel: &mut Channel) {
        let _ = channel;
    }

    /// A connection joined, or joined again (same member id).
    fn on_join(&mut self, channel: &mut Channel, joined: Joined) -> Result<(), Refusal> {
        let _ = (channel, joined);
        Ok(())
    }

    /// A member left.
    fn on_leave(&mut self, channel: &mut Channel, left: Left) {
        let _ = (channel, left);
    }

    /// A member sent a message. By default it goes to all members unchanged, the sender too.
    fn on_message(&mut self, channel: &mut Channel, message: Message) -> Result<(), Refusal> {
        let _ = message;
        channel.forward(&Audience::All, &Delivery::NORMAL);
        Ok(())
    }

    /// A timer is due.
    fn on_timer(&mut self, channel: &mut Channel, name: &str) {
        let _ = (channel, name);
    }

    /// A server or another channel published. By default it goes to all members unchanged.
    fn on_publish(&mut self, channel: &mut Channel, publication: Publication) -> Result<(), Refusal> {
        let _ = publication;
        channel.forward(&Audience::All, &Delivery::NORMAL);
        Ok(())
    }

    /// An HTTP request. `None` means that [`Channel::respond`] answers it later. By default 404.
    fn on_request(&mut self, channel: &mut Channel, request: HttpRequest) -> Option<HttpResponse> {
        let _ = (channel, request);
        Some(HttpResponse::json(404, r#"{"error":{"code":"not_found","message":"nothing is served here"}}"#))
    }

    /// Called after the last event of each batch: the place to write what the events of a batch share.
    fn on_batch_end(&mut self, channel: &mut Channel) {
        let _ = channel;
    }

    /// What the next instance should get from memory. A cache, not a promise. Changes nothing: this instance goes on if the next one
    /// fails to take over.
    fn save(&mut self) -> Vec<u8> {
        Vec::new()
    }

    /// Says where a frame goes, on mounts with many channels on a socket. Must depend on its arguments alone.
    fn route(sender: &Sender, frame: Payload) -> Routing {
        let _ = (sender, frame);
        Routing::Refuse(Refusal::bad_request("this plugin does not route"))
    }

    /// Puts a refusal into the protocol's own words; `None` says nothing. Must depend on its arguments alone.
    fn refused(to: &Sender, frame: Option<&Payload>, why: &Refusal) -> Option<Payload> {
        let _ = (to, frame, why);
        None
    }
}
