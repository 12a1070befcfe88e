//! What comes in: frames of clients and bodies of the publish API, parsed without copying and checked. Any byte string gives
//! a frame or a refusal, never a panic. Knows nothing of the channel's state.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use hotbay_sdk::json::{Text, object};
use hotbay_sdk::{Payload, Refusal};
use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Longest content of a message, in characters.
pub(crate) const CONTENT_CHARS_MAX: usize = 4_000;
/// Longest `id` of an envelope and `clientId` of a message, in bytes.
pub(crate) const ID_BYTES_MAX: usize = 128;
/// Most further fields of a message.
pub(crate) const EXTRA_FIELDS_MAX: usize = 16;
/// Most bytes of the further fields of a message, names and values together.
pub(crate) const EXTRA_BYTES_MAX: usize = 4 << 10;
/// Fields of a message that only the server sets.
const SERVER_FIELDS: [&str; 8] =
    ["id", "userId", "content", "clientId", "createdAt", "editedAt", "deletedAt", "deletedBy"];

/// The envelope of a frame. Unknown fields are ignored.
#[derive(serde::Deserialize)]
pub(crate) struct Frame<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow, default)]
    channel: Option<Text<'a>>,
    /// The client's name for this frame; what answers it carries it as `correlationId`.
    #[serde(borrow, default)]
    pub(crate) id: Option<Id<'a>>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
}

impl<'a> Frame<'a> {
    /// Parses a frame of a client.
    pub(crate) fn parse(frame: &'a Payload) -> Result<Self, Refusal> {
        let text = frame.text().ok_or_else(|| Refusal::bad_request("send text frames"))?;
        object(text, "a frame is a JSON object {type, channel, payload, id} with texts and an object as payload")
    }

    /// The `type`.
    pub(crate) fn kind(&self) -> &str {
        &self.kind.0
    }

    /// The `channel`, if the frame names one.
    pub(crate) fn channel(&self) -> Option<&str> {
        self.channel.as_ref().map(|channel| &*channel.0)
    }

    /// The payload as what it must be; `expected` says so to the client.
    pub(crate) fn payload<T: Deserialize<'a>>(&self, expected: &'static str) -> Result<T, Refusal> {
        object(self.payload.map_or("{}", RawValue::get), expected)
    }
}

/// A body of the publish API. `data` is another name for `payload`.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Posting<'a> {
    #[serde(borrow, rename = "type")]
    pub(crate) kind: Text<'a>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
    /// Another name for `payload`; beside it, a field that means nothing.
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) user_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(crate) to_user: Option<Text<'a>>,
}

impl<'a> Posting<'a> {
    /// Parses a body.
    pub(crate) fn parse(body: &'a Payload) -> Result<Self, Refusal> {
        let text = body.text().ok_or_else(|| Refusal::bad_request("publish JSON text"))?;
        object(text, "a publication is a JSON object {type, payload or data, userId, toUser}")
    }

    /// The payload as it came; `{}` if there is none.
    pub(crate) fn raw(&self) -> &'a str {
        self.payload.or(self.data).map_or("{}", RawValue::get)
    }

    /// The payload as what it must be.
    pub(crate) fn payload<T: Deserialize<'a>>(&self, expected: &'static str) -> Result<T, Refusal> {
        object(self.raw(), expected)
    }
}

/// A client's name for its frame: a string of up to [`ID_BYTES_MAX`] bytes, or a whole number.
pub(crate) enum Id<'a> {
    Text(Text<'a>),
    Number(i64),
    Large(u64),
}

impl<'de: 'a, 'a> Deserialize<'de> for Id<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct IdVisitor;
        impl<'de> Visitor<'de> for IdVisitor {
            type Value = Id<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a string of up to {ID_BYTES_MAX} bytes or a whole number")
            }
            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
                if text.len() > ID_BYTES_MAX {
                    return Err(E::invalid_length(text.len(), &self));
                }
                Ok(Id::Text(Text(Cow::Borrowed(text))))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                if text.len() > ID_BYTES_MAX {
                    return Err(E::invalid_length(text.len(), &self));
                }
                Ok(Id::Text(Text(Cow::Owned(text.to_owned()))))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
                Ok(Id::Number(number))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
                Ok(Id::Large(number))
            }
        }
        from.deserialize_any(IdVisitor)
    }
}

/// A message's id on the way in: a decimal string, as it goes out, or a number. `None` is well formed, but no message
/// can have it.
#[derive(Clone, Copy)]
pub(crate) struct MessageId(pub(crate) Option<u64>);

impl<'de> Deserialize<'de> for MessageId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct MessageIdVisitor;
        impl Visitor<'_> for MessageIdVisitor {
            type Value = MessageId;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a message id")
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                Ok(MessageId(if digits { text.parse().ok() } else { None }))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
                Ok(MessageId(u64::try_from(number).ok()))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
                Ok(MessageId(Some(number)))
            }
        }
        from.deserialize_any(MessageIdVisitor)
    }
}

/// Payload of `SUBSCRIBE`.
#[derive(serde::Deserialize)]
pub(crate) struct Subscribe {
    /// Everything after this message was missed.
    #[serde(default)]
    since: Option<MessageId>,
}

impl Subscribe {
    /// Parses and checks the payload of a `SUBSCRIBE`; gives the message after which the client missed everything.
    pub(crate) fn since(frame: &Frame<'_>) -> Result<Option<u64>, Refusal> {
        let payload: Self = frame.payload("SUBSCRIBE takes {since: message id}, or no payload")?;
        match payload.since {
            None => Ok(None),
            Some(MessageId(Some(id))) => Ok(Some(id)),
            Some(MessageId(None)) => Err(Refusal::bad_request("`since` is not a message id")),
        }
    }
}

/// Payload of `TYPING`; `userId` only from a server.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Typing<'a> {
    pub(crate) is_typing: bool,
    #[serde(borrow, default)]
    pub(crate) user_id: Option<Text<'a>>,
}

/// Payload of `MESSAGE_EDIT`; `userId` only from a server.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Edit<'a> {
    pub(crate) id: MessageId,
    #[serde(borrow)]
    pub(crate) content: Text<'a>,
}

/// Payload of `MESSAGE_DELETE`.
#[derive(serde::Deserialize)]
pub(crate) struct Delete {
    pub(crate) id: MessageId,
}

/// Payload of `USER_JOINED` and `USER_LEFT` from a server.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Presence<'a> {
    #[serde(borrow, default)]
    pub(crate) user_id: Option<Text<'a>>,
}

/// Payload of `CHAT_MESSAGE`. Fields this plugin does not know are kept, in the order of their names.
pub(crate) struct Chat<'a> {
    pub(crate) content: Text<'a>,
    pub(crate) client_id: Option<Text<'a>>,
    /// Only from a server.
    pub(crate) user_id: Option<Text<'a>>,
    pub(crate) extra: BTreeMap<Cow<'a, str>, &'a RawValue>,
}

impl Chat<'_> {
    /// Checks what the types do not say.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        check_content(&self.content.0)?;
        if let Some(client_id) = &self.client_id
            && (client_id.0.is_empty() || client_id.0.len() > ID_BYTES_MAX)
        {
            return Err(Refusal::bad_request("`clientId` must have 1 to 128 bytes"));
        }
        let bytes: usize = self.extra.iter().map(|(name, value)| name.len() + value.get().len()).sum();
        if self.extra.len() > EXTRA_FIELDS_MAX || bytes > EXTRA_BYTES_MAX {
            return Err(Refusal::too_large("a message may have 16 further fields of 4096 bytes together"));
        }
        for value in self.extra.values() {
            // Skipping a value does not check its escapes, numbers and depth; whoever receives it would have to.
            if serde_json::from_str::<serde_json::Value>(value.get()).is_err() {
                return Err(Refusal::bad_request("a further field of the message is not valid JSON, or too deep"));
            }
        }
        Ok(())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Chat<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct ChatVisitor;
        impl<'de> Visitor<'de> for ChatVisitor {
            type Value = Chat<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a message")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let (mut content, mut client_id, mut user_id) = (None, None, None);
                let mut extra = BTreeMap::new();
                while let Some(Text(name)) = map.next_key()? {
                    let twice = match &*name {
                        "content" => content.replace(map.next_value()?).is_some(),
                        "clientId" => client_id.replace(map.next_value()?).is_some(),
                        "userId" => user_id.replace(map.next_value()?).is_some(),
                        server if SERVER_FIELDS.contains(&server) => {
                            let IgnoredAny = map.next_value()?;
                            false
                        }
                        _ => extra.insert(name, map.next_value()?).is_some(),
                    };
                    if twice {
                        return Err(de::Error::custom("a field comes twice"));
                    }
                }
                let content = content.ok_or_else(|| de::Error::missing_field("content"))?;
                Ok(Chat { content, client_id: client_id.flatten(), user_id: user_id.flatten(), extra })
            }
        }
        from.deserialize_map(ChatVisitor)
    }
}

/// Checks that a message's content has 1 to 4,000 characters.
pub(crate) fn check_content(content: &str) -> Result<(), Refusal> {
    // Fewer bytes than that cannot be too many characters: most messages need no counting.
    if content.is_empty() {
        Err(Refusal::bad_request("`content` is empty"))
    } else if content.len() > CONTENT_CHARS_MAX && content.chars().count() > CONTENT_CHARS_MAX {
        Err(Refusal::too_large("`content` has more than 4000 characters"))
    } else {
        Ok(())
    }
}
