//! Texts with placeholders: paths, headers and messages.

use super::BenchError;
use super::stamp::Stamp;

/// A text with placeholders, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template(Box<[Part]>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Room,
    Conn,
    Seq,
    Stamp,
    Pad,
    Token,
}

/// The placeholders there are.
const PLACEHOLDERS: [(&str, Part); 6] = [
    ("{room}", Part::Room),
    ("{conn}", Part::Conn),
    ("{seq}", Part::Seq),
    ("{ts}", Part::Stamp),
    ("{pad}", Part::Pad),
    ("{token}", Part::Token),
];

/// What placeholders stand for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Values<'a> {
    /// Number of the room; `{room}` is `r0`, `r1`, …
    pub(super) room: u32,
    /// Number of the connection.
    pub(super) conn: u32,
    /// Number of the publish.
    pub(super) seq: u64,
    pub(super) stamp: Stamp,
    pub(super) token: &'a str,
    /// Bytes the whole text is filled up to where `{pad}` stands.
    pub(super) bytes: usize,
}

impl Template {
    /// Parses a text; `option` names it in errors. Braces that are no placeholder, as in JSON, stand for themselves.
    pub(super) fn parse(option: &'static str, text: &str) -> Result<Self, BenchError> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            if let Some((name, part)) = PLACEHOLDERS.iter().find(|(name, _)| rest.starts_with(name)) {
                if !plain.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut plain).into()));
                }
                parts.push(part.clone());
                rest = &rest[name.len()..];
                continue;
            }
            if let Some(unknown) = placeholder(rest) {
                let known = PLACEHOLDERS.map(|(name, _)| name).join(" ");
                return Err(BenchError::Placeholder { option, unknown: unknown.to_owned(), known });
            }
            plain.push(first);
            rest = &rest[first.len_utf8()..];
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain.into()));
        }
        Ok(Self(parts.into()))
    }

    /// Whether it says when it was sent.
    pub(super) fn has_stamp(&self) -> bool {
        self.0.contains(&Part::Stamp)
    }

    /// Appends the text.
    pub(super) fn fill(&self, values: &Values<'_>, out: &mut Vec<u8>) {
        let start = out.len();
        let mut pad_at = None;
        for part in &self.0 {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Room => {
                    out.push(b'r');
                    decimal(u64::from(values.room), out);
                }
                Part::Conn => decimal(u64::from(values.conn), out),
                Part::Seq => decimal(values.seq, out),
                Part::Stamp => values.stamp.write(out),
                Part::Pad => pad_at = Some(out.len()),
                Part::Token => out.extend_from_slice(values.token.as_bytes()),
            }
        }
        let Some(pad_at) = pad_at else { return };
        let end = out.len();
        let pad = values.bytes.saturating_sub(end - start);
        out.resize(end + pad, b'x');
        out.copy_within(pad_at..end, pad_at + pad);
        out[pad_at..pad_at + pad].fill(b'x');
    }

    /// The text as a string.
    pub(super) fn text(&self, values: &Values<'_>) -> String {
        let mut out = Vec::new();
        self.fill(values, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }
}

/// `{word}`, which is no JSON: somebody meant a placeholder.
fn placeholder(text: &str) -> Option<&str> {
    let inside = text.strip_prefix('{')?;
    let end = inside.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')?;
    (end > 0 && inside[end..].starts_with('}')).then(|| &text[..end + 2])
}

fn decimal(value: u64, out: &mut Vec<u8>) {
    let start = out.len();
    let mut rest = value;
    loop {
        out.push(b'0' + (rest % 10) as u8);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out[start..].reverse();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str, bytes: usize) -> String {
        let stamp = Stamp { due_ns: 5, slot: 6 };
        let values = Values { room: 10, conn: 0, seq: 1_203, stamp, token: "t.o.k", bytes };
        Template::parse("--publish", text).unwrap().text(&values)
    }

    #[test]
    fn placeholders_are_filled_and_braces_stay() {
        assert_eq!(filled("", 0), "");
        assert_eq!(filled(r#"{"a":{"b":"{room}/{conn}/{seq}"}}"#, 0), r#"{"a":{"b":"r10/0/1203"}}"#);
        assert_eq!(filled("é{ts}", 0), "éhb000000000000000500000006");
        assert_eq!(filled("?token={token}", 0), "?token=t.o.k");
        assert_eq!(filled("{}{ room}{", 0), "{}{ room}{");
    }

    #[test]
    fn a_pad_fills_up_where_it_stands() {
        assert_eq!(filled("<{pad}>", 5), "<xxx>");
        assert_eq!(filled("{pad}abc", 6), "xxxabc");
        assert_eq!(filled("<{pad}>", 1), "<>");
    }

    #[test]
    fn a_misspelt_placeholder_is_named() {
        let error = Template::parse("--hello", r#"{"r":"{rom}"}"#).unwrap_err().to_string();
        for part in ["--hello", "{rom}", "{room}"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
