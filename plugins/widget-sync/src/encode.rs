//! What goes out: envelopes written by hand into one string each. Every function leaves valid JSON, or the documented
//! beginning of it.

use hotbay_sdk::json::{number, string};
use hotbay_sdk::{Refusal, RefusalCode, hash, iso8601};

/// Message ids are the time in milliseconds times this, and a number: unique and ascending without a write, also after a
/// crash. The upper half is for answers to refused frames, which nobody counts.
const IDS_PER_MS: u64 = 1_000_000;
/// What a refusal says when a client has too much under way: its code is `too_many_pending`.
pub(crate) const TOO_MANY_PENDING: &str = "too many pending operations: ";

/// A frame in the making: `{"type":…,"id":…,"timestamp":…,"userId":…,"payload":` and then its payload and end.
pub(crate) struct Outgoing(String);

impl Outgoing {
    fn new(kind: &str, id: u64, timestamp: &str, user: &str, capacity: usize) -> Self {
        let mut json = String::with_capacity(capacity + kind.len() + user.len() + 160);
        json.push_str("{\"type\":");
        string(&mut json, kind);
        json.push_str(",\"id\":\"msg-");
        number(&mut json, id);
        json.push_str("\",\"timestamp\":\"");
        json.push_str(timestamp);
        json.push_str("\",\"userId\":");
        string(&mut json, user);
        json.push_str(",\"payload\":");
        Self(json)
    }

    /// Where the payload is written to.
    pub(crate) fn payload(&mut self) -> &mut String {
        &mut self.0
    }

    /// Ends the frame; `answers` is the client's own id of the frame this one answers, as it came.
    pub(crate) fn end(mut self, answers: Option<&str>) -> String {
        if let Some(id) = answers {
            self.0.push_str(",\"correlationId\":");
            self.0.push_str(id);
        }
        self.0.push('}');
        self.0
    }
}

/// Numbers and dates envelopes.
pub(crate) struct Envelopes {
    last_id: u64,
    now_ms: u64,
    timestamp: String,
}

impl Envelopes {
    /// Goes on after the last id of the instance before.
    pub(crate) fn resume(last_id: u64, now_ms: u64) -> Self {
        Self { last_id, now_ms, timestamp: iso8601(now_ms) }
    }

    /// The last id that was given out.
    pub(crate) fn last_id(&self) -> u64 {
        self.last_id
    }

    /// The next number, for a message or a conflict.
    pub(crate) fn next_id(&mut self, now_ms: u64) -> u64 {
        self.last_id = self.last_id.saturating_add(1).max(now_ms.saturating_mul(IDS_PER_MS));
        self.last_id
    }

    /// Begins a frame; its payload must be written next.
    pub(crate) fn begin(&mut self, now_ms: u64, kind: &str, user: &str, capacity: usize) -> Outgoing {
        if self.now_ms != now_ms {
            self.now_ms = now_ms;
            self.timestamp = iso8601(now_ms);
        }
        let id = self.next_id(now_ms);
        Outgoing::new(kind, id, &self.timestamp, user, capacity)
    }
}

/// A frame that tells of a refusal. Its id has nothing to count by, so it is told apart by what it answers.
pub(crate) fn refusal(now_ms: u64, user: &str, answers: Option<&str>, why: &Refusal, last_word: bool) -> String {
    let told = user.bytes().chain([0]).chain(answers.unwrap_or("").bytes()).chain(why.message.bytes());
    let hash = hash(told);
    let id = now_ms.saturating_mul(IDS_PER_MS).saturating_add(IDS_PER_MS / 2 + hash % (IDS_PER_MS / 2));
    let kind = if last_word { "DISCONNECT" } else { "NACK" };
    let mut frame = Outgoing::new(kind, id, &iso8601(now_ms), user, why.message.len() + 64);
    if last_word {
        reason(frame.payload(), &why.message);
    } else {
        error(frame.payload(), code(why), &why.message);
    }
    frame.end(answers)
}

/// The payload of a `DISCONNECT`.
pub(crate) fn reason(json: &mut String, reason: &str) {
    json.push_str("{\"reason\":");
    string(json, reason);
    json.push('}');
}

/// The payload of a `NACK`.
pub(crate) fn error(json: &mut String, code: &str, message: &str) {
    json.push_str("{\"code\":");
    string(json, code);
    json.push_str(",\"message\":");
    string(json, message);
    json.push('}');
}

/// The code of a refusal in this protocol.
pub(crate) fn code(why: &Refusal) -> &'static str {
    match why.code {
        RefusalCode::RateLimited if why.message.starts_with(TOO_MANY_PENDING) => "too_many_pending",
        // What was lost comes back by a `SYNC_REQUEST`.
        RefusalCode::Lost | RefusalCode::Closing => RefusalCode::Unavailable.name(),
        code => code.name(),
    }
}

/// A refusal for having too much under way.
pub(crate) fn too_many_pending(what: &str) -> Refusal {
    Refusal::new(RefusalCode::RateLimited, format!("{TOO_MANY_PENDING}{what}"))
}
