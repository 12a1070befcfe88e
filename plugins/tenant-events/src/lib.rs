//! The event bus of a tenant: channels, filters, priorities, history and replay.
//!
//! One instance is the channel `tenant:{tenant}` of the host; all of the tenant's connections are its members, and the event
//! channels that clients speak of (`tenant:{tenant}`, `ideas:{tenant}`, any `{name}:{tenant}`, or `{name}` for short) live in it.
//!
//! # Frames
//!
//! Out go events only: `{id, eventType, data, timestamp, source, priority, tenantId, userId}`. `id` is a version 4 UUID, `timestamp` ISO 8601
//! with milliseconds, `userId` who sent it, `null` for an event of a server that names nobody.
//!
//! | in | out |
//! | --- | --- |
//! | a connection | to it: `connection {clientId, channels}`; it starts with a subscription to `tenant:{tenant}` and no filter |
//! | `{type:"filters", filters:{eventTypes?, sources?, priority?, users?}}` | to it: `filters_updated {filters}` |
//! | `{type:"subscribe", channel, eventTypes?, replay?}` | to it: `subscribed {channel, eventTypes, replayed, more}`, then the events replayed |
//! | `{type:"unsubscribe", channel}` | to it: `unsubscribed {channel}` |
//! | `{type, data?, channel?, source?, priority?}` | to all whom it concerns, the sender too: the event; default source `client` |
//! | what is refused | to it: `error {code, message}` |
//!
//! What the server says itself has source `system`, passes every filter and is never dropped; nobody else may use that source or these
//! types. An event concerns who is subscribed to its channel, if the client's filter lets it through (each dimension that is not
//! empty must have the value) and the subscription's `eventTypes` do. A client may send to any event channel of its tenant.
//! `low` events are dropped first when a client reads too slowly, then `normal` ones; it is told (`error`, code `lost`).
//!
//! HTTP is described in `http.rs`, settings in `settings.rs`. Application servers publish `{channel?, event | type, payload | data, source?,
//! priority?, userId?}`; default source `api`.
//!
//! # What survives
//!
//! A tenant has 1,000 event channels; a new one takes the place of the one without subscribers where nothing has happened for the
//! longest time, whose history is forgotten. Otherwise history, discovered names, filters and subscriptions of connected members
//! survive everything; counters survive sleep, and of a crash all but the last seconds (`counters.rs`). This crate must not decide who
//! a user is, nor how fast it may write.

mod budget;
mod catalogue;
mod counters;
mod event;
mod filter;
mod frame;
mod history;
mod http;
mod id;
mod interests;
mod interner;
mod names;
mod pages;
mod refused;
mod replay;
mod rows;
mod settings;
mod status;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use hotbay_sdk::{
    Audience, Channel, ChannelInfo, Delivery, HttpRequest, HttpResponse, Joined, Left, MemberId, Message, Payload,
    Plugin, Publication, Refusal, Sender, TimerKeep,
};
use serde::{Deserialize, Serialize};

use budget::{Budget, FRAME_BYTES};
use catalogue::Catalogue;
use counters::Counters;
use event::{Clock, Event, Frame};
use filter::{Filter, Names, Priority};
use frame::{Inbound, Posting};
use history::{Extent, HEADER_BYTES, Histories};
use interests::{Interests, Wishes};
use names::SYSTEM;
use replay::Waiting;
use rows::Rows;
use settings::Settings;

/// What the host's channel is called before the tenant's name.
const CHANNEL_PREFIX: &str = "tenant:";
/// Most event channels of a tenant: with a history, with subscribers or both. A new one takes the place of the one without
/// subscribers where nothing has happened for the longest time.
const CHANNELS_MAX: usize = 1_000;
/// The timer that makes a next batch for what this one could not bear.
const MORE_TIMER: &str = "more";
/// What a frame has beside its texts and data, in bytes.
const ENVELOPE_BYTES: usize = 240;

/// The event bus of one tenant.
pub struct TenantEvents {
    tenant: String,
    settings: Settings,
    interests: Interests,
    histories: Histories,
    catalogue: Catalogue,
    counters: Counters,
    rows: Rows,
    /// Subscriptions that ask for a replay, until the end of the batch.
    waiting: VecDeque<Waiting>,
    budget: Budget,
    clock: Clock,
    /// Whether this batch has stored an event.
    has_stored: bool,
}

/// What an instance hands over.
#[derive(Deserialize)]
struct Saved {
    counters: Counters,
    catalogue: Catalogue,
    histories: BTreeMap<Box<str>, Extent>,
    waiting: VecDeque<Waiting>,
}

/// The same, as it is written.
#[derive(Serialize)]
struct Saving<'a> {
    counters: &'a Counters,
    catalogue: &'a Catalogue,
    histories: BTreeMap<&'a str, &'a Extent>,
    waiting: &'a VecDeque<Waiting>,
}

/// An event that was sent.
struct Sent {
    id: String,
    timestamp: Rc<str>,
}

impl Plugin for TenantEvents {
    fn open(info: &ChannelInfo, saved: Option<&[u8]>, channel: &mut Channel) -> Result<Self, String> {
        let settings = Settings::parse(&info.settings)?;
        let tenant = info.name.strip_prefix(CHANNEL_PREFIX).filter(|tenant| !tenant.is_empty());
        let tenant = tenant.ok_or("the mount's `channel` must be \"tenant:{tenant}\"")?;
        // A cache: what cannot be read is found again in the store.
        let saved: Option<Saved> = saved.and_then(|saved| serde_json::from_slice(saved).ok());
        let (events_max, bytes_max) = (settings.history_max, settings.history_bytes_max);
        let (counters, catalogue, histories, waiting) = match saved {
            Some(Saved { counters, catalogue, histories, waiting }) => {
                (counters, catalogue, Histories::resume(events_max, bytes_max, histories), waiting)
            }
            None => (
                Counters::recover(channel),
                Catalogue::recover(channel),
                Histories::recover(channel, events_max, bytes_max),
                VecDeque::new(),
            ),
        };
        Ok(Self {
            tenant: tenant.to_owned(),
            interests: Interests::new(settings.interest_bytes_max),
            budget: Budget::new(settings.effect_bytes_max),
            settings,
            histories,
            catalogue,
            counters,
            rows: Rows::read(channel),
            waiting,
            clock: Clock::default(),
            has_stored: false,
        })
    }

    fn on_start(&mut self, channel: &mut Channel) {
        for (member, user) in channel.members_before_batch() {
            self.interests.join(member, &user);
        }
        self.rows.restore(&mut self.interests);
        let Self { waiting, interests, .. } = self;
        waiting.retain(|waiting| interests.knows(waiting.member));
        for waiting in waiting {
            interests.hold(waiting.member, &waiting.channel, &waiting.types);
        }
    }

    fn on_join(&mut self, channel: &mut Channel, joined: Joined) -> Result<(), Refusal> {
        self.stop_waiting(joined.member);
        self.enter(channel, joined.member, &joined.identity.user);
        let channels = [names::full(names::DEFAULT_CHANNEL, &self.tenant)];
        let client_id = format!("client-{}", joined.member);
        self.tell(
            channel,
            &[joined.member],
            "connection",
            event::Welcome { client_id: &client_id, channels: &channels },
        );
        Ok(())
    }

    fn on_leave(&mut self, channel: &mut Channel, left: Left) {
        self.stop_waiting(left.member);
        let gone = self.interests.leave(left.member);
        self.rows.forget(channel, &mut self.budget, left.member, gone.stored);
    }

    fn on_message(&mut self, channel: &mut Channel, message: Message) -> Result<(), Refusal> {
        let Message { member, user, payload } = message;
        let inbound = Inbound::parse(&payload, &self.tenant)?;
        if !self.interests.knows(member) {
            // Its join was lost in a crash.
            self.enter(channel, member, &user);
        }
        // What it asked for before comes first.
        self.settle(channel, |waiting| waiting.member == member)?;
        match inbound {
            Inbound::Event(event) => self.publish(channel, &event, Some(&user)).map(drop),
            Inbound::Filters(filter) => self.set_filter(channel, &[member], &filter),
            Inbound::Subscribe { channel: name, types, replay } => {
                self.subscribe(channel, member, &name.0, types, replay)
            }
            Inbound::Unsubscribe { channel: name } => self.unsubscribe(channel, member, &name.0),
        }
    }

    fn on_timer(&mut self, _: &mut Channel, _: &str) {
        // The end of the batch does what is left to do.
    }

    fn on_publish(&mut self, channel: &mut Channel, publication: Publication) -> Result<(), Refusal> {
        let body = publication.payload.text().ok_or_else(|| Refusal::bad_request("publish JSON text"))?;
        let posting = Posting::parse(body)?;
        let user = posting.user()?;
        let event = posting.event(&self.tenant)?;
        self.publish(channel, &event, user.as_ref().map(|user| &*user.0)).map(drop)
    }

    fn on_request(&mut self, channel: &mut Channel, request: HttpRequest) -> Option<HttpResponse> {
        Some(self.answer(channel, &request))
    }

    fn on_batch_end(&mut self, channel: &mut Channel) {
        self.replay(channel);
        let stale = self.rows.sweep(channel, &mut self.budget);
        if std::mem::take(&mut self.has_stored) {
            self.counters.store(channel, &mut self.budget);
        }
        if stale || !self.waiting.is_empty() {
            channel.set_timer(MORE_TIMER, 0, TimerKeep::Volatile);
        }
        self.budget.begin();
    }

    fn save(&mut self) -> Vec<u8> {
        let Self { counters, catalogue, histories, waiting, .. } = self;
        // Texts and numbers always serialise.
        serde_json::to_vec(&Saving { counters, catalogue, histories: histories.extents(), waiting }).unwrap_or_default()
    }

    fn refused(to: &Sender, frame: Option<&Payload>, why: &Refusal) -> Option<Payload> {
        refused::words(to, frame, why)
    }
}

impl TenantEvents {
    /// A member comes, or comes again: it starts with what everybody starts with.
    fn enter(&mut self, channel: &Channel, member: MemberId, user: &str) {
        let gone = self.interests.join(member, user);
        self.rows.forget(channel, &mut self.budget, member, gone.stored);
        self.counters.connections += u64::from(!gone.known);
        self.counters.active_ms = Some(channel.now_ms());
    }

    /// Sends an event of this server to members of one user, or to one member, whatever their filters say.
    fn tell(&mut self, channel: &mut Channel, members: &[MemberId], event_type: &str, data: impl Serialize) {
        let id = id::encode(channel.random(), channel.random());
        let user = members.first().and_then(|member| self.interests.user(*member));
        let frame = Frame {
            id: &id,
            event_type,
            data,
            timestamp: &self.clock.at(channel.now_ms()),
            source: SYSTEM,
            priority: Priority::Normal,
            tenant_id: Some(&self.tenant),
            user_id: user,
        };
        // Texts and lists always serialise.
        let frame = serde_json::to_string(&frame).unwrap_or_default();
        self.counters.sent += members.len() as u64;
        channel.emit(&Audience::Only(members.to_vec()), frame, &Delivery::HIGH);
    }

    /// Sends an event to all whom it concerns, and keeps it.
    fn publish(&mut self, channel: &mut Channel, event: &Event<'_>, user: Option<&str>) -> Result<Sent, Refusal> {
        event.check(self.settings.event_bytes_max)?;
        let name = &*event.channel.0;
        let evicted = self.find_room(name)?;
        let kept_from = self.histories.first_after_next(name);
        let (extent, bytes) = (self.histories.extent(name), ENVELOPE_BYTES + event.bytes());
        self.settle(channel, |waiting| waiting.channel == name && waiting.is_full(kept_from, &extent, bytes))?;
        self.budget.evaluate(self.interests.groups(name))?;
        let reach = self.interests.reach(name, &event.facts(user));

        let now_ms = channel.now_ms();
        let timestamp = self.clock.at(now_ms);
        let id = id::of_event(channel.random(), name, extent.next);
        let mut value = self.histories.header(name, now_ms, ENVELOPE_BYTES + event.bytes());
        let frame = Frame {
            id: &id,
            event_type: &event.kind.0,
            data: event.data,
            timestamp: &timestamp,
            source: &event.source.0,
            priority: event.priority,
            tenant_id: Some(&self.tenant),
            user_id: user,
        };
        // Texts and checked JSON always serialise.
        serde_json::to_writer(&mut value, &frame).unwrap_or_default();
        let frame = value.split_at_checked(HEADER_BYTES).map(|(_, frame)| frame.to_vec()).unwrap_or_default();

        let (effects, bytes) = self.histories.cost(name, value.len());
        let room = evicted.as_ref().map_or((0, 0), |evicted| self.histories.forget_cost(evicted));
        // Four more: the event channel's mark, a type and a source never seen, the counters.
        self.budget.check(effects + room.0 + 5, bytes + room.1 + reach.bytes() + frame.len() + 1_024)?;
        if let Some(evicted) = evicted {
            self.histories.forget(channel, &mut self.budget, &evicted);
        }
        if self.histories.keeps() {
            self.histories.append(channel, &mut self.budget, name, &value);
            self.has_stored = true;
        }
        self.catalogue.see(channel, &mut self.budget, &event.kind.0, &event.source.0);
        self.counters.received += 1;
        self.counters.active_ms = Some(now_ms);
        if let Some(audience) = &reach.audience {
            self.budget.spend(1, reach.bytes() + frame.len() + FRAME_BYTES);
            self.counters.sent += reach.members as u64;
            channel.emit(audience, String::from_utf8(frame).unwrap_or_default(), event::delivery(event.priority));
        }
        Ok(Sent { id, timestamp })
    }

    /// Replaces the filter of members of one user, or of one member.
    fn set_filter(&mut self, channel: &mut Channel, members: &[MemberId], filter: &Filter) -> Result<(), Refusal> {
        let mut changes = Vec::with_capacity(members.len());
        let (mut effects, mut bytes) = (1, FRAME_BYTES + size_of_val(members));
        let mut weight = 0;
        for member in members {
            self.budget.work(self.interests.weight(*member))?;
            let wishes = Wishes { filter: filter.clone(), ..self.interests.wishes(*member) };
            weight += self.interests.check(*member, &wishes, weight)?;
            let row = rows::encode(&wishes);
            let cost = rows::cost(&row);
            effects += cost.0;
            bytes += cost.1 + ENVELOPE_BYTES;
            self.budget.check(effects, bytes + row.len())?;
            changes.push((*member, wishes, row));
        }
        let answer = event::FiltersUpdated { filters: filter };
        self.budget.spend(1, size_of_val(members) + changes.first().map_or(0, |(_, _, row)| row.len()));
        for (member, wishes, row) in changes {
            rows::store(channel, &mut self.budget, &mut self.interests, member, wishes, &row);
        }
        self.tell(channel, members, "filters_updated", answer);
        self.counters.active_ms = Some(channel.now_ms());
        Ok(())
    }

    fn subscribe(
        &mut self,
        channel: &mut Channel,
        member: MemberId,
        name: &str,
        types: Names,
        replay: u64,
    ) -> Result<(), Refusal> {
        let evicted = self.find_room(name)?;
        self.budget.work(self.interests.weight(member))?;
        let mut wishes = self.interests.wishes(member);
        wishes.channels.insert(name.to_owned(), types.clone());
        self.interests.check(member, &wishes, 0)?;
        let row = rows::encode(&wishes);
        let (effects, bytes) = rows::cost(&row);
        let room = evicted.as_ref().map_or((0, 0), |evicted| self.histories.forget_cost(evicted));
        self.budget.check(effects + room.0 + 1, bytes + room.1 + row.len() + ENVELOPE_BYTES)?;
        if let Some(evicted) = evicted {
            self.histories.forget(channel, &mut self.budget, &evicted);
        }
        self.counters.active_ms = Some(channel.now_ms());
        if replay > 0 && self.histories.has(name) {
            let events = replay.min(pages::PAGE_EVENTS_MAX as u64) as usize;
            let extent = self.histories.extent(name);
            let (live_from, written) = (extent.next, extent.written());
            return self.wait_for_replay(Waiting {
                member,
                channel: name.to_owned(),
                types,
                events,
                live_from,
                written,
            });
        }
        self.budget.spend(1, row.len() + ENVELOPE_BYTES);
        rows::store(channel, &mut self.budget, &mut self.interests, member, wishes, &row);
        self.confirm_subscribed(channel, member, name, &types, 0, false);
        Ok(())
    }

    fn confirm_subscribed(
        &mut self,
        channel: &mut Channel,
        member: MemberId,
        name: &str,
        types: &Names,
        replayed: usize,
        more: bool,
    ) {
        let data = event::Subscribed { channel: names::full(name, &self.tenant), event_types: types, replayed, more };
        self.tell(channel, &[member], "subscribed", data);
    }

    fn unsubscribe(&mut self, channel: &mut Channel, member: MemberId, name: &str) -> Result<(), Refusal> {
        self.budget.work(self.interests.weight(member))?;
        let mut wishes = self.interests.wishes(member);
        let was_subscribed = wishes.channels.remove(name).is_some();
        let row = rows::encode(&wishes);
        let (effects, bytes) = rows::cost(&row);
        self.budget.check(effects + 1, bytes + ENVELOPE_BYTES)?;
        self.budget.spend(1, ENVELOPE_BYTES);
        if was_subscribed {
            rows::store(channel, &mut self.budget, &mut self.interests, member, wishes, &row);
        }
        let data = event::Unsubscribed { channel: names::full(name, &self.tenant) };
        self.tell(channel, &[member], "unsubscribed", data);
        self.counters.active_ms = Some(channel.now_ms());
        Ok(())
    }

    /// The history that must go so that an event channel may be there; `None` if it is there, or there is room.
    fn find_room(&mut self, name: &str) -> Result<Option<Box<str>>, Refusal> {
        let is_there = |name| self.histories.has(name) || self.interests.subscribers(name) > 0;
        // Whoever joins subscribes to the first one, so there is always room for it.
        if name == names::DEFAULT_CHANNEL || is_there(name) {
            return Ok(None);
        }
        let channels_max = CHANNELS_MAX - usize::from(!is_there(names::DEFAULT_CHANNEL));
        if self.interests.channels().len() + self.histories.names().len() < channels_max {
            return Ok(None);
        }
        self.budget.evaluate(CHANNELS_MAX)?;
        if self.channels().len() < channels_max {
            return Ok(None);
        }
        match self.histories.oldest(|name| name != names::DEFAULT_CHANNEL && self.interests.subscribers(name) == 0) {
            Some(oldest) => Ok(Some(oldest.into())),
            None => Err(Refusal::too_large("this tenant has 1000 channels with subscribers, the most there can be")),
        }
    }

    /// Short names of all event channels, in order.
    fn channels(&self) -> std::collections::BTreeSet<&str> {
        self.histories.names().chain(self.interests.channels()).collect()
    }
}

hotbay_sdk::export!(TenantEvents);
