//! From the tree to typed values. A `serde` deserializer of our own, because its errors keep apart what a generic one
//! turns into prose: an unknown key (with the keys there are), a missing key, a wrong value.

use std::fmt;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{self, DeserializeOwned, Expected, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;
use serde_path_to_error::Segment;

use super::error::ConfigError;
use super::source::nearest_key;
use super::tree::{KeyPath, Node, Step, Value};

/// Deserializes the tree. After an error the value at fault is taken away and the rest is tried again, so that one run
/// finds all errors. `None` if what remains cannot be read at all.
pub(super) fn deserialize<T: DeserializeOwned>(tree: &Node, errors: &mut Vec<ConfigError>) -> Option<T> {
    let mut rest = tree.clone();
    let mut removed: Vec<KeyPath> = Vec::new();
    loop {
        let error = match serde_path_to_error::deserialize(Reader(&rest)) {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        let path = key_path(error.path());
        let fault = match error.into_inner() {
            Problem::Missing(field) => {
                let missing = path.key(field);
                // A key that is missing only because its value was wrong has been reported.
                if !removed.contains(&missing) {
                    let origin = rest.locate(&path).clone();
                    errors.push(ConfigError::MissingKey { origin, key: missing.to_string() });
                }
                path
            }
            Problem::Unknown { field, known } => {
                // The path may end before or at the key, depending on who found it.
                let unknown = if path.0.last() == Some(&Step::Key(field.clone())) { path } else { path.key(&field) };
                errors.push(unknown_key(&rest, &unknown, &field, known));
                unknown
            }
            Problem::Value(reason) => {
                // What stands in place of a table may be the secret that belongs into it.
                let secret = match path.0.as_slice() {
                    [Step::Key(table), ..] if table == "key" => path.0.len() <= 2,
                    [Step::Key(table), rest @ ..] if table == "datasource" => {
                        rest.len() <= 1 || rest.get(1) == Some(&Step::Key("url".to_owned()))
                    }
                    _ => false,
                };
                let value = rest.get(&path).filter(|_| !secret).map(Node::shown);
                errors.push(ConfigError::Value {
                    origin: rest.locate(&path).clone(),
                    key: path.to_string(),
                    value,
                    reason,
                });
                path
            }
        };
        // Taking an array's item away would renumber the others: the whole array goes.
        let end = fault.0.iter().position(|step| matches!(step, Step::Index(_))).unwrap_or(fault.0.len());
        let fault = KeyPath(fault.0[..end].to_vec());
        if !rest.remove(&fault) {
            return None;
        }
        removed.push(fault);
    }
}

fn unknown_key(tree: &Node, path: &KeyPath, field: &str, known: &[&str]) -> ConfigError {
    let origin = tree.locate(path).clone();
    let hint = nearest_key(&path.parent(), field, known.iter().copied(), &origin);
    ConfigError::UnknownKey { origin, key: path.to_string(), hint }
}

fn key_path(path: &serde_path_to_error::Path) -> KeyPath {
    let steps = path.iter().filter_map(|segment| match segment {
        Segment::Map { key } => Some(Step::Key(key.clone())),
        Segment::Seq { index } => Some(Step::Index(*index)),
        Segment::Enum { .. } | Segment::Unknown => None,
    });
    KeyPath(steps.collect())
}

/// What deserializing can find.
#[derive(Debug)]
enum Problem {
    Unknown { field: String, known: &'static [&'static str] },
    Missing(&'static str),
    Value(String),
}

impl std::error::Error for Problem {}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { field, .. } => write!(f, "unknown key {field}"),
            Self::Missing(field) => write!(f, "{field} is missing"),
            Self::Value(reason) => f.write_str(reason),
        }
    }
}

impl de::Error for Problem {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Value(message.to_string())
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::Value(format!("must be {}", words(expected)))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::Value(format!("must be {}", words(expected)))
    }

    fn unknown_variant(_: &str, known: &'static [&'static str]) -> Self {
        let quoted: Vec<_> = known.iter().map(|name| format!("{name:?}")).collect();
        Self::Value(format!("must be one of {}", quoted.join(", ")))
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        Self::Unknown { field: field.to_owned(), known }
    }

    fn missing_field(field: &'static str) -> Self {
        Self::Missing(field)
    }
}

/// `serde`'s names of types, in the words of a configuration file.
fn words(expected: &dyn Expected) -> String {
    let text = expected.to_string();
    match text.as_str() {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, not negative and not too large".to_owned(),
        "a sequence" => "an array".to_owned(),
        "a map" => "a table".to_owned(),
        "path string" => "a path".to_owned(),
        _ if text.starts_with("struct ") => "a table".to_owned(),
        _ if text.starts_with("enum ") || text == "variant identifier" => "one of its words, in quotes".to_owned(),
        _ => text,
    }
}

/// Reads one node.
struct Reader<'de>(&'de Node);

impl<'de> IntoDeserializer<'de, Problem> for Reader<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> de::Deserializer<'de> for Reader<'de> {
    type Error = Problem;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.0.value {
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Boolean(value) => visitor.visit_bool(*value),
            Value::Array(items) => visitor.visit_seq(SeqDeserializer::new(items.iter().map(Reader))),
            Value::Table(entries) => {
                visitor.visit_map(MapDeserializer::new(entries.iter().map(|(key, node)| (key.as_str(), Reader(node)))))
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.0.raw {
            Some(raw) if !matches!(self.0.value, Value::String(_)) => visitor.visit_borrowed_str(raw),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        self.deserialize_str(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        match &self.0.value {
            Value::String(text) => {
                let text: de::value::StrDeserializer<'_, Problem> = text.as_str().into_deserializer();
                text.deserialize_enum(name, variants, visitor)
            }
            _ => Err(de::Error::unknown_variant("", variants)),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct seq tuple tuple_struct
        map struct identifier ignored_any
    }
}
