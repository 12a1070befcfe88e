//! Subscriptions that ask for events of the past. They take hold at the end of the batch: members that ask for the same, as after
//! a restart they do, then share one reading of the history and one set of frames. Until then a member gets nothing of the event
//! channel, even if it was subscribed before, so nothing live comes before its past; what is sent meanwhile comes behind the replay.
//! All of it: an event that would no longer fit behind a replay that cannot be served at once is refused as `unavailable`. Only
//! what `historyBytesMax` has forgotten meanwhile is missing. What a batch cannot bear waits for the next one. What a member got live before it asked is past like everything else,
//! so it may come again: behind `subscribed`, in its place.

use hotbay_sdk::{Audience, Channel, MemberId, Refusal};
use serde::{Deserialize, Serialize};

use crate::TenantEvents;
use crate::budget::{self, FRAME_BYTES};
use crate::event;
use crate::filter::Names;
use crate::history::Extent;
use crate::interests::{Interests, Wishes};
use crate::pages::{self, Bounds, Passed};
use crate::rows;

/// Subscriptions that wait at most.
const WAITING_MAX: usize = 4_096;
/// Bytes of a replay, unless its newest event alone has more: less than what waits for a slow reader at most (1 MiB).
pub(crate) const REPLAY_BYTES_MAX: usize = 512 << 10;
/// Bytes that may be sent behind a replay while it waits: they come in one batch, as the replay does, and one page must read them.
const LIVE_BYTES_MAX: usize = REPLAY_BYTES_MAX;
const _: () = assert!(LIVE_BYTES_MAX < pages::PAGE_READ_BYTES_MAX);
/// What an answer has beside the event types it repeats, which are in the member's row as well.
const ANSWER_BYTES: usize = 1 << 10;

/// A subscription that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Waiting {
    pub(crate) member: MemberId,
    pub(crate) channel: String,
    pub(crate) types: Names,
    pub(crate) events: usize,
    /// What is stored from this position on was sent after it was asked for.
    pub(crate) live_from: u64,
    /// Bytes ever stored in the event channel before that.
    #[serde(default)]
    pub(crate) written: u64,
}

impl Waiting {
    /// Whether both are served by the same events, but for where they begin.
    fn is_like(&self, other: &Self) -> bool {
        self.channel == other.channel && self.types == other.types && self.events == other.events
    }

    /// Whether it must be served before one more event of its event channel, with so many bytes, is sent: of what was sent since it
    /// was asked for, something would be forgotten (what is older than `kept_from`), or not fit into its page.
    pub(crate) fn is_full(&self, kept_from: u64, extent: &Extent, bytes: usize) -> bool {
        let events = extent.next.saturating_sub(self.live_from);
        let bytes = extent.written().saturating_sub(self.written) + bytes as u64;
        self.live_from < kept_from || events >= pages::PAGE_EVENTS_MAX as u64 || bytes > LIVE_BYTES_MAX as u64
    }

    /// Which of these events is its first.
    fn start(&self, events: &[Passed]) -> usize {
        events.partition_point(|event| event.position < self.live_from).saturating_sub(self.events)
    }
}

/// A member of a group that is being served.
struct Served {
    member: MemberId,
    wishes: Wishes,
    row: Vec<u8>,
    start: usize,
}

impl TenantEvents {
    /// Puts a subscription off to the end of the batch.
    pub(crate) fn wait_for_replay(&mut self, waiting: Waiting) -> Result<(), Refusal> {
        if self.waiting.len() >= WAITING_MAX {
            return Err(budget::busy());
        }
        self.interests.hold(waiting.member, &waiting.channel, &waiting.types);
        self.waiting.push_back(waiting);
        Ok(())
    }

    /// Serves what waits if there are such subscriptions; afterwards there are none, or it is too much for this batch.
    pub(crate) fn settle(
        &mut self,
        channel: &mut Channel,
        which: impl Fn(&Waiting) -> bool + Copy,
    ) -> Result<(), Refusal> {
        if self.waiting.iter().any(which) {
            self.replay(channel);
        }
        if self.waiting.iter().any(which) { Err(budget::busy()) } else { Ok(()) }
    }

    /// A member goes, or comes again: it waits no longer.
    pub(crate) fn stop_waiting(&mut self, member: MemberId) {
        if let Some(at) = self.waiting.iter().position(|waiting| waiting.member == member)
            && let Some(gone) = self.waiting.remove(at)
        {
            self.interests.release(member, &gone.channel);
        }
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
        let is_alike = |waiting: &Waiting, interests: &Interests| {
            waiting.is_like(like) && interests.filter_number(waiting.member) == filter
        };
        let alike = self.waiting.iter().filter(|waiting| is_alike(waiting, &self.interests));
        let all_from = alike.map(|waiting| waiting.live_from).min().unwrap_or(like.live_from);
        let page = pages::passing(
            channel,
            &mut self.budget,
            &like.channel,
            &self.histories.extent(&like.channel),
            Bounds { events: like.events, bytes: REPLAY_BYTES_MAX, all_from },
            (&of_filter, &like.types),
        );
        let frames: usize = page.events.iter().map(|event| event.frame.len() + FRAME_BYTES).sum();
        let (mut effects, mut bytes) = (page.events.len(), frames);

        let mut served = Vec::new();
        let mut full = false;
        let interests = &self.interests;
        let batch = &self.budget;
        self.waiting.retain(|waiting| {
            if full || !is_alike(waiting, interests) {
                return true;
            }
            // That it may want this was checked when it asked. Since then nothing of it has changed, and its weight is reserved.
            let mut wishes = interests.wishes(waiting.member);
            wishes.channels.insert(waiting.channel.clone(), waiting.types.clone());
            let row = rows::encode(&wishes);
            let named = size_of::<MemberId>() * (page.events.len() + 1);
            let cost = (2, ANSWER_BYTES + FRAME_BYTES + named + 2 * row.len());
            if !batch.fits(effects + cost.0, bytes + cost.1) {
                full = true;
                return true;
            }
            effects += cost.0;
            bytes += cost.1;
            served.push(Served { member: waiting.member, wishes, row, start: waiting.start(&page.events) });
            false
        });

        if served.is_empty() {
            return false;
        }
        self.budget.spend(effects, bytes);
        let mut starts = Vec::with_capacity(served.len());
        for Served { member, wishes, row, start } in served {
            self.interests.release(member, &like.channel);
            rows::store(channel, &mut self.budget, &mut self.interests, member, wishes, &row);
            let (replayed, more) = (page.events.len() - start, page.more || start > 0);
            self.confirm_subscribed(channel, member, &like.channel, &like.types, replayed, more);
            self.counters.sent += replayed as u64;
            starts.push((start, member));
        }
        send(channel, page.events, starts);
        true
    }
}

/// Sends events, to each member from its start on.
fn send(channel: &mut Channel, events: Vec<Passed>, mut starts: Vec<(usize, MemberId)>) {
    starts.sort_unstable();
    let (mut begun, mut to) = (0, Audience::Only(Vec::new()));
    for (at, event) in events.into_iter().enumerate() {
        let now_begun = starts.partition_point(|(start, _)| *start <= at);
        if now_begun > begun {
            begun = now_begun;
            to = Audience::Only(starts[..begun].iter().map(|(_, member)| *member).collect());
        }
        if begun > 0 {
            channel.emit(&to, event.frame, event::delivery(event.priority));
        }
    }
}
