//! What can be measured, and which protocols are known.

use std::fmt;
use std::str::FromStr;

use super::BenchError;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// A room with many members, some of whom publish.
    FanOut,
    /// Each connection sends a request and waits for its reply.
    Echo,
    /// Many rooms of a few members.
    Rooms,
    /// Members who only sit there.
    Idle,
    /// Handshakes.
    Connect,
    /// Messages to many rooms, each acknowledged when it is stored.
    Durable,
}

/// How the server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// `?room=NAME` joins, and each message goes to all members as it is; `/echo` sends it back.
    Raw,
    /// The community chat.
    Chat,
    /// Whatever the templates say.
    Custom,
}

/// The numbers of a scenario that are not asked for.
pub(super) struct Defaults {
    pub(super) rooms: u32,
    pub(super) members: u32,
    pub(super) publishers: u32,
    pub(super) window: u32,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::FanOut, Self::Echo, Self::Rooms, Self::Idle, Self::Connect, Self::Durable];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FanOut => "fan-out",
            Self::Echo => "echo",
            Self::Rooms => "rooms",
            Self::Idle => "idle",
            Self::Connect => "connect",
            Self::Durable => "durable",
        }
    }

    /// Whether messages are published, not only connections made.
    pub fn publishes(self) -> bool {
        !matches!(self, Self::Idle | Self::Connect)
    }

    pub(super) fn defaults(self) -> Defaults {
        let (rooms, members, publishers, window) = match self {
            Self::FanOut => (1, 1_000, 8, 32),
            Self::Rooms => (1_000, 10, 1, 1),
            Self::Idle => (100, 100, 1, 1),
            Self::Connect => (100, 50, 1, 1),
            Self::Echo | Self::Durable => (100, 1, 1, 1),
        };
        Defaults { rooms, members, publishers, window }
    }
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Raw, Self::Chat, Self::Custom];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Chat => "chat",
            Self::Custom => "custom",
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scenario {
    type Err = BenchError;

    fn from_str(name: &str) -> Result<Self, BenchError> {
        let known = || Self::ALL.map(Self::as_str).join(", ");
        let found = Self::ALL.into_iter().find(|scenario| scenario.as_str() == name);
        found.ok_or_else(|| BenchError::Scenario { name: name.to_owned(), known: known() })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Protocol {
    type Err = BenchError;

    fn from_str(name: &str) -> Result<Self, BenchError> {
        let known = || Self::ALL.map(Self::as_str).join(", ");
        let found = Self::ALL.into_iter().find(|protocol| protocol.as_str() == name);
        found.ok_or_else(|| BenchError::Protocol { name: name.to_owned(), known: known() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_unknown_ones_answered_with_those_there_are() {
        for scenario in Scenario::ALL {
            assert_eq!(scenario.as_str().parse::<Scenario>().unwrap(), scenario);
        }
        for protocol in Protocol::ALL {
            assert_eq!(protocol.as_str().parse::<Protocol>().unwrap(), protocol);
        }
        let error = "fanout".parse::<Scenario>().unwrap_err().to_string();
        assert!(error.contains("fanout") && error.contains("fan-out") && error.contains("durable"), "{error}");
        assert!("http".parse::<Protocol>().is_err());
    }
}
