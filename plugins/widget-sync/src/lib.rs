//! Dashboard widgets: versions, conflicts, atomic batches, layouts, and the same over HTTP.
//!
//! One instance is one dashboard, the channel `dashboard:{id}`. It is open to the user with this id and to users with the id in
//! claim `dashboards`: ids of users and of dashboards share one space of names.
//!
//! # Frames
//!
//! `{ "type", "id", "timestamp", "userId", "payload", "correlationId"? }`, both ways. In a client's frame `type` and `userId`, its
//! own, are required; `id`, a text of up to 128 bytes or a whole number, comes back as `correlationId` of the answer. Unknown fields
//! are ignored.
//!
//! | in | payload | answer | to the others |
//! | --- | --- | --- | --- |
//! | `WIDGET_UPDATE` | `widgetId, data, baseVersion?` | `ACK {received, version}`, `CONFLICT_DETECTED` | the same |
//! | `WIDGET_DELETE` | `widgetId, baseVersion?` | likewise | the same |
//! | `LAYOUT_UPDATE` | `layout, baseVersion?` | likewise | the same |
//! | `LAYOUT_RESTORE` | `version?` | `ACK` | `LAYOUT_UPDATE {layout}` |
//! | `WIDGET_BATCH` | `operations: [{operationId?, type, payload}]` | `ACK {received, version, results}` | the same, without repeated operations |
//! | `SYNC_UPDATE` | `operations: [{operationId, type, payload}]` | `ACK {received, version, success, results}` | each operation that was applied |
//! | `CONFLICT_RESOLVED` | `conflictId, resolution, data?` | `ACK` | what was applied, as an operation |
//! | `SYNC_REQUEST` | `since?` | `SYNC_RESPONSE {version, full, widgets, layout, layoutVersion, deleted}` | |
//! | `PING` | | `PONG` | |
//! | `PONG`, `ACK`, `NACK`, `DISCONNECT` | | | |
//!
//! Every refusal is a `NACK {code, message}`. Beside answers the server sends `CONNECT {clientId, version}` first, `PING` every
//! 30 seconds, and `DISCONNECT {reason}` before it closes.
//!
//! # Versions
//!
//! A widget's version starts at 1 and grows by one with each change, deletion and return included; so does the layout's. The
//! others are not told numbers: each change they hear of is one more. `version` in `CONNECT`, `SYNC_RESPONSE` and the `ACK` of
//! several operations is the dashboard's, which grows with every change of anything; it is what `since` means.
//!
//! `CONFLICT_DETECTED {conflictId, widgetId, serverVersion, serverData, clientData}`: `serverData` is null for a deleted widget,
//! `clientData` for a deletion. For the layout `widgetId` is null and `target` is `"layout"`. Resolutions: `client` does what the
//! client wanted, with `data` instead if given; `server` leaves all as it is; `merge` merges `data`, or without it those keys of the
//! client that the server's data lacks.
//!
//! In a `SYNC_RESPONSE`, `full` says that a client must drop whatever is not in it; otherwise it has only what changed after
//! `since`, and `layout` is null if that did not change.
//!
//! # Bounds
//!
//! A dashboard has 1,000 widgets of 64 KiB and 1,000 keys each, together 2 MiB (`dashboardBytesMax`; a key counts 32 bytes beside its
//! text, a widget 64), a layout of 256 KiB in 20 versions, and remembers 1,000 deletions and 5,000 results of operations (`operationsKeptMax`); messages nest
//! 100 levels. A client has 100 unresolved conflicts of 640 KiB, all together 4 MiB. What goes beyond what one batch may cost
//! (`budget.rs`) is refused as `unavailable`, and may be sent again.

mod access;
mod batches;
mod budget;
mod changes;
mod clients;
mod conflicts;
mod dashboard;
mod data;
mod encode;
mod frame;
mod heartbeat;
mod http;
mod operation;
mod publish;
mod resolution;
mod results;
mod saved;
mod servers;
mod settings;
mod sync;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use hotbay_sdk::{
    Channel, ChannelInfo, HttpRequest, HttpResponse, Joined, Left, MemberId, Message, Payload, Plugin, Publication,
    Refusal, RefusalCode, Sender, json,
};

use budget::Budget;
use changes::Actor;
use clients::{Clients, Tally};
use conflicts::Conflicts;
use dashboard::Dashboard;
use encode::Envelopes;
use frame::Frame;
use operation::Operation;
use results::Results;
use saved::Saved;
use settings::Settings;
use sync::Waiting;

const ACCESS_DENIED: &str = "Access denied";

/// A dashboard and its clients.
pub struct WidgetSync {
    /// The channel's.
    name: String,
    settings: Settings,
    envelopes: Envelopes,
    budget: Budget,
    clients: Clients,
    /// The heartbeat's timer is set.
    beating: bool,
    /// `None`: not read yet.
    dashboard: Option<Dashboard>,
    /// `None`: not read yet.
    results: Option<Results>,
    conflicts: Conflicts,
    /// The timer of conflicts is set.
    conflict_timer: bool,
    /// Clients that wait for a `SYNC_RESPONSE`.
    waiting: VecDeque<Waiting>,
    /// What the instance before counted, until the first batch.
    tallies: BTreeMap<MemberId, Tally>,
}

impl Plugin for WidgetSync {
    fn open(info: &ChannelInfo, saved: Option<&[u8]>, _: &mut Channel) -> Result<Self, String> {
        let saved = saved.map(Saved::read).unwrap_or_default();
        Ok(Self {
            name: info.name.clone(),
            settings: Settings::read(&info.settings)?,
            envelopes: Envelopes::resume(saved.last_id, info.now_ms),
            budget: Budget::default(),
            clients: Clients::default(),
            beating: false,
            dashboard: None,
            results: None,
            conflicts: Conflicts::resume(saved.conflicts),
            conflict_timer: false,
            waiting: saved.waiting.into(),
            tallies: saved.clients.into_iter().collect(),
        })
    }

    fn on_start(&mut self, channel: &mut Channel) {
        let tallies = std::mem::take(&mut self.tallies);
        let fresh = Tally::new(channel.now_ms());
        for (id, _) in channel.members_before_batch() {
            if let Some(member) = channel.member(id) {
                self.clients.join(id, &member.identity, tallies.get(&id).copied().unwrap_or(fresh));
            }
        }
        self.keep_beating(channel);
        self.set_conflict_timer(channel);
        self.answer_waiting(channel);
    }

    fn on_join(&mut self, channel: &mut Channel, joined: Joined) -> Result<(), Refusal> {
        let Joined { member, identity, .. } = joined;
        if !access::may_use(&self.name, &identity) {
            channel.close(member, 1008, ACCESS_DENIED);
            return Err(Refusal::forbidden(ACCESS_DENIED));
        }
        self.clients.join(member, &identity, Tally::new(channel.now_ms()));
        self.keep_beating(channel);
        let version = Dashboard::of(&mut self.dashboard, channel, &self.settings).version();
        let actor = Actor { member: Some(member), user: &identity.user, answers: None };
        self.answer(channel, &actor, "CONNECT", |json| {
            json.push_str("{\"clientId\":\"client-");
            json::number(json, member);
            json.push_str("\",\"version\":");
            json::number(json, version);
            json.push('}');
        });
        Ok(())
    }

    fn on_leave(&mut self, channel: &mut Channel, left: Left) {
        self.conflicts.leave(left.member);
        if self.clients.leave(left.member) {
            self.keep_beating(channel);
        }
    }

    fn on_message(&mut self, channel: &mut Channel, message: Message) -> Result<(), Refusal> {
        self.clients.heard(message.member);
        let frame = Frame::parse(&message.payload, &message.user)?;
        let actor = Actor { member: Some(message.member), user: &message.user, answers: frame.id() };
        match frame.kind() {
            kind if Operation::is_of_widget(kind) => {
                self.telling_servers(channel, &actor, &frame, |it, on| it.change(on, &actor, kind, frame.payload()))
            }
            "WIDGET_BATCH" => {
                self.telling_servers(channel, &actor, &frame, |it, on| it.batch(on, &actor, frame.payload()))
            }
            "SYNC_UPDATE" => {
                self.telling_servers(channel, &actor, &frame, |it, on| it.sync_update(on, &actor, frame.payload()))
            }
            "CONFLICT_RESOLVED" => {
                self.telling_servers(channel, &actor, &frame, |it, on| it.resolve(on, &actor, frame.payload()))
            }
            kind if Operation::is_kind(kind) => self.change(channel, &actor, kind, frame.payload()).map(drop),
            "SYNC_REQUEST" => {
                self.sync_request(channel, &actor, frame.payload())?;
                self.tell_servers(channel, &actor, "sync:requested", None);
                Ok(())
            }
            "PING" => {
                self.answer(channel, &actor, "PONG", |json| json.push_str("{}"));
                Ok(())
            }
            // It is alive, which is noted, and nothing else. An answer to an answer would have no end.
            "PONG" | "ACK" | "NACK" | "DISCONNECT" => Ok(()),
            "CONNECT" | "SYNC_RESPONSE" | "CONFLICT_DETECTED" => {
                Err(Refusal::bad_request("only the server sends this `type`"))
            }
            _ => Err(Refusal::bad_request("unknown `type`")),
        }
    }

    fn on_timer(&mut self, channel: &mut Channel, name: &str) {
        match name {
            heartbeat::HEARTBEAT_TIMER => self.beat(channel),
            resolution::CONFLICT_TIMER => self.expire_conflicts(channel),
            sync::SYNC_TIMER => self.answer_waiting(channel),
            _ => {}
        }
    }

    fn on_publish(&mut self, channel: &mut Channel, publication: Publication) -> Result<(), Refusal> {
        self.published(channel, &publication.payload)
    }

    fn on_request(&mut self, channel: &mut Channel, request: HttpRequest) -> Option<HttpResponse> {
        Some(self.respond(channel, &request))
    }

    fn on_batch_end(&mut self, channel: &mut Channel) {
        if let Some(dashboard) = &mut self.dashboard {
            dashboard.write(channel);
        }
        if let Some(results) = &mut self.results {
            results.write(channel);
        }
        self.budget.reset();
    }

    fn save(&mut self) -> Vec<u8> {
        let saved = Saved {
            last_id: self.envelopes.last_id(),
            clients: self.clients.iter().map(|(id, client)| (id, client.tally)).collect(),
            conflicts: self.conflicts.iter().map(|(number, conflict)| (number, conflict.clone())).collect(),
            waiting: self.waiting.iter().cloned().collect(),
        };
        saved.write()
    }

    fn refused(to: &Sender, frame: Option<&Payload>, why: &Refusal) -> Option<Payload> {
        // Without a frame, only a join is forbidden: its connection is about to be closed.
        let last_word = why.code == RefusalCode::Closing || (frame.is_none() && why.code == RefusalCode::Forbidden);
        let answers = frame.and_then(frame::id_of);
        Some(encode::refusal(to.now_ms, &to.identity.user, answers, why, last_word).into())
    }
}

hotbay_sdk::export!(WidgetSync);
