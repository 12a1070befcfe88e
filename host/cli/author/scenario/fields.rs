//! Takes a table of a scenario apart, key by key, and complains about what is left over, missing or of the wrong type.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value};

use crate::cli::author::item::{Said, plain};

/// A table that is being read.
pub(super) struct Fields {
    /// Where it stands, for messages: `message`.
    path: String,
    left: Map<String, Value>,
    /// The keys that were asked for.
    known: Vec<&'static str>,
}

impl Fields {
    pub(super) fn new(path: &str, left: Map<String, Value>) -> Self {
        Self { path: path.to_owned(), left, known: Vec::new() }
    }

    /// A value that must be a table.
    pub(super) fn of(path: &str, value: Value) -> Result<Self, String> {
        match value {
            Value::Object(left) => Ok(Self::new(path, left)),
            other => Err(format!("`{path}` must be a table, not {other}")),
        }
    }

    /// A value that is a table, or a text, which stands for a table with this one key.
    pub(super) fn short(path: &str, value: Value, key: &str) -> Result<Self, String> {
        match value {
            Value::String(_) => Ok(Self::new(path, Map::from_iter([(key.to_owned(), value)]))),
            Value::Object(left) => Ok(Self::new(path, left)),
            other => Err(format!("`{path}` must be a text or a table, not {other}")),
        }
    }

    /// Where a key stands.
    fn at(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub(super) fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.left.remove(key)
    }

    pub(super) fn text(&mut self, key: &'static str) -> Result<Option<String>, String> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(format!("`{}` must be a text, not {other}", self.at(key))),
        }
    }

    pub(super) fn needed_text(&mut self, key: &'static str) -> Result<String, String> {
        self.text(key)?.ok_or_else(|| format!("`{}` is missing", self.at(key)))
    }

    pub(super) fn number<T: TryFrom<u64>>(&mut self, key: &'static str) -> Result<Option<T>, String> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let number = value.as_u64().and_then(|number| T::try_from(number).ok());
        number.map(Some).ok_or_else(|| format!("`{}` must be a whole number from 0 on, not {value}", self.at(key)))
    }

    /// A key that is `true`, or not there.
    pub(super) fn flag(&mut self, key: &'static str) -> Result<bool, String> {
        match self.take(key) {
            None => Ok(false),
            Some(Value::Bool(true)) => Ok(true),
            Some(other) => Err(format!("`{}` must be true, or left out; it is {other}", self.at(key))),
        }
    }

    pub(super) fn list(&mut self, key: &'static str) -> Result<Option<Vec<Value>>, String> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Array(values)) => Ok(Some(values)),
            Some(other) => Err(format!("`{}` must be a list, not {other}", self.at(key))),
        }
    }

    /// A table of texts; empty if it is not there.
    pub(super) fn texts<C: FromIterator<(String, String)>>(&mut self, key: &'static str) -> Result<C, String> {
        let Some(value) = self.take(key) else { return Ok(C::from_iter([])) };
        let at = self.at(key);
        let text = |(name, value)| match value {
            Value::String(text) => Ok((name, text)),
            other => Err(format!("`{at}.{name}` must be a text, not {other}")),
        };
        Self::of(&at, value)?.left.into_iter().map(text).collect()
    }

    /// A table within, as the text of a JSON object; `{}` if it is not there.
    pub(super) fn object(&mut self, key: &'static str) -> Result<String, String> {
        let Some(value) = self.take(key) else { return Ok("{}".to_owned()) };
        Ok(Value::Object(Self::of(&self.at(key), value)?.left).to_string())
    }

    /// A table within that has nothing but a message: `frame = { json = … }`.
    pub(super) fn said_in(&mut self, key: &'static str) -> Result<Option<Said>, String> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let mut fields = Self::of(&self.at(key), value)?;
        let said = fields.needed_said()?;
        fields.end()?;
        Ok(Some(said))
    }

    /// What a message carries: one of `json`, `text` and `base64`.
    pub(super) fn said(&mut self) -> Result<Option<Said>, String> {
        let json = self.take("json").map(|value| self.json(value)).transpose()?.map(Said::Json);
        let text = self.text("text")?.map(Said::Text);
        let binary = self.text("base64")?.map(|text| BASE64_STANDARD.decode(text).map(Said::Binary));
        let binary = binary.transpose().map_err(|e| format!("`{}` is no base64: {e}", self.at("base64")))?;
        match (json, text, binary) {
            (said, None, None) | (None, said, None) | (None, None, said) => Ok(said),
            _ => Err(format!("`{}` has more than one of `json`, `text` and `base64`", self.path)),
        }
    }

    pub(super) fn needed_said(&mut self) -> Result<Said, String> {
        self.said()?.ok_or_else(|| format!("`{}` carries nothing: add `json`, `text` or `base64`", self.path))
    }

    /// A text stands for the JSON it spells, since TOML has no `null`.
    fn json(&self, value: Value) -> Result<Value, String> {
        let value = match value {
            Value::String(text) => serde_json::from_str(&text).map_err(|e| {
                format!(
                    r#"`{}` is a text, which must be JSON, as '{{"a":null}}' and '"a text"' are: {e}"#,
                    self.at("json")
                )
            })?,
            other => other,
        };
        Ok(plain(value))
    }

    /// Complains about what was not asked for.
    pub(super) fn end(self) -> Result<(), String> {
        const SIMILARITY_MIN: f64 = 0.7;
        let Some(key) = self.left.keys().next() else { return Ok(()) };
        let similar = |known: &&&'static str| strsim::jaro_winkler(known, key);
        let nearest = self.known.iter().max_by(|one, other| similar(one).total_cmp(&similar(other)));
        let hint = match nearest.filter(|known| similar(known) >= SIMILARITY_MIN) {
            Some(known) => format!("did you mean `{known}`?"),
            None => format!("there are: {}", self.known.join(", ")),
        };
        Err(format!("`{}` is not known; {hint}", self.at(key)))
    }
}
