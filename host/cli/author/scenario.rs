//! Scenario files: what happens in a channel, step by step, and what must come of it. This module reads them; nothing here runs.
//!
//! What a step does not mention is not checked, but nothing may be refused and no connection closed without the step saying so.

mod fields;
mod read;

use std::collections::BTreeMap;

use super::item::Said;
use crate::protocol::event::LeaveReason;
use crate::protocol::frame::Priority;
use crate::protocol::refusal::RefusalCode;

pub(super) use read::read;

/// One file.
#[derive(Debug)]
pub(super) struct Scenario {
    /// The channel's name.
    pub(super) channel: String,
    /// The mount's settings, as the text of a JSON object.
    pub(super) settings: String,
    /// Decides all random numbers.
    pub(super) seed: u64,
    /// In order.
    pub(super) steps: Vec<Step>,
}

/// One step.
#[derive(Debug)]
pub(super) struct Step {
    /// Where it begins in the file, counted from 1.
    pub(super) line: usize,
    /// What happens.
    pub(super) what: What,
    /// What must come of it.
    pub(super) wanted: Wanted,
}

/// What happens in a step.
#[derive(Debug)]
pub(super) enum What {
    /// Events, all in one batch.
    Batch(Vec<Happening>),
    /// Time passes, in milliseconds, and timers fire.
    After(u64),
    /// The instance saves and is dropped; the next one gets what it saved.
    Restart,
    /// The instance is lost; members and timers stay.
    Crash,
    /// The broker is lost: connections and volatile timers are gone, too.
    Kill,
}

/// An event.
#[derive(Debug)]
pub(super) enum Happening {
    /// A connection joins.
    Join(Join),
    /// A member leaves.
    Leave(Leave),
    /// A member sends a message.
    Message(Message),
    /// A server or another channel publishes.
    Publish(Publish),
    /// An HTTP request.
    Request(Request),
}

/// A connection joins: its name alone, or a table.
#[derive(Debug)]
pub(super) struct Join {
    /// What the scenario calls the connection.
    pub(super) name: String,
    /// Whose it is; by default a user of the same name.
    pub(super) user: String,
    /// The role claim.
    pub(super) role: String,
    /// All claims, as the text of a JSON object.
    pub(super) claims: String,
    /// The path by which it came.
    pub(super) endpoint: String,
    /// The frame that asked for it.
    pub(super) frame: Option<Said>,
}

/// A member leaves: its name alone, or a table.
#[derive(Debug)]
pub(super) struct Leave {
    /// Which connection.
    pub(super) name: String,
    /// Why; by default it disconnected.
    pub(super) why: LeaveReason,
    /// The frame that asked for it.
    pub(super) frame: Option<Said>,
}

/// A message of a member.
#[derive(Debug)]
pub(super) struct Message {
    /// Which connection.
    pub(super) from: String,
    /// What it carries.
    pub(super) said: Said,
}

/// A message of a server or another channel.
#[derive(Debug)]
pub(super) struct Publish {
    /// The channel it comes from; otherwise a server.
    pub(super) channel: Option<String>,
    /// The name of the server's key.
    pub(super) key: String,
    /// What it carries.
    pub(super) said: Said,
}

/// An HTTP request.
#[derive(Debug)]
pub(super) struct Request {
    /// Upper case.
    pub(super) method: String,
    /// Below the mount's path.
    pub(super) path: String,
    /// Query parameters.
    pub(super) query: BTreeMap<String, String>,
    /// Headers, names in lower case.
    pub(super) headers: BTreeMap<String, String>,
    /// The user whose token came with it.
    pub(super) user: Option<String>,
    /// The user's role.
    pub(super) role: String,
    /// The body.
    pub(super) said: Option<Said>,
}

/// What must come of a step. What is absent is not checked.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Wanted {
    /// All frames, in order.
    pub(super) all: Option<Vec<Frame>>,
    /// Some of the frames, in any order.
    pub(super) some: Vec<Frame>,
    /// The refusals: nothing else may be refused.
    pub(super) refused: Vec<Refused>,
    /// The connections that are closed: no other may be.
    pub(super) closes: Vec<Close>,
    /// All messages to other channels, in order.
    pub(super) publishes: Option<Vec<Publication>>,
    /// The answer to an HTTP request.
    pub(super) response: Option<Response>,
}

/// A frame.
#[derive(Debug, PartialEq)]
pub(super) struct Frame {
    /// Who receives it.
    pub(super) to: To,
    /// What is given up first.
    pub(super) priority: Option<Priority>,
    /// What it replaces.
    pub(super) conflate: Option<String>,
    /// What it carries.
    pub(super) said: Said,
}

/// Who receives a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum To {
    /// Every member: `"all"`.
    All,
    /// Every member but one: `{ except = "ann" }`.
    Except(String),
    /// These: `"ann"` or `["ann", "bob"]`.
    Only(Vec<String>),
    /// Every connection of a user: `{ user = "ann" }`.
    User(String),
}

/// A refusal: its code alone, or a table.
#[derive(Debug, PartialEq)]
pub(super) struct Refused {
    /// Index of the event in the batch.
    pub(super) event: u32,
    /// Its kind.
    pub(super) code: RefusalCode,
    /// The words, if they matter.
    pub(super) message: Option<String>,
}

/// A connection that is closed.
#[derive(Debug, PartialEq)]
pub(super) struct Close {
    /// Which.
    pub(super) member: String,
    /// The close code.
    pub(super) code: Option<u16>,
    /// The reason.
    pub(super) reason: Option<String>,
}

/// A message to another channel.
#[derive(Debug, PartialEq)]
pub(super) struct Publication {
    /// Its name.
    pub(super) channel: String,
    /// What it carries.
    pub(super) said: Said,
}

/// An answer to an HTTP request.
#[derive(Debug, PartialEq)]
pub(super) struct Response {
    /// HTTP status.
    pub(super) status: Option<u16>,
    /// Headers that must be there.
    pub(super) headers: BTreeMap<String, String>,
    /// The body.
    pub(super) said: Option<Said>,
}
