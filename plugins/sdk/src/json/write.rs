//! Writing by hand into one string, for frames that are sent often.

/// Writes a text with its quotes.
pub fn string(json: &mut String, text: &str) {
    if text.bytes().any(needs_escape) {
        // Writing to memory cannot fail.
        json.push_str(&serde_json::to_string(text).unwrap_or_default());
        return;
    }
    json.push('"');
    json.push_str(text);
    json.push('"');
}

/// How many bytes [`string`] writes at most.
pub fn string_len(text: &str) -> usize {
    2 + text.bytes().map(|byte| if byte < 0x20 { 6 } else { 1 + usize::from(needs_escape(byte)) }).sum::<usize>()
}

fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// Writes a whole number.
pub fn number(json: &mut String, value: u64) {
    json.push_str(itoa::Buffer::new().format(value));
}

/// Writes a list by its items.
pub fn list<T>(json: &mut String, items: impl IntoIterator<Item = T>, mut write: impl FnMut(&mut String, T)) {
    json.push('[');
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            json.push(',');
        }
        write(json, item);
    }
    json.push(']');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_reads_back_and_is_as_long_as_said_at_most() {
        let every: String = ('\0'..'\u{250}').chain(['\u{2028}', '\u{feff}', '😀']).collect();
        let pairs = every.chars().map(|char| format!("a{char}b"));
        for text in pairs.chain([String::new(), every.clone()]) {
            let mut json = String::new();
            string(&mut json, &text);
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text, "{json}");
            assert!(json.len() <= string_len(&text), "{json}");
        }
    }

    #[test]
    fn lists_and_numbers() {
        let mut json = String::new();
        list(&mut json, [0, 7, u64::MAX], number);
        assert_eq!(json, "[0,7,18446744073709551615]");
        list(&mut json, [0; 0], number);
        assert_eq!(json, "[0,7,18446744073709551615][]");
    }
}
