//! What goes out of a channel, in one shape for what a scenario expects and what a plugin did, so that both are compared and shown
//! alike.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

/// Something that goes out: a frame, a close, a refusal, a publication or an answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Item {
    /// What it is, and to whom it goes: `to all`.
    pub(super) head: String,
    /// What else is known of it, by name. What is expected names only what matters.
    pub(super) details: Vec<(String, String)>,
    /// What it carries.
    pub(super) said: Option<Said>,
}

/// What a message carries.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Said {
    /// A text message with this JSON, however it is written.
    Json(Value),
    /// A text message, to the letter.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
}

impl Item {
    pub(super) fn new(head: impl Into<String>, said: Option<Said>) -> Self {
        Self { head: head.into(), details: Vec::new(), said }
    }

    /// Adds what else is known of it.
    #[must_use]
    pub(super) fn with(mut self, name: &str, value: Option<impl fmt::Display>) -> Self {
        self.details.extend(value.map(|value| (name.to_owned(), value.to_string())));
        self
    }

    /// Whether this, which is expected, is that, which happened.
    pub(super) fn fits(&self, seen: &Self) -> bool {
        self.head == seen.head
            && self.details.iter().all(|detail| seen.details.contains(detail))
            && self.said.as_ref().is_none_or(|said| seen.said.as_ref().is_some_and(|seen| said.fits(seen)))
    }

    /// Where two that are nearly the same begin to differ, for people.
    pub(super) fn beside(&self, seen: &Self) -> Option<String> {
        match (&self.said, &seen.said) {
            (Some(Said::Json(wanted)), Some(Said::Text(text))) if self.head == seen.head => {
                first_difference(wanted, &parse(text)?, "")
            }
            _ => None,
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.head)?;
        for (name, value) in self.details.iter().filter(|(name, value)| (name.as_str(), value.as_str()) != USUAL) {
            write!(f, ", {name} {value}")?;
        }
        match &self.said {
            Some(said) => write!(f, ": {said}"),
            None => Ok(()),
        }
    }
}

/// What nearly every frame has is not shown.
const USUAL: (&str, &str) = ("priority", "normal");

impl Said {
    fn fits(&self, seen: &Self) -> bool {
        match (self, seen) {
            (Self::Json(wanted), Self::Text(text)) => parse(text).as_ref() == Some(wanted),
            _ => self == seen,
        }
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(value) => write!(f, "{value}"),
            Self::Text(text) => match parse(text) {
                Some(value @ (Value::Object(_) | Value::Array(_))) => write!(f, "{value}"),
                _ => write!(f, "{text:?}"),
            },
            Self::Binary(bytes) => write!(f, "base64 {}", BASE64_STANDARD.encode(bytes)),
        }
    }
}

fn parse(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok().map(plain)
}

/// JSON in which equal numbers are written alike: 1.0 is 1, as JavaScript has it.
pub(super) fn plain(value: Value) -> Value {
    /// Beyond it not every whole number is a float.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() <= EXACT_MAX => {
                Value::from(float as i64)
            }
            _ => Value::Number(number),
        },
        Value::Array(values) => values.into_iter().map(plain).collect(),
        Value::Object(values) => values.into_iter().map(|(key, value)| (key, plain(value))).collect(),
        other => other,
    }
}

/// The first place where two values differ, by its JSON pointer.
fn first_difference(wanted: &Value, seen: &Value, at: &str) -> Option<String> {
    let inner = |key: &str, wanted: Option<&Value>, seen: Option<&Value>| {
        let at = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
        match (wanted, seen) {
            (Some(wanted), Some(seen)) => first_difference(wanted, seen, &at),
            (Some(wanted), None) => Some(format!("at {at}: expected {wanted}, which is missing")),
            (None, Some(seen)) => Some(format!("at {at}: {seen} was not expected")),
            (None, None) => None,
        }
    };
    match (wanted, seen) {
        (Value::Object(wanted), Value::Object(seen)) => {
            let keys = wanted.keys().chain(seen.keys().filter(|key| !wanted.contains_key(*key)));
            keys.into_iter().find_map(|key| inner(key, wanted.get(key), seen.get(key)))
        }
        (Value::Array(wanted), Value::Array(seen)) => (0..wanted.len().max(seen.len()))
            .find_map(|index| inner(&index.to_string(), wanted.get(index), seen.get(index))),
        _ if wanted == seen => None,
        _ => Some(format!("at {}: expected {wanted}, got {seen}", if at.is_empty() { "the top" } else { at })),
    }
}

/// Most pairs of expected and seen items that are compared with each other; beyond it they are compared side by side.
const PAIRS_MAX: usize = 1 << 20;

/// How what happened differs from what was expected, line by line: `-` what is missing, `+` what is too much. `None` if it does not.
pub(super) fn difference(wanted: &[Item], seen: &[Item]) -> Option<String> {
    let fits = |(wanted, seen): (&Item, &Item)| wanted.fits(seen);
    if wanted.len() == seen.len() && wanted.iter().zip(seen).all(fits) {
        return None;
    }
    let mut lines = Vec::new();
    let (mut wanted_from, mut seen_from) = (0, 0);
    let ends = (wanted.len(), seen.len());
    for (wanted_at, seen_at) in common(wanted, seen).into_iter().chain([ends]) {
        let (missing, extra) = (&wanted[wanted_from..wanted_at], &seen[seen_from..seen_at]);
        for index in 0..missing.len().max(extra.len()) {
            let (missing, extra) = (missing.get(index), extra.get(index));
            lines.extend(missing.map(|item| format!("- {item}")));
            lines.extend(extra.map(|item| format!("+ {item}")));
            let place = missing.zip(extra).and_then(|(missing, extra)| missing.beside(extra));
            lines.extend(place.map(|words| format!("    {words}")));
        }
        lines.extend(seen.get(seen_at).map(|item| format!("  {item}")));
        (wanted_from, seen_from) = (wanted_at + 1, seen_at + 1);
    }
    Some(lines.join("\n"))
}

/// The longest part both have in common, as pairs of indices.
fn common(wanted: &[Item], seen: &[Item]) -> Vec<(usize, usize)> {
    if wanted.len() * seen.len() > PAIRS_MAX {
        return (0..wanted.len().min(seen.len()))
            .filter(|at| wanted[*at].fits(&seen[*at]))
            .map(|at| (at, at))
            .collect();
    }
    // lengths[i][j]: of the longest part that what is from i and from j on have in common.
    let mut lengths = vec![vec![0_usize; seen.len() + 1]; wanted.len() + 1];
    for (i, wanted) in wanted.iter().enumerate().rev() {
        for (j, seen) in seen.iter().enumerate().rev() {
            lengths[i][j] =
                if wanted.fits(seen) { 1 + lengths[i + 1][j + 1] } else { lengths[i + 1][j].max(lengths[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut pairs) = (0, 0, Vec::new());
    while i < wanted.len() && j < seen.len() {
        if wanted[i].fits(&seen[j]) {
            pairs.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if lengths[i + 1][j] >= lengths[i][j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    pairs
}

/// What is missing where only some of what happened is expected, in any order: `-` and each item that nothing was. `None` if nothing is.
pub(super) fn missing(wanted: &[Item], seen: &[Item]) -> Option<String> {
    let mut free: Vec<&Item> = seen.iter().collect();
    let mut lines = Vec::new();
    for wanted in wanted {
        match free.iter().position(|seen| wanted.fits(seen)) {
            Some(at) => drop(free.remove(at)),
            None => lines.push(format!("- {wanted}")),
        }
    }
    if lines.is_empty() {
        return None;
    }
    lines.extend(free.iter().map(|seen| format!("+ {seen}")));
    Some(lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wanted(head: &str, value: Value) -> Item {
        Item::new(head, Some(Said::Json(plain(value))))
    }

    fn seen(head: &str, text: &str) -> Item {
        Item::new(head, Some(Said::Text(text.to_owned()))).with("priority", Some("normal"))
    }

    /// Goal: JSON is what it means, however it is written; text is what it is, to the letter.
    #[test]
    fn json_fits_however_it_is_written_and_text_to_the_letter() {
        let one = wanted("to all", json!({ "a": 1.0, "b": [null, "é"] }));
        assert!(one.fits(&seen("to all", r#"{ "b":[null,"\u00e9"], "a":1 }"#)));
        assert!(!one.fits(&seen("to ann", r#"{"a":1,"b":[null,"é"]}"#)));
        assert!(!one.fits(&seen("to all", r#"{"a":1,"b":[null,"é"],"c":0}"#)));
        assert!(!one.fits(&seen("to all", "{")));
        assert!(!one.fits(&Item::new("to all", Some(Said::Binary(b"{}".to_vec())))));
        let text = Item::new("to all", Some(Said::Text("{}".to_owned())));
        assert!(text.fits(&seen("to all", "{}")) && !text.fits(&seen("to all", "{ }")));
    }

    #[test]
    fn details_that_are_named_must_be_there_and_others_may() {
        let low = wanted("to all", json!(1)).with("priority", Some("low"));
        let normal = wanted("to all", json!(1)).with("priority", Some("normal"));
        assert!(!low.fits(&seen("to all", "1")) && normal.fits(&seen("to all", "1")));
    }

    /// Goal: who reads a difference sees what is missing, what is too much, what is between them, and where they part.
    #[test]
    fn a_difference_is_told_line_by_line() {
        let wanted = [wanted("to ann", json!([1])), wanted("to all", json!({ "a": { "b/c": [1, 2] } }))];
        let other = [seen("to ann", "[1]"), seen("to bob", "x"), seen("to all", r#"{"a":{"b/c":[1,3]}}"#)];

        assert_eq!(difference(&wanted, &[seen("to ann", "[1]"), seen("to all", r#"{"a":{"b/c":[1,2]}}"#)]), None);
        assert_eq!(
            difference(&wanted, &other).unwrap(),
            "  to ann: [1]\n- to all: {\"a\":{\"b/c\":[1,2]}}\n+ to bob: \"x\"\n+ to all: {\"a\":{\"b/c\":[1,3]}}"
        );
        assert_eq!(
            difference(&wanted[1..], &other[2..]).unwrap().lines().last(),
            Some("    at /a/b~1c/1: expected 2, got 3")
        );
        assert_eq!(difference(&wanted[..1], &[]).unwrap(), "- to ann: [1]");
        assert_eq!(difference(&[], &other[..1]).unwrap(), "+ to ann: [1]");
    }

    #[test]
    fn some_of_what_happened_may_be_wanted_in_any_order_but_each_once() {
        let (one, two) = (wanted("to ann", json!(1)), wanted("to ann", json!(2)));
        let happened = [seen("to ann", "2"), seen("to ann", "3"), seen("to ann", "1")];
        assert_eq!(missing(&[one.clone(), two.clone()], &happened), None);
        assert_eq!(missing(&[one.clone(), one], &happened).unwrap(), "- to ann: 1\n+ to ann: \"2\"\n+ to ann: \"3\"");
    }

    #[test]
    fn the_first_place_that_differs_is_named() {
        for (wanted, seen, words) in [
            (json!({ "a": 1 }), json!({}), "at /a: expected 1, which is missing"),
            (json!({}), json!({ "a": 1 }), "at /a: 1 was not expected"),
            (json!([1]), json!([1, 2]), "at /1: 2 was not expected"),
            (json!(1), json!("1"), "at the top: expected 1, got \"1\""),
        ] {
            assert_eq!(first_difference(&wanted, &seen, "").as_deref(), Some(words));
        }
    }
}
