//! Keeps the source as its architecture page says: who may import whom, one crate one door, files that a person can read,
//! and nothing of one machine in any tracked file. It reads text, not types; every rule has a test that makes it fail.

#![allow(clippy::expect_used, reason = "a test ends at the first surprise")]

use std::path::Path;
use std::process::Command;

/// Longest file, in lines: about 500, and some room for the last thought.
const LINES_MAX: usize = 550;

/// Modules that every module may import.
const OPEN: [&str; 3] = ["protocol", "limits", "telemetry"];

/// Modules that may import every other: they put the parts together, or are commands that use one part on its own.
const ROOTS: [&str; 3] = ["main", "cli", "broker"];

/// Who may import whom, and why where that is not plain from the layers.
const EDGES: &[(&str, &str, &str)] = &[
    ("server", "connection", ""),
    ("server", "auth", ""),
    ("connection", "channel", ""),
    ("connection", "outbox", ""),
    ("connection", "auth", ""),
    ("channel", "plugin", ""),
    ("channel", "fanout", ""),
    ("channel", "store", ""),
    ("channel", "datasource", ""),
    ("fanout", "outbox", ""),
    ("channel", "quota", "a channel and what it writes are on its tenant's account"),
    ("connection", "quota", "a connection and what it reads are on its tenant's account"),
    ("plugin", "quota", "memory and processor time of an instance are on its tenant's account"),
    ("registry", "quota", "how many versions a tenant may upload"),
    ("server", "quota", "requests and publications are on their tenant's account, and `/metrics` tells usage"),
    ("registry", "plugin", ""),
    ("registry", "store", ""),
    ("registry", "channel", "it tells channels which version they run"),
    ("server", "registry", "the admin API"),
    ("cluster", "outbox", ""),
    ("config", "auth", "each module owns the type of its settings; the configuration reads them"),
    ("config", "datasource", "each module owns the type of its settings; the configuration reads them"),
    ("config", "store", "each module owns the type of its settings; the configuration reads them"),
    ("server", "config", "a mount is what its configuration says"),
    ("server", "channel", "HTTP requests and publications become events without a connection"),
    ("server", "datasource", "whether the databases can be reached (`/readyz`)"),
    ("server", "store", "API keys, and whether the store takes writes (`/readyz`)"),
    ("channel", "outbox", "the census closes a user's oldest connection where a mount evicts"),
    ("connection", "fanout", "a connection hands channels the `Recipient` that bursts are sent to"),
    ("connection", "plugin", "a connection obeys the `Routing` of a frame, which channels never see"),
];

/// Modules that stand beside the broker: a root alone may import each, not even another root may.
const APART: &[(&str, &str)] = &[("bench", "cli")];

/// Crates that one module alone knows.
const DOORS: &[(&str, &str)] = &[
    ("axum", "server"),
    ("hyper", "server"),
    ("hyper_util", "server"),
    ("wasmtime", "plugin"),
    ("wasmtime_wasi", "plugin"),
    ("wasmtime_wasi_io", "plugin"),
    ("wasmparser", "plugin"),
    ("sqlx", "store"),
    ("sqlx", "datasource"),
    ("redis", "cluster"),
    ("jsonwebtoken", "auth"),
    ("tungstenite", "connection"),
    ("flate2", "protocol"),
    ("utoipa", "server"),
    ("utoipa", "registry"),
    ("ureq", "cli"),
    ("notify", "cli"),
];

/// Files of one machine.
const MACHINE_PATHS: [&str; 3] = [concat!("/", "work/"), concat!("/", "root/"), concat!("/home", "/")];

#[test]
fn the_source_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut sources = 0;
    for path in tracked_files(root) {
        // Some tracked files are no text, and a file may have been deleted and not yet committed.
        let Ok(text) = std::fs::read_to_string(root.join(&path)) else { continue };
        found.extend(machine_paths(&path, &text));
        if Path::new(&path).extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        sources += 1;
        found.extend(size(&path, &text));
        found.extend(head(&path, &text));
        if path.starts_with("host/") {
            found.extend(edges(&path, &text));
            found.extend(doors(&path, &text));
        }
    }
    assert!(sources > 50, "only {sources} files were found: is this a checkout?");
    assert!(found.is_empty(), "{} things are untidy:\n{}", found.len(), found.join("\n"));
}

fn tracked_files(root: &Path) -> Vec<String> {
    let output = Command::new("git").arg("-C").arg(root).args(["ls-files", "-z"]).output().expect("git");
    assert!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let list = String::from_utf8(output.stdout).expect("names in UTF-8");
    list.split_terminator('\0').map(str::to_owned).collect()
}

/// Whether a file can be read in one sitting.
fn size(path: &str, text: &str) -> Option<String> {
    let lines = text.lines().count();
    (lines > LINES_MAX).then(|| format!("{path}: {lines} lines; split it (at most {LINES_MAX})"))
}

/// Whether a file says what it owns.
fn head(path: &str, text: &str) -> Option<String> {
    (!text.starts_with("//!")).then(|| format!("{path}: does not begin with `//!`, what it owns"))
}

/// Whether a file knows one machine.
fn machine_paths(path: &str, text: &str) -> Vec<String> {
    let lines = text.lines().enumerate();
    lines
        .filter(|(_, line)| MACHINE_PATHS.iter().any(|machine| line.contains(machine)))
        .map(|(index, line)| format!("{path}:{}: names a path of one machine: {}", index + 1, line.trim()))
        .collect()
}

/// Whether a file imports modules it may not.
fn edges(path: &str, text: &str) -> Vec<String> {
    let Some(own) = module_of(path) else { return Vec::new() };
    let mut imports: Vec<String> = imports(path, text).into_iter().filter(|module| module != own).collect();
    imports.sort();
    imports.dedup();
    let allowed = |module: &String| {
        let apart = APART.iter().find(|(name, _)| name == module);
        apart.map_or(ROOTS.contains(&own), |(_, root)| *root == own)
            || OPEN.contains(&module.as_str())
            || EDGES.iter().any(|(from, to, _)| *from == own && to == module)
    };
    imports.retain(|module| !allowed(module));
    imports.iter().map(|module| format!("{path}: {own} may not import {module} (see EDGES in tests/tidy.rs)")).collect()
}

/// Whether a file uses a crate that belongs to another module.
fn doors(path: &str, text: &str) -> Vec<String> {
    let Some(own) = module_of(path) else { return Vec::new() };
    let words = words(text);
    let used = |name: &str| {
        (0..words.len()).any(|at| {
            let before = &words[..at];
            let begins_a_path = before.last() != Some(&"::") || before.ends_with(&["use", "::"]);
            let goes_on = words.get(at + 1) == Some(&"::") || before.last() == Some(&"use");
            words[at] == name && begins_a_path && goes_on
        })
    };
    let open = |crate_name: &str| DOORS.contains(&(crate_name, own));
    let mut closed: Vec<_> = DOORS.iter().filter(|(name, _)| !open(name) && used(name)).collect();
    closed.dedup_by_key(|(name, _)| *name);
    closed.into_iter().map(|(name, door)| format!("{path}: only host/{door} may use the crate {name}")).collect()
}

/// The top module a file of `host/` belongs to; the library's root has none.
fn module_of(path: &str) -> Option<&str> {
    let first = path.strip_prefix("host/")?.split('/').next()?;
    let module = first.strip_suffix(".rs").unwrap_or(first);
    (module != "lib").then_some(module)
}

/// The top modules that paths in a file name, by `crate::` or by enough `super::`.
fn imports(path: &str, text: &str) -> Vec<String> {
    let words = words(text);
    let mut found = Vec::new();
    for (at, word) in words.iter().enumerate() {
        if at > 0 && words[at - 1] == "::" {
            continue;
        }
        let mut next = at + 1;
        let mut supers = usize::from(*word == "super");
        while supers > 0 && words.get(next) == Some(&"::") && words.get(next + 1) == Some(&"super") {
            supers += 1;
            next += 2;
        }
        let at_root = *word == "crate" || (supers > 0 && supers >= depth(path));
        if !at_root || words.get(next) != Some(&"::") {
            continue;
        }
        let heads = match words.get(next + 1) {
            Some(&"{") => heads_of_group(&words[next + 2..]),
            Some(name) => vec![(*name).to_owned()],
            None => Vec::new(),
        };
        // From a `mod tests { … }` within the file it takes one `super` more: then the name is none of a module.
        found.extend(heads.into_iter().filter(|name| supers == 0 || is_module(name)));
    }
    found
}

/// Whether a name is one of the modules this page speaks of.
fn is_module(name: &str) -> bool {
    let edge = |(from, to, _): &(&str, &str, &str)| *from == name || *to == name;
    let apart = APART.iter().any(|(apart, _)| *apart == name);
    OPEN.contains(&name) || ROOTS.contains(&name) || apart || EDGES.iter().any(edge)
}

/// The first names within `{…}`: `{a::b, c, d::{e, f}}` gives a, c, d.
fn heads_of_group(words: &[&str]) -> Vec<String> {
    let (mut depth, mut expected, mut heads) = (1, true, Vec::new());
    for word in words {
        match *word {
            "{" => depth += 1,
            "}" => depth -= 1,
            "," if depth == 1 => expected = true,
            name if expected => {
                heads.push(name.to_owned());
                expected = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    heads
}

/// How many `super::` lead from a file to the root of the crate.
fn depth(path: &str) -> usize {
    let parts = path.split('/').count() - 1;
    if path.ends_with("/mod.rs") { parts - 1 } else { parts }
}

/// Words and the signs of paths, without comments, strings and characters.
fn words(text: &str) -> Vec<&str> {
    let bytes = text.as_bytes();
    let mut words = Vec::new();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let rest = &text[at..];
        let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = raw_string(rest) {
            length
        } else if byte == b'"' {
            string(rest)
        } else if rest.starts_with("'\\") {
            rest[3..].find('\'').map_or(rest.len(), |end| end + 4)
        } else if byte == b'\'' && rest.chars().nth(2) == Some('\'') {
            2 + rest.chars().nth(1).map_or(0, char::len_utf8)
        } else if word > 0 {
            words.push(&rest[..word]);
            word
        } else if rest.starts_with("::") {
            words.push("::");
            2
        } else {
            if let b'{' | b'}' | b',' | b';' = byte {
                words.push(&rest[..1]);
            }
            rest.chars().next().map_or(1, char::len_utf8)
        };
        at += skip;
    }
    words
}

/// The length of a string with its quotes.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            b'\\' if !escaped => escaped = true,
            b'"' if !escaped => return at + 1,
            _ => escaped = false,
        }
    }
    text.len()
}

/// The length of `r"…"` or `r#"…"#`, if one begins here.
fn raw_string(text: &str) -> Option<usize> {
    let after = text.strip_prefix("br").or_else(|| text.strip_prefix('r'))?;
    let hashes = after.bytes().take_while(|byte| *byte == b'#').count();
    let inside = after[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let inside_from = text.len() - inside.len();
    Some(inside.find(&end).map_or(text.len(), |at| inside_from + at + end.len()))
}

/// Bounds the plugins' harness has its own copies of, since it is another workspace: the constants it names, and where the host
/// has their values.
const COPIES: (&str, &str) = ("plugins/sdk/src/harness/state.rs", "host/limits.rs");

/// Law: what passes in a plugin's unit tests is within the bounds of the host.
#[test]
fn the_harness_has_the_bounds_of_the_host() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).expect(path);
    let (harness, host) = (read(COPIES.0), read(COPIES.1));

    let differ = other_bounds(&harness, &host);

    assert!(bounds(&harness).len() >= 9, "{} names no bounds: is this still the place?", COPIES.0);
    assert!(differ.is_empty(), "{} is not as {}:\n{}", COPIES.0, COPIES.1, differ.join("\n"));
}

/// The bounds of one text whose value in the other one is different, or that it does not have.
fn other_bounds(copy: &str, original: &str) -> Vec<String> {
    let originals = bounds(original);
    let differ = bounds(copy).into_iter().filter_map(|(name, value)| {
        let original = originals.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone());
        (original.as_ref() != Some(&value))
            .then(|| format!("{name} is {value}, but {}", original.unwrap_or_else(|| "nowhere".to_owned())))
    });
    differ.collect()
}

/// Names and values of constants, and of the fields of a `Default`, whose names end in `_MAX` or `_max`; names in capitals.
fn bounds(text: &str) -> Vec<(String, String)> {
    let constant = |line: &str| {
        let (name, value) = line.strip_prefix("pub const ")?.split_once(": ")?;
        let value = value.split_once(" = ")?.1.strip_suffix(';')?;
        Some((name.to_owned(), value.to_owned()))
    };
    let default = |line: &str| {
        let (name, value) = line.split_once(": ")?;
        let value = value.strip_suffix(',').filter(|value| value.starts_with(|first: char| first.is_ascii_digit()))?;
        Some((name.to_uppercase(), value.to_owned()))
    };
    let found = text.lines().map(str::trim).filter_map(|line| constant(line).or_else(|| default(line)));
    found.filter(|(name, _)| name.ends_with("_MAX")).collect()
}

mod every_rule_can_fail {
    use super::{
        LINES_MAX, MACHINE_PATHS, bounds, depth, doors, edges, head, imports, machine_paths, other_bounds, size, words,
    };

    #[test]
    fn an_import_against_the_layers_is_found_however_it_is_written() {
        for source in [
            "use crate::server::Site;",
            "use crate::{limits::NodeLimits, server::{Site, respond}, protocol};",
            "fn f() { crate::server::router(); }",
            "fn f<'a>(c: char) -> bool { c == '\"' || crate::server::f() }",
            "pub(crate) use crate::server as other;",
            "use super::server::Site;",
        ] {
            assert_eq!(edges("host/outbox.rs", source).len(), 1, "{source}");
        }
        assert_eq!(edges("host/store/sqlite/read.rs", "use super::super::super::channel::Core;").len(), 1);
        assert_eq!(edges("host/store/sqlite/read.rs", "use crate::{channel, plugin};").len(), 2);
    }

    #[test]
    fn an_import_along_the_layers_is_none_of_its_business() {
        for (path, source) in [
            ("host/outbox.rs", "use crate::protocol::close::Close; use crate::limits; use crate::telemetry::spawn;"),
            ("host/outbox.rs", "// crate::server::Site\n/* crate::server */ const A: &str = \"crate::server\";"),
            ("host/outbox.rs", "const A: &str = r#\"\" crate::server::x \"#; const B: char = '\\'';"),
            ("host/outbox.rs", "use crate::outbox::Outbox; mod tests { use super::Outbox; }"),
            ("host/connection/mod.rs", "use crate::channel::Directory;"),
            ("host/store/sqlite/read.rs", "use super::super::Store; use super::server::x;"),
            ("host/broker.rs", "use crate::server::Site; use crate::store::Store;"),
            ("host/lib.rs", "pub mod server;"),
            ("host/cli/bench.rs", "use crate::bench::Report;"),
            ("host/bench/run.rs", "use crate::limits; use super::plan::Plan; use super::super::protocol;"),
        ] {
            assert_eq!(edges(path, source), Vec::<String>::new(), "{source}");
        }
    }

    #[test]
    fn what_stands_apart_is_known_to_its_root_alone() {
        for (path, source) in [
            ("host/broker.rs", "use crate::bench::run;"),
            ("host/server/mod.rs", "use super::super::bench;"),
            ("host/bench/run.rs", "use crate::outbox::Outbox;"),
        ] {
            assert_eq!(edges(path, source).len(), 1, "{source}");
        }
    }

    #[test]
    fn groups_and_supers_are_resolved() {
        let source = "use crate::{a::{b, c}, d, e::f}; use super::super::{server::Site, g};";
        assert_eq!(imports("host/x/y.rs", source), ["a", "d", "e", "server"]);
        assert_eq!(
            [depth("host/a.rs"), depth("host/a/mod.rs"), depth("host/a/b.rs"), depth("host/a/b/c.rs")],
            [1, 1, 2, 3]
        );
        assert_eq!(words("a::b 'x' \"y\" // z\n{,;"), ["a", "::", "b", "{", ",", ";"]);
    }

    #[test]
    fn a_crate_used_beside_its_door_is_found() {
        for source in [
            "use axum::Router;",
            "use axum;",
            "fn f() -> axum::Router { todo!() }",
            "use ::axum::Router;",
            "use axum as web;",
            "use {axum::Router, std::io};",
        ] {
            assert_eq!(doors("host/channel/core.rs", source).len(), 1, "{source}");
            assert_eq!(doors("host/server/mod.rs", source), Vec::<String>::new(), "{source}");
        }
        for source in ["// axum::Router", "let axum = 5; f(axum, 1);", "use crate::axum::x;", "use axum_like::x;"] {
            assert_eq!(doors("host/channel/core.rs", source), Vec::<String>::new(), "{source}");
        }
    }

    #[test]
    fn a_long_file_is_found() {
        assert_eq!(size("a.rs", &"x\n".repeat(LINES_MAX)), None);
        assert!(size("a.rs", &"x\n".repeat(LINES_MAX + 1)).is_some());
    }

    #[test]
    fn a_file_that_does_not_say_what_it_owns_is_found() {
        assert_eq!(head("a.rs", "//! Owns a.\nuse b;"), None);
        assert!(head("a.rs", "// Owns a.").is_some());
        assert!(head("a.rs", "").is_some());
    }

    #[test]
    fn a_path_of_one_machine_is_found() {
        for machine in MACHINE_PATHS {
            assert_eq!(machine_paths("a.md", &format!("one\nsee {machine}main\n")).len(), 1, "{machine}");
        }
        assert_eq!(machine_paths("a.md", "https://example.com/workers and ./work"), Vec::<String>::new());
    }

    #[test]
    fn a_copy_of_a_bound_that_differs_is_found() {
        let host =
            "/// Most.\npub const KEY_BYTES_MAX: usize = 512;\n    effects_max: 10_000,\n    pub effects_max: usize,\n";
        let own =
            |value: &str| format!("pub const KEY_BYTES_MAX: usize = {value};\npub const EFFECTS_MAX: usize = 10_000;");
        assert_eq!(bounds(host).len(), 2);
        assert_eq!(other_bounds(&own("512"), host), Vec::<String>::new());
        assert_eq!(
            other_bounds(&own("1 << 9"), host).len(),
            1,
            "written in another way is hard to compare for people, too"
        );
        assert_eq!(other_bounds("pub const OTHER_MAX: u32 = 1;", host).len(), 1);
    }
}
