//! The data of a widget: a JSON object of which only the keys are understood. Values are kept as the text they came as, so
//! that large integers, `-0` and `1e400` stay what they are.

use hotbay_sdk::json;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use hotbay_sdk::json::Text;

/// Keys of a widget's data; what is below them is not counted.
pub(crate) const KEYS_MAX: usize = 1_000;
/// What a key costs beside its text, in the count of a dashboard's bytes: about what it costs in memory.
const KEY_BYTES: usize = 32;

/// Keys and values to be merged into a widget's data, borrowed from a message. Of a key that comes twice the last counts.
#[derive(Default)]
pub(crate) struct Patch<'a> {
    /// By key: its place among the others, and its value as it came.
    fields: BTreeMap<Cow<'a, str>, (u64, &'a str)>,
    /// There were more keys than asked for; they are left out.
    is_cut: bool,
}

impl<'a> Patch<'a> {
    /// Parses an object; `None` if it is none. What is beyond [`KEYS_MAX`] only shows in [`Patch::is_cut`].
    pub(crate) fn parse(json: &'a str) -> Option<Self> {
        Self::parse_within(json, KEYS_MAX)
    }

    fn parse_within(json: &'a str, keys_max: usize) -> Option<Self> {
        let mut from = serde_json::Deserializer::from_str(json);
        let patch = from.deserialize_map(PatchVisitor { keys_max }).ok()?;
        from.end().ok()?;
        Some(patch)
    }

    /// Whether keys were left out.
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// How many keys there are.
    pub(crate) fn keys(&self) -> usize {
        self.fields.len()
    }

    /// Leaves only the keys that some data lacks.
    pub(crate) fn retain_missing(&mut self, data: &mut Data) {
        let fields = data.parse();
        self.fields.retain(|key, _| !fields.by_key.contains_key(&**key));
    }

    /// Writes the object.
    pub(crate) fn write(&self, json: &mut String) {
        let mut fields: Vec<_> = self.fields.iter().map(|(key, (place, value))| (*place, &**key, *value)).collect();
        fields.sort_unstable();
        write_object(json, fields.into_iter().map(|(_, key, value)| (key, value)));
    }
}

struct PatchVisitor {
    keys_max: usize,
}

impl<'de> Visitor<'de> for PatchVisitor {
    type Value = Patch<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut patch = Patch::default();
        while let Some(Text(key)) = map.next_key()? {
            if patch.fields.len() >= self.keys_max && !patch.fields.contains_key(&key) {
                patch.is_cut = true;
                let IgnoredAny = map.next_value()?;
                continue;
            }
            let value: &RawValue = map.next_value()?;
            let place = patch.fields.len() as u64;
            patch.fields.entry(key).or_insert((place, "")).1 = value.get();
        }
        Ok(patch)
    }
}

/// The data of a widget: as text, parsed, or both.
#[derive(Clone)]
pub(crate) struct Data {
    /// Absent once a merge changed it.
    text: Option<Rc<str>>,
    /// Absent until a merge needs them: most data is only handed on.
    fields: Option<Fields>,
}

#[derive(Clone, Default)]
struct Fields {
    by_key: BTreeMap<Rc<str>, Field>,
    next_place: u64,
    /// Bytes of keys with their quotes and of values.
    content_bytes: usize,
}

#[derive(Clone)]
struct Field {
    /// Keys stay in the order in which they first came.
    place: u64,
    value: Rc<str>,
}

impl Data {
    /// Data without any key.
    pub(crate) fn empty() -> Self {
        Self { text: None, fields: Some(Fields::default()) }
    }

    /// Takes over what [`Data::text`] wrote.
    pub(crate) fn read(json: &str) -> Self {
        Self { text: Some(json.into()), fields: None }
    }

    /// How many keys there are, if that is known without work.
    pub(crate) fn keys(&self) -> Option<usize> {
        self.fields.as_ref().map(|fields| fields.by_key.len())
    }

    fn parse(&mut self) -> &mut Fields {
        let Self { text, fields } = self;
        fields.get_or_insert_with(|| {
            let mut fields = Fields::default();
            let patch = text.as_deref().and_then(|text| Patch::parse_within(text, usize::MAX));
            // It was written by this plugin; if it is no object all the same, nothing can be saved of it.
            fields.merge(&patch.unwrap_or_default());
            fields
        })
    }

    /// Takes over the keys and values of a patch; keys that it lacks stay.
    pub(crate) fn merge(&mut self, patch: &Patch<'_>) {
        self.parse().merge(patch);
        self.text = None;
    }

    /// How large it would be after a merge.
    pub(crate) fn size_with(&mut self, patch: &Patch<'_>) -> Size {
        let fields = self.parse();
        let (mut content, mut keys) = (fields.content_bytes, fields.by_key.len());
        for (key, (_, value)) in &patch.fields {
            content += value.len();
            if let Some(field) = fields.by_key.get(&**key) {
                content -= field.value.len();
            } else {
                content += json::string_len(key);
                keys += 1;
            }
        }
        Size::of(content, keys)
    }

    /// The object as text.
    pub(crate) fn text(&mut self) -> Rc<str> {
        let Self { text, fields } = self;
        Rc::clone(text.get_or_insert_with(|| fields.as_ref().map_or_else(|| "{}".into(), Fields::write)))
    }
}

impl Fields {
    fn merge(&mut self, patch: &Patch<'_>) {
        for (key, (place, value)) in &patch.fields {
            self.content_bytes += value.len();
            if let Some(field) = self.by_key.get_mut(&**key) {
                self.content_bytes -= field.value.len();
                field.value = (*value).into();
            } else {
                self.content_bytes += json::string_len(key);
                let field = Field { place: self.next_place + place, value: (*value).into() };
                self.by_key.insert((&**key).into(), field);
            }
        }
        self.next_place += patch.fields.len() as u64;
    }

    fn write(&self) -> Rc<str> {
        let mut order: Vec<_> = self.by_key.iter().map(|(key, field)| (field.place, &**key, &*field.value)).collect();
        order.sort_unstable();
        let mut json = String::with_capacity(Size::of(self.content_bytes, order.len()).json_bytes);
        write_object(&mut json, order.into_iter().map(|(_, key, value)| (key, value)));
        json.into()
    }
}

/// How large data is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Size {
    pub(crate) keys: usize,
    /// As JSON.
    pub(crate) json_bytes: usize,
    /// As it counts against the bound of a dashboard.
    pub(crate) counted_bytes: usize,
}

impl Size {
    fn of(content_bytes: usize, keys: usize) -> Self {
        // Braces, colons and commas.
        let json_bytes = content_bytes + 2 + (2 * keys).saturating_sub(1);
        Self { keys, json_bytes, counted_bytes: json_bytes + keys * KEY_BYTES }
    }
}

fn write_object<'a>(json: &mut String, fields: impl Iterator<Item = (&'a str, &'a str)>) {
    json.push('{');
    for (index, (key, value)) in fields.enumerate() {
        if index > 0 {
            json.push(',');
        }
        json::string(json, key);
        json.push(':');
        json.push_str(value);
    }
    json.push('}');
}
