//! What people see: tables, sentences, times. Nothing that comes from strangers reaches the terminal as anything but text.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::sync::LazyLock;

use serde_json::Value;

use crate::telemetry::wall_ms;

pub(in crate::cli) use crate::telemetry::utc;

/// Whether colours are for anybody: only on a terminal.
static COLOURS: LazyLock<bool> = LazyLock::new(|| std::io::stdout().is_terminal());

/// How something looks on a terminal.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) enum Look {
    /// Of most things.
    Plain,
    /// Of headings.
    Bold,
    /// Of what went well.
    Green,
    /// Of what did not.
    Red,
    /// Of what matters less.
    Faint,
}

/// A text with a look.
pub(in crate::cli) fn paint(look: Look, text: &str) -> String {
    let code = match look {
        Look::Plain => return text.to_owned(),
        Look::Bold => "1",
        Look::Green => "32",
        Look::Red => "31",
        Look::Faint => "2",
    };
    if *COLOURS { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
}

/// A text without control characters: they could move the cursor, or write over what stands there. Lines stay lines.
pub(in crate::cli) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// The same as one line.
fn one_line(text: &str) -> String {
    plain(text).replace('\n', " ")
}

/// A field of an answer as text; nothing if it is not there.
pub(super) fn text(value: &Value, key: &str) -> String {
    match &value[key] {
        Value::Null => String::new(),
        Value::String(text) => one_line(text),
        other => one_line(&other.to_string()),
    }
}

/// A number of an answer.
pub(super) fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_default()
}

/// The rows of a list.
pub(super) fn items(answer: &Value) -> &[Value] {
    answer["items"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The first digits of a digest: enough to name a version.
pub(super) fn short(digest: &str) -> String {
    digest.chars().take(12).collect()
}

/// How long ago something was.
pub(super) fn ago(at_ms: u64) -> String {
    let seconds = wall_ms().saturating_sub(at_ms) / 1_000;
    match seconds {
        0..60 => format!("{seconds}s ago"),
        60..3_600 => format!("{}m ago", seconds / 60),
        3_600..172_800 => format!("{}h ago", seconds / 3_600),
        _ => format!("{}d ago", seconds / 86_400),
    }
}

/// A number of bytes for people.
pub(super) fn bytes(number: u64) -> String {
    match number {
        0..1_024 => format!("{number} B"),
        1_024..1_048_576 => format!("{:.1} KiB", number as f64 / 1_024.0),
        _ => format!("{:.1} MiB", number as f64 / 1_048_576.0),
    }
}

/// A list as a table with a heading, or, if it is empty, a sentence; and what to do if there are more rows.
pub(super) fn table<const N: usize>(
    heading: [&str; N],
    answer: &Value,
    empty: &str,
    row: impl Fn(&Value) -> [String; N],
) -> String {
    let rows: Vec<[String; N]> = items(answer).iter().map(row).collect();
    if rows.is_empty() {
        return empty.to_owned();
    }
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([heading[column].len()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |cells: [&str; N]| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut out = paint(Look::Bold, &line(heading));
    for row in &rows {
        out.push('\n');
        out.push_str(&line(row.each_ref().map(String::as_str)));
    }
    if answer["next"].is_string() {
        out.push('\n');
        out.push_str(&paint(Look::Faint, &format!("the first {}; --limit shows more", rows.len())));
    }
    out
}

/// Fields with their names, one per line; those without a value are left out.
pub(super) fn fields(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let mut out = String::new();
    for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        // Writing to a text always succeeds.
        writeln!(out, "{name:<width$}  {value}").ok();
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (at_ms, expected) in [
            (0, "1970-01-01 00:00:00Z"),
            (951_782_399_999, "2000-02-28 23:59:59Z"),
            (951_868_800_000, "2000-03-01 00:00:00Z"),
            (1_709_210_096_000, "2024-02-29 12:34:56Z"),
            (4_107_542_400_000, "2100-03-01 00:00:00Z"),
        ] {
            assert_eq!(utc(at_ms), expected);
        }
    }

    #[test]
    fn columns_are_aligned_and_strangers_write_no_control_characters() {
        let list = json!({ "items": [{ "a": "x", "b": 1 }, { "a": "long\u{1b}[2J", "b": 20 }], "next": "i1" });
        let table = table(["A", "B"], &list, "nothing", |row| [text(row, "a"), text(row, "b")]);

        assert_eq!(table, "A         B\nx         1\nlong\u{fffd}[2J  20\nthe first 2; --limit shows more");
        assert_eq!(super::table(["A"], &json!({ "items": [] }), "nothing", |_| [String::new()]), "nothing");
        assert_eq!(plain("a\nb\r\u{7}"), "a\nb\u{fffd}\u{fffd}");
    }
}
