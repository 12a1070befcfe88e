//! What happens to a channel, and the batch it is handled in. Mirrors `event` of the WIT package.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::protocol::frame::Payload;
use crate::protocol::identity::Identity;

/// Names a member: one connection joined to a channel. Unique while the broker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MemberId(pub u64);

/// Names a request whose sender waits for an answer: an HTTP request, or a publish over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RequestId(pub u64);

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A connection joined.
    Join {
        /// The new member.
        member: MemberId,
        /// Whose connection it is.
        identity: Identity,
        /// The frame that asked for it, if one did.
        frame: Option<Payload>,
    },
    /// A member left.
    Leave {
        /// Who.
        member: MemberId,
        /// Whose connection it was.
        identity: Identity,
        /// Why.
        why: LeaveReason,
        /// The frame that asked for it, if one did.
        frame: Option<Payload>,
    },
    /// A member sent a message.
    Message {
        /// Who.
        member: MemberId,
        /// Whose connection it is.
        identity: Identity,
        /// What.
        payload: Payload,
    },
    /// A timer is due.
    Timer {
        /// The plugin's name for it.
        name: String,
        /// Whether it also stands in the store.
        durable: bool,
    },
    /// A server published.
    Publish {
        /// Who.
        source: Source,
        /// What.
        payload: Payload,
        /// Who waits for the outcome, if anybody.
        request: Option<RequestId>,
        /// A retry with the same key gets the first answer; the answer is kept with the batch's writes.
        idempotency_key: Option<Box<str>>,
        /// Publishes from channel to channel before this one.
        hops: u8,
    },
    /// An HTTP request.
    Request {
        /// Names it in the answer.
        request: RequestId,
        /// The request.
        http: Box<HttpRequest>,
    },
}

impl Event {
    /// Bytes the event counts against mailbox and batch: its payload, and a little for the rest.
    pub fn bytes(&self) -> usize {
        const ENVELOPE: usize = 64;
        ENVELOPE
            + match self {
                Self::Join { frame, .. } | Self::Leave { frame, .. } => frame.as_ref().map_or(0, Payload::len),
                Self::Message { payload, .. } | Self::Publish { payload, .. } => payload.len(),
                Self::Timer { name, .. } => name.len(),
                Self::Request { http, .. } => {
                    let pairs = http.query.iter().chain(&http.headers).map(|(name, value)| name.len() + value.len());
                    http.body.len() + http.path.len() + pairs.sum::<usize>()
                }
            }
    }

    /// The member the event came from, if it came from one.
    pub fn member(&self) -> Option<MemberId> {
        match self {
            Self::Join { member, .. } | Self::Leave { member, .. } | Self::Message { member, .. } => Some(*member),
            Self::Timer { .. } | Self::Publish { .. } | Self::Request { .. } => None,
        }
    }

    /// Who waits for an answer to the event, if anybody.
    pub fn request(&self) -> Option<RequestId> {
        match self {
            Self::Publish { request, .. } => *request,
            Self::Request { request, .. } => Some(*request),
            Self::Join { .. } | Self::Leave { .. } | Self::Message { .. } | Self::Timer { .. } => None,
        }
    }
}

/// Why a member left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeaveReason {
    /// Its frame asked for it; the connection goes on.
    Asked,
    /// The connection closed or broke.
    Disconnected,
    /// The plugin, the host or an operator closed it.
    Closed,
}

/// Where a publication comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The HTTP publish API; the name of the API key.
    Api(Arc<str>),
    /// Another channel of the tenant; its name.
    Channel(Arc<str>),
}

/// An HTTP request for a plugin.
#[derive(Debug, Clone)]
pub struct HttpRequest {
    /// Upper case.
    pub method: String,
    /// Below the mount's path; begins with `/`.
    pub path: String,
    /// Decoded, in order, without the token.
    pub query: Vec<(String, String)>,
    /// Those the mount lets through, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: bytes::Bytes,
    /// Absent where the mount asks for no token.
    pub identity: Option<Identity>,
}

/// An answer to an HTTP request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpResponse {
    /// 200 to 599.
    pub status: u16,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: bytes::Bytes,
}

/// The events a channel handles in one call into its plugin.
#[derive(Debug)]
pub struct Batch {
    /// Milliseconds since the Unix epoch; never less than in the batch before.
    pub now_ms: u64,
    /// Fresh for each batch.
    pub seed: u64,
    /// In the order of arrival; at least one.
    pub events: Vec<Event>,
}
