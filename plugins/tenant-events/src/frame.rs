//! What comes in: frames of clients and bodies of requests, parsed without copying and checked. Any byte string gives a value or a
//! refusal, never a panic. Knows nothing of the channel's state.

use std::borrow::Cow;

use hotbay_sdk::json::{Text, object};
use hotbay_sdk::{Payload, Refusal};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::event::Event;
use crate::filter::{Filter, Names, Priority};
use crate::names;

const FRAME_EXPECTED: &str = "a frame is a JSON object with a text as `type`";
const POSTING_EXPECTED: &str = "the body is a JSON object {channel, event or type, payload or data, source, priority}";
const FILTER_EXPECTED: &str = "`filters` is an object {eventTypes, sources, priority, users} of lists, each of up to 64 texts of 1 to 128 \
                               bytes; priorities are low, normal, high and critical";

/// A frame of a client. What its type does not use may be anything.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Frame<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    channel: Option<&'a RawValue>,
    #[serde(borrow, default)]
    source: Option<&'a RawValue>,
    #[serde(borrow, default)]
    priority: Option<&'a RawValue>,
    #[serde(borrow, default)]
    filters: Option<&'a RawValue>,
    #[serde(borrow, default)]
    event_types: Option<&'a RawValue>,
    #[serde(borrow, default)]
    replay: Option<&'a RawValue>,
}

/// What a client wants.
pub(crate) enum Inbound<'a> {
    Filters(Filter),
    Subscribe { channel: Text<'a>, types: Names, replay: u64 },
    Unsubscribe { channel: Text<'a> },
    Event(Event<'a>),
}

impl<'a> Inbound<'a> {
    /// Parses a frame of a client of this tenant. The channel is already the short name of one of its own.
    pub(crate) fn parse(payload: &'a Payload, tenant: &str) -> Result<Self, Refusal> {
        let text = payload.text().ok_or_else(|| Refusal::bad_request("send text frames"))?;
        let frame: Frame<'a> = object(text, FRAME_EXPECTED)?;
        let named = || channel(frame.channel, tenant)?.ok_or_else(|| Refusal::bad_request("`channel` is missing"));
        match &*frame.kind.0 {
            "filters" => Ok(Self::Filters(filter(frame.filters)?)),
            "subscribe" => Ok(Self::Subscribe {
                channel: named()?,
                types: optional(frame.event_types, "`eventTypes` is a list of up to 64 texts of 1 to 128 bytes")?,
                replay: optional(frame.replay, "`replay` is a whole number")?,
            }),
            "unsubscribe" => Ok(Self::Unsubscribe { channel: named()? }),
            _ => Ok(Self::Event(Event {
                channel: channel(frame.channel, tenant)?.unwrap_or(Text(names::DEFAULT_CHANNEL.into())),
                kind: frame.kind,
                data: frame.data.unwrap_or(RawValue::NULL),
                source: text_or(frame.source, "client", "`source` is a text")?,
                priority: priority(frame.priority)?,
            })),
        }
    }
}

/// The body of a `POST` or of the publish API. Beside `event`, `type` is a field that means nothing, and so is `data` beside `payload`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Posting<'a> {
    #[serde(borrow, default)]
    event: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    channel: Option<&'a RawValue>,
    #[serde(borrow, default)]
    source: Option<&'a RawValue>,
    #[serde(borrow, default)]
    priority: Option<&'a RawValue>,
    #[serde(borrow, default)]
    user_id: Option<&'a RawValue>,
}

impl<'a> Posting<'a> {
    /// Parses a body.
    pub(crate) fn parse(body: &'a str) -> Result<Self, Refusal> {
        object(body, POSTING_EXPECTED)
    }

    /// The event it speaks of.
    pub(crate) fn event(self, tenant: &str) -> Result<Event<'a>, Refusal> {
        let kind = text(self.event.or(self.kind), POSTING_EXPECTED)?;
        Ok(Event {
            channel: channel(self.channel, tenant)?.unwrap_or(Text(names::DEFAULT_CHANNEL.into())),
            kind: kind.ok_or_else(|| Refusal::bad_request(POSTING_EXPECTED))?,
            data: self.payload.or(self.data).unwrap_or(RawValue::NULL),
            source: text_or(self.source, "api", "`source` is a text")?,
            priority: priority(self.priority)?,
        })
    }

    /// The user a server names.
    pub(crate) fn user(&self) -> Result<Option<Text<'a>>, Refusal> {
        let user: Option<Text<'a>> = text(self.user_id, "`userId` is a text")?;
        match user {
            Some(user) if !names::is_name(&user.0) => {
                Err(Refusal::bad_request("`userId` has 1 to 128 bytes and no control characters"))
            }
            user => Ok(user),
        }
    }
}

/// The body of a `PUT`.
#[derive(Deserialize)]
pub(crate) struct Change<'a> {
    #[serde(borrow)]
    user_id: Text<'a>,
    #[serde(borrow, default)]
    filters: Option<&'a RawValue>,
}

impl<'a> Change<'a> {
    /// The user and the filter its connections shall have.
    pub(crate) fn parse(body: &'a str) -> Result<(Text<'a>, Filter), Refusal> {
        let change: Self = object(body, "the body is a JSON object {user_id, filters}")?;
        let filter = filter(change.filters)?;
        Ok((change.user_id, filter))
    }
}

fn filter(raw: Option<&RawValue>) -> Result<Filter, Refusal> {
    object(raw.map_or("", RawValue::get), FILTER_EXPECTED)
}

fn optional<T: DeserializeOwned + Default>(raw: Option<&RawValue>, expected: &'static str) -> Result<T, Refusal> {
    match raw {
        None => Ok(T::default()),
        Some(raw) => serde_json::from_str(raw.get()).map_err(|_| Refusal::bad_request(expected)),
    }
}

fn text<'a>(raw: Option<&'a RawValue>, expected: &'static str) -> Result<Option<Text<'a>>, Refusal> {
    let parse = |raw: &'a RawValue| serde_json::from_str(raw.get());
    raw.map(parse).transpose().map_err(|_| Refusal::bad_request(expected))
}

fn text_or<'a>(raw: Option<&'a RawValue>, default: &'static str, expected: &'static str) -> Result<Text<'a>, Refusal> {
    Ok(text(raw, expected)?.unwrap_or(Text(default.into())))
}

fn priority(raw: Option<&RawValue>) -> Result<Priority, Refusal> {
    let expected = "`priority` is low, normal, high or critical";
    let Some(name) = text(raw, expected)? else { return Ok(Priority::Normal) };
    Priority::parse(&name.0).ok_or_else(|| Refusal::bad_request(expected))
}

/// The short name of the channel a frame names.
fn channel<'a>(raw: Option<&'a RawValue>, tenant: &str) -> Result<Option<Text<'a>>, Refusal> {
    let Some(Text(text)) = text(raw, "`channel` is a text")? else { return Ok(None) };
    let name = match text {
        Cow::Borrowed(text) => Cow::Borrowed(names::resolve(text, tenant)?),
        Cow::Owned(text) => Cow::Owned(names::resolve(&text, tenant)?.to_owned()),
    };
    Ok(Some(Text(name)))
}
