//! The rules of the dashboard, one test for each, on the harness.

#![expect(clippy::needless_pass_by_value, reason = "payloads are written where they are used")]

mod batches;
mod conflicts;
mod garbage;
mod heartbeat;
mod http;
mod layouts;
mod limits;
mod model;
mod protocol;
mod servers;
mod sync;
mod widgets;

use hotbay_sdk::harness::{Harness, Outcome};
use hotbay_sdk::{HttpRequest, Identity, MemberId};
use serde_json::{Value, json};

use crate::WidgetSync;

pub(super) type Board = Harness<WidgetSync>;

/// A user who may use dashboard `d`.
pub(super) fn identity(user: &str) -> Identity {
    Identity { claims: r#"{"dashboards":["x","d"]}"#.to_owned(), ..Identity::of(user) }
}

/// Dashboard `d` with one connection of each of these users.
pub(super) fn board_with<const N: usize>(users: [&str; N]) -> (Board, [MemberId; N]) {
    with_settings("{}", users)
}

/// The same, with settings of the mount.
pub(super) fn with_settings<const N: usize>(settings: &str, users: [&str; N]) -> (Board, [MemberId; N]) {
    let mut board = Board::with_settings("dashboard:d", settings);
    let members = users.map(|user| join(&mut board, user));
    (board, members)
}

/// A new connection of a user.
pub(super) fn join(board: &mut Board, user: &str) -> MemberId {
    let id = board.connect_as(identity(user));
    let outcome = board.join_connection(id);
    assert_eq!(kinds(&outcome, id), ["CONNECT"]);
    id
}

/// A frame of a user, as text.
pub(super) fn frame(user: &str, kind: &str, payload: &Value) -> String {
    json!({"type": kind, "id": "c-1", "timestamp": "2023-11-14T22:13:20.000Z", "userId": user, "payload": payload})
        .to_string()
}

/// Sends a message; users are named in the order of their connections.
#[track_caller]
pub(super) fn send(board: &mut Board, id: MemberId, user: &str, kind: &str, payload: Value) -> Outcome {
    let text = frame(user, kind, &payload);
    let outcome = board.message(id, text);
    assert_eq!(outcome.faults, [""; 0], "{kind} {payload}");
    outcome
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

/// Sends a message that must be acknowledged; gives the version.
#[track_caller]
pub(super) fn ack(board: &mut Board, id: MemberId, user: &str, kind: &str, payload: Value) -> u64 {
    let outcome = send(board, id, user, kind, payload);
    let answer = only(&outcome, id);
    assert_eq!((&answer["type"], &answer["payload"]["received"]), (&json!("ACK"), &json!(true)), "{answer}");
    answer["payload"]["version"].as_u64().unwrap()
}

/// Checks that nothing happened but one NACK with this code to the sender, and that the store is as it was.
#[track_caller]
pub(super) fn refuses(board: &mut Board, id: MemberId, user: &str, kind: &str, payload: Value, code: &str) -> String {
    refuses_text(board, id, &frame(user, kind, &payload), code)
}

/// The same for any text.
#[track_caller]
pub(super) fn refuses_text(board: &mut Board, id: MemberId, text: &str, code: &str) -> String {
    let before = (board.kv(), board.log());
    let outcome = board.message(id, text);
    assert_eq!(outcome.faults, [""; 0], "{text:.200}");
    let answer = only(&outcome, id);
    let found = (&answer["type"], &answer["payload"]["code"]);
    assert_eq!(found, (&json!("NACK"), &json!(code)), "{text:.200}: {answer}");
    assert_eq!(outcome.received.len(), 1, "{text:.200}");
    assert!((board.kv(), board.log()) == before, "{text:.200} changed the store");
    answer["payload"]["message"].as_str().unwrap().to_owned()
}

/// Everything there is, as a client gets it.
#[track_caller]
pub(super) fn snapshot(board: &mut Board, id: MemberId, user: &str) -> Value {
    let outcome = send(board, id, user, "SYNC_REQUEST", json!({}));
    let answer = only(&outcome, id);
    assert_eq!(answer["type"], "SYNC_RESPONSE");
    answer["payload"].clone()
}

/// An HTTP request of a user of dashboard `d`; gives status and body.
pub(super) fn request(board: &mut Board, method: &str, path: &str, body: &str) -> (u16, Value) {
    let request = HttpRequest {
        body: body.as_bytes().to_vec(),
        identity: Some(identity("web")),
        ..HttpRequest::new(method, path)
    };
    let outcome = board.request_with(request);
    assert_eq!(outcome.faults, [""; 0], "{body:.200}");
    let response = outcome.responses()[0];
    (response.status, serde_json::from_slice(&response.body).unwrap())
}
