//! A change on its way: from a parsed message to the dashboard, to the others, and back to whoever made it.

use std::borrow::Cow;

use hotbay_sdk::{Audience, Channel, Delivery, MemberId, Refusal, json};

use crate::WidgetSync;
use crate::budget::FRAME_BYTES;
use crate::dashboard::{Dashboard, Outcome};
use crate::operation::Operation;

/// Who makes a change.
#[derive(Clone, Copy)]
pub(crate) struct Actor<'a> {
    /// Absent for HTTP requests and servers.
    pub(crate) member: Option<MemberId>,
    pub(crate) user: &'a str,
    /// The client's name for its frame, as it came.
    pub(crate) answers: Option<&'a str>,
}

/// How the others hear of an operation. As it came, but for a restored layout, which they would have to look up.
pub(crate) struct News<'a> {
    pub(crate) kind: &'a str,
    pub(crate) payload: Cow<'a, str>,
}

impl WidgetSync {
    /// One operation; says whether anything changed.
    pub(crate) fn change(
        &mut self,
        channel: &mut Channel,
        actor: &Actor<'_>,
        kind: &str,
        payload: &str,
    ) -> Result<bool, Refusal> {
        let operation = self.parse(kind, payload)?;
        match self.apply(channel, &operation, payload)? {
            Outcome::Applied(version) => {
                let news = self.news(channel, &operation, kind, payload);
                self.announce(channel, actor, news.kind, &news.payload);
                self.acknowledge(channel, actor, version);
                Ok(true)
            }
            Outcome::Clash(version) => self.clash(channel, actor, &operation, version).map(|()| false),
        }
    }

    /// Parses an operation, and takes the work it makes.
    pub(crate) fn parse<'a>(&mut self, kind: &str, payload: &'a str) -> Result<Operation<'a>, Refusal> {
        self.budget.begin_operation()?;
        let operation = Operation::parse(kind, payload, self.settings.detect_conflicts)?;
        self.budget.count_keys(operation.keys());
        Ok(operation)
    }

    /// Does an operation, and takes what telling the others will cost.
    pub(crate) fn apply(
        &mut self,
        channel: &Channel,
        operation: &Operation<'_>,
        payload: &str,
    ) -> Result<Outcome, Refusal> {
        let dashboard = Dashboard::of(&mut self.dashboard, channel, &self.settings);
        let restored = match operation {
            Operation::Restore { version } => dashboard.restorable(channel, *version).map_or(0, |layout| layout.len()),
            _ => 0,
        };
        self.budget.take(1, payload.len() + restored + FRAME_BYTES)?;
        dashboard.apply(channel, operation, &mut self.budget)
    }

    /// How the others hear of an operation that was just done.
    pub(crate) fn news<'a>(
        &mut self,
        channel: &Channel,
        operation: &Operation<'_>,
        kind: &'a str,
        payload: &'a str,
    ) -> News<'a> {
        if !matches!(operation, Operation::Restore { .. }) {
            return News { kind, payload: Cow::Borrowed(payload) };
        }
        let layout = Dashboard::of(&mut self.dashboard, channel, &self.settings).layout(channel);
        let layout = layout.as_deref().unwrap_or("null");
        News { kind: "LAYOUT_UPDATE", payload: Cow::Owned(format!("{{\"layout\":{layout}}}")) }
    }

    /// Sends a change to all but whoever made it. Its cost was taken before.
    pub(crate) fn announce(&mut self, channel: &mut Channel, actor: &Actor<'_>, kind: &str, payload: &str) {
        let (to, others) = match actor.member {
            Some(member) => (Audience::Except(member), self.clients.len().saturating_sub(1)),
            None => (Audience::All, self.clients.len()),
        };
        if others == 0 {
            return;
        }
        let mut frame = self.envelopes.begin(channel.now_ms(), kind, actor.user, payload.len());
        frame.payload().push_str(payload);
        channel.emit(&to, frame.end(None), &Delivery::HIGH);
    }

    /// Answers a client's message; does nothing for an actor that is no member. The answer may be as large as was taken for
    /// it, or small.
    pub(crate) fn answer(
        &mut self,
        channel: &mut Channel,
        actor: &Actor<'_>,
        kind: &str,
        write: impl FnOnce(&mut String),
    ) {
        let Some(member) = actor.member else { return };
        let mut frame = self.envelopes.begin(channel.now_ms(), kind, actor.user, 128);
        write(frame.payload());
        self.budget.count(FRAME_BYTES);
        channel.emit(&Audience::Only(vec![member]), frame.end(actor.answers), &Delivery::HIGH);
    }

    /// Tells a client that its message holds.
    pub(crate) fn acknowledge(&mut self, channel: &mut Channel, actor: &Actor<'_>, version: u64) {
        self.answer(channel, actor, "ACK", |json| {
            json.push_str("{\"received\":true,\"version\":");
            json::number(json, version);
            json.push('}');
        });
    }
}
