//! A tree of values that remember where they were set, so that whatever is wrong with one can be said with its place.

use std::collections::BTreeMap;
use std::fmt;

use toml::Spanned;
use toml::de::DeValue;

use super::error::Origin;

/// Longest value shown in an error, in characters.
const SHOWN_CHARS_MAX: usize = 80;

/// A value and where it was set.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) origin: Origin,
    /// The text of a variable or flag, for keys that want text: `HOTBAY_DATA_DIR=7` names a folder.
    pub(super) raw: Option<String>,
}

/// A TOML value. Dates are kept as text.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Table(BTreeMap<String, Node>),
    Array(Vec<Node>),
    String(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
}

/// One step into the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// A way into the tree. Displays as it would be written in TOML, for example `mount.chat.http[0].path`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct KeyPath(pub(super) Vec<Step>);

impl KeyPath {
    pub(super) fn new<'k>(keys: impl IntoIterator<Item = &'k str>) -> Self {
        Self(keys.into_iter().map(|key| Step::Key(key.to_owned())).collect())
    }

    pub(super) fn key(&self, key: &str) -> Self {
        self.with(Step::Key(key.to_owned()))
    }

    pub(super) fn index(&self, index: usize) -> Self {
        self.with(Step::Index(index))
    }

    fn with(&self, step: Step) -> Self {
        Self(self.0.iter().cloned().chain([step]).collect())
    }

    /// The table or array around it.
    pub(super) fn parent(&self) -> Self {
        Self(self.0[..self.0.len().saturating_sub(1)].to_vec())
    }
}

impl Node {
    /// An empty table.
    pub(super) fn table(origin: Origin) -> Self {
        Self { value: Value::Table(BTreeMap::new()), origin, raw: None }
    }

    /// Takes over a parsed TOML value; `origin` tells where a span of the text lies.
    ///
    /// # Errors
    /// Where an integer or float is too large, with its text.
    pub(super) fn from_toml(
        value: &Spanned<DeValue<'_>>,
        start: usize,
        origin: &impl Fn(usize) -> Origin,
    ) -> Result<Self, (Origin, String)> {
        let too_large = |text: &dyn fmt::Display| (origin(start), format!("{text} is too large a number"));
        let converted = match value.get_ref() {
            DeValue::String(text) => Value::String(text.to_string()),
            DeValue::Integer(number) => {
                Value::Integer(i64::from_str_radix(number.as_str(), number.radix()).map_err(|_| too_large(number))?)
            }
            DeValue::Float(number) => Value::Float(number.as_str().parse().map_err(|_| too_large(number))?),
            DeValue::Boolean(value) => Value::Boolean(*value),
            DeValue::Datetime(date) => Value::String(date.to_string()),
            DeValue::Array(items) => {
                let item = |item: &Spanned<DeValue<'_>>| Self::from_toml(item, item.span().start, origin);
                Value::Array(items.iter().map(item).collect::<Result<_, _>>()?)
            }
            DeValue::Table(entries) => {
                let entry = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
                    let key: &Spanned<std::borrow::Cow<'_, str>> = key;
                    Ok((key.get_ref().to_string(), Self::from_toml(value, key.span().start, origin)?))
                };
                Value::Table(entries.iter().map(entry).collect::<Result<_, _>>()?)
            }
        };
        Ok(Self { value: converted, origin: origin(start), raw: None })
    }

    /// The keys of a table; none of anything else.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        let table = match &self.value {
            Value::Table(entries) => Some(entries),
            _ => None,
        };
        table.into_iter().flat_map(BTreeMap::keys).map(String::as_str)
    }

    pub(super) fn child(&self, step: &Step) -> Option<&Self> {
        match (&self.value, step) {
            (Value::Table(entries), Step::Key(key)) => entries.get(key),
            (Value::Array(items), Step::Index(index)) => items.get(*index),
            _ => None,
        }
    }

    /// The value at a path.
    pub(super) fn get(&self, path: &KeyPath) -> Option<&Self> {
        path.0.iter().try_fold(self, |node, step| node.child(step))
    }

    /// Where the value at a path was set, or else the closest table around it.
    pub(super) fn locate(&self, path: &KeyPath) -> &Origin {
        let mut node = self;
        for step in &path.0 {
            match node.child(step) {
                Some(child) => node = child,
                None => break,
            }
        }
        &node.origin
    }

    /// Puts a value over what is there; makes the tables on the way.
    ///
    /// # Errors
    /// If something on the way is set and not a table: what and where.
    pub(super) fn set(&mut self, path: &[String], value: Self) -> Result<(), String> {
        let Some((last, tables)) = path.split_last() else { return Err("it names no key".to_owned()) };
        let mut node = self;
        for (depth, key) in tables.iter().enumerate() {
            let here = || KeyPath::new(path[..=depth].iter().map(String::as_str));
            let Value::Table(entries) = &mut node.value else {
                return Err(not_a_table(&here().parent(), &node.origin));
            };
            node = entries.entry(key.clone()).or_insert_with(|| Self::table(value.origin.clone()));
        }
        let Value::Table(entries) = &mut node.value else {
            return Err(not_a_table(&KeyPath::new(tables.iter().map(String::as_str)), &node.origin));
        };
        entries.insert(last.clone(), value);
        Ok(())
    }

    /// Takes a value away. False if there is none.
    pub(super) fn remove(&mut self, path: &KeyPath) -> bool {
        let Some((last, steps)) = path.0.split_last() else { return false };
        let mut node = self;
        for step in steps {
            let child = match (&mut node.value, step) {
                (Value::Table(entries), Step::Key(key)) => entries.get_mut(key),
                (Value::Array(items), Step::Index(index)) => items.get_mut(*index),
                _ => None,
            };
            match child {
                Some(child) => node = child,
                None => return false,
            }
        }
        match (&mut node.value, last) {
            (Value::Table(entries), Step::Key(key)) => entries.remove(key).is_some(),
            (Value::Array(items), Step::Index(index)) if *index < items.len() => {
                items.remove(*index);
                true
            }
            _ => false,
        }
    }

    /// The value as TOML on one line, cut if long.
    pub(super) fn shown(&self) -> String {
        let whole = self.raw.clone().unwrap_or_else(|| self.value.to_string());
        match whole.char_indices().nth(SHOWN_CHARS_MAX) {
            Some((end, _)) => format!("{}…", &whole[..end]),
            None => whole,
        }
    }
}

fn not_a_table(path: &KeyPath, origin: &Origin) -> String {
    format!("{path} is not a table ({origin})")
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::String(text) => write!(f, "{text:?}"),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Float(number) => write!(f, "{number:?}"),
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Array(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    write!(f, "{}{}", if index > 0 { ", " } else { "" }, item.value)?;
                }
                f.write_str("]")
            }
            Self::Table(entries) => {
                f.write_str("{")?;
                for (index, (key, entry)) in entries.iter().enumerate() {
                    write!(f, "{} {key} = {}", if index > 0 { "," } else { "" }, entry.value)?;
                }
                f.write_str(" }")
            }
        }
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => {
                    let bare =
                        !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
                    let dot = if index > 0 { "." } else { "" };
                    if bare { write!(f, "{dot}{key}")? } else { write!(f, "{dot}{key:?}")? }
                }
            }
        }
        Ok(())
    }
}
