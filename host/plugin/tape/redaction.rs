//! What a tape must not know: values at JSON pointers (RFC 6901), replaced in every JSON document before it is written. The rest of the
//! document stays as it is, byte by byte, for a replay compares bytes.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::limits::{REDACTION_POINTER_BYTES_MAX, REDACTION_POINTERS_MAX};
use crate::plugin::account::Entry;
use crate::plugin::content::{Cell, Content, Known};
use crate::plugin::record::{Answer, Question, Reads};
use crate::protocol::identity::Identity;

/// What stands for a value that was taken out; JSON.
const REDACTED: &str = "\"[redacted]\"";
/// The same within a header or a parameter of a query.
const REDACTED_TEXT: &str = "[redacted]";

/// Pointers to what is taken out. Each counts for every JSON object and array a tape would have: messages, bodies, claims, values, entries,
/// memory, settings. `/headers/NAME` and `/query/NAME` also take out what HTTP requests have under that name. What is no JSON is left as it
/// is: a plugin that keeps secrets in a form of its own should not be recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Redaction(Vec<Pointer>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pointer {
    text: String,
    tokens: Vec<String>,
}

/// Why pointers are not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedactionError {
    /// Not a pointer.
    #[error("{pointer:?} is no JSON pointer (RFC 6901); write for example /token or /user/email")]
    Pointer {
        /// The text.
        pointer: String,
    },
    /// Too many, or too long.
    #[error(
        "at most {REDACTION_POINTERS_MAX} pointers of {REDACTION_POINTER_BYTES_MAX} bytes are redacted; name the objects that have the values"
    )]
    TooMany,
}

impl Redaction {
    /// Takes out what these pointers name.
    ///
    /// # Errors
    /// If one is no pointer, or if they are over their bounds.
    pub fn new<S: AsRef<str>>(pointers: &[S]) -> Result<Self, RedactionError> {
        let too_long = |pointer: &S| pointer.as_ref().len() > REDACTION_POINTER_BYTES_MAX;
        if pointers.len() > REDACTION_POINTERS_MAX || pointers.iter().any(too_long) {
            return Err(RedactionError::TooMany);
        }
        pointers.iter().map(|pointer| Pointer::parse(pointer.as_ref())).collect::<Result<_, _>>().map(Self)
    }

    /// The pointers, as they were given.
    pub fn pointers(&self) -> Vec<String> {
        self.0.iter().map(|pointer| pointer.text.clone()).collect()
    }

    /// Whether nothing is taken out.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A text without what is taken out of it.
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut spans: Vec<(usize, usize)> = Vec::new();
        if text.trim_start().starts_with(['{', '[']) {
            for pointer in &self.0 {
                if let Ok(document) = serde_json::from_str::<&RawValue>(text) {
                    find(document.get(), &pointer.tokens, text, &mut spans);
                }
            }
        }
        if spans.is_empty() {
            return Cow::Borrowed(text);
        }
        spans.sort_unstable_by_key(|(start, end)| (*start, std::cmp::Reverse(*end)));
        let (mut redacted, mut at) = (String::with_capacity(text.len()), 0);
        for (start, end) in spans {
            // Within a value that was just taken out, there is nothing left.
            if start >= at {
                redacted.push_str(&text[at..start]);
                redacted.push_str(REDACTED);
                at = end;
            }
        }
        redacted.push_str(&text[at..]);
        Cow::Owned(redacted)
    }

    fn string(&self, text: &mut String) {
        if let Cow::Owned(redacted) = self.text(text) {
            *text = redacted;
        }
    }

    /// Takes out of a content what is to be taken out.
    pub(super) fn content(&self, content: &mut Content) {
        let Some(text) = content.bytes().and_then(|bytes| std::str::from_utf8(bytes).ok()) else { return };
        if let Cow::Owned(redacted) = self.text(text) {
            let redacted = Bytes::from(redacted);
            *content = match content {
                Content::Text(_) => Content::Text(redacted),
                _ => Content::Binary(redacted),
            };
        }
    }

    /// The same for the claims of an identity.
    pub(super) fn known(&self, known: &mut Known) {
        let Known(identity) = known;
        if let Cow::Owned(claims) = self.text(identity.claims()) {
            let (tenant, user, role) = (identity.tenant(), identity.user(), identity.role());
            let redacted = Identity::new(tenant, user, role, &claims, identity.expires_ms());
            *known = Known(redacted.by(identity.endpoint()));
        }
    }

    /// The same for headers, or for parameters of a query: `of` is `headers` or `query`.
    pub(super) fn pairs(&self, of: &str, pairs: &mut [(String, String)]) {
        for (name, value) in pairs {
            let named =
                |pointer: &Pointer| matches!(&pointer.tokens[..], [first, second] if first == of && second == name);
            if self.0.iter().any(named) {
                REDACTED_TEXT.clone_into(value);
            }
            self.string(value);
        }
    }

    /// The same for an effect.
    pub(super) fn entry(&self, entry: &mut Entry) {
        if let Some(content) = entry.content_mut() {
            self.content(content);
        }
    }

    /// The same for a question, which has parameters.
    pub(in crate::plugin) fn question(&self, question: &mut Question) {
        if let Question::Query { parameters, .. } = question {
            for cell in parameters {
                self.cell(cell);
            }
        }
    }

    fn cell(&self, cell: &mut Cell) {
        match cell {
            Cell::Text(text) => self.string(text),
            Cell::Bytes(base64) => {
                let text = BASE64_STANDARD.decode(&base64).ok().and_then(|bytes| String::from_utf8(bytes).ok());
                if let Some(text) = text
                    && let Cow::Owned(redacted) = self.text(&text)
                {
                    *base64 = BASE64_STANDARD.encode(redacted);
                }
            }
            Cell::Null | Cell::Boolean(_) | Cell::Integer(_) | Cell::Real(_) => {}
        }
    }

    /// The same for reads, their questions and their answers.
    pub(super) fn reads(&self, reads: &mut Reads) {
        if self.is_empty() {
            return;
        }
        for read in &mut reads.0 {
            self.question(&mut read.ask);
            for answer in read.given.iter_mut().filter_map(|given| given.answer.as_mut()) {
                match answer {
                    Answer::Value(Some(value)) => self.content(value),
                    Answer::Entries(entries) => entries.iter_mut().for_each(|(_, value)| self.content(value)),
                    Answer::Log(entries) => entries.iter_mut().for_each(|(_, _, data)| self.content(data)),
                    Answer::Members(members) => members.iter_mut().for_each(|(_, member)| self.known(member)),
                    Answer::Member(Some(member)) => self.known(member),
                    Answer::Rows(table) => table.rows.iter_mut().flatten().for_each(|cell| self.cell(cell)),
                    _ => {}
                }
            }
        }
    }
}

impl fmt::Display for Redaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.pointers().join(", "))
    }
}

impl Pointer {
    fn parse(pointer: &str) -> Result<Self, RedactionError> {
        let wrong = || RedactionError::Pointer { pointer: pointer.to_owned() };
        let mut tokens = pointer.split('/');
        if tokens.next() != Some("") {
            return Err(wrong());
        }
        let token = |token: &str| {
            // A tilde stands for nothing but itself and the slash.
            let escapes = token.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
            escapes.then(|| token.replace("~1", "/").replace("~0", "~")).ok_or_else(wrong)
        };
        Ok(Self { text: pointer.to_owned(), tokens: tokens.map(token).collect::<Result<_, _>>()? })
    }
}

/// Finds where a pointer leads in a part of a document: all places, if a name stands there more than once.
fn find(part: &str, tokens: &[String], document: &str, spans: &mut Vec<(usize, usize)>) {
    // The part is borrowed from the document.
    let start = part.as_ptr().addr() - document.as_ptr().addr();
    let whole = (start, start + part.len());
    let Some((token, rest)) = tokens.split_first() else { return spans.push(whole) };
    if !part.starts_with(['{', '[']) {
        return;
    }
    match serde_json::Deserializer::from_str(part).deserialize_any(Children(token)) {
        Ok(children) => children.into_iter().for_each(|child| find(child.get(), rest, document, spans)),
        // Valid JSON that is not understood may have anything in it.
        Err(_) => spans.push(whole),
    }
}

/// The children of an object or an array that a token names.
struct Children<'t>(&'t str);

impl<'de> Visitor<'de> for Children<'_> {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::new();
        while let Some((name, value)) = map.next_entry::<Name, &'de RawValue>()? {
            if name.0 == self.0.as_bytes() {
                found.push(value);
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        // Without zeros before it, or it is a name.
        let wanted: Option<usize> = self.0.parse().ok().filter(|index: &usize| index.to_string() == self.0);
        let mut found = Vec::new();
        let mut index = 0;
        while let Some(value) = seq.next_element::<&'de RawValue>()? {
            found.extend((wanted == Some(index)).then_some(value));
            index += 1;
        }
        Ok(found)
    }
}

/// A name of an object, in the bytes of UTF-8. Halves of surrogate pairs, which are no Unicode, are no reason not to look further.
struct Name(Vec<u8>);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(NameVisitor).map(Self)
    }
}

struct NameVisitor;

impl Visitor<'_> for NameVisitor {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        Ok(bytes.to_vec())
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(text.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(pointers: &[&str], text: &str) -> String {
        Redaction::new(pointers).unwrap().text(text).into_owned()
    }

    /// Goal: the values are gone wherever the pointer leads, and every other byte stays as it was.
    #[test]
    fn only_the_values_are_replaced() {
        let cases = [
            (
                "/token",
                r#"{ "a" : 1e400, "token" : "s", "b":[ ] }"#,
                r#"{ "a" : 1e400, "token" : "[redacted]", "b":[ ] }"#,
            ),
            ("/token", r#"{"token":{"deep":["s"]},"x":"token"}"#, r#"{"token":"[redacted]","x":"token"}"#),
            ("/token", r#"{"token":"s","token":"t"}"#, r#"{"token":"[redacted]","token":"[redacted]"}"#),
            ("/token", r#"{"t\u006fken":"s"}"#, r#"{"t\u006fken":"[redacted]"}"#),
            ("/a/1/b", r#"[{"a":0}]"#, r#"[{"a":0}]"#),
            ("/0/a/1", r#" [{"a":[1,2,3]}]"#, r#" [{"a":[1,"[redacted]",3]}]"#),
            ("/1", r#"{"1":"s"}"#, r#"{"1":"[redacted]"}"#),
            ("/01", r"[1,2]", r"[1,2]"),
            ("", r#"{"a":1}"#, r#""[redacted]""#),
            ("/a~1b/m~0n", r#"{"a/b":{"m~n":"s"}}"#, r#"{"a/b":{"m~n":"[redacted]"}}"#),
            ("/", r#"{"":"s"}"#, r#"{"":"[redacted]"}"#),
            ("/a", r#"{"\ud800":1,"b":"\ud800","a":"s"}"#, r#"{"\ud800":1,"b":"\ud800","a":"[redacted]"}"#),
            ("/token", r#"token {"token":"s"}"#, r#"token {"token":"s"}"#),
            ("/token", r#"{"token":"s"} more"#, r#"{"token":"s"} more"#),
            ("/token", "", ""),
        ];
        for (pointer, text, expected) in cases {
            let found = redacted(&[pointer], text);
            assert_eq!(found, expected, "{pointer}");
            assert_eq!(redacted(&[pointer], &found), expected, "taken out twice: {pointer}");
        }
    }

    #[test]
    fn pointers_may_lead_into_each_other() {
        let text = r#"{"a":{"b":"s","c":"t"},"d":"u"}"#;
        assert_eq!(redacted(&["/a/b", "/d"], text), r#"{"a":{"b":"[redacted]","c":"t"},"d":"[redacted]"}"#);
        assert_eq!(redacted(&["/a/b", "/a", "/a/c"], text), r#"{"a":"[redacted]","d":"u"}"#);
    }

    /// Goal: documents that nest deeply, by which a parser could run out of stack, are redacted all the same.
    #[test]
    fn deep_documents_are_redacted() {
        let deep = format!("{{\"a\":{}{},\"b\":\"secret\"}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(!redacted(&["/b"], &deep).contains("secret"));
        let tokens = "/a".repeat(100);
        let deep = format!("{}\"secret\"{}", "{\"a\":".repeat(100), "}".repeat(100));
        assert!(!redacted(&[&tokens], &deep).contains("secret"));
    }

    #[test]
    fn what_is_no_pointer_is_refused() {
        for wrong in ["token", "a/b", "/a~2", "/~", "#/a"] {
            let error = Redaction::new(&[wrong]).unwrap_err();
            assert!(error.to_string().contains(wrong), "{error}");
        }
        let long = format!("/{}", "x".repeat(REDACTION_POINTER_BYTES_MAX));
        assert_eq!(Redaction::new(&[long]), Err(RedactionError::TooMany));
        assert_eq!(Redaction::new(&["/a"; REDACTION_POINTERS_MAX + 1]), Err(RedactionError::TooMany));
        assert_eq!(Redaction::new(&["", "/a~0"]).unwrap().pointers(), ["", "/a~0"]);
    }

    #[test]
    fn contents_keep_their_kind_and_claims_their_identity() {
        let redaction = Redaction::new(&["/k", "/headers/cookie"]).unwrap();
        let secret = || Bytes::from_static(br#"{"k":"s"}"#);
        let gone = || Bytes::from_static(br#"{"k":"[redacted]"}"#);
        for (mut content, expected) in [
            (Content::Text(secret()), Content::Text(gone())),
            (Content::Binary(secret()), Content::Binary(gone())),
            (Content::Binary(Bytes::from_static(b"{\xFF")), Content::Binary(Bytes::from_static(b"{\xFF"))),
        ] {
            redaction.content(&mut content);
            assert_eq!(content, expected);
        }
        let of = |claims: &str| Known(Identity::new("acme", "ann", "admin", claims, Some(5)).by("/chat"));
        let mut known = of(r#"{"k":"s"}"#);
        redaction.known(&mut known);
        assert_eq!(known, of(r#"{"k":"[redacted]"}"#));
        let mut pairs = [("cookie".to_owned(), "s".to_owned()), ("x".to_owned(), r#"{"k":"s"}"#.to_owned())];
        redaction.pairs("headers", &mut pairs);
        assert_eq!((&*pairs[0].1, &*pairs[1].1), ("[redacted]", r#"{"k":"[redacted]"}"#));
        let mut cell = Cell::Bytes(BASE64_STANDARD.encode(r#"{"k":"s"}"#));
        redaction.cell(&mut cell);
        assert_eq!(cell, Cell::Bytes(BASE64_STANDARD.encode(r#"{"k":"[redacted]"}"#)));
    }
}
