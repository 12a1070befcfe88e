//! The effects of a batch, told one by one: to be compared with those of another version or another time, kept on tapes, and shown to
//! people. Nothing here depends on the version that made them, nor on how they are delivered.

mod difference;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::plugin::content::Content;
use crate::plugin::effects::Effects;
use crate::protocol::event::{MemberId, RequestId};
use crate::protocol::frame::{Audience, Priority};
use crate::protocol::refusal::RefusalCode;

pub use crate::plugin::account::difference::{Difference, cause, differences};

/// Most members of an audience that people are shown.
const SHOWN_MEMBERS_MAX: usize = 8;

/// One effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Entry {
    /// A frame to members.
    Frame {
        /// Index in the batch of the event on whose account it is sent.
        event: u32,
        /// Who receives it.
        to: Audience,
        /// What is given up first.
        priority: Priority,
        /// What it replaces.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        conflate: Option<Arc<str>>,
        /// What it carries.
        payload: Content,
    },
    /// An event that had no effect.
    Reject {
        /// Its index in the batch.
        event: u32,
        /// Why.
        code: RefusalCode,
        /// Why, in words.
        message: String,
    },
    /// An answer to an HTTP request.
    Respond {
        /// The request.
        request: RequestId,
        /// HTTP status.
        status: u16,
        /// Names and values.
        headers: Vec<(String, String)>,
        /// The body.
        body: Content,
    },
    /// A connection that is closed.
    Close {
        /// Whose.
        member: MemberId,
        /// The close code.
        code: u16,
        /// Why.
        reason: String,
    },
    /// A message to another channel.
    Publish {
        /// Its name.
        channel: String,
        /// What it carries.
        payload: Content,
    },
    /// A timer that is set.
    SetTimer {
        /// Its name.
        name: String,
        /// When it fires, in milliseconds since the Unix epoch.
        due_ms: u64,
        /// Whether it survives the instance.
        durable: bool,
    },
    /// A timer that is forgotten.
    CancelTimer {
        /// Its name.
        name: String,
    },
    /// A state value that is set.
    Put {
        /// Its key.
        key: String,
        /// The value.
        value: Content,
    },
    /// A state value that is forgotten.
    Delete {
        /// Its key.
        key: String,
    },
    /// A log entry that is appended.
    Append {
        /// What it carries.
        data: Content,
    },
    /// A log entry that is written over.
    Replace {
        /// Its offset.
        offset: u64,
        /// What it carries from now on.
        data: Content,
    },
    /// Older log entries that are forgotten.
    Trim {
        /// Offset of the first one that is kept.
        before: u64,
    },
}

/// The effects of a batch: those that are seen, in the order in which they take hold; then timers, state and log, which were committed before
/// that. Contents are whole; those of values and entries are shared, those of frames are copies.
pub fn account(effects: &Effects) -> Vec<Entry> {
    let binary = |bytes: &Bytes| Content::Binary(bytes.clone());
    let frames = effects.frames.frames().map(|(outgoing, payload, how)| Entry::Frame {
        event: outgoing.event,
        to: outgoing.audience.clone(),
        priority: how.priority,
        conflate: how.conflate.clone(),
        payload: payload.into(),
    });
    let rejects = effects.rejects.iter().map(|(event, why)| Entry::Reject {
        event: *event,
        code: why.code,
        message: why.message.clone().into_owned(),
    });
    let responses = effects.responses.iter().map(|(request, response)| Entry::Respond {
        request: *request,
        status: response.status,
        headers: response.headers.clone(),
        body: binary(&response.body),
    });
    let closes = effects.closes.iter().map(|(member, code, reason)| Entry::Close {
        member: *member,
        code: *code,
        reason: reason.clone(),
    });
    let publishes = effects
        .publishes
        .iter()
        .map(|(channel, payload)| Entry::Publish { channel: channel.clone(), payload: payload.clone().into() });
    let timers = effects.timers.iter().map(|(name, timer)| match timer {
        Some(timer) => Entry::SetTimer { name: name.clone(), due_ms: timer.due_ms, durable: timer.durable },
        None => Entry::CancelTimer { name: name.clone() },
    });
    let state = effects.state.iter().map(|(key, value)| match value {
        Some(value) => Entry::Put { key: key.clone(), value: binary(value) },
        None => Entry::Delete { key: key.clone() },
    });
    let appends = effects.appends.iter().map(|data| Entry::Append { data: binary(data) });
    let replaces = effects.replaces.iter().map(|(offset, data)| Entry::Replace { offset: *offset, data: binary(data) });
    let trim = effects.trim_before.map(|before| Entry::Trim { before });
    frames
        .chain(rejects)
        .chain(responses)
        .chain(closes)
        .chain(publishes)
        .chain(timers)
        .chain(state)
        .chain(appends)
        .chain(replaces)
        .chain(trim)
        .collect()
}

impl Entry {
    /// The event it is for, by its index in the batch, where the effect says so.
    pub fn event(&self) -> Option<u32> {
        match self {
            Self::Frame { event, .. } | Self::Reject { event, .. } => Some(*event),
            _ => None,
        }
    }

    /// What it carries.
    pub fn content(&self) -> Option<&Content> {
        match self {
            Self::Frame { payload: content, .. }
            | Self::Respond { body: content, .. }
            | Self::Publish { payload: content, .. }
            | Self::Put { value: content, .. }
            | Self::Append { data: content }
            | Self::Replace { data: content, .. } => Some(content),
            _ => None,
        }
    }

    pub(super) fn content_mut(&mut self) -> Option<&mut Content> {
        match self {
            Self::Frame { payload: content, .. }
            | Self::Respond { body: content, .. }
            | Self::Publish { payload: content, .. }
            | Self::Put { value: content, .. }
            | Self::Append { data: content }
            | Self::Replace { data: content, .. } => Some(content),
            _ => None,
        }
    }

    /// Leaves out what it carries, but for its length and digest, if it is more than this.
    #[must_use]
    pub fn shortened(mut self, bytes_max: usize) -> Self {
        if let Some(content) = self.content_mut() {
            *content = content.clone().shortened(bytes_max);
        }
        self
    }

    /// All but what it carries, for people.
    fn head(&self) -> String {
        match self {
            Self::Frame { to, priority, conflate, .. } => {
                let to = match to {
                    Audience::All => "to all".to_owned(),
                    Audience::Except(member) => format!("to all but member {}", member.0),
                    Audience::User(user) => format!("to user {user}"),
                    Audience::Only(members) => {
                        let shown: Vec<_> =
                            members.iter().take(SHOWN_MEMBERS_MAX).map(|member| member.0.to_string()).collect();
                        let more = members.len().saturating_sub(SHOWN_MEMBERS_MAX);
                        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                        format!("to member {}{more}", shown.join(", "))
                    }
                };
                let priority = match priority {
                    Priority::Low => ", low priority",
                    Priority::Normal => "",
                    Priority::High => ", high priority",
                };
                let conflate = conflate.as_ref().map(|key| format!(", replacing {key:?}")).unwrap_or_default();
                format!("broadcast {to}{priority}{conflate}")
            }
            Self::Reject { code, message, .. } => format!("reject as {}: {message:?}", code.as_str()),
            Self::Respond { request, status, headers, .. } => {
                let headers: Vec<_> = headers.iter().map(|(name, value)| format!(", {name}: {value}")).collect();
                format!("respond to request {} with {status}{}", request.0, headers.concat())
            }
            Self::Close { member, code, reason } => format!("close member {} with {code} {reason:?}", member.0),
            Self::Publish { channel, .. } => format!("publish to {channel}"),
            Self::SetTimer { name, due_ms, durable } => {
                format!("set {} timer {name:?} to {due_ms}", if *durable { "durable" } else { "volatile" })
            }
            Self::CancelTimer { name } => format!("cancel timer {name:?}"),
            Self::Put { key, .. } => format!("put {key:?}"),
            Self::Delete { key } => format!("delete {key:?}"),
            Self::Append { .. } => "append to the log".to_owned(),
            Self::Replace { offset, .. } => format!("replace log entry {offset}"),
            Self::Trim { before } => format!("trim the log before {before}"),
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.content() {
            Some(content) => write!(f, "{}: {content}", self.head()),
            None => f.write_str(&self.head()),
        }
    }
}

#[cfg(test)]
mod tests;
