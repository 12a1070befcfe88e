//! Community chat: rooms, groups and direct messages with history, typing and presence.
//!
//! One instance is one channel. Mount it with `route = true`: a socket then carries any number of channels, named by each
//! frame. Join every connection to `user:{userId}` as well, and a publish to that channel reaches all of a user's
//! connections.
//!
//! # Frames
//!
//! `{ "type", "channel"?, "payload", "id"?, "userId"?, "timestamp" }`, both ways. `id` is the client's name for its frame, a string of up
//! to 128 bytes or a whole number; what answers the frame carries it as `correlationId`. `timestamp`, set by the
//! server, is in milliseconds. Unknown fields are ignored, except those of a `CHAT_MESSAGE`'s payload: up to 16 of them, 4 KiB together,
//! are stored and sent with the message.
//!
//! | in | payload | out |
//! | --- | --- | --- |
//! | `SUBSCRIBE` | `since?` | `SUBSCRIBED {online, onlineCount, recent, missed?, more?, next?, gap?}` |
//! | `UNSUBSCRIBE` | | `UNSUBSCRIBED` |
//! | `CHAT_MESSAGE` | `content, clientId?, …` | to all: `{id, userId, content, clientId?, createdAt, …}` |
//! | `TYPING` | `isTyping` | to the others: `{userId, isTyping}` |
//! | `MESSAGE_EDIT` | `id, content` | to all: `{id, userId, content, editedAt}` |
//! | `MESSAGE_DELETE` | `id` | to all: `{id, userId, deletedAt}` |
//! | `PING` | | `PONG` |
//!
//! Message ids go out as decimal strings, ascending in their channel; they come in as strings or numbers. In an edit or a
//! deletion, `payload.userId` is the message's author and the envelope's `userId` who changed it. `online` lists at most 1,000 users;
//! `onlineCount` counts all. `missed` has at most 500 messages or 256 KiB; with `more`, go on with `since: next`; with `gap`, messages
//! between were too old to be kept. A retry (same user, same `clientId`, among the last 500 messages) is not
//! stored again; its sender alone gets the message as it stands now, or its `MESSAGE_DELETE`.
//!
//! A server publishes any type: `publish.rs` says how. This crate must not decide who a user is, nor how fast it may write.

mod access;
mod encode;
mod frame;
mod health;
mod history;
mod presence;
mod publish;
mod saved;
#[cfg(test)]
mod tests;
mod typing;

use hotbay_sdk::{
    Audience, Channel, ChannelInfo, Delivery, HttpRequest, HttpResponse, Joined, Left, MemberId, Message, Payload,
    Plugin, Publication, Refusal, RefusalCode, Routing, Sender, TimerKeep, json,
};

use encode::Outgoing;
use frame::{Chat, Delete, Edit, Frame, Id, Subscribe, Typing};
use history::{History, Stored};
use presence::Presence;
use typing::{TYPING_MS, Typists};

/// Users listed in `online`.
const ONLINE_MAX: usize = 1_000;
/// The one timer: when the next typist's time is over.
const TYPING_TIMER: &str = "typing";

const CHAT_EXPECTED: &str = "CHAT_MESSAGE takes {content: text, clientId?: text}";
const TYPING_EXPECTED: &str = "TYPING takes {isTyping: boolean}";
const EDIT_EXPECTED: &str = "MESSAGE_EDIT takes {id: message id, content: text}";
const DELETE_EXPECTED: &str = "MESSAGE_DELETE takes {id: message id}";

/// A channel of the community chat.
pub struct CommunityChat {
    name: String,
    /// A channel of one user: joins and leaves are not announced, and a join without a frame is not answered.
    personal: bool,
    presence: Presence,
    history: History,
    typists: Typists,
    typing_timer: bool,
    /// Members of the instance before, until the first batch.
    known: Vec<MemberId>,
}

/// Who does something to a message.
enum Actor<'a> {
    /// A member, and its frame's id.
    Member { id: MemberId, user: &'a str, answers: Option<&'a Id<'a>> },
    /// A server, perhaps in the name of a user. It may change any message.
    Server { user: Option<&'a str> },
}

impl<'a> Actor<'a> {
    fn user(&self) -> Option<&'a str> {
        match self {
            Self::Member { user, .. } => Some(user),
            Self::Server { user } => *user,
        }
    }
}

impl Plugin for CommunityChat {
    fn open(info: &ChannelInfo, saved: Option<&[u8]>, _: &mut Channel) -> Result<Self, String> {
        let saved = saved.and_then(saved::read).unwrap_or_default();
        let mut typists = Typists::default();
        for typist in saved.typists {
            typists.start(&typist.user, typist.member, typist.until_ms);
        }
        Ok(Self {
            name: info.name.clone(),
            personal: info.name.starts_with("user:"),
            presence: Presence::default(),
            history: History::resume(saved.retries),
            typists,
            typing_timer: false,
            known: saved.members,
        })
    }

    fn on_start(&mut self, channel: &mut Channel) {
        for (member, user) in channel.members_before_batch() {
            self.presence.join(member, &user);
        }
        // A member that subscribes again is not in the list above if that woke the channel; the instance before knew it.
        for member in std::mem::take(&mut self.known) {
            if let Some(member) = channel.member(member) {
                self.presence.join(member.id, &member.identity.user);
            }
        }
        self.set_typing_timer(channel);
    }

    fn on_join(&mut self, channel: &mut Channel, joined: Joined) -> Result<(), Refusal> {
        let user = &joined.identity.user;
        // Whoever is refused here is nobody who is present.
        let asked = joined.frame.as_ref().map(Frame::parse).transpose()?;
        let since = asked.as_ref().map(Subscribe::since).transpose()?.flatten();
        let first = self.presence.join(joined.member, user);
        if asked.is_some() || !self.personal {
            self.welcome(channel, joined.member, asked.as_ref().and_then(|frame| frame.id.as_ref()), since);
        }
        if first && !self.personal {
            self.announce_presence(channel, &Audience::Except(joined.member), "USER_JOINED", user);
        }
        Ok(())
    }

    fn on_leave(&mut self, channel: &mut Channel, left: Left) {
        if let Some(frame) = &left.frame {
            let frame = Frame::parse(frame).ok();
            let mut answer = Outgoing::new("UNSUBSCRIBED", Some(&self.name), 0);
            answer.payload().push_str("{}");
            let answer = answer.end(frame.and_then(|frame| frame.id).as_ref(), channel.now_ms());
            channel.emit(&Audience::Only(vec![left.member]), answer, &Delivery::HIGH);
        }
        if self.typists.leave(left.member) {
            self.announce_typing(channel, &Audience::All, &left.user, false);
        }
        if self.presence.leave(left.member, &left.user) && !self.personal {
            self.announce_presence(channel, &Audience::All, "USER_LEFT", &left.user);
        }
    }

    fn on_message(&mut self, channel: &mut Channel, message: Message) -> Result<(), Refusal> {
        let frame = Frame::parse(&message.payload)?;
        let actor = Actor::Member { id: message.member, user: &message.user, answers: frame.id.as_ref() };
        match frame.kind() {
            "CHAT_MESSAGE" => {
                let chat: Chat<'_> = frame.payload(CHAT_EXPECTED)?;
                self.chat(channel, &actor, &message.user, &chat)
            }
            "TYPING" => {
                let typing: Typing<'_> = frame.payload(TYPING_EXPECTED)?;
                self.typing(channel, Some(message.member), &message.user, typing.is_typing);
                Ok(())
            }
            "MESSAGE_EDIT" => self.edit(channel, &actor, &frame.payload(EDIT_EXPECTED)?),
            "MESSAGE_DELETE" => self.delete(channel, &actor, &frame.payload(DELETE_EXPECTED)?),
            _ => Err(Refusal::bad_request("this `type` is not one of a channel's")),
        }
    }

    fn on_timer(&mut self, channel: &mut Channel, name: &str) {
        if name != TYPING_TIMER {
            return;
        }
        self.typing_timer = false;
        for typist in self.typists.expire(channel.now_ms()) {
            let others = typist.member.map_or(Audience::All, Audience::Except);
            self.announce_typing(channel, &others, &typist.user, false);
        }
        self.set_typing_timer(channel);
    }

    fn on_publish(&mut self, channel: &mut Channel, publication: Publication) -> Result<(), Refusal> {
        self.published(channel, &publication.payload)
    }

    fn on_request(&mut self, channel: &mut Channel, request: HttpRequest) -> Option<HttpResponse> {
        Some(health::answer(channel, &request))
    }

    fn save(&mut self) -> Vec<u8> {
        saved::write(self.history.retries(), self.presence.members(), self.typists.iter())
    }

    fn route(sender: &Sender, frame: Payload) -> Routing {
        route(sender, &frame).unwrap_or_else(Routing::Refuse)
    }

    fn refused(to: &Sender, frame: Option<&Payload>, why: &Refusal) -> Option<Payload> {
        if why.code == RefusalCode::Closing {
            return None; // The close code says it all.
        }
        let frame = frame.and_then(|frame| Frame::parse(frame).ok());
        let channel = frame.as_ref().and_then(Frame::channel);
        let answers = frame.as_ref().and_then(|frame| frame.id.as_ref());
        Some(encode::error(why, channel, answers, to.now_ms).into())
    }
}

/// Where a frame goes.
fn route(sender: &Sender, frame: &Payload) -> Result<Routing, Refusal> {
    let frame = Frame::parse(frame)?;
    let channel =
        || frame.channel().map(str::to_owned).ok_or_else(|| Refusal::bad_request("the frame lacks `channel`"));
    match frame.kind() {
        "CHAT_MESSAGE" | "TYPING" | "MESSAGE_EDIT" | "MESSAGE_DELETE" => Ok(Routing::Deliver(channel()?)),
        "SUBSCRIBE" => {
            let channel = channel()?;
            access::may_join(&channel, &sender.identity)?;
            // Checked here, because what is refused later has joined already.
            Subscribe::since(&frame)?;
            Ok(Routing::Join(channel))
        }
        "UNSUBSCRIBE" => Ok(Routing::Leave(channel()?)),
        "PING" => {
            let mut pong = Outgoing::new("PONG", frame.channel(), 0);
            pong.payload().push_str("{}");
            Ok(Routing::Reply(pong.end(frame.id.as_ref(), sender.now_ms).into()))
        }
        "PONG" => Ok(Routing::Ignore),
        _ => Err(Refusal::bad_request("unknown `type`")),
    }
}

impl CommunityChat {
    /// Begins a frame of this channel.
    fn outgoing(&self, kind: &str, capacity: usize) -> Outgoing {
        Outgoing::new(kind, Some(&self.name), capacity)
    }

    /// Sends a frame to all. The sender's own copy answers its frame, if that had an id.
    fn announce(channel: &mut Channel, actor: &Actor<'_>, frame: Outgoing) {
        let now_ms = channel.now_ms();
        let frame = match actor.user() {
            Some(user) => frame.by(user),
            None => frame,
        };
        match actor {
            Actor::Member { id, answers: answers @ Some(_), .. } => {
                let own = frame.clone().end(*answers, now_ms);
                channel.emit(&Audience::Only(vec![*id]), own, &Delivery::HIGH);
                channel.emit(&Audience::Except(*id), frame.end(None, now_ms), &Delivery::HIGH);
            }
            _ => channel.emit(&Audience::All, frame.end(None, now_ms), &Delivery::HIGH),
        }
    }

    fn announce_presence(&self, channel: &mut Channel, to: &Audience, kind: &str, user: &str) {
        let mut frame = self.outgoing(kind, user.len() * 2);
        let json = frame.payload();
        json.push_str("{\"userId\":");
        json::string(json, user);
        json.push_str(",\"online\":");
        json::number(json, self.presence.online() as u64);
        json.push('}');
        channel.emit(to, frame.by(user).end(None, channel.now_ms()), &Delivery::NORMAL);
    }

    fn announce_typing(&self, channel: &mut Channel, to: &Audience, user: &str, is_typing: bool) {
        let mut frame = self.outgoing("TYPING", user.len() * 2);
        let json = frame.payload();
        json.push_str("{\"userId\":");
        json::string(json, user);
        json.push_str(if is_typing { ",\"isTyping\":true}" } else { ",\"isTyping\":false}" });
        let how = Delivery::LOW.conflated(format!("typing:{user}"));
        channel.emit(to, frame.by(user).end(None, channel.now_ms()), &how);
    }

    /// Answers a subscription.
    fn welcome(&mut self, channel: &mut Channel, member: MemberId, answers: Option<&Id<'_>>, since: Option<u64>) {
        let missed = since.map(|since| History::missed(channel, since));
        let recent = self.history.recent(channel);
        let bytes = recent.iter().chain(missed.iter().flat_map(|missed| &missed.messages));
        let capacity = bytes.map(|(_, stored)| stored.len() + 32).sum();
        let mut frame = Outgoing::new("SUBSCRIBED", Some(&self.name), capacity);
        let json = frame.payload();
        json.push_str("{\"online\":");
        json::list(json, self.presence.users().take(ONLINE_MAX), json::string);
        json.push_str(",\"onlineCount\":");
        json::number(json, self.presence.online() as u64);
        json.push_str(",\"recent\":");
        json::list(json, recent, |json, (id, stored)| encode::message(json, *id, stored));
        if let Some(missed) = missed {
            json.push_str(",\"missed\":");
            json::list(json, &missed.messages, |json, (id, stored)| encode::message(json, *id, stored));
            if let Some(next) = missed.next {
                json.push_str(",\"more\":true,\"next\":\"");
                json::number(json, next);
                json.push('"');
            }
            if missed.gap {
                json.push_str(",\"gap\":true");
            }
        }
        json.push('}');
        let frame = frame.end(answers, channel.now_ms());
        channel.emit(&Audience::Only(vec![member]), frame, &Delivery::HIGH);
    }

    /// Stores a message of this author and sends it to all, unless it is a retry.
    fn chat(&mut self, channel: &mut Channel, actor: &Actor<'_>, author: &str, chat: &Chat<'_>) -> Result<(), Refusal> {
        chat.check()?;
        let client_id = chat.client_id.as_ref().map(|client_id| &*client_id.0);
        if let Some(client_id) = client_id
            && let Some((id, stored)) = self.history.sent_before(channel, author, client_id)
        {
            if let Actor::Member { id: member, answers, .. } = actor {
                self.answer_retry(channel, *member, *answers, id, &stored);
            }
            return Ok(());
        }
        let mut stored = String::with_capacity(chat.content.0.len() + 160);
        stored.push_str("{\"userId\":");
        json::string(&mut stored, author);
        stored.push_str(",\"content\":");
        json::string(&mut stored, &chat.content.0);
        if let Some(client_id) = client_id {
            stored.push_str(",\"clientId\":");
            json::string(&mut stored, client_id);
        }
        stored.push_str(",\"createdAt\":");
        json::number(&mut stored, channel.now_ms());
        for (name, value) in &chat.extra {
            stored.push(',');
            json::string(&mut stored, name);
            stored.push(':');
            stored.push_str(value.get());
        }
        stored.push('}');
        let id = self.history.append(channel, author, client_id, &stored);
        let mut frame = self.outgoing("CHAT_MESSAGE", stored.len());
        encode::message(frame.payload(), id, &stored);
        match actor {
            // A server speaks in the author's name.
            Actor::Server { .. } => Self::announce(channel, &Actor::Server { user: Some(author) }, frame),
            Actor::Member { .. } => Self::announce(channel, actor, frame),
        }
        Ok(())
    }

    /// Answers a message that is stored already, with how it stands now.
    fn answer_retry(
        &self,
        channel: &mut Channel,
        member: MemberId,
        answers: Option<&Id<'_>>,
        id: u64,
        stored: &Stored,
    ) {
        let frame = match stored.deleted_at {
            None => {
                let mut frame = self.outgoing("CHAT_MESSAGE", 512);
                encode::message(frame.payload(), id, &serde_json::to_string(stored).unwrap_or_default());
                frame.by(&stored.user_id)
            }
            Some(deleted_at) => {
                let frame = self.deletion(id, stored, deleted_at);
                frame.by(stored.deleted_by.as_deref().unwrap_or(&stored.user_id))
            }
        };
        channel.emit(&Audience::Only(vec![member]), frame.end(answers, channel.now_ms()), &Delivery::HIGH);
    }

    fn typing(&mut self, channel: &mut Channel, member: Option<MemberId>, user: &str, is_typing: bool) {
        if is_typing {
            self.typists.start(user, member, channel.now_ms() + TYPING_MS);
            self.set_typing_timer(channel);
        } else {
            self.typists.stop(user);
        }
        let others = member.map_or(Audience::All, Audience::Except);
        self.announce_typing(channel, &others, user, is_typing);
    }

    /// One timer serves all typists: it is set for the first whose time ends, and again when it fires.
    fn set_typing_timer(&mut self, channel: &mut Channel) {
        if let (false, Some(next_ms)) = (self.typing_timer, self.typists.next_ms()) {
            self.typing_timer = true;
            channel.set_timer(TYPING_TIMER, next_ms.saturating_sub(channel.now_ms()), TimerKeep::Volatile);
        }
    }

    /// The message that an actor wants to change, if it may.
    fn changeable(channel: &mut Channel, actor: &Actor<'_>, id: Option<u64>) -> Result<(u64, Stored), Refusal> {
        let found = id.and_then(|id| Some((id, History::get(channel, id)?)));
        let Some((id, stored)) = found.filter(|(_, stored)| stored.deleted_at.is_none()) else {
            return Err(Refusal::not_found("there is no such message"));
        };
        if let Actor::Member { id: member, user, .. } = actor
            && stored.user_id != *user
        {
            let role = channel.member(*member).map(|member| member.identity.role).unwrap_or_default();
            if !matches!(&*role, "moderator" | "admin") {
                return Err(Refusal::forbidden("only the author, a moderator or an admin may change a message"));
            }
        }
        Ok((id, stored))
    }

    fn edit(&mut self, channel: &mut Channel, actor: &Actor<'_>, edit: &Edit<'_>) -> Result<(), Refusal> {
        frame::check_content(&edit.content.0)?;
        let (id, mut stored) = Self::changeable(channel, actor, edit.id.0)?;
        let edited_at = channel.now_ms();
        stored.content = Some(edit.content.0.to_string());
        stored.edited_at = Some(edited_at);
        self.history.replace(channel, id, &stored);

        let mut frame = self.outgoing("MESSAGE_EDIT", edit.content.0.len() + 64);
        let json = frame.payload();
        json.push_str("{\"id\":\"");
        json::number(json, id);
        json.push_str("\",\"userId\":");
        json::string(json, &stored.user_id);
        json.push_str(",\"content\":");
        json::string(json, &edit.content.0);
        json.push_str(",\"editedAt\":");
        json::number(json, edited_at);
        json.push('}');
        Self::announce(channel, actor, frame);
        Ok(())
    }

    fn delete(&mut self, channel: &mut Channel, actor: &Actor<'_>, delete: &Delete) -> Result<(), Refusal> {
        let (id, stored) = Self::changeable(channel, actor, delete.id.0)?;
        let deleted_at = channel.now_ms();
        // What was said is gone for good; who and when stay, and what recognises a late retry.
        let stored = Stored {
            content: None,
            edited_at: None,
            deleted_at: Some(deleted_at),
            deleted_by: actor.user().map(str::to_owned),
            extra: serde_json::Map::new(),
            ..stored
        };
        self.history.replace(channel, id, &stored);
        Self::announce(channel, actor, self.deletion(id, &stored, deleted_at));
        Ok(())
    }

    /// Begins a `MESSAGE_DELETE`.
    fn deletion(&self, id: u64, stored: &Stored, deleted_at: u64) -> Outgoing {
        let mut frame = self.outgoing("MESSAGE_DELETE", 64);
        let json = frame.payload();
        json.push_str("{\"id\":\"");
        json::number(json, id);
        json.push_str("\",\"userId\":");
        json::string(json, &stored.user_id);
        json.push_str(",\"deletedAt\":");
        json::number(json, deleted_at);
        json.push('}');
        frame
    }
}

hotbay_sdk::export!(CommunityChat);
