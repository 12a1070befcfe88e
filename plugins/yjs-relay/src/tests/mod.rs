//! The rules of collaborative drafts, on the harness. The clients are documents of yrs, an independent implementation
//! of Yjs.

mod access;
mod awareness;
mod bounds;
mod document;
mod editor;
mod gaps;
mod garbage;
mod health;
mod protocol;
mod revoked;
mod store;
mod sync;
mod update;

use hotbay_sdk::harness::{Harness, Outcome};
use hotbay_sdk::{Identity, MemberId, Payload};
use serde_json::{Value, json};

use crate::YjsRelay;
use crate::binary::Frame;
use crate::settings::BINARY_ENDPOINT;

use editor::Editor;

pub(super) type Room = Harness<YjsRelay>;

pub(super) const JSON_ENDPOINT: &str = "/ws";

/// A draft nobody opened yet.
pub(super) fn room() -> Room {
    Harness::new("draft:d1")
}

/// Somebody of firm `f1` with the role `editor`.
pub(super) fn identity(user: &str, endpoint: &str) -> Identity {
    Identity {
        user: user.to_owned(),
        role: "editor".to_owned(),
        claims: json!({"userId": user, "firmId": "f1"}).to_string(),
        endpoint: endpoint.to_owned(),
    }
}

/// Joins as this identity.
pub(super) fn join(room: &mut Room, identity: Identity) -> (MemberId, Outcome) {
    let id = room.connect_as(identity);
    let outcome = room.join_connection(id);
    assert_eq!(outcome.faults, [""; 0]);
    (id, outcome)
}

/// Joins on the JSON endpoint.
pub(super) fn join_json(room: &mut Room, user: &str) -> MemberId {
    join(room, identity(user, JSON_ENDPOINT)).0
}

/// Joins on the endpoint of y-websocket.
pub(super) fn join_binary(room: &mut Room, user: &str) -> MemberId {
    join(room, identity(user, BINARY_ENDPOINT)).0
}

/// Joins on the JSON endpoint, to read only.
pub(super) fn viewer(user: &str, endpoint: &str) -> Identity {
    Identity { role: "viewer".to_owned(), ..identity(user, endpoint) }
}

/// Sends a JSON frame.
pub(super) fn send(room: &mut Room, id: MemberId, frame: &Value) -> Outcome {
    let outcome = room.message(id, frame.to_string());
    assert_eq!(outcome.faults, [""; 0], "{frame}");
    outcome
}

/// Sends an update in a JSON frame.
pub(super) fn send_update(room: &mut Room, id: MemberId, update: &[u8]) -> Outcome {
    send(room, id, &json!({"type": "yjs-update", "data": update}))
}

/// Sends a frame of y-websocket.
pub(super) fn send_binary(room: &mut Room, id: MemberId, frame: Vec<u8>) -> Outcome {
    let outcome = room.message(id, frame);
    assert_eq!(outcome.faults, [""; 0]);
    outcome
}

/// The JSON frames a member received.
pub(super) fn frames(outcome: &Outcome, id: MemberId) -> Vec<Value> {
    let mine = outcome.received.iter().filter(|(to, _)| *to == id);
    mine.map(|(_, what)| serde_json::from_str(what.text().expect("a text frame")).unwrap()).collect()
}

/// The one JSON frame a member received.
#[track_caller]
pub(super) fn only(outcome: &Outcome, id: MemberId) -> Value {
    let frames = frames(outcome, id);
    assert_eq!(frames.len(), 1, "{frames:?}");
    frames[0].clone()
}

/// The bytes in a JSON frame of this type.
#[track_caller]
pub(super) fn data(frame: &Value, kind: &str) -> Vec<u8> {
    assert_eq!(frame["type"], kind, "{frame}");
    serde_json::from_value(frame["data"].clone()).unwrap()
}

/// The frames of y-websocket a member received.
pub(super) fn binary_frames(outcome: &Outcome, id: MemberId) -> Vec<Vec<u8>> {
    let mine = outcome.received.iter().filter(|(to, _)| *to == id);
    mine.map(|(_, what)| match what {
        Payload::Binary(bytes) => bytes.clone(),
        Payload::Text(text) => panic!("a text frame: {text}"),
    })
    .collect()
}

/// The updates in the frames of y-websocket a member received.
pub(super) fn updates(outcome: &Outcome, id: MemberId) -> Vec<Vec<u8>> {
    let frames = binary_frames(outcome, id);
    let update = |frame: &Vec<u8>| match Frame::parse(frame).unwrap() {
        Frame::Step2(update) | Frame::Update { update, .. } => Some(update.to_vec()),
        _ => None,
    };
    frames.iter().filter_map(update).collect()
}

/// What the draft says, as somebody who joins now reads it.
pub(super) fn read(room: &mut Room) -> Editor {
    let (id, joined) = join(room, identity("reader", JSON_ENDPOINT));
    let reader = Editor::new(0xFEED);
    reader.apply(&data(&only(&joined, id), "yjs-state-response"));
    room.disconnect(id);
    reader
}

/// Everything that is durable.
pub(super) fn stored(room: &Room) -> impl PartialEq + std::fmt::Debug + use<> {
    (room.log(), room.kv())
}
