//! Subscriptions that ask for events of the past. They take hold at the end of the batch: members that ask for the same, as after
//! a restart they do, then share one reading of the history and one set of frames. Until then a member is not subscribed, so
//! nothing live comes before its past, and events of the same batch are part of it. What a batch cannot bear waits for
//! the next one.

use hotbay_sdk::{Audience, Channel, Delivery, MemberId, Refusal};

use crate::TenantEvents;
use crate::budget::{self, FRAME_BYTES};
use crate::event;
use crate::filter::Names;
use crate::interests::Wishes;
use crate::pages::{self, Bounds};
use crate::rows;

/// Subscriptions that wait at most.
const WAITING_MAX: usize = 4_096;
/// Bytes of a replay, unless its newest event alone has more: less than what waits for a slow reader at most (1 MiB).
pub(crate) const REPLAY_BYTES_MAX: usize = 512 << 10;
/// What an answer has beside the event types it repeats, which are in the member's row as well.
const ANSWER_BYTES: usize = 1 << 10;

/// A subscription that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) member: MemberId,
    pub(crate) channel: String,
    pub(crate) types: Names,
    pub(crate) events: usize,
}

/// A member of a group that is being served.
struct Served {
    member: MemberId,
    wishes: Wishes,
    row: Vec<u8>,
}

impl TenantEvents {
    /// Puts a subscription off to the end of the batch.
    pub(crate) fn wait_for_replay(&mut self, waiting: Waiting) -> Result<(), Refusal> {
        if self.waiting.len() >= WAITING_MAX {
            return Err(budget::busy());
        }
        self.waiting.push_back(waiting);
        Ok(())
    }

    /// Whether a member has a subscription that waits.
    pub(crate) fn waits(&self, member: MemberId) -> bool {
        self.waiting.iter().any(|waiting| waiting.member == member)
    }

    /// Serves the subscriptions that wait, as far as this batch can bear it.
    pub(crate) fn replay(&mut self, channel: &mut Channel) {
        while let Some(first) = self.waiting.front().cloned() {
            if !self.budget.may_read() || !self.replay_group(channel, &first) {
                return;
            }
        }
    }

    /// Serves the subscriptions like this one. False if none could be.
    fn replay_group(&mut self, channel: &mut Channel, like: &Waiting) -> bool {
        let filter = self.interests.filter_number(like.member);
        let of_filter = self.interests.wishes(like.member).filter;
        let page = pages::passing(
            channel,
            &mut self.budget,
            &like.channel,
            &self.histories.extent(&like.channel),
            Bounds { events: like.events, bytes: REPLAY_BYTES_MAX },
            (&of_filter, &like.types),
        );
        let frames: usize = page.events.iter().map(|(frame, _)| frame.len() + FRAME_BYTES).sum();
        let (mut effects, mut bytes) = (page.events.len(), frames);

        let mut served = Vec::new();
        let mut full = false;
        let mut weight = 0;
        let interests = &self.interests;
        let mut refused = Vec::new();
        let batch = &self.budget;
        self.waiting.retain(|waiting| {
            let alike = waiting.channel == like.channel
                && waiting.types == like.types
                && waiting.events == like.events
                && interests.filter_number(waiting.member) == filter;
            if full || !alike {
                return true;
            }
            let mut wishes = interests.wishes(waiting.member);
            wishes.channels.insert(waiting.channel.clone(), waiting.types.clone());
            match interests.check(waiting.member, &wishes, weight) {
                Ok(more) => weight += more,
                Err(why) => {
                    // Others have taken the room since it was asked for.
                    refused.push((waiting.member, why));
                    return false;
                }
            }
            let row = rows::encode(&wishes);
            let named = size_of::<MemberId>() * (page.events.len() + 1);
            let cost = (2, ANSWER_BYTES + FRAME_BYTES + named + 2 * row.len());
            if !batch.fits(effects + cost.0, bytes + cost.1) {
                full = true;
                return true;
            }
            effects += cost.0;
            bytes += cost.1;
            served.push(Served { member: waiting.member, wishes, row });
            false
        });

        let progress = !served.is_empty() || !refused.is_empty();
        for (member, why) in refused {
            let data = event::Trouble { code: why.code.name(), message: &why.message };
            self.tell(channel, &[member], "error", data);
        }
        if served.is_empty() {
            return progress;
        }
        self.budget.spend(effects, bytes);
        let members: Vec<MemberId> = served.iter().map(|served| served.member).collect();
        for Served { member, wishes, row } in served {
            rows::store(channel, &mut self.budget, &mut self.interests, member, wishes, &row);
            self.confirm_subscribed(channel, member, &like.channel, &like.types, page.events.len(), page.more);
        }
        self.counters.sent += (members.len() * page.events.len()) as u64;
        let to = Audience::Only(members);
        for (frame, priority) in page.events {
            let how: &Delivery = event::delivery(priority);
            channel.emit(&to, frame, how);
        }
        progress
    }
}
