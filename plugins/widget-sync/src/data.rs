//! The data of a widget: a JSON object of which only the keys are understood. Values are kept as the text they came as, so
//! that large integers, `-0` and `1e400` stay what they are.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::encode;
use crate::frame::Text;

/// What a key costs beside its text, in the count of a dashboard's bytes: about what it costs in memory.
const FIELD_BYTES: usize = 32;

/// Keys and values to be merged into a widget's data, borrowed from a message. Of a key that comes twice the last counts.
#[derive(Default)]
pub(crate) struct Patch<'a> {
    /// By key: its place among the others, and its value as it came.
    fields: BTreeMap<Cow<'a, str>, (u64, &'a str)>,
}

impl<'a> Patch<'a> {
    /// Parses an object; `None` if it is none.
    pub(crate) fn parse(json: &'a str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }

    /// Leaves only the keys that some data lacks.
    pub(crate) fn retain_missing(&mut self, data: &Data) {
        self.fields.retain(|key, _| !data.fields.contains_key(&**key));
    }

    /// Whether there is nothing to merge.
    pub(crate) fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Writes the object.
    pub(crate) fn write(&self, json: &mut String) {
        let mut fields: Vec<_> = self.fields.iter().map(|(key, (place, value))| (*place, &**key, *value)).collect();
        fields.sort_unstable();
        write_object(json, fields.into_iter().map(|(_, key, value)| (key, value)));
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Patch<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct PatchVisitor;
        impl<'de> Visitor<'de> for PatchVisitor {
            type Value = Patch<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields: BTreeMap<Cow<'de, str>, (u64, &'de str)> = BTreeMap::new();
                while let Some(Text(key)) = map.next_key()? {
                    let value: &RawValue = map.next_value()?;
                    let place = fields.len() as u64;
                    fields.entry(key).or_insert((place, "")).1 = value.get();
                }
                Ok(Patch { fields })
            }
        }
        from.deserialize_map(PatchVisitor)
    }
}

/// The data of a widget.
#[derive(Clone, Default)]
pub(crate) struct Data {
    fields: BTreeMap<Rc<str>, Field>,
    next_place: u64,
    /// Bytes of keys with their quotes and of values.
    content_bytes: usize,
    /// The object as text, until a merge changes it.
    text: Option<Rc<str>>,
}

#[derive(Clone)]
struct Field {
    /// Keys stay in the order in which they first came.
    place: u64,
    value: Rc<str>,
}

impl Data {
    /// Reads what [`Data::text`] wrote. What is not an object reads as an empty one.
    pub(crate) fn read(json: &str) -> Self {
        let mut data = Self::default();
        data.merge(&Patch::parse(json).unwrap_or_default());
        data.text = Some(json.into());
        data
    }

    /// Takes over the keys and values of a patch; keys that it lacks stay.
    pub(crate) fn merge(&mut self, patch: &Patch<'_>) {
        for (key, (place, value)) in &patch.fields {
            self.content_bytes += value.len();
            if let Some(field) = self.fields.get_mut(&**key) {
                self.content_bytes -= field.value.len();
                field.value = (*value).into();
            } else {
                self.content_bytes += encode::string_len(key);
                let field = Field { place: self.next_place + place, value: (*value).into() };
                self.fields.insert((&**key).into(), field);
            }
        }
        self.next_place += patch.fields.len() as u64;
        self.text = None;
    }

    /// What [`Data::size`] would be after a merge.
    pub(crate) fn size_with(&self, patch: &Patch<'_>) -> Size {
        let (mut content, mut keys) = (self.content_bytes, self.fields.len());
        for (key, (_, value)) in &patch.fields {
            content += value.len();
            if let Some(field) = self.fields.get(&**key) {
                content -= field.value.len();
            } else {
                content += encode::string_len(key);
                keys += 1;
            }
        }
        Size::of(content, keys)
    }

    /// The object as text.
    pub(crate) fn text(&mut self) -> Rc<str> {
        let Self { fields, text, content_bytes, .. } = self;
        let text = text.get_or_insert_with(|| {
            let mut order: Vec<_> = fields.iter().map(|(key, field)| (field.place, &**key, &*field.value)).collect();
            order.sort_unstable();
            let mut json = String::with_capacity(Size::of(*content_bytes, order.len()).json_bytes);
            write_object(&mut json, order.into_iter().map(|(_, key, value)| (key, value)));
            json.into()
        });
        Rc::clone(text)
    }
}

/// How large data is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Size {
    /// As JSON.
    pub(crate) json_bytes: usize,
    /// As it counts against the bound of a dashboard.
    pub(crate) counted_bytes: usize,
}

impl Size {
    fn of(content_bytes: usize, keys: usize) -> Self {
        // Braces, colons and commas.
        let json_bytes = content_bytes + 2 + (2 * keys).saturating_sub(1);
        Self { json_bytes, counted_bytes: json_bytes + keys * FIELD_BYTES }
    }
}

fn write_object<'a>(json: &mut String, fields: impl Iterator<Item = (&'a str, &'a str)>) {
    json.push('{');
    for (index, (key, value)) in fields.enumerate() {
        if index > 0 {
            json.push(',');
        }
        encode::string(json, key);
        json.push(':');
        json.push_str(value);
    }
    json.push('}');
}
