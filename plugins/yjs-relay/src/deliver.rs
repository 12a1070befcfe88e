//! What goes out: the document to who lacks it, awareness, questions, and lines for the operator. Owns how much of it
//! fits into one batch.

use std::collections::BTreeMap;

use hotbay_sdk::{
    Audience, Channel, Delivery, MemberId, Payload, Refusal, RefusalCode, Sender, TimerKeep, log_debug, log_error,
};
use serde::{Deserialize, Serialize};

use crate::awareness::{self, Change};
use crate::members::Protocol;
use crate::settings::BINARY_ENDPOINT;
use crate::update::StateVector;
use crate::{AWARENESS_TIMER, Kind, YjsRelay, binary, draft_id, json};

/// Lines about single frames in one batch; the host drops more of them anyway.
const LINES_MAX: u32 = 8;
/// Characters of a value in a line.
const FIELD_CHARS_MAX: usize = 200;
/// What a frame costs beside its bytes.
const FRAME_BYTES: usize = 128;

/// Time after which a member is asked once more for what it was asked for and did not bring, in milliseconds. An answer
/// is all that the server lacks, and where it was refused once, as too large for the document, it is most likely to be
/// so again.
pub(crate) const ASK_AGAIN_MS: u64 = 60_000;

/// State vectors of members that wait for an answer, in bytes, all together.
const VECTORS_BYTES_MAX: usize = 8 << 20;
/// Longest state vector handed from one instance to the next, in bytes. Whose is longer gets everything.
const SAVED_VECTOR_BYTES_MAX: usize = 4 << 10;

/// What somebody wants of the document.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Want {
    /// All of it, as `yjs-state-response`.
    Document,
    /// What somebody with this state vector lacks, as sync step 2.
    Missing(Vec<u8>),
}

impl Want {
    fn bytes(&self) -> usize {
        match self {
            Self::Document => 0,
            Self::Missing(vector) => vector.len(),
        }
    }
}

impl YjsRelay {
    /// Sends a frame, and counts it.
    pub(crate) fn emit(&mut self, channel: &mut Channel, to: &Audience, what: impl Into<Payload>, how: &Delivery) {
        let what = what.into();
        let named = if let Audience::Only(members) = to { size_of_val(&**members) } else { 0 };
        self.spent += FRAME_BYTES + named + what.bytes().len();
        channel.emit(to, what, how);
    }

    /// Bytes this batch must still store: the fold of an update too large for the log cannot wait.
    fn due(&self) -> usize {
        self.draft.as_ref().filter(|draft| draft.is_ahead()).map_or(0, |draft| draft.document.size() + FRAME_BYTES)
    }

    fn fits(&self, bytes: usize) -> bool {
        let due = self.spent + self.due();
        due == 0 || due + bytes <= self.settings.effect_bytes_max
    }

    /// Sends an update to all but one. To those for whom this batch has no room, the document goes in another.
    pub(crate) fn spread(&mut self, channel: &mut Channel, from: Option<MemberId>, update: &[u8], kind: Kind) {
        let due = self.due();
        for (protocol, bytes) in [(Protocol::Binary, update.len()), (Protocol::Json, json::len_max(update.len()))] {
            let Some(to) = self.members.others(protocol, from) else { continue };
            if self.spent + due + bytes + 2 * FRAME_BYTES > self.settings.effect_bytes_max {
                let want = if protocol == Protocol::Json { Want::Document } else { Want::Missing(vec![0]) };
                let theirs =
                    self.members.iter().filter(|(id, member)| member.protocol == protocol && Some(*id) != from);
                self.wanted.extend(theirs.map(|(id, _)| (id, want.clone())));
            } else if protocol == Protocol::Json {
                self.emit(channel, &to, json::data("yjs-update", update), &Delivery::HIGH);
            } else if kind == Kind::Whole {
                self.spent += FRAME_BYTES + bytes;
                channel.forward(&to, &Delivery::HIGH);
            } else {
                self.emit(channel, &to, binary::update(update), &Delivery::HIGH);
            }
        }
    }

    /// Folds the log into the snapshot, if that is due.
    pub(crate) fn fold(&mut self, channel: &Channel) {
        let Some(draft) = &self.draft else { return };
        let bytes = draft.document.size() + FRAME_BYTES;
        if draft.is_fold_due() && (draft.is_ahead() || self.fits(bytes)) {
            self.spent += bytes;
            if let Some(draft) = &mut self.draft {
                draft.fold(channel);
            }
        }
    }

    /// Notes that a member wants an answer; the end of the batch gives it.
    pub(crate) fn want(&mut self, member: MemberId, want: Want) -> Result<(), Refusal> {
        let waiting: usize = self.wanted.values().map(Want::bytes).sum();
        if want.bytes() > 0 && waiting + want.bytes() > VECTORS_BYTES_MAX {
            return Err(Refusal::new(RefusalCode::Unavailable, "too many wait for the document, try again later"));
        }
        self.wanted.insert(member, want);
        Ok(())
    }

    /// What the next instance must answer.
    pub(crate) fn unanswered(&self) -> BTreeMap<MemberId, Want> {
        let short = |want: &Want| match want {
            Want::Missing(vector) if vector.len() > SAVED_VECTOR_BYTES_MAX => Want::Missing(vec![0]),
            want => want.clone(),
        };
        self.wanted.iter().map(|(member, want)| (*member, short(want))).collect()
    }

    /// Sends the document, or what they lack of it, to those who want it: the same bytes to all who want the same. What
    /// is too much for this batch waits for the next one.
    pub(crate) fn settle(&mut self, channel: &mut Channel) {
        if self.wanted.is_empty() || self.full {
            return;
        }
        let Some(draft) = &self.draft else { return };
        let size = draft.document.size() + FRAME_BYTES;
        let mut wants: BTreeMap<Want, Vec<MemberId>> = BTreeMap::new();
        for (member, want) in std::mem::take(&mut self.wanted) {
            wants.entry(want).or_default().push(member);
        }
        for (want, members) in wants {
            let bytes = if want == Want::Document { json::len_max(size) } else { size } + size_of_val(&*members);
            if bytes > self.settings.effect_bytes_max {
                self.tell_too_large(channel, &want, members);
            } else if self.fits(bytes) {
                self.answer(channel, &want, members);
            } else {
                self.full = true;
                self.wanted.extend(members.into_iter().map(|member| (member, want.clone())));
            }
        }
    }

    fn answer(&mut self, channel: &mut Channel, want: &Want, members: Vec<MemberId>) {
        let Some(draft) = &self.draft else { return };
        let to = Audience::Only(members);
        match want {
            Want::Document => {
                let frame = json::data("yjs-state-response", &draft.document.encode());
                self.emit(channel, &to, frame, &Delivery::HIGH);
            }
            Want::Missing(vector) => {
                // Read before, when it came.
                let has = StateVector::read(vector).unwrap_or_default();
                let frame = binary::step_2(&draft.document.encode_missing(&has));
                self.emit(channel, &to, frame, &Delivery::HIGH);
            }
        }
    }

    fn tell_too_large(&mut self, channel: &mut Channel, want: &Want, members: Vec<MemberId>) {
        const WHY: &str = "the document is too large to be sent";
        log_error!(channel, "ws.error error=\"{WHY}: effect_bytes_max is too small\" context=state");
        let to = Audience::Only(members);
        match want {
            Want::Document => self.emit(channel, &to, json::error(WHY), &Delivery::HIGH),
            Want::Missing(_) => self.emit(channel, &to, binary::denied(WHY), &Delivery::HIGH),
        }
    }

    /// Has a member of y-websocket asked for what the document lacks, at the end of the batch.
    pub(crate) fn ask_for_missing(&mut self, channel: &Channel, id: MemberId) {
        if let Some(member) = self.members.get_mut(id) {
            member.asked_at_ms = Some(channel.now_ms());
            self.asked.insert(id);
        }
    }

    /// Has a member close the gap that an update of it left, unless it knows of it already.
    pub(crate) fn report_gap(&mut self, channel: &mut Channel, id: MemberId) {
        let now_ms = channel.now_ms();
        let Some(member) = self.members.get_mut(id) else { return };
        match (member.protocol, member.asked_at_ms) {
            (Protocol::Json, None) => {
                member.asked_at_ms = Some(now_ms);
                self.tell(channel, id, "updates before this one are missing; send your whole state");
            }
            (Protocol::Json, Some(_)) => {}
            (Protocol::Binary, Some(asked_at_ms)) if now_ms < asked_at_ms + ASK_AGAIN_MS => {}
            (Protocol::Binary, _) => self.ask_for_missing(channel, id),
        }
    }

    /// Notes that the next gap of a member is a new one.
    pub(crate) fn forget_gap(&mut self, id: MemberId) {
        if let Some(member) = self.members.get_mut(id) {
            member.asked_at_ms = None;
        }
    }

    /// Says something to a member in the words for a refusal.
    pub(crate) fn tell(&mut self, channel: &mut Channel, id: MemberId, why: &str) {
        let Some(member) = self.members.get(id) else { return };
        let (to, protocol) = (Audience::Only(vec![id]), member.protocol);
        match protocol {
            Protocol::Json => self.emit(channel, &to, json::error(why), &Delivery::HIGH),
            Protocol::Binary => self.emit(channel, &to, binary::denied(why), &Delivery::HIGH),
        }
    }

    /// Asks members for what the document lacks.
    pub(crate) fn ask(&mut self, channel: &mut Channel) {
        let asked: Vec<MemberId> = std::mem::take(&mut self.asked).into_iter().collect();
        if let Some(draft) = &self.draft
            && !asked.is_empty()
        {
            let mut vector = Vec::new();
            draft.document.write_state_vector(&mut vector);
            self.emit(channel, &Audience::Only(asked), binary::step_1(&vector), &Delivery::HIGH);
        }
    }

    /// Takes what a member says of its awareness, and tells the others what of it counts.
    pub(crate) fn awareness_frame(
        &mut self,
        channel: &mut Channel,
        from: MemberId,
        changes: Vec<Change<'_>>,
        whole: bool,
    ) {
        let Some(member) = self.members.get(from) else { return };
        let all = changes.len();
        let changes = self.awareness.receive(from, &member.user, changes, channel.now_ms());
        if changes.is_empty() {
            return;
        }
        self.set_awareness_timer(channel);
        let Some(to) = self.members.others(Protocol::Binary, Some(from)) else { return };
        let how = match changes.first().map(Change::parts) {
            // Where a cursor was does not matter once it has moved.
            Some((client, _, Some(_))) if changes.len() == 1 => Delivery::LOW.conflated(format!("awareness:{client}")),
            _ => Delivery::NORMAL,
        };
        if whole && changes.len() == all {
            channel.forward(&to, &how);
        } else {
            let mut update = Vec::new();
            awareness::write(&mut update, changes.iter().map(Change::parts));
            self.emit(channel, &to, binary::awareness(&update), &how);
        }
    }

    /// Sends all awareness states to those who are to know them.
    pub(crate) fn send_awareness(&mut self, channel: &mut Channel) {
        if !self.curious.is_empty() {
            let to = Audience::Only(std::mem::take(&mut self.curious).into_iter().collect());
            let mut update = Vec::new();
            awareness::write(&mut update, self.awareness.states().into_iter());
            self.emit(channel, &to, binary::awareness(&update), &Delivery::NORMAL);
        }
    }

    /// Says that states are gone, with the clocks they had. With a later one, a client that comes back would have its
    /// next state taken for an old one.
    pub(crate) fn announce_gone(&mut self, channel: &mut Channel, gone: &[(u64, u64)]) {
        if !gone.is_empty()
            && let Some(to) = self.members.others(Protocol::Binary, None)
        {
            let mut update = Vec::new();
            awareness::write(&mut update, gone.iter().map(|(client, clock)| (*client, *clock, None)));
            self.emit(channel, &to, binary::awareness(&update), &Delivery::NORMAL);
        }
    }

    /// Sets the timer for the next state to expire, unless it is set: states that come later expire later.
    pub(crate) fn set_awareness_timer(&mut self, channel: &mut Channel) {
        if !self.awareness_timer
            && let Some(expiry_ms) = self.awareness.next_expiry_ms()
        {
            self.awareness_timer = true;
            let after_ms = expiry_ms.saturating_sub(channel.now_ms());
            channel.set_timer(AWARENESS_TIMER, after_ms, TimerKeep::Volatile);
        }
    }

    /// Whether one more line about a single frame may be written in this batch.
    pub(crate) fn may_log_line(&mut self) -> bool {
        self.lines += 1;
        self.lines <= LINES_MAX
    }

    pub(crate) fn log_update(&mut self, channel: &Channel, from: Option<MemberId>, bytes: usize) {
        if self.may_log_line() {
            let user = from.and_then(|from| self.members.get(from)).map_or("server", |member| &member.user);
            let (draft, user, clients) = (field(draft_id(&self.name)), field(user), self.members.len());
            log_debug!(
                channel,
                "yjs.update draftId={draft} fromUserId={user} clientCount={clients} updateSize={bytes}"
            );
        }
    }
}

/// A value in a line for the operator: quoted if it would not read as one word, cut if it is long.
pub(crate) fn field(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'=' | b'\\');
    if !value.is_empty() && value.len() <= FIELD_CHARS_MAX && value.bytes().all(plain) {
        return value.to_owned();
    }
    let cut: String = value.chars().take(FIELD_CHARS_MAX).collect();
    serde_json::Value::from(cut).to_string()
}

/// Puts a refusal into the words of the protocol in which the frame came; without a frame, of the endpoint.
pub(crate) fn refused(to: &Sender, frame: Option<&Payload>, why: &Refusal) -> Option<Payload> {
    let endpoint = to.identity.endpoint == BINARY_ENDPOINT || to.identity.endpoint.starts_with("/yjs");
    let binary = match frame {
        Some(Payload::Text(_)) => false,
        // The mount's settings are not known here; what begins like y-websocket's frames comes from such a client.
        Some(Payload::Binary(bytes)) => endpoint || matches!(bytes.first(), Some(0..=3)),
        None => endpoint,
    };
    // The close code says it all; so it does for who may not join.
    let closes = matches!(why.code, RefusalCode::Forbidden | RefusalCode::Unavailable) && frame.is_none();
    if why.code == RefusalCode::Closing || closes {
        return None;
    }
    if binary {
        let is_told = frame.is_some() && why.code != RefusalCode::Forbidden;
        return is_told.then(|| binary::denied(&why.message).into());
    }
    Some(json::error(&why.message).into())
}
