//! Why a request has no identity. The messages are shown to clients: they name cause and remedy, never the token.

use crate::limits::TOKEN_BYTES_MAX;

/// Why a request has no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No source of the mount has a token.
    #[error("no token: send one as {sources}")]
    Missing {
        /// Where the mount looks, in words.
        sources: String,
    },
    /// Not three parts of base64url with JSON inside, or two tokens where one belongs.
    #[error("the token is not a signed JWT")]
    Malformed,
    /// Longer than a token may be.
    #[error("the token is longer than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    /// A JWE, as NextAuth makes by default.
    #[error(
        "encrypted session tokens (JWE) are not supported: issue signed tokens (JWS), for NextAuth with its own jwt.encode"
    )]
    Encrypted,
    /// The header names an algorithm that none of the mount's keys has, such as `none`.
    #[error("the token is not signed with the algorithm this endpoint expects")]
    WrongAlgorithm,
    /// The header has critical extensions, which the broker does not know (RFC 7515 §4.1.11).
    #[error("the token has critical header extensions, which are not supported")]
    CriticalHeader,
    /// The header names a key that the mount does not have.
    #[error("the token is signed with a key this endpoint does not know")]
    UnknownKey,
    /// None of the keys made this signature.
    #[error("the token's signature is not valid")]
    BadSignature,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` has not come yet.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// A claim is missing or is not what it must be.
    #[error("the token's claim {name:?} {problem}")]
    Claim {
        /// The claim, or several as `a or b`.
        name: String,
        /// What is wrong with it, in words that follow the name.
        problem: &'static str,
    },
    /// The request does not say what it must.
    #[error("{places} is missing")]
    NotStated {
        /// Where it may say it, in words.
        places: String,
    },
    /// The request says it comes from somebody else than its token.
    #[error("{place} and the token do not name the same")]
    Mismatch {
        /// Where it says so.
        place: String,
    },
    /// What the request says cannot be a name.
    #[error("{place} is not a valid name")]
    NoName {
        /// Where it says so.
        place: String,
    },
    /// A page of another origin, or a cookie without the page's origin.
    #[error("requests from this origin are not allowed")]
    Origin,
}

impl AuthError {
    /// The HTTP status of the refusal: 401 for what a better token would solve.
    pub fn http_status(&self) -> u16 {
        match self {
            Self::Origin | Self::Mismatch { .. } => 403,
            Self::NotStated { .. } | Self::NoName { .. } => 400,
            _ => 401,
        }
    }

    /// A short word for metrics and logs.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "missing",
            Self::Malformed => "malformed",
            Self::TooLong => "too_long",
            Self::Encrypted => "encrypted",
            Self::WrongAlgorithm => "wrong_algorithm",
            Self::CriticalHeader => "critical_header",
            Self::UnknownKey => "unknown_key",
            Self::BadSignature => "bad_signature",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Claim { .. } => "claim",
            Self::NotStated { .. } => "not_stated",
            Self::Mismatch { .. } => "mismatch",
            Self::NoName { .. } => "no_name",
            Self::Origin => "origin",
        }
    }
}
