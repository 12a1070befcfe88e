//! What a plugin must look for in JSON that it passes on unread: parsers that skip a value take what others refuse.

/// Deepest nesting of arrays and objects: many parsers end at 128, and whoever passes a value on puts an envelope around it.
pub const DEPTH_MAX: u32 = 100;

/// Why a value must not be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// Deeper than [`DEPTH_MAX`].
    Deep,
    /// Half of a surrogate pair, which is no Unicode text (RFC 8259 §8.2).
    LoneSurrogate,
}

impl Unreadable {
    /// A sentence for the sender.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Deep => "the message is nested deeper than 100 levels",
            Self::LoneSurrogate => "the message has half of a surrogate pair (\\ud800 to \\udfff), which is no text",
        }
    }
}

/// Checks JSON whose grammar is known to be right, such as a raw value of `serde_json`. Reads each byte once.
///
/// # Errors
/// What is wrong with it.
pub fn check(json: &str) -> Result<(), Unreadable> {
    let bytes = json.as_bytes();
    let (mut at, mut depth, mut in_text) = (0, 0_u32, false);
    while let Some(byte) = bytes.get(at) {
        at += 1;
        match (byte, in_text) {
            (b'"', _) => in_text = !in_text,
            (b'\\', true) => match code_unit(bytes, at) {
                Some(0xd800..=0xdbff) if matches!(low_after(bytes, at), Some(0xdc00..=0xdfff)) => at += 11,
                Some(0xd800..=0xdfff) => return Err(Unreadable::LoneSurrogate),
                Some(_) => at += 5,
                None => at += 1,
            },
            (b'[' | b'{', false) => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return Err(Unreadable::Deep);
                }
            }
            (b']' | b'}', false) => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// The UTF-16 code unit of an escape `uXXXX`.
fn code_unit(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 5)?.strip_prefix(b"u")?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// That of the escape right after one at `at`.
fn low_after(bytes: &[u8], at: usize) -> Option<u16> {
    (bytes.get(at + 5) == Some(&b'\\')).then(|| code_unit(bytes, at + 6))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_surrogate_pair_is_found_wherever_it_is() {
        for good in
            [r#""\ud83d\ude00""#, r#""\\ud800""#, r#"{"a":"\u00e9\\","b":["\ud83d\ude00\ud83d\ude00"]}"#, r#""\"""#]
        {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            r#""\ud800""#,
            r#""\udc00""#,
            r#""\ud83d\u0041""#,
            r#"["a","\ud83d","\ude00"]"#,
            r#"{"\ude00\ud83d":1}"#,
            r#""\\\ud800""#,
        ] {
            assert_eq!(check(bad), Err(Unreadable::LoneSurrogate), "{bad}");
        }
    }

    #[test]
    fn nesting_has_a_bound_and_brackets_in_texts_are_none() {
        let nested = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        assert_eq!(check(&nested(100)), Ok(()));
        assert_eq!(check(&nested(101)), Err(Unreadable::Deep));
        assert_eq!(check(&format!("\"{}\"", "[{".repeat(1_000))), Ok(()));
        assert_eq!(check(&format!("[{}1]", "[],{},".repeat(1_000))), Ok(()));
    }
}
