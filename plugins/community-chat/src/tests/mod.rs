//! The rules of the community chat, one test for each, on the harness.

mod access;
mod garbage;
mod history;
mod messages;
mod presence;
mod servers;

use hotbay_sdk::harness::{Harness, Outcome};
use hotbay_sdk::{Identity, MemberId};
use serde_json::{Value, json};

use crate::CommunityChat;

pub(super) type Room = Harness<CommunityChat>;

/// An empty room.
pub(super) fn room() -> Room {
    Harness::new("room:1")
}

/// A room with one connection of each of these users.
pub(super) fn room_with<const N: usize>(users: [&str; N]) -> (Room, [MemberId; N]) {
    let mut room = room();
    let members = users.map(|user| subscribe(&mut room, user));
    (room, members)
}

/// A new connection of a user, subscribed by a frame.
pub(super) fn subscribe(room: &mut Room, user: &str) -> MemberId {
    let id = room.connect(user);
    let answers = send(room, id, json!({"type": "SUBSCRIBE", "channel": "room:1"}));
    assert_eq!(kinds(&answers, id)[0], "SUBSCRIBED");
    id
}

/// A connection with a role.
pub(super) fn connect_role(room: &mut Room, user: &str, role: &str) -> MemberId {
    room.connect_as(Identity { role: role.to_owned(), ..Identity::of(user) })
}

/// Sends a frame; the channel is `room:1` unless it names one.
pub(super) fn send(room: &mut Room, id: MemberId, mut frame: Value) -> Outcome {
    if frame.get("channel").is_none() {
        frame["channel"] = json!("room:1");
    }
    let outcome = room.frame(id, frame.to_string());
    assert_eq!(outcome.faults, [""; 0], "{frame}");
    outcome
}

/// Sends a chat message and returns its id.
pub(super) fn say(room: &mut Room, id: MemberId, content: &str) -> String {
    let outcome = send(room, id, json!({"type": "CHAT_MESSAGE", "payload": {"content": content}}));
    let frames = frames(&outcome, id);
    assert_eq!(frames[0]["type"], "CHAT_MESSAGE", "{frames:?}");
    frames[0]["payload"]["id"].as_str().unwrap().to_owned()
}

/// What a member received, parsed.
pub(super) fn frames(outcome: &Outcome, id: MemberId) -> Vec<Value> {
    outcome.texts(id).iter().map(|text| serde_json::from_str(text).unwrap()).collect()
}

/// The types of what a member received.
pub(super) fn kinds(outcome: &Outcome, id: MemberId) -> Vec<String> {
    frames(outcome, id).iter().map(|frame| frame["type"].as_str().unwrap().to_owned()).collect()
}

/// The one frame a member received.
#[track_caller]
pub(super) fn only(outcome: &Outcome, id: MemberId) -> Value {
    let frames = frames(outcome, id);
    assert_eq!(frames.len(), 1, "{frames:?}");
    frames[0].clone()
}

/// Checks that nothing happened but one ERROR with this code to the sender.
#[track_caller]
pub(super) fn assert_refused(outcome: &Outcome, id: MemberId, code: &str) {
    let frame = only(outcome, id);
    assert_eq!((&frame["type"], &frame["payload"]["code"]), (&json!("ERROR"), &json!(code)), "{frame}");
    assert_eq!(outcome.received.len(), 1);
}

/// The `recent` of a new subscription on an existing connection.
pub(super) fn recent(room: &mut Room, id: MemberId) -> Vec<Value> {
    let outcome = send(room, id, json!({"type": "SUBSCRIBE"}));
    only(&outcome, id)["payload"]["recent"].as_array().unwrap().clone()
}
