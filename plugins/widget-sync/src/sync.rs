//! `SYNC_REQUEST`: everything there is, or what changed after a version. When many ask at once, as after a restart, some are
//! answered in the batches that follow.

use hotbay_sdk::json::object;
use hotbay_sdk::{Audience, Channel, Delivery, MemberId, Refusal, RefusalCode, TimerKeep, json};
use serde::{Deserialize, Serialize};

use crate::WidgetSync;
use crate::budget::FRAME_BYTES;
use crate::changes::Actor;
use crate::dashboard::{Changes, Dashboard};
use crate::frame::Since;

/// Goes on with those that wait for an answer.
pub(crate) const SYNC_TIMER: &str = "sync";
/// Those that may wait.
const WAITING_MAX: usize = 10_000;

/// A client that waits for an answer.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Waiting {
    member: MemberId,
    since: Option<u64>,
    /// The client's name for its frame, as it came.
    answers: Option<Box<str>>,
}

impl WidgetSync {
    /// A `SYNC_REQUEST`.
    pub(crate) fn sync_request(
        &mut self,
        channel: &mut Channel,
        actor: &Actor<'_>,
        payload: &str,
    ) -> Result<(), Refusal> {
        let Since { since } = object(payload, "SYNC_REQUEST takes {since: whole number}")?;
        let Some(member) = actor.member else { return Ok(()) };
        if self.waiting.len() >= WAITING_MAX {
            return Err(Refusal::new(RefusalCode::Unavailable, "too many ask at once; ask again"));
        }
        self.waiting.push_back(Waiting { member, since, answers: actor.answers.map(Into::into) });
        if self.waiting.len() == 1 {
            self.answer_waiting(channel);
        }
        Ok(())
    }

    /// Answers those that wait, as long as there is room in the batch.
    pub(crate) fn answer_waiting(&mut self, channel: &mut Channel) {
        while let Some(next) = self.waiting.front() {
            let Some(client) = self.clients.get(next.member) else {
                self.waiting.pop_front();
                continue;
            };
            let dashboard = Dashboard::of(&mut self.dashboard, channel, &self.settings);
            if !self.budget.has_room_for_sync(dashboard.changes_bytes_max(channel) + FRAME_BYTES) {
                channel.set_timer(SYNC_TIMER, 0, TimerKeep::Volatile);
                return;
            }
            let changes = dashboard.changes(channel, next.since);
            let mut frame = self.envelopes.begin(channel.now_ms(), "SYNC_RESPONSE", &client.user, changes.bytes());
            changes.write(frame.payload());
            let frame = frame.end(next.answers.as_deref());
            self.budget.count_sync(frame.len());
            channel.emit(&Audience::Only(vec![next.member]), frame, &Delivery::HIGH);
            self.waiting.pop_front();
        }
    }
}

impl Changes {
    /// About how long they are as JSON.
    fn bytes(&self) -> usize {
        let widgets: usize = self.widgets.iter().map(|(id, _, data)| id.len() + data.len() + 48).sum();
        let deleted: usize = self.deleted.iter().map(|id| id.len() + 4).sum();
        widgets + deleted + self.layout.as_ref().map_or(0, |layout| layout.len()) + 128
    }

    /// Writes the payload of a `SYNC_RESPONSE`.
    fn write(&self, json: &mut String) {
        json.push_str("{\"version\":");
        json::number(json, self.version);
        json.push_str(if self.full { ",\"full\":true,\"widgets\":{" } else { ",\"full\":false,\"widgets\":{" });
        for (index, (id, version, data)) in self.widgets.iter().enumerate() {
            if index > 0 {
                json.push(',');
            }
            json::string(json, id);
            json.push_str(":{\"version\":");
            json::number(json, *version);
            json.push_str(",\"data\":");
            json.push_str(data);
            json.push('}');
        }
        json.push_str("},\"layout\":");
        json.push_str(self.layout.as_deref().unwrap_or("null"));
        json.push_str(",\"layoutVersion\":");
        json::number(json, self.layout_version);
        json.push_str(",\"deleted\":");
        json::list(json, &self.deleted, |json, id| json::string(json, id));
        json.push('}');
    }
}
