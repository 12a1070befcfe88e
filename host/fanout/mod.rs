//! From the frames of a batch to the members: who gets what is planned when the batch has run, and sent when it has
//! committed. Members that get every shared frame are written one common buffer; only those named by a frame, and
//! those that join or leave in the batch, get a selection of their own.

mod roster;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::outbox::{Frames, Outbox, Part};
use crate::protocol::event::MemberId;
use crate::protocol::frame::{Audience, Burst, Outgoing};
use crate::telemetry::{self, hot};

pub use crate::fanout::roster::{CHUNK_MEMBERS, Recipient, Roster};

/// A membership that begins or ends within a batch.
#[derive(Clone)]
pub struct Change {
    /// Whose.
    pub recipient: Recipient,
    /// Index of the `join` event: it gets what is sent on account of it and later events.
    pub from: Option<u32>,
    /// Index of the `leave` event: it gets what is sent on account of events before it.
    pub until: Option<u32>,
}

/// Who gets what: made by [`plan`], sent by [`Plan::send`].
#[derive(Default)]
pub struct Plan {
    shared: Frames,
    chunks: Vec<Arc<Vec<Recipient>>>,
    /// Positions in `chunks`, ascending, of members that get a selection instead.
    skip: Vec<u32>,
    wire: Bytes,
    selections: Vec<(Arc<Outbox>, Vec<Part>)>,
}

/// Plans the way of a batch's frames. `roster` has the members after the batch's joins and leaves, `changes` those
/// joins and leaves.
pub fn plan(burst: &Burst, roster: &Roster, changes: &[Change]) -> Plan {
    if burst.frames.is_empty() {
        return Plan::default();
    }
    let special = Special::find(&burst.frames, roster, changes);
    let mut plan = Plan { shared: shared(burst), wire: burst.wire.clone(), ..Plan::default() };
    for member in special.members.into_values() {
        plan.skip.extend(member.position);
        let selection: Vec<_> = burst
            .frames
            .iter()
            .filter(|frame| member.receives(frame))
            .map(|frame| Part { start: frame.start, end: frame.end, delivery: frame.delivery.clone() })
            .collect();
        if !selection.is_empty() {
            plan.selections.push((member.recipient.outbox, selection));
        }
    }
    plan.skip.sort_unstable();
    if !plan.shared.wire.is_empty() {
        plan.chunks = roster.chunks();
    }
    plan
}

/// Members that do not simply get all shared frames.
struct Special {
    members: BTreeMap<MemberId, SpecialMember>,
}

struct SpecialMember {
    recipient: Recipient,
    position: Option<u32>,
    from: u32,
    until: u32,
}

impl Special {
    fn find(frames: &[Outgoing], roster: &Roster, changes: &[Change]) -> Self {
        let mut special = Self { members: BTreeMap::new() };
        for change in changes {
            let member = special.members.entry(change.recipient.member).or_insert_with(|| SpecialMember {
                recipient: change.recipient.clone(),
                position: roster.position(change.recipient.member),
                from: 0,
                until: u32::MAX,
            });
            member.from = change.from.unwrap_or(member.from);
            member.until = change.until.unwrap_or(member.until);
        }
        for frame in frames {
            match &frame.audience {
                Audience::All => {}
                Audience::Except(member) => special.add(*member, roster),
                Audience::Only(members) => members.iter().for_each(|member| special.add(*member, roster)),
                Audience::User(user) => {
                    let theirs = roster.iter().filter(|recipient| recipient.identity.user() == &**user);
                    theirs.for_each(|recipient| special.add(recipient.member, roster));
                }
            }
        }
        special
    }

    fn add(&mut self, member: MemberId, roster: &Roster) {
        if self.members.contains_key(&member) {
            return;
        }
        let Some(position) = roster.position(member) else { return };
        let Some(recipient) = roster.get(position) else { return };
        let member = SpecialMember { recipient: recipient.clone(), position: Some(position), from: 0, until: u32::MAX };
        self.members.insert(member.recipient.member, member);
    }
}

impl SpecialMember {
    fn receives(&self, frame: &Outgoing) -> bool {
        let (joined, left) = (frame.event >= self.from, frame.event >= self.until);
        // It joined and then left, or left and then joined again.
        let present = if self.from <= self.until { joined && !left } else { joined || !left };
        match &frame.audience {
            Audience::All => present,
            Audience::Except(member) => present && *member != self.recipient.member,
            Audience::Only(members) => members.contains(&self.recipient.member),
            Audience::User(user) => present && self.recipient.identity.user() == &**user,
        }
    }
}

/// The frames that everybody gets who is not special, as one buffer.
fn shared(burst: &Burst) -> Frames {
    let is_shared = |frame: &&Outgoing| matches!(frame.audience, Audience::All | Audience::Except(_));
    let frames: Vec<&Outgoing> = burst.frames.iter().filter(is_shared).collect();
    let wire = if frames.len() == burst.frames.len() {
        burst.wire.clone()
    } else {
        let mut wire = BytesMut::with_capacity(frames.iter().map(|frame| (frame.end - frame.start) as usize).sum());
        for frame in &frames {
            wire.extend_from_slice(&burst.wire[frame.start as usize..frame.end as usize]);
        }
        wire.freeze()
    };
    let first = frames.first().map(|frame| &frame.delivery);
    let alike = first
        .filter(|first| first.conflate.is_none() && frames.iter().all(|frame| frame.delivery == **first))
        .map(|first| first.priority);
    let mut end = 0;
    let mark = |frame: &&Outgoing| {
        end += frame.end - frame.start;
        (end, frame.delivery.clone())
    };
    let marks = if alike.is_some() { Vec::new() } else { frames.iter().map(mark).collect() };
    Frames { wire, marks, alike, count: frames.len() as u64 }
}

impl Plan {
    /// Whether anything is to be sent.
    pub fn is_empty(&self) -> bool {
        self.wire.is_empty()
    }

    /// Sends. Channels of more than one chunk of members are sent in parallel; all is handed over when this returns.
    pub async fn send(self) {
        for (outbox, selection) in &self.selections {
            outbox.send_parts(&self.wire, selection);
            hot::FRAMES_OUT.increment(selection.len() as u64);
            hot::BYTES_OUT.increment(selection.iter().map(|part| u64::from(part.end - part.start)).sum());
        }
        let members = self.chunks.iter().map(|chunk| chunk.len()).sum::<usize>().saturating_sub(self.skip.len()) as u64;
        hot::FRAMES_OUT.increment(members * self.shared.count);
        hot::BYTES_OUT.increment(members * self.shared.wire.len() as u64);
        let mut tasks = Vec::new();
        let shared = Arc::new(self.shared);
        let mut chunks = self.chunks.into_iter().zip(0_u32..);
        let first = chunks.next();
        for (chunk, number) in chunks {
            let (shared, skip) = (Arc::clone(&shared), skip_of(&self.skip, number));
            tasks.push(telemetry::spawn("fanout", async move { send_chunk(&chunk, &shared, &skip) }));
        }
        if let Some((chunk, number)) = first {
            send_chunk(&chunk, &shared, &skip_of(&self.skip, number));
        }
        for task in tasks {
            if task.await.is_err() {
                tracing::error!("a fan-out task failed");
            }
        }
    }
}

/// The positions of one chunk, counted from its beginning.
fn skip_of(skip: &[u32], chunk: u32) -> Vec<u32> {
    let base = chunk * CHUNK_MEMBERS as u32;
    let of_chunk = |position: &&u32| (base..base + CHUNK_MEMBERS as u32).contains(position);
    skip.iter().filter(of_chunk).map(|position| position - base).collect()
}

fn send_chunk(chunk: &[Recipient], frames: &Frames, skip: &[u32]) {
    let mut skip = skip.iter().peekable();
    for (recipient, position) in chunk.iter().zip(0_u32..) {
        if skip.next_if(|skipped| **skipped == position).is_none() {
            recipient.outbox.send_frames(frames);
        }
    }
}

#[cfg(test)]
mod tests;
