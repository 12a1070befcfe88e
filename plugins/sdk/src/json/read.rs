//! Reading without copies.

use std::borrow::Cow;

use serde::Deserialize;

use crate::Refusal;

/// A text, borrowed from what it was read from unless it has escapes. serde borrows a `Cow` in a field of a struct, but not inside an
/// `Option`, a list or a map: there this does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// Parses an object, and only an object: serde would take an array for a struct as well.
///
/// # Errors
/// `bad-request` with what was expected.
pub fn object<'a, T: Deserialize<'a>>(json: &'a str, expected: &'static str) -> Result<T, Refusal> {
    if !json.trim_ascii_start().starts_with('{') {
        return Err(Refusal::bad_request(expected));
    }
    serde_json::from_str(json).map_err(|_| Refusal::bad_request(expected))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RefusalCode;

    #[derive(Debug, Deserialize)]
    struct Named<'a> {
        #[serde(borrow, default)]
        name: Option<Text<'a>>,
    }

    #[test]
    fn texts_are_borrowed_unless_they_have_escapes() {
        let name = |json| object::<Named<'_>>(json, "").unwrap().name;
        assert!(matches!(name(r#" {"name":"ann"}"#), Some(Text(Cow::Borrowed("ann")))));
        assert!(matches!(name(r#"{"name":"\u0061nn"}"#), Some(Text(Cow::Owned(ann))) if ann == "ann"));
        assert_eq!(name("{}"), None);
    }

    #[test]
    fn what_is_no_object_of_this_form_is_refused_by_what_was_expected() {
        for wrong in ["", "[]", r#"["ann"]"#, "null", r#"{"name":1}"#, r#"{"name":"ann""#, r#"{"name":"a","name":"b"}"#]
        {
            let why = object::<Named<'_>>(wrong, "an object {name}").unwrap_err();
            assert_eq!((why.code, why.message.as_str()), (RefusalCode::BadRequest, "an object {name}"), "{wrong}");
        }
    }
}
