//! Close codes of the host. 4000–4499 ask the client to reconnect, 4500–4999 not to; the standard codes of RFC 6455
//! §7.4.1 are used where one exists.

/// A close code and its reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Close {
    /// RFC 6455 §7.4, or one of the host's own.
    pub code: u16,
    /// At most 123 bytes of UTF-8.
    pub reason: &'static str,
}

macro_rules! closes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $reason:literal;)*) => {
        impl Close {
            $($(#[$doc])* pub const $name: Self = Self { code: $code, reason: $reason };)*
        }
    };
}

closes! {
    /// The peer closed, or there is nothing left to do.
    NORMAL = 1000, "";
    /// Missing pongs.
    HEARTBEAT = 1001, "no pong";
    /// Far over the rate limit.
    RATE = 1008, "Rate limit exceeded";
    /// Too much that is no message of the protocol.
    BAD_MESSAGES = 1008, "too many bad messages";
    /// A message took too long to arrive.
    MESSAGE_DEADLINE = 1008, "message too slow";
    /// Over the message or frame size.
    TOO_BIG = 1009, "message too big";
    /// Too many fragments.
    FRAGMENTS = 1009, "too many fragments";
    /// The plugin failed, three times in a row on this member's messages.
    FAULT = 1011, "plugin failed";
    /// The broker cannot serve the connection.
    INTERNAL = 1011, "internal error";
    /// The broker is shutting down.
    RESTART = 1012, "shutting down, reconnect";
    /// The tenant is at a limit of its own.
    QUOTA = 1013, "the tenant has as much as it may, try again later";
    /// The plugin was withdrawn, and no other one may speak.
    WITHDRAWN = 1013, "the plugin was withdrawn, try again later";
    /// The token expired.
    EXPIRED = 4401, "token expired";
    /// The reader is too slow.
    SLOW = 4408, "slow reader";
    /// A newer connection took its place.
    REPLACED = 4501, "replaced by a newer connection";
    /// Closed by an operator.
    REMOVED = 4502, "removed by an operator";
}
