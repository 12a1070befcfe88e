//! Owner metrics of HangarShare: figures every five seconds, bookings at once, events kept for owners who are away.
//!
//! One instance is the channel of one owner, `owner:{ownerId}`; all connections of that owner are its members, and nobody else can
//! be. Figures come from the statement `owner_metrics` (`examples/hangarshare/owner_metrics.sql`).
//!
//! | out | when |
//! | --- | --- |
//! | `connection_established {connectionId, ownerId, heartbeatInterval, timestamp, eventsDropped?}` | to who joins |
//! | the events kept while no connection was there | to who joins first, right after its welcome |
//! | `metrics_update {revenue, bookings, listings, occupancy}`, `timestamp`, `stale?` | to who joins; then to all every five seconds |
//! | `pong {timestamp}`, `timestamp` | to who sent `ping` |
//! | `booking_updated` and whatever else a server publishes | at once, to all, as it was published |
//!
//! `metrics_update` goes out at whole multiples of the interval, the same for all owners, so that the host can make one query of
//! many; a reader too slow for it gets the newest. While the database does not answer, the last known figures go out with
//! `"stale":true`, or zeros if there never were any. `eventsDropped` counts the events that were not kept: over 100, over 512 KiB
//! together or older than a day.
//!
//! | in | does |
//! | --- | --- |
//! | `ping`, `timestamp?` | is answered; a number or a text as `timestamp` comes back, anything else as `null` |
//! | anything else | nothing, and gets no reply; 100 of it within a minute close the connection with 1008 |
//!
//! A publication is `{"type", "data"}`, with a `type` of 1 to 64 bytes, 64 KiB in all. `booking_updated` gets
//! `data.timestamp` if it has none. Events are delivered at most once: who is connected gets them, or is closed with 4408; kept
//! ones go to the first connection that comes. This crate must not decide how many connections an owner
//! may have, nor how fast they may write.

mod calendar;
mod feed;
mod figures;
mod frame;
mod http;
mod kept;
mod settings;
mod strikes;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use hotbay_sdk::{
    Audience, Channel, ChannelInfo, Delivery, HttpRequest, HttpResponse, Identity, Joined, Left, MemberId, Message,
    Plugin, Publication, Refusal, RefusalCode, TimerKeep, log_debug, log_info, log_warn,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use feed::Feed;
use frame::Inbound;
use kept::{EXPIRE_TIMER, Kept};
use settings::Settings;
use strikes::Strikes;

/// The timer of `metrics_update`.
const TICK_TIMER: &str = "tick";
/// Characters of an owner's id that a log line shows: all of them, as channel names go.
const SHOWN_OWNER_CHARS_MAX: usize = 200;
/// What every channel name begins with.
const CHANNEL_PREFIX: &str = "owner:";

/// The channel of one owner.
pub struct HangarshareMetrics {
    owner: String,
    /// The owner's id as the log shows it.
    shown_owner: String,
    settings: Settings,
    /// The owner's connections, but for those that are being closed.
    members: BTreeMap<MemberId, Strikes>,
    /// Strikes known from the instance before, until the first batch.
    struck: BTreeMap<MemberId, Strikes>,
    feed: Feed,
    kept: Kept,
    /// Whether the tick is set.
    ticking: bool,
}

/// What an instance hands over.
#[derive(Serialize, Deserialize)]
struct Saved<F, S> {
    feed: F,
    /// Of members that have any.
    strikes: Vec<(MemberId, S)>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Welcome<'a> {
    connection_id: String,
    owner_id: &'a str,
    heartbeat_interval: u64,
    timestamp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    events_dropped: Option<u64>,
}

#[derive(Serialize)]
struct Established<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    data: Welcome<'a>,
}

impl Plugin for HangarshareMetrics {
    fn open(info: &ChannelInfo, saved: Option<&[u8]>, _: &mut Channel) -> Result<Self, String> {
        let settings = Settings::parse(&info.settings)?;
        // A cache: what cannot be read is left out.
        let saved: Option<Saved<Feed, Strikes>> = saved.and_then(|saved| serde_json::from_slice(saved).ok());
        let (feed, strikes) = saved.map(|saved| (saved.feed, saved.strikes)).unwrap_or_default();
        let owner = info.name.strip_prefix(CHANNEL_PREFIX).unwrap_or(&info.name).to_owned();
        Ok(Self {
            shown_owner: frame::shown(&owner, SHOWN_OWNER_CHARS_MAX),
            owner,
            settings,
            members: BTreeMap::new(),
            struck: strikes.into_iter().collect(),
            feed,
            kept: Kept::default(),
            ticking: false,
        })
    }

    fn on_start(&mut self, channel: &mut Channel) {
        let mut struck = std::mem::take(&mut self.struck);
        let members = channel.members_before_batch().into_iter();
        self.members = members.map(|(member, _)| (member, struck.remove(&member).unwrap_or_default())).collect();
    }

    fn on_join(&mut self, channel: &mut Channel, joined: Joined) -> Result<(), Refusal> {
        let Joined { member, identity, .. } = joined;
        if !self.is_owner(&identity) {
            channel.close(member, 1008, "Access denied");
            return Err(Refusal::forbidden("this is the channel of another owner"));
        }
        self.members.entry(member).or_default();
        log_info!(channel, "[WebSocket] Client connected: {}", self.shown_owner);
        let taken = self.kept.take(channel, &self.settings);
        let to = Audience::Only(vec![member]);
        channel.emit(&to, self.welcome(member, taken.dropped, channel.now_ms()), &Delivery::HIGH);
        for event in taken.events {
            channel.emit(&to, event, &Delivery::HIGH);
        }
        self.feed.refresh_for_joiner(channel, &self.owner, self.settings.interval_ms);
        self.send_figures(channel, &to);
        Ok(())
    }

    fn on_leave(&mut self, channel: &mut Channel, left: Left) {
        self.members.remove(&left.member);
        log_info!(channel, "[WebSocket] Client disconnected: conn-{}", left.member);
    }

    fn on_message(&mut self, channel: &mut Channel, message: Message) -> Result<(), Refusal> {
        let Some(strikes) = self.members.get_mut(&message.member) else {
            return Err(Refusal::new(RefusalCode::RateLimited, "this connection is being closed"));
        };
        let (kind, why) = match Inbound::parse(&message.payload) {
            Inbound::Ping { timestamp } => {
                let now_ms = channel.now_ms();
                let pong = format!(r#"{{"type":"pong","data":{{"timestamp":{timestamp}}},"timestamp":{now_ms}}}"#);
                channel.send(message.member, pong);
                return Ok(());
            }
            Inbound::Unknown { kind } => (frame::shown(&kind, frame::SHOWN_KIND_CHARS_MAX), "unknown `type`"),
            Inbound::Malformed => ("(malformed)".to_owned(), "a message is a JSON object with a text `type`"),
        };
        log_debug!(channel, "[WebSocket] Message from {}: {kind}", self.shown_owner);
        if strikes.add(channel.now_ms()) {
            self.members.remove(&message.member);
            log_warn!(channel, "[WebSocket] conn-{} sent too many malformed or unknown messages", message.member);
            channel.close(message.member, 1008, "Too many malformed or unknown messages");
        }
        Err(Refusal::bad_request(why))
    }

    fn on_timer(&mut self, channel: &mut Channel, name: &str) {
        match name {
            TICK_TIMER => {
                self.ticking = false;
                if !self.members.is_empty() {
                    self.feed.refresh(channel, &self.owner);
                    self.send_figures(channel, &Audience::All);
                }
            }
            EXPIRE_TIMER => self.kept.expire(channel, &self.settings),
            _ => {}
        }
    }

    fn on_publish(&mut self, channel: &mut Channel, publication: Publication) -> Result<(), Refusal> {
        let payload = &publication.payload;
        let completed = frame::checked_publication(payload, channel.now_ms())?;
        if self.members.is_empty() {
            let event = completed.as_deref().or(payload.text()).unwrap_or_default();
            self.kept.add(channel, event, &self.settings);
        } else if let Some(completed) = completed {
            channel.emit(&Audience::All, completed, &Delivery::HIGH);
        } else {
            channel.forward(&Audience::All, &Delivery::HIGH);
        }
        Ok(())
    }

    fn on_request(&mut self, channel: &mut Channel, request: HttpRequest) -> Option<HttpResponse> {
        Some(match http::check(&request) {
            Err(answer) => answer,
            Ok(identity) if self.is_owner(identity) => {
                let connections = self.members.len();
                http::answer(&request, identity, &self.owner, connections, &self.settings, channel.now_ms())
            }
            Ok(_) => http::error(403, "these are the figures of another owner"),
        })
    }

    fn on_batch_end(&mut self, channel: &mut Channel) {
        self.feed.end_batch();
        let needed = !self.members.is_empty();
        if needed && !self.ticking {
            let interval_ms = self.settings.interval_ms;
            channel.set_timer(TICK_TIMER, interval_ms - channel.now_ms() % interval_ms, TimerKeep::Volatile);
        } else if self.ticking && !needed {
            channel.cancel_timer(TICK_TIMER);
        }
        self.ticking = needed;
    }

    fn save(&mut self) -> Vec<u8> {
        let strikes = self.members.iter().filter(|(_, strikes)| !strikes.is_empty());
        let saved = Saved { feed: &self.feed, strikes: strikes.map(|(member, strikes)| (*member, strikes)).collect() };
        serde_json::to_vec(&saved).unwrap_or_default()
    }
}

impl HangarshareMetrics {
    /// Whether the channel belongs to this connection. The host named the channel after a claim; but over a protocol with many
    /// channels on a socket the client names it.
    fn is_owner(&self, identity: &Identity) -> bool {
        #[derive(Deserialize)]
        struct Claims {
            #[serde(rename = "ownerId")]
            owner_id: Value,
        }
        identity.user == self.owner
            || serde_json::from_str::<Claims>(&identity.claims).is_ok_and(|claims| match claims.owner_id {
                Value::String(id) => id == self.owner,
                Value::Number(id) => id.to_string() == self.owner,
                _ => false,
            })
    }

    fn welcome(&self, member: MemberId, dropped: u64, now_ms: u64) -> String {
        let data = Welcome {
            connection_id: format!("conn-{member}"),
            owner_id: &self.owner,
            heartbeat_interval: self.settings.heartbeat_interval_ms,
            timestamp: now_ms,
            events_dropped: (dropped > 0).then_some(dropped),
        };
        // Texts and numbers always serialise.
        serde_json::to_string(&Established { kind: "connection_established", data }).unwrap_or_default()
    }

    fn send_figures(&self, channel: &mut Channel, to: &Audience) {
        let update = self.feed.update(channel.now_ms());
        channel.emit(to, update, &Delivery::NORMAL.conflated("metrics_update"));
    }
}

hotbay_sdk::export!(HangarshareMetrics);
