//! Conflicts: what a client is told when the server was further than it knew, and what its decision does.

use std::borrow::Cow;
use std::rc::Rc;

use hotbay_sdk::json::object;
use hotbay_sdk::{Channel, Refusal, TimerKeep, json};
use serde_json::value::RawValue;

use crate::WidgetSync;
use crate::budget::FRAME_BYTES;
use crate::changes::Actor;
use crate::conflicts::{self, Intent};
use crate::dashboard::{Dashboard, Outcome};
use crate::data::Data;
use crate::encode;
use crate::frame::{Resolution, Resolved};
use crate::operation::Operation;

/// When the time of the next conflict is over.
pub(crate) const CONFLICT_TIMER: &str = "conflicts";
/// Conflicts that end at once; the others follow in the next batch.
const EXPIRED_MAX: usize = 250;
const EXPECTED: &str =
    "CONFLICT_RESOLVED takes {conflictId: text, resolution: \"client\", \"server\" or \"merge\", data: object}";

impl WidgetSync {
    /// Tells a client that the server was further than it knew, and waits for its decision.
    pub(crate) fn clash(
        &mut self,
        channel: &mut Channel,
        actor: &Actor<'_>,
        operation: &Operation<'_>,
        version: u64,
    ) -> Result<(), Refusal> {
        let refusal = || Refusal::conflict(format!("the server is at version {version}"));
        let member = actor.member.ok_or_else(refusal)?;
        let intent = match operation {
            Operation::Update { widget, data, .. } => {
                Intent::Update { widget: (&**widget).into(), data: (*data).into() }
            }
            Operation::Delete { widget, .. } => Intent::Delete { widget: (&**widget).into() },
            Operation::Layout { layout, .. } => Intent::Layout { layout: (*layout).into() },
            Operation::Restore { .. } => return Err(refusal()), // It has no base.
        };
        self.conflicts.check_room(member, &intent, self.settings.pending_max)?;
        let dashboard = Dashboard::of(&mut self.dashboard, channel, &self.settings);
        let (widget, theirs): (_, Option<&str>) = match &intent {
            Intent::Update { widget, data } => (Some(widget), Some(data)),
            Intent::Delete { widget } => (Some(widget), None),
            Intent::Layout { layout } => (None, Some(layout)),
        };
        let ours: Option<Rc<str>> = match widget {
            Some(widget) => dashboard.data(channel, widget).map(Data::text),
            None => dashboard.layout(channel),
        };
        let (ours, theirs) = (ours.as_deref().unwrap_or("null"), theirs.unwrap_or("null"));
        self.budget.take(1, ours.len() + theirs.len() + FRAME_BYTES)?;

        let number = self.envelopes.next_id(channel.now_ms());
        self.answer(channel, actor, "CONFLICT_DETECTED", |json| {
            json.push_str("{\"conflictId\":\"");
            json.push_str(&conflicts::name(number));
            json.push_str("\",\"widgetId\":");
            match widget {
                Some(widget) => json::string(json, widget),
                None => json.push_str("null,\"target\":\"layout\""),
            }
            json.push_str(",\"serverVersion\":");
            json::number(json, version);
            json.push_str(",\"serverData\":");
            json.push_str(ours);
            json.push_str(",\"clientData\":");
            json.push_str(theirs);
            json.push('}');
        });
        let until_ms = channel.now_ms().saturating_add(self.settings.operation_timeout_ms);
        self.conflicts.add(number, member, intent, actor.answers, until_ms);
        self.set_conflict_timer(channel);
        Ok(())
    }

    /// A client's decision. It holds for the dashboard as it is now, whatever happened since: whoever decides must not lose
    /// to whoever changes things faster. Says whether a widget was changed.
    pub(crate) fn resolve(&mut self, channel: &mut Channel, actor: &Actor<'_>, payload: &str) -> Result<bool, Refusal> {
        let resolved: Resolved<'_> = object(payload, EXPECTED)?;
        let found = actor.member.and_then(|member| self.conflicts.find(&resolved.conflict_id, member));
        let Some((number, intent)) = found.map(|(number, conflict)| (number, conflict.intent.clone())) else {
            return Err(Refusal::not_found("there is no such conflict, or its time is over"));
        };
        let dashboard = Dashboard::of(&mut self.dashboard, channel, &self.settings);
        let data = resolved.data.map(RawValue::get);
        let operation = decided(dashboard, channel, &intent, resolved.resolution, data)?;
        let mut changed_widget = false;
        let version = match &operation {
            None => match &intent {
                Intent::Update { widget, .. } | Intent::Delete { widget } => dashboard.standing(widget).version(),
                Intent::Layout { .. } => dashboard.layout_version(),
            },
            Some(operation) => {
                let (kind, payload) = spell(operation);
                let (Outcome::Applied(version) | Outcome::Clash(version)) = self.apply(channel, operation, &payload)?;
                changed_widget = Operation::is_of_widget(kind);
                self.announce(channel, actor, kind, &payload);
                version
            }
        };
        self.conflicts.remove(number);
        self.acknowledge(channel, actor, version);
        Ok(changed_widget)
    }

    /// The time of the next conflict, or of several, is over.
    pub(crate) fn expire_conflicts(&mut self, channel: &mut Channel) {
        self.conflict_timer = false;
        for _ in 0..EXPIRED_MAX {
            let Some(conflict) = self.conflicts.expire(channel.now_ms()) else { break };
            let user = self.clients.get(conflict.member).map(|client| client.user.clone());
            let Some(user) = user else { continue };
            let actor = Actor { member: Some(conflict.member), user: &user, answers: conflict.answers.as_deref() };
            self.answer(channel, &actor, "NACK", |json| {
                encode::error(json, "conflict", "the conflict was not resolved in time; nothing was changed");
            });
        }
        self.set_conflict_timer(channel);
    }

    /// One timer serves all conflicts: it is set for the first whose time ends, and again when it fires.
    pub(crate) fn set_conflict_timer(&mut self, channel: &mut Channel) {
        if let (false, Some(next_ms)) = (self.conflict_timer, self.conflicts.next_ms()) {
            self.conflict_timer = true;
            channel.set_timer(CONFLICT_TIMER, next_ms.saturating_sub(channel.now_ms()), TimerKeep::Volatile);
        }
    }
}

/// What a decision does; `None` if everything stays as it is.
fn decided<'a>(
    dashboard: &mut Dashboard,
    channel: &Channel,
    intent: &'a Intent,
    resolution: Resolution,
    data: Option<&'a str>,
) -> Result<Option<Operation<'a>>, Refusal> {
    match (intent, resolution) {
        (_, Resolution::Server) => Ok(None),
        (Intent::Update { widget, data: wanted }, Resolution::Merge) if data.is_none() => {
            // Both count; where both say something, the server's stays.
            let mut update = Operation::update(Cow::Borrowed(widget), wanted, None)?;
            if let (Operation::Update { patch, .. }, Some(there)) = (&mut update, dashboard.data(channel, widget)) {
                patch.retain_missing(there);
                if patch.keys() == 0 {
                    return Ok(None);
                }
            }
            Ok(Some(update))
        }
        (Intent::Update { widget, data: wanted }, _) => {
            Operation::update(Cow::Borrowed(widget), data.unwrap_or(wanted), None).map(Some)
        }
        (Intent::Delete { widget }, Resolution::Merge) => {
            data.map(|data| Operation::update(Cow::Borrowed(widget), data, None)).transpose()
        }
        (Intent::Delete { widget }, _) => {
            // Somebody else may have been faster.
            let there = dashboard.data(channel, widget).is_some();
            Ok(there.then_some(Operation::Delete { widget: Cow::Borrowed(widget), base: None }))
        }
        (Intent::Layout { .. }, Resolution::Merge) if data.is_none() => {
            Err(Refusal::bad_request("only the client can merge a layout: send it as `data`"))
        }
        (Intent::Layout { layout }, _) => Operation::layout(data.unwrap_or(layout), None).map(Some),
    }
}

/// An operation as a client would send it: type and payload.
fn spell(operation: &Operation<'_>) -> (&'static str, String) {
    let mut json = String::new();
    let kind = match operation {
        Operation::Update { widget, patch, .. } => {
            json.push_str("{\"widgetId\":");
            json::string(&mut json, widget);
            json.push_str(",\"data\":");
            patch.write(&mut json);
            "WIDGET_UPDATE"
        }
        Operation::Delete { widget, .. } => {
            json.push_str("{\"widgetId\":");
            json::string(&mut json, widget);
            "WIDGET_DELETE"
        }
        Operation::Layout { layout, .. } => {
            json.push_str("{\"layout\":");
            json.push_str(layout);
            "LAYOUT_UPDATE"
        }
        Operation::Restore { .. } => {
            json.push('{');
            "LAYOUT_RESTORE"
        }
    };
    json.push('}');
    (kind, json)
}
