//! What members want to see: filters, and the event types of a subscription. Owns their bounds and how they match; knows no
//! members.

use serde::{Deserialize, Serialize};

use crate::names;

/// Most values of one dimension.
const VALUES_MAX: usize = 64;
/// What a value costs in memory beside its text: its place in the list and the allocator's header.
const VALUE_BYTES: usize = 32;
/// Up to this many values are compared one by one: lengths differ, so most comparisons are free.
const FEW: usize = 8;

/// How much an event matters, and what becomes of it when its receiver is slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Priority {
    Low,
    Normal,
    High,
    Critical,
}

impl Priority {
    const ALL: [Self; 4] = [Self::Low, Self::Normal, Self::High, Self::Critical];

    /// The priority of this name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name {
            "low" => Some(Self::Low),
            "normal" => Some(Self::Normal),
            "high" => Some(Self::High),
            "critical" => Some(Self::Critical),
            _ => None,
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of names; empty stands for all names. Absent and `null` are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Option<Vec<String>>")]
pub(crate) struct Names(Box<[Box<str>]>);

impl Names {
    /// Whether the set lets this name through.
    pub(crate) fn allow(&self, name: &str) -> bool {
        match self.0.len() {
            0 => true,
            1..=FEW => self.0.iter().any(|value| **value == *name),
            _ => self.0.binary_search_by(|value| (**value).cmp(name)).is_ok(),
        }
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// About what it costs in memory, in bytes.
    pub(crate) fn weight(&self) -> usize {
        self.0.iter().map(|value| value.len() + VALUE_BYTES).sum()
    }
}

impl TryFrom<Option<Vec<String>>> for Names {
    type Error = &'static str;

    fn try_from(values: Option<Vec<String>>) -> Result<Self, Self::Error> {
        let mut values = values.unwrap_or_default();
        if values.len() > VALUES_MAX {
            return Err("more than 64 values");
        }
        if !values.iter().all(|value| names::is_name(value)) {
            return Err("a value is empty, longer than 128 bytes, or has control characters");
        }
        values.sort_unstable();
        values.dedup();
        Ok(Self(values.into_iter().map(String::into_boxed_str).collect()))
    }
}

/// A set of priorities; empty stands for all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Option<Vec<Priority>>", into = "Vec<Priority>")]
pub(crate) struct Priorities(u8);

impl TryFrom<Option<Vec<Priority>>> for Priorities {
    type Error = &'static str;

    fn try_from(values: Option<Vec<Priority>>) -> Result<Self, Self::Error> {
        let values = values.unwrap_or_default();
        if values.len() > VALUES_MAX {
            return Err("more than 64 values");
        }
        Ok(Self(values.iter().fold(0, |bits, value| bits | value.bit())))
    }
}

impl From<Priorities> for Vec<Priority> {
    fn from(set: Priorities) -> Self {
        Priority::ALL.into_iter().filter(|priority| set.0 & priority.bit() != 0).collect()
    }
}

/// What of an event filters look at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) event_type: &'a str,
    pub(crate) source: &'a str,
    pub(crate) priority: Priority,
    /// Absent for events of servers that name no user.
    pub(crate) user: Option<&'a str>,
}

/// A member's filter. All dimensions must let an event through.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Filter {
    event_types: Names,
    sources: Names,
    priority: Priorities,
    users: Names,
}

impl Filter {
    /// Whether an event passes.
    pub(crate) fn allow(&self, event: &Facts<'_>) -> bool {
        (self.priority.0 == 0 || self.priority.0 & event.priority.bit() != 0)
            && self.event_types.allow(event.event_type)
            && self.sources.allow(event.source)
            && (self.users.is_empty() || event.user.is_some_and(|user| self.users.allow(user)))
    }

    /// About what it costs in memory, in bytes.
    pub(crate) fn weight(&self) -> usize {
        self.event_types.weight() + self.sources.weight() + self.users.weight()
    }
}
