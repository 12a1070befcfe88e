//! What passes between the [core](super) and the actor.

use std::sync::Arc;

use crate::protocol::event::{Batch, Event, MemberId};
use crate::protocol::refusal::RefusalCode;

/// Names a batch while it is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchId(pub u64);

/// What the actor does next.
#[derive(Debug)]
pub enum Step {
    /// Take the channel over, if that has not happened, and open an instance; then [`Core::started`](super::Core::started).
    Start,
    /// Hand this batch to the instance; then [`Core::ran`](super::Core::ran).
    Run(BatchId, Arc<Batch>),
    /// Save the instance's memory and go to sleep: nothing is left to do.
    Sleep,
    /// Nothing to do before this time, or before an event or a commit comes back.
    Wait {
        /// In milliseconds since the Unix epoch.
        until_ms: u64,
    },
}

/// What follows from how something went.
#[derive(Debug)]
pub enum Output {
    /// Commit the writes of this batch; then [`Core::committed`](super::Core::committed).
    Commit(BatchId),
    /// Commit the writes of this batch again, after so many milliseconds. Not a point in time: the clock may be set back.
    CommitAgain(BatchId, u64),
    /// Send the effects of this batch.
    Release(BatchId),
    /// Forget the effects of this batch.
    Discard(BatchId),
    /// This event had no effect: tell whoever sent it.
    Refuse(Event, RefusalCode),
    /// The commit of this event was given up after a try that may have taken hold: tell whoever sent it that nobody knows.
    Unsure(Event),
    /// Close this member: its messages fault again and again.
    CloseMember(MemberId),
    /// The instance is spent.
    DropInstance,
    /// The right to write is lost or in doubt: take the channel over again before the next start.
    DropClaim,
    /// The channel is unavailable until this time.
    Quarantine(u64),
}

/// Why a start failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartFailure {
    /// The plugin failed to open the channel.
    Plugin,
    /// The store or the node could not serve it now.
    Unavailable,
}

/// Why a batch failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchFailure {
    /// The plugin failed.
    Plugin,
    /// What is around it did.
    Surroundings,
    /// It would keep more than there is room for.
    TooMuch,
}

/// How a commit failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitFailure {
    /// It may be tried again.
    Passing,
    /// It never will succeed: the claim is lost, or the writes are not accepted.
    Final,
}
