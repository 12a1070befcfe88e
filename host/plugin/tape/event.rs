//! Events as tapes have them: what a plugin is told of them, and nothing else.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::plugin::account::cause;
use crate::plugin::content::{Content, Known};
use crate::plugin::tape::redaction::Redaction;
use crate::protocol::event::{Event, HttpRequest, LeaveReason, MemberId, RequestId, Source};
use crate::protocol::frame::Payload;
use crate::protocol::identity::Identity;

/// An event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
#[expect(missing_docs, reason = "they are those of `Event`")]
pub enum Happened {
    Join {
        member: MemberId,
        identity: Known,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        frame: Option<Content>,
    },
    Leave {
        member: MemberId,
        user: String,
        why: LeaveReason,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        frame: Option<Content>,
    },
    Message {
        member: MemberId,
        user: String,
        payload: Content,
    },
    Timer {
        name: String,
        durable: bool,
    },
    Publish {
        source: Source,
        payload: Content,
        /// Names it where an effect answers it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        request: Option<RequestId>,
    },
    Request {
        request: RequestId,
        method: String,
        path: String,
        query: Vec<(String, String)>,
        headers: Vec<(String, String)>,
        body: Content,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        identity: Option<Known>,
    },
}

impl From<&Event> for Happened {
    fn from(event: &Event) -> Self {
        let content = |payload: &Payload| Content::from(payload.clone());
        match event {
            Event::Join { member, identity, frame } => {
                Self::Join { member: *member, identity: Known(identity.clone()), frame: frame.as_ref().map(content) }
            }
            Event::Leave { member, identity, why, frame } => Self::Leave {
                member: *member,
                user: identity.user().to_owned(),
                why: *why,
                frame: frame.as_ref().map(content),
            },
            Event::Message { member, identity, payload } => {
                Self::Message { member: *member, user: identity.user().to_owned(), payload: content(payload) }
            }
            Event::Timer { name, durable } => Self::Timer { name: name.clone(), durable: *durable },
            Event::Publish { source, payload, request, .. } => {
                Self::Publish { source: source.clone(), payload: content(payload), request: *request }
            }
            Event::Request { request, http } => Self::Request {
                request: *request,
                method: http.method.clone(),
                path: http.path.clone(),
                query: http.query.clone(),
                headers: http.headers.clone(),
                body: Content::Binary(http.body.clone()),
                identity: http.identity.clone().map(Known),
            },
        }
    }
}

impl Happened {
    /// The event, in a channel of this tenant. `None` if its bytes were left out, which no recorder does.
    pub fn event(self, tenant: &str) -> Option<Event> {
        // Of who sent a message or left, plugins are told the user.
        let identity = |user: &str| Identity::new(tenant, user, "", "{}", None);
        Some(match self {
            Self::Join { member, identity: Known(identity), frame } => {
                let frame = match frame {
                    Some(frame) => Some(payload(frame)?),
                    None => None,
                };
                Event::Join { member, identity, frame }
            }
            Self::Leave { member, user, why, frame } => {
                let frame = match frame {
                    Some(frame) => Some(payload(frame)?),
                    None => None,
                };
                Event::Leave { member, identity: identity(&user), why, frame }
            }
            Self::Message { member, user, payload: content } => {
                Event::Message { member, identity: identity(&user), payload: payload(content)? }
            }
            Self::Timer { name, durable } => Event::Timer { name, durable },
            Self::Publish { source, payload: content, request } => {
                Event::Publish { source, payload: payload(content)?, request, idempotency_key: None, hops: 0 }
            }
            Self::Request { request, method, path, query, headers, body, identity } => Event::Request {
                request,
                http: Box::new(HttpRequest {
                    method,
                    path,
                    query,
                    headers,
                    body: body.bytes()?.clone(),
                    identity: identity.map(|Known(identity)| identity),
                }),
            },
        })
    }

    /// Takes out what the tape must not know.
    pub(super) fn redact(&mut self, redaction: &Redaction) {
        match self {
            Self::Join { identity, frame, .. } => {
                redaction.known(identity);
                if let Some(frame) = frame {
                    redaction.content(frame);
                }
            }
            Self::Leave { frame: Some(frame), .. } => redaction.content(frame),
            Self::Message { payload, .. } | Self::Publish { payload, .. } => redaction.content(payload),
            Self::Leave { frame: None, .. } | Self::Timer { .. } => {}
            Self::Request { query, headers, body, identity, .. } => {
                redaction.pairs("query", query);
                redaction.pairs("headers", headers);
                redaction.content(body);
                if let Some(identity) = identity {
                    redaction.known(identity);
                }
            }
        }
    }
}

/// For people: what it was, and the beginning of what it carries.
impl fmt::Display for Happened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The tenant is not shown.
        if let Some(event) = self.clone().event("") {
            f.write_str(&cause(&event))?;
        }
        let carries = match self {
            Self::Join { frame, .. } | Self::Leave { frame, .. } => frame.as_ref(),
            Self::Message { payload: content, .. }
            | Self::Publish { payload: content, .. }
            | Self::Request { body: content, .. } => Some(content),
            Self::Timer { .. } => None,
        };
        carries.map_or(Ok(()), |content| write!(f, ": {content}"))
    }
}

fn payload(content: Content) -> Option<Payload> {
    match content {
        Content::Text(bytes) => Some(Payload::Text(bytes)),
        Content::Binary(bytes) => Some(Payload::Binary(bytes)),
        Content::Digest { .. } => None,
    }
}
