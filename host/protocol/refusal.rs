//! Why something was refused: the words that plugins, host and HTTP share.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// The kinds of refusal; `refusal-code` of the WIT package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// The message is not what the protocol allows.
    BadRequest,
    /// The sender may not do this.
    Forbidden,
    /// What the message names does not exist.
    NotFound,
    /// The sender is not a member of the channel it wrote to.
    NotJoined,
    /// Over a size limit.
    TooLarge,
    /// Too many messages in too short a time.
    RateLimited,
    /// Contradicts a newer state.
    Conflict,
    /// Cannot be stored or served now; nothing was changed.
    Unavailable,
    /// The plugin failed; nothing was changed.
    Fault,
    /// Frames for this client were dropped, because it read too slowly.
    Lost,
    /// The broker closes the connection; the message is the reason.
    Closing,
}

impl RefusalCode {
    /// The code as it stands in JSON answers and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::NotJoined => "not_joined",
            Self::TooLarge => "too_large",
            Self::RateLimited => "rate_limited",
            Self::Conflict => "conflict",
            Self::Unavailable => "unavailable",
            Self::Fault => "fault",
            Self::Lost => "lost",
            Self::Closing => "closing",
        }
    }

    /// The HTTP status that says the same.
    pub fn http_status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Forbidden => 403,
            Self::NotFound | Self::NotJoined => 404,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::RateLimited => 429,
            Self::Fault => 500,
            Self::Unavailable | Self::Lost | Self::Closing => 503,
        }
    }
}

/// A refusal and a sentence for a developer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its kind.
    pub code: RefusalCode,
    /// What was wrong and, where there is one, the remedy. Shown to clients: no internals.
    pub message: Cow<'static, str>,
}

impl Refusal {
    /// A refusal with a sentence.
    pub fn new(code: RefusalCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into() }
    }
}
