//! The rules of the event bus, one test for each, on the harness.
#![allow(clippy::needless_pass_by_value, reason = "literals read better without a borrow")]

mod bounds;
mod events;
mod filters;
mod garbage;
mod history;
mod http;
mod model;
mod names;
mod servers;
mod speed;
mod subscriptions;
mod survival;

use hotbay_sdk::harness::{Effect, Harness, Outcome};
use hotbay_sdk::{Audience, HttpRequest, Identity, MemberId, Priority};
use serde_json::{Value, json};

use crate::TenantEvents;

pub(super) type Bus = Harness<TenantEvents>;

/// The bus of tenant `acme`.
pub(super) fn bus() -> Bus {
    Harness::new("tenant:acme")
}

/// The bus with one connection of each of these users.
pub(super) fn bus_with<const N: usize>(users: [&str; N]) -> (Bus, [MemberId; N]) {
    let mut bus = bus();
    let members = users.map(|user| join(&mut bus, user));
    (bus, members)
}

/// The identity a token of a user of `acme` gives.
pub(super) fn identity(user: &str, role: &str) -> Identity {
    let claims = json!({"tenantId": "acme", "userId": user, "role": role}).to_string();
    Identity { user: user.to_owned(), role: role.to_owned(), claims, endpoint: "/ws".to_owned() }
}

/// A new connection of a user.
pub(super) fn join(bus: &mut Bus, user: &str) -> MemberId {
    let id = bus.connect_as(identity(user, ""));
    let outcome = bus.join_connection(id);
    assert_eq!(outcome.faults, [""; 0]);
    id
}

/// That many new connections, of the users `user-0`, `user-1` and so on, each with a filter if one is given.
pub(super) fn crowd(bus: &mut Bus, members: usize, filter: impl Fn(usize) -> Option<Value>) -> Vec<MemberId> {
    let ids: Vec<MemberId> =
        (0..members).map(|number| bus.connect_as(identity(&format!("user-{number}"), ""))).collect();
    for (chunk, ids) in ids.chunks(128).enumerate() {
        let mut batch = Vec::new();
        for (at, id) in ids.iter().enumerate() {
            batch.push(bus.joined(*id, None));
            if let Some(filters) = filter(chunk * 128 + at) {
                batch.push(bus.sent(*id, json!({"type": "filters", "filters": filters}).to_string()));
            }
        }
        let outcome = bus.batch(batch);
        assert_eq!((outcome.faults, outcome.refusals), (vec![], vec![]));
    }
    ids
}

/// Sends a frame.
#[expect(clippy::needless_pass_by_value, reason = "calls read better")]
pub(super) fn send(bus: &mut Bus, id: MemberId, frame: Value) -> Outcome {
    let outcome = bus.message(id, frame.to_string());
    assert_eq!(outcome.faults, [""; 0], "{frame}");
    outcome
}

/// Sends a frame that must be answered with this event to its sender alone; gives the event's data.
#[track_caller]
pub(super) fn ask(bus: &mut Bus, id: MemberId, frame: Value, answer: &str) -> Value {
    let outcome = send(bus, id, frame);
    let event = only(&outcome, id);
    assert_eq!(event["eventType"], answer, "{event}");
    assert_eq!(outcome.received.len(), 1);
    event["data"].clone()
}

/// Sends an event and returns its id, as the sender got it.
#[track_caller]
pub(super) fn emit(bus: &mut Bus, id: MemberId, frame: Value) -> String {
    let outcome = send(bus, id, frame);
    only(&outcome, id)["id"].as_str().unwrap().to_owned()
}

/// Subscribes.
#[track_caller]
pub(super) fn subscribe(bus: &mut Bus, id: MemberId, channel: &str) {
    ask(bus, id, json!({"type": "subscribe", "channel": channel}), "subscribed");
}

/// Sets a filter.
#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "calls read better")]
pub(super) fn filter(bus: &mut Bus, id: MemberId, filters: Value) {
    ask(bus, id, json!({"type": "filters", "filters": filters}), "filters_updated");
}

/// What a member received, parsed.
pub(super) fn frames(outcome: &Outcome, id: MemberId) -> Vec<Value> {
    outcome.texts(id).iter().map(|text| serde_json::from_str(text).unwrap()).collect()
}

/// The event types of what a member received.
pub(super) fn types(outcome: &Outcome, id: MemberId) -> Vec<String> {
    frames(outcome, id).iter().map(|frame| frame["eventType"].as_str().unwrap().to_owned()).collect()
}

/// The one frame a member received.
#[track_caller]
pub(super) fn only(outcome: &Outcome, id: MemberId) -> Value {
    let frames = frames(outcome, id);
    assert_eq!(frames.len(), 1, "{frames:?}");
    frames[0].clone()
}

/// Sends a frame that must do nothing but be answered with an error of this code.
#[track_caller]
pub(super) fn assert_refused(bus: &mut Bus, id: MemberId, frame: Value, code: &str) {
    let before = bus.kv();
    let error = ask(bus, id, frame, "error");
    assert_eq!(error["code"], code, "{error}");
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()));
    assert_eq!(bus.kv(), before);
}

/// The members that get the events of these types in one batch, in ascending order, and how they are delivered.
pub(super) fn audience(outcome: &Outcome, bus: &Bus, event_type: &str) -> Vec<MemberId> {
    let mut found = Vec::new();
    for effect in &outcome.effects {
        let Effect::Frame { to, what, .. } = effect else { continue };
        let frame: Value = serde_json::from_str(what.text().unwrap()).unwrap();
        if frame["eventType"] == event_type {
            match to {
                Audience::All => found.extend(bus.members()),
                Audience::Only(members) => found.extend(members),
                other => panic!("{other:?}"),
            }
        }
    }
    found.sort_unstable();
    found
}

/// The priorities the host was told for the frames of this event type.
pub(super) fn deliveries(outcome: &Outcome, event_type: &str) -> Vec<Priority> {
    let mut found = Vec::new();
    for effect in &outcome.effects {
        if let Effect::Frame { what, how, .. } = effect
            && what.text().unwrap().contains(&format!("\"eventType\":\"{event_type}\""))
        {
            assert_eq!(how.conflate, None);
            found.push(how.priority);
        }
    }
    found
}

/// A request of a user of `acme` with both headers.
pub(super) fn request(method: &str, path: &str, user: &str, role: &str) -> HttpRequest {
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    HttpRequest {
        headers: vec![header("host", "localhost:3000"), header("x-tenant-id", "acme"), header("x-user-id", user)],
        identity: Some(identity(user, role)),
        ..HttpRequest::new(method, path)
    }
}

/// The same with query parameters.
pub(super) fn query(mut request: HttpRequest, parameters: &[(&str, &str)]) -> HttpRequest {
    request.query = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    request
}

/// The same with a body.
pub(super) fn body(mut request: HttpRequest, body: &Value) -> HttpRequest {
    request.body = body.to_string().into_bytes();
    request
}

/// The status and body of the answer.
#[track_caller]
pub(super) fn answer(bus: &mut Bus, request: HttpRequest) -> (u16, Value) {
    let outcome = bus.request_with(request);
    answer_of(&outcome)
}

/// The same, of what has happened.
#[track_caller]
pub(super) fn answer_of(outcome: &Outcome) -> (u16, Value) {
    assert_eq!(outcome.faults, [""; 0]);
    let responses = outcome.responses();
    assert_eq!(responses.len(), 1);
    (responses[0].status, serde_json::from_slice(&responses[0].body).unwrap())
}

/// Asks for a page of history and gives the `data` of its events, and whether there is more.
#[track_caller]
pub(super) fn page(bus: &mut Bus, parameters: &[(&str, &str)]) -> (Vec<Value>, bool) {
    let (status, body) = answer(bus, query(request("GET", "/history", "ann", ""), parameters));
    assert_eq!(status, 200, "{body}");
    (body["events"].as_array().unwrap().clone(), body["hasMore"].as_bool().unwrap())
}
