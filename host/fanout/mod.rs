//! From the frames of a batch to the members: who gets what is planned when the batch has run, and sent when it has
//! committed. Members that get every shared frame are written one common buffer; only those named by a frame, and
//! those that join or leave in the batch, get a selection of their own.

mod audience;
mod roster;

use std::sync::Arc;

use crate::outbox::Outbox;
use crate::protocol::burst::{Burst, Frames, Slice};
use crate::telemetry::{self, hot};

pub use crate::fanout::audience::Change;
pub use crate::fanout::roster::{CHUNK_MEMBERS, Recipient, Roster};

/// Who gets what: made by [`plan`], sent by [`Plan::send`].
#[derive(Default)]
pub struct Plan {
    burst: Burst,
    chunks: Vec<Arc<Vec<Recipient>>>,
    /// Positions in `chunks`, ascending, of members that get a selection instead.
    skip: Vec<u32>,
    selections: Vec<(Arc<Outbox>, Vec<Slice>)>,
}

/// Plans the way of a batch's frames. `roster` has the members after the batch's joins and leaves, `changes` those
/// joins and leaves.
pub fn plan(burst: Burst, roster: &Roster, changes: &[Change]) -> Plan {
    if burst.order.is_empty() {
        return Plan::default();
    }
    let mut plan = Plan::default();
    for special in audience::specials(&burst, roster, changes) {
        plan.skip.extend(special.position);
        if !special.slices.is_empty() {
            plan.selections.push((special.outbox, special.slices));
        }
    }
    plan.skip.sort_unstable();
    if !burst.shared.is_empty() {
        plan.chunks = roster.chunks();
    }
    plan.burst = burst;
    plan
}

impl Plan {
    /// Whether anything is to be sent.
    pub fn is_empty(&self) -> bool {
        self.burst.order.is_empty()
    }

    /// Sends. Channels of more than one chunk of members are sent in parallel; all is handed over when this returns. Says how many bytes
    /// that were, for all members together.
    pub async fn send(self) -> u64 {
        let mut sent = 0;
        if let Some(compression) = self.selections.iter().find_map(|(outbox, _)| outbox.compression()) {
            let compressed = self.selections.iter().filter(|(outbox, _)| outbox.compression().is_some());
            self.burst.deflate_private(compression, compressed.flat_map(|(_, slices)| slices));
        }
        for (outbox, slices) in &self.selections {
            outbox.send_slices(&self.burst, slices);
            let parts = || slices.iter().map(|slice| self.burst.frames(slice));
            hot::FRAMES_OUT.increment(parts().map(|(_, range)| u64::from(range.end - range.start)).sum());
            sent += parts().map(|(frames, range)| frames.bytes(&range).len() as u64).sum::<u64>();
        }
        let members = self.chunks.iter().map(|chunk| chunk.len()).sum::<usize>().saturating_sub(self.skip.len()) as u64;
        hot::FRAMES_OUT.increment(members * u64::from(self.burst.shared.len()));
        sent += members * self.burst.shared.wire.len() as u64;
        hot::BYTES_OUT.increment(sent);
        let mut chunks = self.chunks.into_iter().zip(0_u32..);
        let first = chunks.next();
        let mut tasks = Vec::new();
        let shared = Arc::new(self.burst.shared);
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
        sent
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
