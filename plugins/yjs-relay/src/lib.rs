//! Collaborative drafts: Yjs documents over JSON frames and the y-websocket protocol, checked, stored and shared.
//!
//! One instance is one draft, `draft:{draftId}`. Members on an endpoint listed in the setting `binary_endpoints` speak
//! the protocol of y-websocket, all others JSON; both work on the same document at once. Cursors, selections and the
//! list of active users travel as awareness, between members of y-websocket only; comments and the authors of changes
//! are part of the document, and so the clients' business.
//!
//! # JSON frames
//!
//! | in | out |
//! | --- | --- |
//! | | on joining: `{"type":"yjs-state-response","data":[…]}`, the whole document as an update |
//! | `{"type":"yjs-update","data":[…]}` | the same to all others |
//! | `{"type":"yjs-state-request"}` | `yjs-state-response` |
//! | `{"type":"ping"}` | `{"type":"pong"}` |
//! | an update that leaves a gap | `{"type":"error","error":"updates before this one are missing; send your whole state"}` |
//! | refused | `{"type":"error","error":"…"}` |
//!
//! # y-websocket frames
//!
//! Joining: sync step 1 to who may write, and all awareness states. Sync step 1 is answered with step 2. An update goes
//! to all others; one that leaves a gap has its sender asked for what is missing. Refused updates are answered with an
//! auth frame that says why, except those of viewers, which are dropped.
//!
//! # Gaps
//!
//! An update that was lost or refused leaves a gap before the next one of its author. That one is stored and sent on,
//! but nobody can show it before the gap is closed, so its sender must know: one of JSON is told, once until the gap is
//! closed; one of y-websocket is asked, and not again before it has answered, or a minute has passed. Its answer is its
//! whole part of the document, which may be refused as well.
//!
//! # Updates
//!
//! An update is checked, merged into the document, stored, and then sent on as it came; the host releases nothing
//! before it is stored. What says nothing new goes no further. See `document.rs` for how, and `store.rs` for where.
//!
//! A server publishes `{"type":"yjs-update","data":[…]}` to a draft to change it. This crate must not decide who a user
//! is, nor how fast it may write.

mod access;
mod admission;
mod awareness;
mod binary;
mod block;
mod deliver;
mod document;
mod health;
mod json;
mod lib0;
mod members;
mod ranges;
mod saved;
mod settings;
mod store;
#[cfg(test)]
mod tests;
mod update;

use std::collections::{BTreeMap, BTreeSet};

use hotbay_sdk::{
    Channel, ChannelInfo, HttpRequest, HttpResponse, Joined, LeaveReason, Left, MemberId, Message, Payload, Plugin,
    Publication, Refusal, RefusalCode, Sender, TimerKeep, log_error, log_warn,
};

use access::Gate;
use admission::{ACCESS_TIMER, ACCESS_TIMER_ANEW};
use awareness::Awareness;
use deliver::{Want, field};
use members::{Member, Members, Protocol};
use saved::Saved;
use settings::Settings;
use store::Draft;
use update::{Checked, StateVector};

/// When the next awareness state expires.
const AWARENESS_TIMER: &str = "awareness";
/// When states are sent that were too much for one batch.
const STATES_TIMER: &str = "states";
/// Longest state vector of a client, in bytes.
const STATE_VECTOR_BYTES_MAX: usize = 1 << 20;

/// A collaborative draft.
pub struct YjsRelay {
    name: String,
    settings: Settings,
    /// Loaded when it is first needed.
    draft: Option<Draft>,
    gate: Gate,
    /// When access is checked again; absent if that is not to be, or not known after a crash.
    access_due_ms: Option<u64>,
    /// The last member whose access was checked again, while there are more.
    checked: Option<MemberId>,
    members: Members,
    /// Members of the instance before, until the first batch; absent if it said nothing: it crashed, or there was none.
    known: Option<BTreeMap<MemberId, Member>>,
    awareness: Awareness,
    awareness_timer: bool,
    /// Who is to get the document, or what it lacks of it.
    wanted: BTreeMap<MemberId, Want>,
    states_timer: bool,
    /// This batch has no room for another of them.
    full: bool,
    /// Members of y-websocket to be asked for what the document lacks, at the end of this batch.
    asked: BTreeSet<MemberId>,
    /// Who is to be told all awareness states, at the end of this batch.
    curious: BTreeSet<MemberId>,
    /// Bytes sent and stored in this batch.
    spent: usize,
    /// Lines about single frames in this batch.
    lines: u32,
}

impl Plugin for YjsRelay {
    fn open(info: &ChannelInfo, saved: Option<&[u8]>, _: &mut Channel) -> Result<Self, String> {
        let settings = Settings::read(info)?;
        let saved = saved::read(saved);
        let is_orphan = saved.is_none();
        let saved = saved.unwrap_or_default();
        let mut awareness = Awareness::new(settings.awareness_bytes_max, settings.awareness_timeout_ms);
        awareness.resume(saved.awareness);
        Ok(Self {
            name: info.name.clone(),
            settings,
            draft: None,
            gate: Gate::default(),
            access_due_ms: saved.access_due_ms,
            checked: None,
            members: Members::default(),
            known: (!is_orphan).then_some(saved.members),
            awareness,
            awareness_timer: false,
            wanted: saved.wanted,
            states_timer: false,
            full: false,
            asked: BTreeSet::new(),
            curious: BTreeSet::new(),
            spent: 0,
            lines: 0,
        })
    }

    fn on_start(&mut self, channel: &mut Channel) {
        let is_orphan = self.known.is_none();
        let mut known = self.known.take().unwrap_or_default();
        for (id, _) in channel.members_before_batch() {
            // One that leaves in this very batch, after a crash, is known to nobody any more.
            let found = known.remove(&id).or_else(|| {
                let identity = channel.member(id)?.identity;
                Some(self.member(channel, &identity, None))
            });
            if let Some(member) = found {
                self.members.insert(id, member);
            }
        }
        if is_orphan {
            self.set_access_timer_anew(channel);
        }
        for member in self.awareness.members() {
            if self.members.get(member).is_none() {
                let gone = self.awareness.leave(member, channel.now_ms());
                self.announce_gone(channel, &gone);
            }
        }
        self.set_awareness_timer(channel);
        self.wanted.retain(|member, _| self.members.get(*member).is_some());
        if !self.wanted.is_empty() && self.load(channel).is_err() {
            self.wanted.clear();
        }
    }

    fn on_join(&mut self, channel: &mut Channel, joined: Joined) -> Result<(), Refusal> {
        self.admit(channel, &joined)
    }

    fn on_leave(&mut self, channel: &mut Channel, left: Left) {
        let reason = match left.why {
            LeaveReason::Asked => "left",
            LeaveReason::Disconnected => "disconnected",
            LeaveReason::Closed => "closed",
        };
        self.depart(channel, left.member, reason);
        self.vacate(channel);
    }

    fn on_message(&mut self, channel: &mut Channel, message: Message) -> Result<(), Refusal> {
        let Some(member) = self.members.get(message.member) else {
            return Err(Refusal::new(RefusalCode::Unavailable, "the draft was just loaded anew; connect again"));
        };
        let handled = match member.protocol {
            Protocol::Json => self.json_frame(channel, message.member, &message.payload),
            Protocol::Binary => self.binary_frame(channel, message.member, &message.payload),
        };
        if let Err(why) = &handled
            && self.may_log_line()
            && let Some(member) = self.members.get(message.member)
        {
            let (error, connection) = (field(&why.message), &member.connection);
            log_error!(channel, "ws.error error={error} connectionId={connection} context=message");
        }
        handled
    }

    fn on_timer(&mut self, channel: &mut Channel, name: &str) {
        match name {
            AWARENESS_TIMER => {
                self.awareness_timer = false;
                let expired = self.awareness.expire(channel.now_ms());
                self.announce_gone(channel, &expired);
                self.set_awareness_timer(channel);
            }
            ACCESS_TIMER | ACCESS_TIMER_ANEW => self.check_access(channel),
            // The end of the batch sends what is owed.
            STATES_TIMER => self.states_timer = false,
            _ => {}
        }
    }

    fn on_publish(&mut self, channel: &mut Channel, publication: Publication) -> Result<(), Refusal> {
        let frame = json::Frame::parse(&publication.payload)?;
        if frame.kind() != "yjs-update" {
            return Err(Refusal::bad_request("a server may publish {\"type\":\"yjs-update\",\"data\":[…]} only"));
        }
        let update = frame.data()?;
        self.update(channel, None, &update, Kind::Update)
    }

    fn on_request(&mut self, channel: &mut Channel, request: HttpRequest) -> Option<HttpResponse> {
        Some(health::answer(channel, &self.name, &request))
    }

    fn on_batch_end(&mut self, channel: &mut Channel) {
        self.ask(channel);
        self.send_awareness(channel);
        self.fold(channel);
        self.settle(channel);
        self.gate.renew();
        (self.spent, self.lines, self.full) = (0, 0, false);
        if let Some(draft) = &mut self.draft {
            draft.document.renew();
        }
        if !self.wanted.is_empty() && !self.states_timer {
            self.states_timer = true;
            channel.set_timer(STATES_TIMER, 1, TimerKeep::Volatile);
        }
    }

    fn save(&mut self) -> Vec<u8> {
        let (members, awareness) = (saved::members(&self.members), self.awareness.save());
        Saved { members, awareness, wanted: self.unanswered(), access_due_ms: self.access_due_ms }.write()
    }

    fn refused(to: &Sender, frame: Option<&Payload>, why: &Refusal) -> Option<Payload> {
        deliver::refused(to, frame, why)
    }
}

/// What an update came as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// An update.
    Update,
    /// An update that is all of a frame of y-websocket.
    Whole,
    /// All that the server lacks, in answer to its question.
    Answer,
}

/// The draft's id, by the name of its channel.
fn draft_id(name: &str) -> &str {
    name.strip_prefix("draft:").unwrap_or(name)
}

impl YjsRelay {
    fn json_frame(&mut self, channel: &mut Channel, id: MemberId, payload: &Payload) -> Result<(), Refusal> {
        let frame = json::Frame::parse(payload)?;
        match frame.kind() {
            "yjs-update" => {
                self.may_write(channel, id)?;
                let update = frame.data()?;
                self.update(channel, Some(id), &update, Kind::Update)
            }
            "yjs-state-request" => {
                self.load(channel)?;
                self.want(id, Want::Document)
            }
            "ping" => {
                channel.send(id, r#"{"type":"pong"}"#);
                Ok(())
            }
            "pong" => Ok(()),
            unknown => {
                if self.may_log_line() {
                    log_warn!(channel, "ws.unknown type={}", field(unknown));
                }
                Ok(())
            }
        }
    }

    fn binary_frame(&mut self, channel: &mut Channel, id: MemberId, payload: &Payload) -> Result<(), Refusal> {
        let Payload::Binary(bytes) = payload else {
            return Err(Refusal::bad_request("this endpoint takes binary frames of the y-websocket protocol"));
        };
        let malformed = |why: lib0::Malformed| Refusal::bad_request(format!("the frame is malformed: {}", why.0));
        match binary::Frame::parse(bytes).map_err(malformed)? {
            binary::Frame::Step1(vector) => {
                if vector.len() > STATE_VECTOR_BYTES_MAX {
                    return Err(Refusal::too_large("the state vector is too large"));
                }
                StateVector::read(vector).map_err(malformed)?;
                self.load(channel)?;
                self.want(id, Want::Missing(vector.to_vec()))
            }
            binary::Frame::Step2(update) => {
                self.may_write(channel, id)?;
                self.update(channel, Some(id), update, Kind::Answer)
            }
            binary::Frame::Update { update, whole } => {
                self.may_write(channel, id)?;
                self.update(channel, Some(id), update, if whole { Kind::Whole } else { Kind::Update })
            }
            binary::Frame::Awareness { update, whole } => {
                let changes = awareness::parse(update).map_err(malformed)?;
                if self.awareness.exceeds(&changes) {
                    return Err(Refusal::too_large("an awareness state is too large"));
                }
                self.awareness_frame(channel, id, changes, whole);
                Ok(())
            }
            binary::Frame::QueryAwareness => {
                self.curious.insert(id);
                Ok(())
            }
            binary::Frame::Other(kind) => {
                if self.may_log_line() {
                    log_warn!(channel, "ws.unknown type={kind}");
                }
                Ok(())
            }
        }
    }

    /// Takes an update of a member or a server, all of it or nothing.
    fn update(
        &mut self,
        channel: &mut Channel,
        from: Option<MemberId>,
        update: &[u8],
        kind: Kind,
    ) -> Result<(), Refusal> {
        let checked =
            Checked::new(update).map_err(|why| Refusal::bad_request(format!("the update is malformed: {}", why.0)))?;
        self.load(channel)?;
        let Some(draft) = &mut self.draft else { return Ok(()) };
        let applied = draft.write(channel, &checked).map_err(|excess| {
            Refusal::too_large(match excess {
                document::Excess::Bytes => "the update would make the document too large",
                document::Excess::Gaps => "too many updates are missing before this one",
            })
        })?;
        if let Some(from) = from {
            if applied.gap && kind != Kind::Answer {
                self.report_gap(channel, from);
            } else if kind == Kind::Answer || checked.rows > 0 {
                // A gap that even an answer leaves is not this member's to close. Deletions say nothing of gaps.
                self.forget_gap(from);
            }
        }
        if !applied.changed {
            return Ok(());
        }
        self.spent += update.len();
        // Who just joined gets the document before what follows it.
        self.settle(channel);
        self.spread(channel, from, update, kind);
        self.log_update(channel, from, update.len());
        Ok(())
    }
}

hotbay_sdk::export!(YjsRelay);
