//! Names of tenants and channels. A name is ASCII from a short list of characters, so that nothing can look like
//! another name, leave its folder in a URL, or carry a separator into a place where it means something.

use std::fmt;
use std::sync::Arc;

use crate::limits::{CHANNEL_NAME_BYTES_MAX, NAME_PART_BYTES_MAX};

/// A channel: its tenant and its name within the tenant, for example `default` and `room:42`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelName {
    tenant: Arc<str>,
    name: Arc<str>,
}

impl ChannelName {
    /// # Errors
    /// If either is not a valid name; see [`NameError`].
    pub fn new(tenant: &str, name: &str) -> Result<Self, NameError> {
        check_part("tenant", tenant)?;
        if name.len() > CHANNEL_NAME_BYTES_MAX {
            return Err(NameError::TooLong { what: "channel", bytes_max: CHANNEL_NAME_BYTES_MAX });
        }
        for part in name.split(':') {
            check_part("channel", part)?;
        }
        Ok(Self { tenant: tenant.into(), name: name.into() })
    }

    /// The tenant that owns the channel.
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// The name within the tenant.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.name)
    }
}

impl fmt::Debug for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a name is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A part between two `:` (or the whole tenant name) is empty, `.` or `..`.
    #[error("the {what} name has an empty part, or one that is only dots")]
    EmptyPart {
        /// `tenant` or `channel`.
        what: &'static str,
    },
    /// A character outside `A-Z a-z 0-9 . _ @ | + ~ -` (and `:` between the parts of a channel name).
    #[error(
        "the {what} name has the character {found:?}; allowed are A-Z a-z 0-9 . _ @ | + ~ - and, in channels, ':' between parts"
    )]
    Character {
        /// `tenant` or `channel`.
        what: &'static str,
        /// The first character that is not allowed.
        found: char,
    },
    /// Longer than allowed.
    #[error("the {what} name is longer than {bytes_max} bytes")]
    TooLong {
        /// `tenant` or `channel`.
        what: &'static str,
        /// The bound.
        bytes_max: usize,
    },
}

/// Checks one part of a name: a tenant, what stands between two `:` of a channel name, or a value that a claim,
/// a query key or a path segment puts into a channel template. It cannot contain the separator.
///
/// # Errors
/// See [`NameError`].
pub fn check_part(what: &'static str, part: &str) -> Result<(), NameError> {
    if part.len() > NAME_PART_BYTES_MAX {
        return Err(NameError::TooLong { what, bytes_max: NAME_PART_BYTES_MAX });
    }
    if part.bytes().all(|byte| byte == b'.') {
        return Err(NameError::EmptyPart { what });
    }
    let allowed = |c: &char| c.is_ascii_alphanumeric() || "._@|+~-".contains(*c);
    match part.chars().find(|c| !allowed(c)) {
        Some(found) => Err(NameError::Character { what, found }),
        None => Ok(()),
    }
}

/// A set of channel names: an exact name, or one whose last part is `*`, which stands for one or more parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelPattern {
    prefix: Box<str>,
    open: bool,
}

impl ChannelPattern {
    /// # Errors
    /// If the text is neither a channel name nor one with `*` as its last part.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text == "*" {
            return Ok(Self { prefix: "".into(), open: true });
        }
        let (prefix, open) = match text.strip_suffix(":*") {
            Some(prefix) => (prefix, true),
            None => (text, false),
        };
        ChannelName::new("pattern", prefix)?;
        Ok(Self { prefix: if open { &text[..=prefix.len()] } else { text }.into(), open })
    }

    /// Whether the name of a channel is in the set.
    pub fn matches(&self, name: &str) -> bool {
        if self.open {
            name.len() > self.prefix.len() && name.starts_with(&*self.prefix)
        } else {
            name == &*self.prefix
        }
    }
}

impl fmt::Display for ChannelPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.prefix)?;
        if self.open { f.write_str("*") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_mean_two_things_are_refused() {
        for bad in [
            "", ":", "room:", ":x", "room::x", "..", "room:..", "a/b", "../x", "a b", "a\0", "a\n", "rооm", "room:*",
            "a%2fb", "{x}",
        ] {
            assert!(ChannelName::new("default", bad).is_err(), "{bad:?}");
        }
        for bad in ["", ".", "a:b", "a/b"] {
            assert!(ChannelName::new(bad, "room").is_err(), "{bad:?}");
        }
        assert!(ChannelName::new("default", &"x".repeat(129)).is_err());
        for good in ["room:42", "dm:a@b.c:auth0|7", "group:x", "a"] {
            assert_eq!(ChannelName::new("default", good).map(|n| n.name().to_owned()), Ok(good.to_owned()));
        }
    }

    #[test]
    fn a_pattern_matches_whole_parts() {
        let rooms = ChannelPattern::parse("room:*").unwrap_or_else(|e| panic!("{e}"));
        assert!(rooms.matches("room:42") && rooms.matches("room:a:b"));
        assert!(!rooms.matches("room:") && !rooms.matches("rooms:1") && !rooms.matches("room"));
        assert!(ChannelPattern::parse("ro*m").is_err());
        for text in ["*", "room:*", "room:42", "a:b:*"] {
            assert_eq!(ChannelPattern::parse(text).map(|pattern| pattern.to_string()), Ok(text.to_owned()));
        }
    }
}
