//! What comes in: frames of clients, bodies of requests and publications, parsed without copying and checked. Any byte
//! string gives one of these or a refusal, never a panic. Knows nothing of the dashboard.

use std::borrow::Cow;

use hotbay_sdk::json::{self, Text, object};
use hotbay_sdk::{Payload, Refusal};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Longest `id` of an envelope and `operationId`, in bytes.
pub(crate) const ID_BYTES_MAX: usize = 128;

const FRAME_EXPECTED: &str = "a frame is a JSON object {type: text, userId, id, payload: object}";

/// The envelope of a frame. Unknown fields are ignored.
#[derive(Deserialize)]
pub(crate) struct Frame<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "userId")]
    user_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
    #[serde(skip)]
    text: &'a str,
}

impl<'a> Frame<'a> {
    /// Parses a frame of this user.
    pub(crate) fn parse(frame: &'a Payload, user: &str) -> Result<Self, Refusal> {
        let text = frame.text().ok_or_else(|| Refusal::bad_request("send text frames"))?;
        let mut parsed: Self = object(text, FRAME_EXPECTED)?;
        parsed.text = text;
        check(text)?;
        if let Some(id) = parsed.id
            && !is_id(id.get())
        {
            return Err(Refusal::bad_request("`id` is a text of 1 to 128 bytes or a whole number"));
        }
        let Some(user_id) = parsed.user_id else { return Err(Refusal::bad_request("the frame lacks `userId`")) };
        if !names(user_id.get(), user) {
            return Err(Refusal::forbidden("`userId` is not yours"));
        }
        Ok(parsed)
    }

    /// The `type`.
    pub(crate) fn kind(&self) -> &str {
        &self.kind
    }

    /// The client's name for its frame, as it came.
    pub(crate) fn id(&self) -> Option<&'a str> {
        self.id.map(RawValue::get)
    }

    /// The payload as it came; `{}` if there is none.
    pub(crate) fn payload(&self) -> &'a str {
        self.payload.map_or("{}", RawValue::get)
    }

    /// The whole frame as it came.
    pub(crate) fn text(&self) -> &'a str {
        self.text
    }
}

/// The id of a frame that may be wrong in other respects.
pub(crate) fn id_of(frame: &Payload) -> Option<&str> {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow, default)]
        id: Option<&'a RawValue>,
    }
    let named: Named<'_> = serde_json::from_str(frame.text()?).ok()?;
    named.id.map(RawValue::get).filter(|id| is_id(id))
}

/// A publication of a server.
#[derive(Deserialize)]
pub(crate) struct Posting<'a> {
    #[serde(borrow, rename = "type")]
    pub(crate) kind: Cow<'a, str>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
    /// Another name for `payload`; beside it, a field that means nothing.
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "userId")]
    user_id: Option<Text<'a>>,
    #[serde(borrow, default, rename = "toUser")]
    to_user: Option<Text<'a>>,
}

impl<'a> Posting<'a> {
    /// Parses the body of a publication.
    pub(crate) fn parse(body: &'a Payload) -> Result<Self, Refusal> {
        let text = body.text().ok_or_else(|| Refusal::bad_request("publish JSON text"))?;
        let posting = object(text, "a publication is a JSON object {type, payload, userId, toUser}")?;
        check(text)?;
        Ok(posting)
    }

    /// The payload as it came; `{}` if there is none.
    pub(crate) fn payload(&self) -> &'a str {
        self.payload.or(self.data).map_or("{}", RawValue::get)
    }

    /// In whose name the server speaks.
    pub(crate) fn user(&self) -> Option<&str> {
        self.user_id.as_ref().map(|user| &*user.0)
    }

    /// Whom alone it is for.
    pub(crate) fn to_user(&self) -> Option<&str> {
        self.to_user.as_ref().map(|user| &*user.0)
    }
}

/// One of several operations in a message.
#[derive(Deserialize)]
pub(crate) struct Item<'a> {
    #[serde(borrow, default, rename = "operationId")]
    operation_id: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    pub(crate) kind: Cow<'a, str>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
}

impl<'a> Item<'a> {
    /// The client's name for the operation, as it came.
    pub(crate) fn id(&self) -> Option<&'a str> {
        self.operation_id.map(RawValue::get)
    }

    /// The payload as it came; `{}` if there is none.
    pub(crate) fn payload(&self) -> &'a str {
        self.payload.map_or("{}", RawValue::get)
    }
}

/// Payload of `WIDGET_BATCH`, where ids are optional, and of `SYNC_UPDATE`, where they are not.
#[derive(Deserialize)]
pub(crate) struct Items<'a> {
    #[serde(borrow)]
    pub(crate) operations: Vec<Item<'a>>,
}

impl<'a> Items<'a> {
    /// Parses the payload of a `WIDGET_BATCH`.
    pub(crate) fn batch(payload: &'a str) -> Result<Vec<Item<'a>>, Refusal> {
        let items: Self = object(payload, "WIDGET_BATCH takes {operations: [{operationId, type, payload}]}")?;
        let wrong = items.operations.iter().filter_map(Item::id).any(|id| !is_id(id));
        if wrong { Err(Refusal::bad_request(OPERATION_ID_EXPECTED)) } else { Ok(items.operations) }
    }

    /// Parses the payload of a `SYNC_UPDATE`.
    pub(crate) fn sync(payload: &'a str) -> Result<Vec<Item<'a>>, Refusal> {
        let items: Self = object(payload, "SYNC_UPDATE takes {operations: [{operationId, type, payload}]}")?;
        with_ids(items.operations)
    }

    /// Parses the body of `POST /`.
    pub(crate) fn posted(body: &'a [u8]) -> Result<Vec<Item<'a>>, Refusal> {
        #[derive(Deserialize)]
        struct Body<'a> {
            #[serde(borrow, rename = "type")]
            kind: Cow<'a, str>,
            #[serde(borrow)]
            operations: Vec<Item<'a>>,
        }
        const EXPECTED: &str =
            "the body must be a JSON object {type: \"SYNC\", operations: [{operationId, type, payload}]}";
        let text = std::str::from_utf8(body).map_err(|_| Refusal::bad_request(EXPECTED))?;
        let body: Body<'_> = object(text, EXPECTED)?;
        if body.kind != "SYNC" {
            return Err(Refusal::bad_request(EXPECTED));
        }
        check(text)?;
        with_ids(body.operations)
    }
}

const OPERATION_ID_EXPECTED: &str = "`operationId` is a text of 1 to 128 bytes or a whole number";

fn with_ids(items: Vec<Item<'_>>) -> Result<Vec<Item<'_>>, Refusal> {
    let wrong = items.iter().any(|item| !item.id().is_some_and(is_id));
    if wrong { Err(Refusal::bad_request(OPERATION_ID_EXPECTED)) } else { Ok(items) }
}

/// Payload of `SYNC_REQUEST`.
#[derive(Deserialize)]
pub(crate) struct Since {
    /// The version of the dashboard that the client has.
    #[serde(default)]
    pub(crate) since: Option<u64>,
}

/// Payload of `CONFLICT_RESOLVED`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Resolved<'a> {
    #[serde(borrow)]
    pub(crate) conflict_id: Cow<'a, str>,
    pub(crate) resolution: Resolution,
    #[serde(borrow, default)]
    pub(crate) data: Option<&'a RawValue>,
}

/// Whose state holds after a conflict.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Resolution {
    Client,
    Server,
    Merge,
}

/// Whether this JSON is a name that a client gives to something of its own: a short text or a whole number.
fn is_id(raw: &str) -> bool {
    if raw.starts_with('"') {
        return (3..=ID_BYTES_MAX + 2).contains(&raw.len());
    }
    let digits = raw.strip_prefix('-').unwrap_or(raw);
    !digits.is_empty() && digits.len() <= 20 && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether this JSON, a text or a whole number, is the id of this user.
fn names(raw: &str, user: &str) -> bool {
    match raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) if !inner.contains('\\') => inner == user,
        Some(_) => serde_json::from_str::<Text<'_>>(raw).is_ok_and(|text| text.0 == user),
        None => is_id(raw) && raw == user,
    }
}

/// Values are passed on as they came, so they must be what every client can read.
fn check(text: &str) -> Result<(), Refusal> {
    json::check(text).map_err(|why| Refusal::bad_request(why.sentence()))
}
