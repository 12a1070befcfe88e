//! The HTTP interface, below the mount's HTTP path. Every request needs a token, `X-Tenant-ID`, and `X-User-ID` where it stands below in
//! the table; the host checks them, and so does this, in case a mount does not.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /` | where to connect, figures, event channels, event types and sources: `status.rs` |
//! | `POST /` (`X-User-ID`) `{channel?, event, payload, source?, priority?}` | `{success, message_id, timestamp}`; sends an event, default source `api` |
//! | `PUT /` (admin) `{user_id, filters}` | `{success, user_id, connections}`; replaces the filter of the user's connections |
//! | `DELETE /?user_id=` (admin) | `{success, user_id, closed}`; closes the user's connections with 4502 |
//! | `DELETE /?channel=` (admin) | `{success, channel, deleted}`; forgets the history of an event channel |
//! | `GET /status[?detailed=true]` | `status.rs` |
//! | `GET /history?channel=&limit=&before=` | `{success, channel, events, hasMore}`, newest last |
//!
//! `channel` is `tenant:{tenant}` if absent, `limit` 1 to 1,000, else 100. `before` is the id of an event of that channel, or a time (RFC 3339,
//! UTC): only older events come. Go on with the id of the first event. A page has at most 1 MiB, unless its one event has more, so it
//! may have fewer events than `limit` although `hasMore` is true. Of an event that is no longer kept nothing is older.
//!
//! What is refused is answered `{"success":false,"error":{"code","message"}}`.

use std::time::UNIX_EPOCH;

use hotbay_sdk::{Channel, HttpRequest, HttpResponse, Identity, Refusal, RefusalCode};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::budget::{self, FRAME_BYTES};
use crate::event::Trouble;
use crate::frame::{Change, Posting};
use crate::names::{self, DEFAULT_CHANNEL};
use crate::pages::{self, Bounds, PAGE_EVENTS_MAX};
use crate::{Sent, TenantEvents};

/// Events of a page of history if nothing else is asked for.
const PAGE_EVENTS: usize = 100;
/// Bytes of a page of history, unless its one event has more.
const PAGE_BYTES_MAX: usize = 1 << 20;
/// Longest user id in a request, in bytes.
const USER_BYTES_MAX: usize = 512;
/// How a removed connection is closed.
const REMOVED: (u16, &str) = (4502, "removed by an operator");
/// What an answer has beside its body, in bytes.
const ANSWER_BYTES: usize = 256;
/// An answer that always fits, in bytes: those of requests that change something are smaller.
const SMALL_BYTES: usize = 4 << 10;

/// Why there is no answer.
pub(crate) struct Failure {
    status: u16,
    code: &'static str,
    message: String,
    /// The methods there are, if this is not one of them.
    allow: Option<&'static str>,
}

impl Failure {
    fn new(status: u16, code: &'static str, message: &str) -> Self {
        Self { status, code, message: message.to_owned(), allow: None }
    }

    fn method(allow: &'static str) -> Self {
        let message = format!("use {allow}");
        Self { allow: Some(allow), ..Self::new(405, "method_not_allowed", &message) }
    }

    fn response(&self) -> HttpResponse {
        #[derive(Serialize)]
        struct Body<'a> {
            success: bool,
            error: Trouble<'a>,
        }
        let answer =
            json(self.status, &Body { success: false, error: Trouble { code: self.code, message: &self.message } });
        match self.allow {
            Some(allow) => answer.with_header("allow", allow),
            None => answer,
        }
    }
}

impl From<Refusal> for Failure {
    fn from(why: Refusal) -> Self {
        let status = match why.code {
            RefusalCode::Forbidden => 403,
            RefusalCode::NotFound => 404,
            RefusalCode::TooLarge => 413,
            RefusalCode::Unavailable => 503,
            _ => 400,
        };
        Self::new(status, why.code.name(), &why.message)
    }
}

#[derive(Serialize)]
struct Posted<'a> {
    success: bool,
    message_id: &'a str,
    timestamp: &'a str,
}

#[derive(Serialize)]
struct Put<'a> {
    success: bool,
    user_id: &'a str,
    connections: usize,
}

#[derive(Serialize)]
struct Removed<'a> {
    success: bool,
    user_id: &'a str,
    closed: usize,
}

#[derive(Serialize)]
struct Forgotten {
    success: bool,
    channel: String,
    deleted: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct History {
    success: bool,
    channel: String,
    events: Vec<Box<RawValue>>,
    has_more: bool,
}

/// An answer with this body.
pub(crate) fn json(status: u16, body: &impl Serialize) -> HttpResponse {
    // Texts, numbers and lists always serialise.
    let body = serde_json::to_vec(body).unwrap_or_default();
    HttpResponse::json(status, body).with_header("cache-control", "no-store")
}

impl TenantEvents {
    /// Answers a request.
    pub(crate) fn answer(&mut self, channel: &mut Channel, request: &HttpRequest) -> HttpResponse {
        let answer = self.respond(channel, request).unwrap_or_else(|failure| failure.response());
        let bytes = ANSWER_BYTES + answer.body.len();
        // Only what changed nothing has a large answer.
        if answer.body.len() <= SMALL_BYTES || self.budget.fits(1, bytes) {
            self.budget.spend(1, bytes);
            return answer;
        }
        Failure::from(budget::busy()).response()
    }

    fn respond(&mut self, channel: &mut Channel, request: &HttpRequest) -> Result<HttpResponse, Failure> {
        let path = request.path.trim_end_matches('/');
        let allow = match path {
            "" => "GET, POST, PUT, DELETE",
            "/status" | "/history" => "GET",
            _ => return Err(Failure::new(404, "not_found", "there are only /, /status and /history")),
        };
        let method = if request.method == "HEAD" { "GET" } else { &*request.method };
        if !allow.split(", ").any(|allowed| allowed == method) {
            return Err(Failure::method(allow));
        }
        let identity = self.check_identity(request, method == "POST")?;
        match (path, method) {
            ("", "POST") => self.post(channel, request, identity),
            ("", "PUT") => self.put(channel, request, identity),
            ("", "DELETE") => self.delete(channel, request, identity),
            ("/history", _) => self.history(channel, request),
            ("/status", _) => Ok(self.status(channel, request)),
            _ => Ok(self.overview(request, identity)),
        }
    }

    /// Whose request it is, if it says so itself.
    fn check_identity<'r>(&self, request: &'r HttpRequest, needs_user: bool) -> Result<&'r Identity, Failure> {
        let header = |name| request.header(name).filter(|value| !value.is_empty());
        let Some(identity) = &request.identity else {
            return Err(Failure::new(401, "unauthorized", "a token is needed"));
        };
        let Some(tenant) = header("x-tenant-id") else {
            return Err(Failure::new(400, "bad_request", "the header X-Tenant-ID is missing"));
        };
        if tenant != self.tenant {
            return Err(Failure::new(403, "forbidden", "X-Tenant-ID is not the token's tenant"));
        }
        match header("x-user-id") {
            None if needs_user => Err(Failure::new(400, "bad_request", "the header X-User-ID is missing")),
            Some(user) if user != identity.user => {
                Err(Failure::new(403, "forbidden", "X-User-ID is not the token's user"))
            }
            _ => Ok(identity),
        }
    }

    fn post(&mut self, channel: &mut Channel, request: &HttpRequest, by: &Identity) -> Result<HttpResponse, Failure> {
        let event = Posting::parse(text(request)?)?.event(&self.tenant)?;
        let Sent { id, timestamp } = self.publish(channel, &event, Some(&by.user))?;
        Ok(json(200, &Posted { success: true, message_id: &id, timestamp: &timestamp }))
    }

    fn put(&mut self, channel: &mut Channel, request: &HttpRequest, by: &Identity) -> Result<HttpResponse, Failure> {
        check_admin(by)?;
        let (user, filter) = Change::parse(text(request)?)?;
        check_user(&user.0)?;
        let members = self.interests.of_user(&user.0);
        if !members.is_empty() {
            self.settle(channel, |waiting| members.contains(&waiting.member))?;
            self.set_filter(channel, &members, &filter)?;
        }
        Ok(json(200, &Put { success: true, user_id: &user.0, connections: members.len() }))
    }

    fn delete(&mut self, channel: &mut Channel, request: &HttpRequest, by: &Identity) -> Result<HttpResponse, Failure> {
        check_admin(by)?;
        let parameter = |name| request.query(name).filter(|value| !value.is_empty());
        match (parameter("user_id"), parameter("channel")) {
            (Some(user), None) => {
                check_user(user)?;
                let members = self.interests.of_user(user);
                let (effects, bytes) = (members.len(), members.len() * FRAME_BYTES);
                self.budget.check(effects, bytes)?;
                self.budget.spend(effects, bytes);
                for member in &members {
                    channel.close(*member, REMOVED.0, REMOVED.1);
                }
                Ok(json(200, &Removed { success: true, user_id: user, closed: members.len() }))
            }
            (None, Some(name)) => {
                let name = names::resolve(name, &self.tenant)?;
                self.settle(channel, |waiting| waiting.channel == name)?;
                let (effects, bytes) = self.histories.forget_cost(name);
                self.budget.check(effects, bytes)?;
                let deleted = self.histories.forget(channel, &mut self.budget, name);
                Ok(json(200, &Forgotten { success: true, channel: names::full(name, &self.tenant), deleted }))
            }
            _ => Err(Failure::new(400, "bad_request", "give either `user_id` or `channel`")),
        }
    }

    fn history(&mut self, channel: &Channel, request: &HttpRequest) -> Result<HttpResponse, Failure> {
        let parameter = |name| request.query(name).filter(|value| !value.is_empty());
        let name = names::resolve(parameter("channel").unwrap_or(DEFAULT_CHANNEL), &self.tenant)?;
        let limit = match parameter("limit") {
            None => PAGE_EVENTS,
            Some(limit) => limit
                .parse()
                .ok()
                .filter(|limit| (1..=PAGE_EVENTS_MAX).contains(limit))
                .ok_or_else(|| Refusal::bad_request("`limit` is a whole number from 1 to 1000"))?,
        };
        if !self.budget.may_read() {
            return Err(budget::busy().into());
        }
        let extent = self.histories.extent(name);
        let budget = &mut self.budget;
        let position = match parameter("before").map(Before::parse).transpose()? {
            None => extent.next,
            Some(Before::Event(id)) => pages::find(channel, budget, name, &extent, &id)
                .ok_or_else(|| Refusal::not_found("`before` is no event of this channel"))?,
            Some(Before::Time(time_ms)) => pages::older_than(channel, budget, name, &extent, time_ms),
        };
        let bounds = Bounds { events: limit, bytes: PAGE_BYTES_MAX, all_from: u64::MAX };
        let page = pages::before(channel, budget, name, &extent, position, bounds);
        let events = page.events.into_iter().filter_map(|event| RawValue::from_string(event).ok());
        let channel = names::full(name, &self.tenant);
        Ok(json(200, &History { success: true, channel, events: events.collect(), has_more: page.more }))
    }
}

/// Where a page of history ends.
enum Before {
    Event(String),
    Time(u64),
}

impl Before {
    fn parse(text: &str) -> Result<Self, Refusal> {
        let expected = "`before` is the id of an event, or a time such as 2024-01-31T12:00:00.000Z";
        if text.len() == 36 && text.as_bytes()[8] == b'-' {
            return Ok(Self::Event(text.to_ascii_lowercase()));
        }
        // Python writes UTC as an offset, and an unescaped `+` in a query is a space.
        let utc = text.strip_suffix("+00:00").or_else(|| text.strip_suffix(" 00:00"));
        let utc = utc.map_or_else(|| text.to_owned(), |text| format!("{text}Z"));
        let time = humantime::parse_rfc3339(&utc).ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let time = time.ok_or_else(|| Refusal::bad_request(expected))?;
        Ok(Self::Time(time.as_nanos().div_ceil(1_000_000) as u64))
    }
}

fn check_admin(by: &Identity) -> Result<(), Failure> {
    if by.role == "admin" {
        return Ok(());
    }
    Err(Failure::new(403, "forbidden", "only an admin may do this"))
}

fn check_user(user: &str) -> Result<(), Refusal> {
    if (1..=USER_BYTES_MAX).contains(&user.len()) {
        return Ok(());
    }
    Err(Refusal::bad_request("`user_id` has 1 to 512 bytes"))
}

fn text(request: &HttpRequest) -> Result<&str, Refusal> {
    std::str::from_utf8(&request.body).map_err(|_| Refusal::bad_request("the body is not UTF-8"))
}
