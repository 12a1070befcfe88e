//! A batch as those see it who follow its channel: what happened and what it led to, cut to size.

use serde_json::{Map, Value, json};

use crate::limits::{TAIL_ITEMS_MAX, TAIL_PAYLOAD_BYTES_MAX, TAIL_PAYLOADS_BYTES_MAX, TAIL_TEXT_BYTES_MAX};
use crate::plugin::compile::Digest;
use crate::plugin::content::Content;
use crate::plugin::{Effects, Entry, account};
use crate::protocol::event::{Batch, Event, Source};
use crate::protocol::frame::{Audience, Payload};

/// Most members of an audience that are named.
const MEMBERS_MAX: usize = 16;

/// A batch that ran, without the position it gets.
pub(in crate::channel) struct Told {
    at_ms: u64,
    digest: Digest,
    events: Vec<Value>,
    effects: Vec<Value>,
    /// How many there were.
    counts: (usize, usize),
}

/// Where a batch stands.
#[derive(Debug, Clone, Copy)]
pub(in crate::channel) struct Position {
    /// Epoch and sequence number of the last commit it depends on.
    pub(in crate::channel) at: (u64, u64),
    /// Whether that is its own.
    pub(in crate::channel) wrote: bool,
}

impl Told {
    /// What a batch did on this version.
    pub(in crate::channel) fn of(batch: &Batch, effects: &Effects, digest: Digest) -> Self {
        let effects = account(effects);
        let mut room = Room(TAIL_PAYLOADS_BYTES_MAX);
        let events: Vec<Value> =
            batch.events.iter().take(TAIL_ITEMS_MAX).map(|event| happened(event, &mut room)).collect();
        let shown = effects.iter().take(TAIL_ITEMS_MAX).map(|effect| followed(effect, &mut room)).collect();
        Self { at_ms: batch.now_ms, digest, events, effects: shown, counts: (batch.events.len(), effects.len()) }
    }

    /// The line, where it stands.
    pub(in crate::channel) fn at(self, position: Position) -> String {
        let (events, effects) = self.counts;
        let mut line = json!({
            "epoch": position.at.0, "seq": position.at.1, "wrote": position.wrote, "at_ms": self.at_ms,
            "digest": self.digest.to_string(), "events": self.events, "effects": self.effects,
        });
        for (name, all) in [("events_left_out", events), ("effects_left_out", effects)] {
            if all > TAIL_ITEMS_MAX {
                line[name] = (all - TAIL_ITEMS_MAX).into();
            }
        }
        line.to_string()
    }
}

/// Bytes of payloads that may still be shown.
struct Room(usize);

impl Room {
    /// The beginning of a payload, with its length.
    fn payload(&mut self, fields: &mut Map<String, Value>, bytes: &[u8]) {
        fields.insert("bytes".to_owned(), bytes.len().into());
        let shown = &bytes[..bytes.len().min(TAIL_PAYLOAD_BYTES_MAX).min(self.0)];
        self.0 -= shown.len();
        let (kind, text) = match std::str::from_utf8(shown) {
            Ok(text) => ("text", text.to_owned()),
            // Cut within a character.
            Err(error) if error.error_len().is_none() && shown.len() < bytes.len() => {
                ("text", String::from_utf8_lossy(&shown[..error.valid_up_to()]).into_owned())
            }
            Err(_) => ("hex", hex::encode(shown)),
        };
        fields.insert(kind.to_owned(), text.into());
        if shown.len() < bytes.len() {
            fields.insert("cut".to_owned(), true.into());
        }
    }

    fn content(&mut self, fields: &mut Map<String, Value>, content: &Content) {
        if let Some(bytes) = content.bytes() {
            self.payload(fields, bytes);
        }
    }
}

fn fields(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn happened(event: &Event, room: &mut Room) -> Value {
    let frame = |payload: &Payload| match payload {
        Payload::Text(bytes) | Payload::Binary(bytes) => bytes.clone(),
    };
    let (told, carries) = match event {
        Event::Join { member, identity, frame: asked } => {
            (json!({ "kind": "join", "member": member, "user": short(identity.user()) }), asked.as_ref().map(frame))
        }
        Event::Leave { member, identity, why, frame: asked } => {
            let told = json!({ "kind": "leave", "member": member, "user": short(identity.user()), "why": why });
            (told, asked.as_ref().map(frame))
        }
        Event::Message { member, identity, payload } => {
            (json!({ "kind": "message", "member": member, "user": short(identity.user()) }), Some(frame(payload)))
        }
        Event::Timer { name, durable } => (json!({ "kind": "timer", "name": short(name), "durable": durable }), None),
        Event::Publish { source, payload, .. } => {
            let (from, name) = match source {
                Source::Api(key) => ("key", key),
                Source::Channel(channel) => ("channel", channel),
            };
            (json!({ "kind": "publish", from: short(name) }), Some(frame(payload)))
        }
        Event::Request { request, http } => {
            let user = http.identity.as_ref().map(|identity| short(identity.user()));
            let told = json!({
                "kind": "request", "request": request, "method": short(&http.method), "path": short(&http.path), "user": user,
            });
            (told, Some(http.body.clone()))
        }
    };
    let mut told = fields(told);
    if let Some(bytes) = carries {
        room.payload(&mut told, &bytes);
    }
    told.into()
}

fn followed(effect: &Entry, room: &mut Room) -> Value {
    let mut told = fields(match effect {
        Entry::Frame { event, to, .. } => json!({ "kind": "frame", "event": event, "to": audience(to) }),
        Entry::Reject { event, code, message } => {
            json!({ "kind": "reject", "event": event, "code": code.as_str(), "message": short(message) })
        }
        Entry::Respond { request, status, .. } => json!({ "kind": "respond", "request": request, "status": status }),
        Entry::Close { member, code, reason } => {
            json!({ "kind": "close", "member": member, "code": code, "reason": short(reason) })
        }
        Entry::Publish { channel, .. } => json!({ "kind": "publish", "channel": short(channel) }),
        Entry::SetTimer { name, due_ms, durable } => {
            json!({ "kind": "set-timer", "name": short(name), "due_ms": due_ms, "durable": durable })
        }
        Entry::CancelTimer { name } => json!({ "kind": "cancel-timer", "name": short(name) }),
        Entry::Put { key, .. } => json!({ "kind": "put", "key": short(key) }),
        Entry::Delete { key } => json!({ "kind": "delete", "key": short(key) }),
        Entry::Append { .. } => json!({ "kind": "append" }),
        Entry::Replace { offset, .. } => json!({ "kind": "replace", "offset": offset }),
        Entry::Trim { before } => json!({ "kind": "trim", "before": before }),
    });
    if let Some(content) = effect.content() {
        room.content(&mut told, content);
    }
    told.into()
}

fn audience(to: &Audience) -> Value {
    match to {
        Audience::All => json!("all"),
        Audience::Except(member) => json!({ "except": member }),
        Audience::User(user) => json!({ "user": short(user) }),
        Audience::Only(members) => {
            let mut told = json!({ "members": members.iter().take(MEMBERS_MAX).collect::<Vec<_>>() });
            if members.len() > MEMBERS_MAX {
                told["more"] = (members.len() - MEMBERS_MAX).into();
            }
            told
        }
    }
}

/// The beginning of a text.
fn short(text: &str) -> &str {
    &text[..text.floor_char_boundary(TAIL_TEXT_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::protocol::event::MemberId;
    use crate::protocol::identity::Identity;

    fn line(events: Vec<Event>, effects: &Effects) -> Value {
        let told = Told::of(&Batch { now_ms: 7, seed: 0, events }, effects, Digest([7; 32]));
        let line = told.at(Position { at: (2, 9), wrote: true });
        assert!(line.len() < 2 << 20, "{} bytes", line.len());
        serde_json::from_str(&line).unwrap()
    }

    fn message(payload: impl Into<Bytes>) -> Event {
        let identity = Identity::new("acme", "ann", "admin", r#"{"secret":1}"#, None);
        Event::Message { member: MemberId(3), identity, payload: Payload::Text(payload.into()) }
    }

    #[test]
    fn a_line_says_who_did_what_and_what_came_of_it() {
        let mut effects = Effects::default();
        effects.appends.push(Bytes::from_static(b"\xFF\0"));
        effects.state.insert("k".into(), Some(Bytes::from_static(b"v")));
        let publish = Event::Publish {
            source: Source::Api(Arc::from("shop")),
            payload: Payload::Binary(Bytes::from_static(b"x")),
            request: None,
            idempotency_key: None,
            hops: 0,
        };

        let told = line(vec![message("hi"), publish], &effects);

        assert_eq!(
            (&told["epoch"], &told["seq"], &told["wrote"], &told["at_ms"]),
            (&json!(2), &json!(9), &json!(true), &json!(7))
        );
        assert_eq!(
            told["events"],
            json!([
                { "kind": "message", "member": 3, "user": "ann", "bytes": 2, "text": "hi" },
                { "kind": "publish", "key": "shop", "bytes": 1, "text": "x" },
            ])
        );
        assert_eq!(
            told["effects"],
            json!([
                { "kind": "put", "key": "k", "bytes": 1, "text": "v" },
                { "kind": "append", "bytes": 2, "hex": "ff00" },
            ])
        );
        assert!(!told.to_string().contains("secret"), "claims are nobody's business");
    }

    /// Law: everything has a bound, whatever a batch was.
    #[test]
    fn a_line_has_a_bound_and_says_what_is_left_out() {
        let long = "é".repeat(TAIL_PAYLOAD_BYTES_MAX);
        let odd = format!("x{long}");
        let mut events = vec![message(odd.clone())];
        events.extend((0..300).map(|_| message("\0".repeat(1 << 20))));
        let mut effects = Effects::default();
        effects.appends = vec![Bytes::from(long.clone()); 1_000];

        let told = line(events, &effects);

        let first = &told["events"][0];
        let text = first["text"].as_str().unwrap();
        assert!(odd.starts_with(text) && text.len() == TAIL_PAYLOAD_BYTES_MAX - 1, "{} bytes", text.len());
        assert_eq!((&first["bytes"], &first["cut"]), (&json!(odd.len()), &json!(true)));
        assert_eq!(told["events_left_out"], 301 - TAIL_ITEMS_MAX);
        assert_eq!(told["effects_left_out"], 1_000 - TAIL_ITEMS_MAX);
        assert_eq!(told["effects"][1]["bytes"], long.len());
        assert_eq!(short(&long).len(), TAIL_TEXT_BYTES_MAX);
    }
}
