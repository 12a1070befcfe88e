//! Evidence is kept for ever and shown to people, and comes from a process that a stranger's component ran in: it is cut to size.

use serde_json::{Map, Value, json};

use crate::limits::EVIDENCE_BYTES_MAX;

/// Most items of a list.
const ITEMS_MAX: usize = 32;
/// Deepest nesting.
const DEPTH_MAX: usize = 8;

/// The evidence as JSON of at most [`EVIDENCE_BYTES_MAX`] bytes: of texts their beginnings, of long lists the first items.
pub(super) fn bounded(evidence: Value) -> Value {
    let size = |evidence: &Value| evidence.to_string().len();
    if size(&evidence) <= EVIDENCE_BYTES_MAX {
        return evidence;
    }
    for chars_max in [800, 300, 100, 40] {
        let cut = cut(&evidence, chars_max, DEPTH_MAX);
        if size(&cut) <= EVIDENCE_BYTES_MAX {
            return cut;
        }
    }
    // The sentence counts.
    let error = evidence.get("error").and_then(Value::as_str).map(|error| shorten(error, 800));
    json!({ "error": error, "cut": true })
}

fn cut(value: &Value, chars_max: usize, depth: usize) -> Value {
    match value {
        Value::String(text) => Value::String(shorten(text, chars_max)),
        Value::Array(_) | Value::Object(_) if depth == 0 => Value::String("…".to_owned()),
        Value::Array(items) => items.iter().take(ITEMS_MAX).map(|item| cut(item, chars_max, depth - 1)).collect(),
        Value::Object(fields) => {
            let fields = fields.iter().take(ITEMS_MAX);
            let fields = fields.map(|(key, value)| (shorten(key, chars_max), cut(value, chars_max, depth - 1)));
            Value::Object(fields.collect::<Map<_, _>>())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

fn shorten(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Law: everything has a bound, whatever a worker says; what is small stays as it is.
    #[test]
    fn evidence_is_cut_to_size_and_keeps_its_sentence() {
        let small = json!({ "error": "x", "list": [1, 2, 3] });
        assert_eq!(bounded(small.clone()), small);
        let mut deep = json!("x".repeat(EVIDENCE_BYTES_MAX));
        for _ in 0..100 {
            deep = json!([deep]);
        }
        let many: Map<String, Value> =
            (0..1_000).map(|key| (format!("{key}é").repeat(50), json!("y".repeat(500)))).collect();
        for large in
            [json!("é".repeat(EVIDENCE_BYTES_MAX)), deep, Value::Object(many), json!(vec!["z".repeat(900); 500])]
        {
            let evidence = json!({ "error": "it is large", "given": large });
            let cut = bounded(evidence);
            assert!(cut.to_string().len() <= EVIDENCE_BYTES_MAX, "{} bytes", cut.to_string().len());
            assert_eq!(cut["error"], "it is large");
        }
    }
}
