//! Events as clients see them. Owns their form and what may not be in them.

use std::rc::Rc;

use hotbay_sdk::json::{self, Text};
use hotbay_sdk::{Delivery, Refusal, iso8601};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::filter::{Facts, Filter, Names, Priority};
use crate::names;

/// A frame of this protocol.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Frame<'a, D> {
    pub(crate) id: &'a str,
    pub(crate) event_type: &'a str,
    pub(crate) data: D,
    pub(crate) timestamp: &'a str,
    pub(crate) source: &'a str,
    pub(crate) priority: Priority,
    pub(crate) tenant_id: Option<&'a str>,
    pub(crate) user_id: Option<&'a str>,
}

/// An event that somebody wants to send, checked.
pub(crate) struct Event<'a> {
    /// Short name of its channel.
    pub(crate) channel: Text<'a>,
    pub(crate) kind: Text<'a>,
    pub(crate) data: &'a RawValue,
    pub(crate) source: Text<'a>,
    pub(crate) priority: Priority,
}

/// Data of `connection`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Welcome<'a> {
    pub(crate) client_id: &'a str,
    pub(crate) channels: &'a [String],
}

/// Data of `filters_updated`.
#[derive(Serialize)]
pub(crate) struct FiltersUpdated<'a> {
    pub(crate) filters: &'a Filter,
}

/// Data of `subscribed`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Subscribed<'a> {
    pub(crate) channel: String,
    pub(crate) event_types: &'a Names,
    /// How many events follow: of the past, and what was sent since the client asked for them.
    pub(crate) replayed: usize,
    /// Whether there may be older ones.
    pub(crate) more: bool,
}

/// Data of `unsubscribed`.
#[derive(Serialize)]
pub(crate) struct Unsubscribed {
    pub(crate) channel: String,
}

/// Data of `error`.
#[derive(Serialize)]
pub(crate) struct Trouble<'a> {
    pub(crate) code: &'a str,
    pub(crate) message: &'a str,
}

impl Event<'_> {
    /// About how long its texts and data are, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.kind.0.len() + self.source.0.len() + self.data.get().len()
    }

    /// Checks what an event may be, whoever sends it.
    pub(crate) fn check(&self, data_bytes_max: usize) -> Result<(), Refusal> {
        if !names::is_name(&self.kind.0) {
            return Err(Refusal::bad_request("an event type has 1 to 128 bytes and no control characters"));
        }
        if !names::is_name(&self.source.0) {
            return Err(Refusal::bad_request("`source` has 1 to 128 bytes and no control characters"));
        }
        if names::RESERVED_TYPES.contains(&&*self.kind.0) {
            return Err(Refusal::bad_request("this event type is the server's own"));
        }
        if self.source.0 == names::SYSTEM {
            return Err(Refusal::bad_request("the source `system` is the server's own"));
        }
        let data = self.data.get();
        if data.len() > data_bytes_max {
            return Err(Refusal::too_large(format!("the event's data has more than {data_bytes_max} bytes")));
        }
        json::check(data).map_err(|why| Refusal::bad_request(why.sentence()))?;
        Ok(())
    }

    /// What filters look at.
    pub(crate) fn facts<'a>(&'a self, user: Option<&'a str>) -> Facts<'a> {
        Facts { event_type: &self.kind.0, source: &self.source.0, priority: self.priority, user }
    }
}

/// How an event of this priority is treated when its receiver is slow.
pub(crate) fn delivery(priority: Priority) -> &'static Delivery {
    match priority {
        Priority::Low => &Delivery::LOW,
        Priority::Normal => &Delivery::NORMAL,
        Priority::High | Priority::Critical => &Delivery::HIGH,
    }
}

/// The time of a batch as text, written once.
#[derive(Default)]
pub(crate) struct Clock {
    ms: u64,
    text: Option<Rc<str>>,
}

impl Clock {
    /// The text of this time.
    pub(crate) fn at(&mut self, ms: u64) -> Rc<str> {
        match &self.text {
            Some(text) if self.ms == ms => Rc::clone(text),
            _ => {
                self.ms = ms;
                Rc::clone(self.text.insert(iso8601(ms).into()))
            }
        }
    }
}
