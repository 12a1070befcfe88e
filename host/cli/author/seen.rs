//! What came of a step, and whether it is what the scenario wants.

use super::item::{Item, Said, difference, missing};
use super::scenario::{Close, Frame, Publication, Refused, Response, To, Wanted};
use crate::plugin::Entry;
use crate::plugin::content::Content;
use crate::protocol::event::MemberId;
use crate::protocol::frame::{Audience, Payload, Priority};
use crate::protocol::refusal::Refusal;

/// What came of a step, by kind, each in order.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) frames: Vec<Item>,
    refused: Vec<Item>,
    closes: Vec<Item>,
    publishes: Vec<Item>,
    responses: Vec<Item>,
}

impl Seen {
    /// Adds the effects of a batch that somebody outside sees.
    pub(super) fn add(&mut self, entries: &[Entry], name: impl Fn(MemberId) -> String) {
        for entry in entries {
            match entry {
                Entry::Frame { to, priority, conflate, payload, .. } => {
                    let item = Item::new(head(&audience(to, &name)), Some(said(payload)));
                    let item = item.with("priority", Some(word(*priority))).with("conflate", conflate.as_ref());
                    self.frames.push(item);
                }
                Entry::Reject { event, code, message } => {
                    let item = Item::new(format!("event {event}"), None).with("code", Some(code.as_str()));
                    self.refused.push(item.with("message", Some(message)));
                }
                Entry::Close { member, code, reason } => {
                    let item = Item::new(name(*member), None).with("code", Some(code)).with("reason", Some(reason));
                    self.closes.push(item);
                }
                Entry::Publish { channel, payload } => {
                    self.publishes.push(Item::new(format!("to channel {channel}"), Some(said(payload))));
                }
                Entry::Respond { status, headers, body, .. } => {
                    let mut item = Item::new("response", Some(body_said(body))).with("status", Some(status));
                    for (name, value) in headers {
                        item = item.with(&name.to_lowercase(), Some(value));
                    }
                    self.responses.push(item);
                }
                _ => {}
            }
        }
    }

    /// Compares it with what is wanted.
    ///
    /// # Errors
    /// Where it differs, for people: many lines.
    pub(super) fn judge(&self, wanted: &Wanted) -> Result<(), String> {
        let frames = match &wanted.all {
            Some(all) => difference(&items(all, frame), &self.frames),
            None => missing(&items(&wanted.some, frame), &self.frames),
        };
        let publishes = wanted.publishes.as_ref().and_then(|all| difference(&items(all, publication), &self.publishes));
        let response = wanted.response.as_ref().and_then(|one| difference(&[response(one)], &self.responses));
        let parts = [
            ("frames", frames),
            ("refused", difference(&items(&wanted.refused, refused), &self.refused)),
            ("closed connections", difference(&items(&wanted.closes, close), &self.closes)),
            ("messages to other channels", publishes),
            ("answers", response),
        ];
        let told: Vec<String> =
            parts.into_iter().filter_map(|(name, lines)| Some(format!("{name}:\n{}", indented(&lines?)))).collect();
        if told.is_empty() { Ok(()) } else { Err(told.join("\n")) }
    }
}

/// Lines moved to the right.
pub(super) fn indented(lines: &str) -> String {
    lines.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

/// The refusals among the effects of a batch: the index of the event, and why.
pub(super) fn rejects(entries: &[Entry]) -> Vec<(usize, Refusal)> {
    let reject = |entry: &Entry| match entry {
        Entry::Reject { event, code, message } => Some((*event as usize, Refusal::new(*code, message.clone()))),
        _ => None,
    };
    entries.iter().filter_map(reject).collect()
}

/// A message as a plugin gets it.
pub(super) fn payload(said: &Said) -> Payload {
    match said {
        Said::Json(value) => Payload::text(value.to_string()),
        Said::Text(text) => Payload::text(text.clone()),
        Said::Binary(bytes) => Payload::Binary(bytes.clone().into()),
    }
}

/// The body of an answer: bytes, but mostly text.
fn body_said(content: &Content) -> Said {
    match said(content) {
        Said::Binary(bytes) => String::from_utf8(bytes).map_or_else(|e| Said::Binary(e.into_bytes()), Said::Text),
        text => text,
    }
}

/// A message of a plugin.
pub(super) fn said(content: &Content) -> Said {
    let bytes = content.bytes().map(|bytes| bytes.to_vec()).unwrap_or_default();
    match content {
        Content::Binary(_) => Said::Binary(bytes),
        _ => Said::Text(String::from_utf8_lossy(&bytes).into_owned()),
    }
}

fn items<T>(all: &[T], item: impl Fn(&T) -> Item) -> Vec<Item> {
    all.iter().map(item).collect()
}

fn frame(frame: &Frame) -> Item {
    let item = Item::new(head(&frame.to), Some(frame.said.clone()));
    item.with("priority", frame.priority.map(word)).with("conflate", frame.conflate.as_ref())
}

fn refused(refused: &Refused) -> Item {
    let item = Item::new(format!("event {}", refused.event), None).with("code", Some(refused.code.as_str()));
    item.with("message", refused.message.as_ref())
}

fn close(close: &Close) -> Item {
    Item::new(close.member.clone(), None).with("code", close.code).with("reason", close.reason.as_ref())
}

fn publication(publication: &Publication) -> Item {
    Item::new(format!("to channel {}", publication.channel), Some(publication.said.clone()))
}

fn response(response: &Response) -> Item {
    let mut item = Item::new("response", response.said.clone()).with("status", response.status);
    for (name, value) in &response.headers {
        item = item.with(&name.to_lowercase(), Some(value));
    }
    item
}

fn audience(audience: &Audience, name: impl Fn(MemberId) -> String) -> To {
    match audience {
        Audience::All => To::All,
        Audience::Except(member) => To::Except(name(*member)),
        Audience::Only(members) => To::Only(members.iter().map(|member| name(*member)).collect()),
        Audience::User(user) => To::User(user.to_string()),
    }
}

fn head(to: &To) -> String {
    match to {
        To::All => "to all".to_owned(),
        To::Except(name) => format!("to all but {name}"),
        To::Only(names) if names.is_empty() => "to nobody".to_owned(),
        To::Only(names) => {
            let mut names = names.clone();
            names.sort();
            format!("to {}", names.join(", "))
        }
        To::User(user) => format!("to the user {user}"),
    }
}

fn word(priority: Priority) -> &'static str {
    match priority {
        Priority::Low => "low",
        Priority::Normal => "normal",
        Priority::High => "high",
    }
}
