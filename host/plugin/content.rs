//! What frames, values, entries and bodies carry, as tapes and accounts write it down: text stays readable, everything else is base64,
//! and no bit is lost on the way.

use std::borrow::Cow;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use sha2::{Digest as _, Sha256};

use crate::protocol::frame::Payload;
use crate::protocol::identity::Identity;
use crate::protocol::name::ChannelName;
use crate::protocol::sql::{Rows, Value};

/// Most characters of a content that people are shown.
const SHOWN_CHARS_MAX: usize = 200;
/// Characters before the first difference of two contents that people are shown.
const SHOWN_CHARS_BEFORE: usize = 40;

/// Bytes that a plugin sent, wrote or read. Cheap to clone.
///
/// In JSON: `{"text": …}` for a text message, `{"utf8": …}` for other bytes that are UTF-8, `{"base64": …}` for the rest, and
/// `{"digest": …}` for what was left out for its length.
#[derive(Clone)]
pub enum Content {
    /// A text message; UTF-8.
    Text(Bytes),
    /// A binary message, a value, an entry or a body.
    Binary(Bytes),
    /// Left out for its length. Equal to what has this length and this digest.
    Digest {
        /// Whether it was a text message.
        is_text: bool,
        /// Its length.
        bytes: u64,
        /// Its SHA-256.
        sha256: [u8; 32],
    },
}

impl Content {
    /// How many bytes it had.
    pub fn len(&self) -> u64 {
        match self {
            Self::Text(bytes) | Self::Binary(bytes) => bytes.len() as u64,
            Self::Digest { bytes, .. } => *bytes,
        }
    }

    /// Whether it had none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, unless they were left out.
    pub fn bytes(&self) -> Option<&Bytes> {
        match self {
            Self::Text(bytes) | Self::Binary(bytes) => Some(bytes),
            Self::Digest { .. } => None,
        }
    }

    /// Leaves the bytes out if they are more than this.
    #[must_use]
    pub fn shortened(self, bytes_max: usize) -> Self {
        match self.bytes() {
            Some(bytes) if bytes.len() > bytes_max => self.digest(),
            _ => self,
        }
    }

    /// A number that is the same for contents that are equal, and hardly ever for others. `digested`: some may be left out.
    pub(super) fn token(&self, digested: bool) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.is_text(), self.len()).hash(&mut hasher);
        match (self, digested) {
            (Self::Digest { sha256, .. }, _) => sha256.hash(&mut hasher),
            (Self::Text(bytes) | Self::Binary(bytes), true) => {
                <[u8; 32]>::from(Sha256::digest(bytes)).hash(&mut hasher);
            }
            (Self::Text(bytes) | Self::Binary(bytes), false) => bytes.hash(&mut hasher),
        }
        hasher.finish()
    }

    fn is_text(&self) -> bool {
        matches!(self, Self::Text(_) | Self::Digest { is_text: true, .. })
    }

    fn digest(&self) -> Self {
        match self {
            Self::Text(bytes) | Self::Binary(bytes) => Self::Digest {
                is_text: self.is_text(),
                bytes: bytes.len() as u64,
                sha256: Sha256::digest(bytes).into(),
            },
            Self::Digest { .. } => self.clone(),
        }
    }

    /// The text, for people: quoted and from this character on; the digest of what was left out; or base64.
    fn shown(&self, from: usize) -> String {
        let Some(bytes) = self.bytes() else {
            let Self::Digest { bytes, sha256, .. } = self else { return String::new() };
            return format!("{bytes} bytes, sha256 {}", hex::encode(&sha256[..8]));
        };
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => Cow::Owned(BASE64_STANDARD.encode(bytes)),
        };
        let mut rest = text.chars().skip(from);
        let shown: String = rest.by_ref().take(SHOWN_CHARS_MAX).collect();
        let before = if from > 0 { "…" } else { "" };
        let after = if rest.next().is_some() { format!("… ({})", self.digest().shown(0)) } else { String::new() };
        match text {
            Cow::Borrowed(_) => format!("{before}{shown:?}{after}"),
            Cow::Owned(_) => format!("base64 {before}{shown}{after}"),
        }
    }
}

/// Two contents where they begin to differ, as people are shown them.
pub(super) fn beside(old: &Content, new: &Content) -> (String, String) {
    let text = |content: &Content| content.bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let from = match (text(old), text(new)) {
        (Some(old), Some(new)) => old.chars().zip(new.chars()).take_while(|(old, new)| old == new).count(),
        _ => 0,
    };
    // Base64 has its differences elsewhere, and is shown from its beginning.
    let is_text = |content: &Content| content.bytes().is_some_and(|bytes| std::str::from_utf8(bytes).is_ok());
    let from = if is_text(old) && is_text(new) { from.saturating_sub(SHOWN_CHARS_BEFORE) } else { 0 };
    let from = if old.len().max(new.len()) <= SHOWN_CHARS_MAX as u64 { 0 } else { from };
    (old.shown(from), new.shown(from))
}

impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(one), Self::Text(other)) | (Self::Binary(one), Self::Binary(other)) => one == other,
            (
                Self::Digest { is_text, bytes, sha256 },
                Self::Digest { is_text: other_is_text, bytes: other_bytes, sha256: other_sha256 },
            ) => (is_text, bytes, sha256) == (other_is_text, other_bytes, other_sha256),
            (Self::Digest { .. }, whole) | (whole, Self::Digest { .. }) => {
                self.len() == other.len() && self.is_text() == other.is_text() && {
                    let digest = if matches!(self, Self::Digest { .. }) { self } else { other };
                    whole.digest() == *digest
                }
            }
            _ => false,
        }
    }
}

impl Eq for Content {}

impl From<Payload> for Content {
    fn from(payload: Payload) -> Self {
        match payload {
            Payload::Text(bytes) => Self::Text(bytes),
            Payload::Binary(bytes) => Self::Binary(bytes),
        }
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown(0))
    }
}

/// Shows its length: what it carries may be private.
impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({} bytes)", if self.is_text() { "Text" } else { "Binary" }, self.len())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Written<'a> {
    Text(Cow<'a, str>),
    Utf8(Cow<'a, str>),
    Base64(Cow<'a, str>),
    Digest { text: bool, bytes: u64, sha256: Cow<'a, str> },
}

impl Serialize for Content {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let written = match self {
            Self::Text(bytes) => Written::Text(std::str::from_utf8(bytes).map_err(ser::Error::custom)?.into()),
            Self::Binary(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Written::Utf8(text.into()),
                Err(_) => Written::Base64(BASE64_STANDARD.encode(bytes).into()),
            },
            Self::Digest { is_text, bytes, sha256 } => {
                Written::Digest { text: *is_text, bytes: *bytes, sha256: hex::encode(sha256).into() }
            }
        };
        written.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Written::deserialize(deserializer)? {
            Written::Text(text) => Self::Text(text.into_owned().into()),
            Written::Utf8(text) => Self::Binary(text.into_owned().into()),
            Written::Base64(text) => Self::Binary(BASE64_STANDARD.decode(&*text).map_err(de::Error::custom)?.into()),
            Written::Digest { text, bytes, sha256 } => {
                let mut digest = [0; 32];
                hex::decode_to_slice(&*sha256, &mut digest).map_err(de::Error::custom)?;
                Self::Digest { is_text: text, bytes, sha256: digest }
            }
        })
    }
}

/// An identity as it is written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known(pub Identity);

#[derive(Serialize, Deserialize)]
struct WrittenIdentity<'a> {
    tenant: Cow<'a, str>,
    user: Cow<'a, str>,
    role: Cow<'a, str>,
    endpoint: Cow<'a, str>,
    /// A text, for plugins see its bytes.
    claims: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_ms: Option<u64>,
}

impl Serialize for Known {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(identity) = self;
        let written = WrittenIdentity {
            tenant: identity.tenant().into(),
            user: identity.user().into(),
            role: identity.role().into(),
            endpoint: identity.endpoint().into(),
            claims: identity.claims().into(),
            expires_ms: identity.expires_ms(),
        };
        written.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Known {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = WrittenIdentity::deserialize(deserializer)?;
        // A tape is outside input: an identity has the tenant of some channel.
        ChannelName::new(&written.tenant, "any").map_err(de::Error::custom)?;
        let identity =
            Identity::new(&written.tenant, &written.user, &written.role, &written.claims, written.expires_ms);
        Ok(Self(identity.by(&written.endpoint)))
    }
}

/// A value of a database, as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cell {
    /// `NULL`.
    Null,
    /// True or false.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// The shortest decimal number that is read as this one: JSON has no infinities, and is read with less care.
    Real(String),
    /// Text.
    Text(String),
    /// Bytes, as base64.
    Bytes(String),
}

impl From<&Value> for Cell {
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Boolean(value) => Self::Boolean(*value),
            Value::Integer(value) => Self::Integer(*value),
            Value::Real(value) => Self::Real(value.to_string()),
            Value::Text(value) => Self::Text(value.clone()),
            Value::Bytes(value) => Self::Bytes(BASE64_STANDARD.encode(value)),
        }
    }
}

impl From<Cell> for Value {
    fn from(cell: Cell) -> Self {
        match cell {
            Cell::Null => Self::Null,
            Cell::Boolean(value) => Self::Boolean(value),
            Cell::Integer(value) => Self::Integer(value),
            Cell::Real(value) => Self::Real(value.parse().unwrap_or(f64::NAN)),
            Cell::Text(value) => Self::Text(value),
            Cell::Bytes(value) => Self::Bytes(BASE64_STANDARD.decode(value).unwrap_or_default()),
        }
    }
}

/// An answer of a database, as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Each has a cell for each column.
    pub rows: Vec<Vec<Cell>>,
}

impl From<&Rows> for Table {
    fn from(rows: &Rows) -> Self {
        let row = |row: &Vec<Value>| row.iter().map(Cell::from).collect();
        Self { columns: rows.columns.clone(), rows: rows.rows.iter().map(row).collect() }
    }
}

impl From<Table> for Rows {
    fn from(table: Table) -> Self {
        let row = |row: Vec<Cell>| row.into_iter().map(Value::from).collect();
        Self { columns: table.columns, rows: table.rows.into_iter().map(row).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(content: &Content) -> String {
        serde_json::to_string(content).unwrap()
    }

    /// Law: a recorded channel replays bit for bit, so what is written down and read again is what it was, to the kind of the message.
    #[test]
    fn contents_survive_being_written() {
        let long = Content::Text(Bytes::from("é".repeat(600))).shortened(1_000);
        let cases = [
            (Content::Text(Bytes::from_static(b"a\"\n\0")), r#"{"text":"a\"\n\u0000"}"#),
            (Content::Binary(Bytes::from_static(b"a")), r#"{"utf8":"a"}"#),
            (Content::Binary(Bytes::from_static(b"\xFF\0")), r#"{"base64":"/wA="}"#),
            (Content::Binary(Bytes::new()), r#"{"utf8":""}"#),
            (long, ""),
        ];
        for (content, expected) in cases {
            let written = json(&content);
            assert!(expected.is_empty() || written == expected, "{written}");
            assert_eq!(serde_json::from_str::<Content>(&written).unwrap(), content);
        }
        for wrong in [r#"{"base64":"?"}"#, r#"{"digest":{"text":true,"bytes":1,"sha256":"00"}}"#, r#"{"else":""}"#] {
            assert!(serde_json::from_str::<Content>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_was_left_out_is_equal_to_what_it_was_and_to_nothing_else() {
        let of = |text: &str| Content::Text(Bytes::from(text.repeat(10)));
        let short = of("long").shortened(39);

        assert!(of("long").shortened(40).bytes().is_some());
        assert_eq!((&short, &of("long")), (&of("long"), &short));
        assert_eq!(short, of("long").shortened(1));
        for other in [of("lung"), of("longer"), Content::Binary(of("long").bytes().unwrap().clone())] {
            assert_ne!(short, other);
            assert_ne!(other, short.clone());
            assert_ne!(other.shortened(0), short);
        }
    }

    /// Goal: numbers of databases are the same afterwards, to the last bit.
    #[test]
    fn rows_survive_being_written() {
        let reals = [0.1 + 0.2, -0.0, f64::MIN_POSITIVE, f64::MAX, f64::INFINITY, 5e-324, 123_456_789.123_456_7];
        let mut row: Vec<Value> = reals.into_iter().map(Value::Real).collect();
        row.extend([Value::Null, Value::Boolean(true), Value::Integer(i64::MIN), Value::Text("\"x\"".into())]);
        row.push(Value::Bytes(vec![0xFF, 0]));
        let rows = Rows { columns: vec!["a".into()], rows: vec![row] };

        let written = serde_json::to_string(&Table::from(&rows)).unwrap();
        let read = Rows::from(serde_json::from_str::<Table>(&written).unwrap());

        assert_eq!(read, rows);
        for (read, real) in read.rows[0].iter().zip(reals) {
            assert!(matches!(read, Value::Real(read) if read.to_bits() == real.to_bits()), "{read:?} {real}");
        }
        assert!(matches!(Value::from(Cell::from(&Value::Real(f64::NAN))), Value::Real(read) if read.is_nan()));
    }

    #[test]
    fn identities_survive_being_written() {
        let identity = Identity::new("acme", "ann", "admin", r#"{ "a": 1 }"#, Some(5)).by("/chat");
        let written = serde_json::to_string(&Known(identity.clone())).unwrap();
        assert_eq!(serde_json::from_str::<Known>(&written).unwrap(), Known(identity));
        assert!(serde_json::from_str::<Known>(&written.replace("acme", "a/b\\n")).is_err(), "{written}");
    }

    #[test]
    fn people_are_shown_a_part_of_what_is_long_where_it_differs() {
        let of = |end: &str| Content::Text(Bytes::from("x".repeat(1_000) + end));
        let (old, new) = beside(&of("old"), &of("new"));
        assert_eq!((old, new), (format!("…\"{}old\"", "x".repeat(40)), format!("…\"{}new\"", "x".repeat(40))));
        let (old, new) = beside(&Content::Text("a".into()), &Content::Text("b".into()));
        assert_eq!((&*old, &*new), ("\"a\"", "\"b\""));
        let shown = of("").to_string();
        assert!(shown.len() < 300 && shown.contains("… (1000 bytes, sha256 "), "{shown}");
        assert_eq!(Content::Binary(Bytes::from_static(b"\xFF")).to_string(), "base64 /w==");
    }
}
