//! Where a connection's messages go: to the channels it joined, by its mount or by what the plugin says of each frame.

use crate::channel::{Directory, Enclosure, Letter, LookupError, Membership, count_fault};
use crate::connection::{Connection, Joined, post, wait_beside};
use crate::plugin::Routing;
use crate::protocol::close::Close;
use crate::protocol::event::{Event, LeaveReason};
use crate::protocol::frame::{Delivery, Payload, encode_payload};
use crate::protocol::name::ChannelName;
use crate::protocol::refusal::{Refusal, RefusalCode};
use crate::telemetry::now_ms;

/// What asking where a message goes is expected to take of a tenant that is out of processor time.
const ROUTE_US: u64 = 20;

impl Connection {
    /// Asks the plugin where a message goes.
    pub(super) async fn route(&mut self, payload: Payload) {
        let assigned = self.endpoint.logic.rollout.of_tenant(self.identity.tenant());
        if assigned.version.is_withdrawn() {
            let why = "the plugin was withdrawn; try again when there is another version";
            return self.refuse(&payload, &Refusal::new(RefusalCode::Unavailable, why)).await;
        }
        if self.quota.is_out_of_cpu() {
            let mut turn = self.quota.wait_in_line(ROUTE_US);
            drop(wait_beside(&self.pulse, |cx| turn.as_mut().poll(cx)).await);
        }
        match assigned.version.router.route_for(Some(&self.quota), &self.identity, now_ms(), &payload).await {
            Ok(Routing::Deliver(name)) => {
                if let Some(position) = self.joined_position(&name) {
                    self.deliver_to(position, payload).await;
                } else {
                    let why = Refusal::new(RefusalCode::NotJoined, "subscribe to the channel first");
                    self.refuse(&payload, &why).await;
                }
            }
            Ok(Routing::Join(name)) => self.join(&name, payload).await,
            Ok(Routing::Leave(name)) => self.leave(&name, payload).await,
            Ok(Routing::Reply(reply)) => self.outbox.send(encode_payload(&reply), Delivery::HIGH),
            Ok(Routing::Ignore) => {}
            Ok(Routing::Refuse(why)) => self.refuse(&payload, &why).await,
            Err(fault) => {
                count_fault(&assigned.version, &assigned.deployed, &fault);
                tracing::warn!(plugin = assigned.version.plugin.name(), %fault, "plugin fault in route");
                let why = Refusal::new(RefusalCode::Fault, "the plugin failed on this message");
                self.refuse(&payload, &why).await;
            }
        }
    }

    pub(super) async fn deliver_to(&mut self, position: usize, payload: Payload) {
        let Some(joined) = self.joined.get_mut(position).filter(|joined| joined.membership.is_active()) else {
            let why = Refusal::new(RefusalCode::NotJoined, "not a member of the channel");
            return self.refuse(&payload, &why).await;
        };
        let letter = Directory::message_letter(self.id, &self.identity, payload);
        let posted = post(&self.hub, &self.pulse, &mut joined.channel, letter).await;
        self.note(&posted);
    }

    /// A node that goes down takes no messages. What came before is still finished, so the connection is only not read any
    /// more; it is closed when that is done.
    pub(super) fn note(&mut self, posted: &Result<(), LookupError>) {
        match posted {
            Ok(()) => {}
            Err(LookupError::Stopping) => self.paused = true,
            Err(error) => self.cannot_have(error),
        }
    }

    /// A channel that the connection cannot be without.
    pub(super) fn cannot_have(&self, error: &LookupError) {
        match error {
            // A tenant at its limit decides how often: not for every log.
            LookupError::Quota(_) => self.outbox.close(Close::QUOTA),
            error => {
                tracing::warn!(%error, "a connection could not join its channel");
                self.outbox.close(Close::INTERNAL);
            }
        }
    }

    pub(super) async fn join(&mut self, name: &str, frame: Payload) {
        let logic = &self.endpoint.logic;
        let channels_max = logic.limits.channels_per_connection_max;
        let known = self.joined_position(name);
        if known.is_none() {
            self.joined.retain(|joined| joined.membership.is_active());
            if self.joined.len() >= channels_max {
                let why = format!("a connection may join {channels_max} channels (channels_per_connection_max)");
                return self.refuse(&frame, &Refusal::new(RefusalCode::TooLarge, why)).await;
            }
        }
        let channel = match ChannelName::new(self.identity.tenant(), name) {
            Ok(channel) if logic.serves(name) => self.hub.directory.get(&channel, logic),
            Ok(_) => {
                return self.refuse(&frame, &Refusal::new(RefusalCode::NotFound, "there is no such channel")).await;
            }
            Err(error) => return self.refuse(&frame, &Refusal::new(RefusalCode::BadRequest, error.to_string())).await,
        };
        let mut channel = match channel {
            Ok(channel) => channel,
            Err(error) => return self.refuse(&frame, &Refusal::new(RefusalCode::Unavailable, error.to_string())).await,
        };
        let membership = known.map_or_else(Membership::begin, |position| self.joined[position].membership.clone());
        let letter = Directory::join_letter(self.recipient(), membership.clone(), Some(frame));
        let posted = post(&self.hub, &self.pulse, &mut channel, letter).await;
        self.note(&posted);
        match known {
            Some(position) => self.joined[position].channel = channel,
            None => self.joined.push(Joined { channel, membership }),
        }
    }

    pub(super) async fn leave(&mut self, name: &str, frame: Payload) {
        let Some(position) = self.joined_position(name) else {
            let why = Refusal::new(RefusalCode::NotJoined, "not a member of the channel");
            return self.refuse(&frame, &why).await;
        };
        let mut joined = self.joined.swap_remove(position);
        let letter = self.leave_letter(LeaveReason::Asked, Some(frame));
        let posted = post(&self.hub, &self.pulse, &mut joined.channel, letter).await;
        self.note(&posted);
    }

    pub(super) fn leave_letter(&self, why: LeaveReason, frame: Option<Payload>) -> Letter {
        let event = Event::Leave { member: self.id, identity: self.identity.clone(), why, frame };
        Letter { event, enclosure: Enclosure::None }
    }

    pub(super) fn joined_position(&self, name: &str) -> Option<usize> {
        self.joined.iter().position(|joined| joined.channel.name.name() == name && joined.membership.is_active())
    }
}
