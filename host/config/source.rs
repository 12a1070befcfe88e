//! The three sources of values, in order: the file, environment variables, flags.
//!
//! A variable's name is the path of a key: `HOTBAY_` and then the keys in upper case with `__` between them, for example
//! `HOTBAY_LIMITS__CONNECTIONS_MAX` or `HOTBAY_MOUNT__COMMUNITY__LIMITS__IDLE_MS`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, ConfigErrors, Origin};
use super::tree::{KeyPath, Node, Step, Value};

/// The prefix of all variables that set keys.
const PREFIX: &str = "HOTBAY_";
/// The variable that names the file; it is no key.
const FILE_VARIABLE: &str = "HOTBAY_CONFIG";
/// Other variables that are no keys: whom subcommands ask that ask a broker, and as whom.
const CLIENT_VARIABLES: [&str; 2] = ["HOTBAY_BROKER", "HOTBAY_ADMIN_KEY"];
/// Where the file is looked for if nothing names it.
pub const FILE_DEFAULT: &str = "hotbay.toml";
/// Largest configuration file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What the command line sets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--config FILE`.
    pub config: Option<PathBuf>,
    /// `--listen ADDRESS`.
    pub listen: Option<String>,
    /// `--data-dir DIR`.
    pub data_dir: Option<String>,
    /// `--set KEY=VALUE`, in order.
    pub set: Vec<String>,
}

/// Environment variables. They may hold secrets, hence no `Debug`.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The variables of this process. One that is not UTF-8 is taken with replacement characters, which no key accepts.
    pub fn of_process() -> Self {
        std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
            .collect()
    }

    /// A variable that is set and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// All sources as one tree.
pub(super) struct Sources {
    /// The file's path.
    pub(super) file: PathBuf,
    /// The values.
    pub(super) tree: Node,
    /// What was wrong with variables and flags; the tree goes without them.
    pub(super) errors: Vec<ConfigError>,
}

/// Reads all sources.
///
/// # Errors
/// If the file cannot be read or is not TOML. What is wrong with variables and flags comes with the sources.
pub(super) fn read(overrides: &Overrides, environment: &Environment) -> Result<Sources, ConfigErrors> {
    let file = match (&overrides.config, environment.get(FILE_VARIABLE)) {
        (Some(flag), _) => flag.clone(),
        (None, Some(variable)) => PathBuf::from(variable),
        (None, None) => PathBuf::from(FILE_DEFAULT),
    };
    let tree = parse(&file, &read_file(&file)?)?;
    let mut sources = Sources { file, tree, errors: Vec::new() };
    sources.overlay_environment(environment);
    sources.overlay_flags(overrides);
    Ok(sources)
}

fn read_file(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |reason: String| ConfigError::Unreadable { path: path.to_owned(), reason };
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(ConfigError::NoFile { path: path.to_owned() });
        }
        Ok(metadata) if metadata.len() > FILE_BYTES_MAX => {
            return Err(unreadable(format!("it is larger than {FILE_BYTES_MAX} bytes")));
        }
        _ => {}
    }
    std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))
}

fn parse(path: &Path, text: &str) -> Result<Node, ConfigErrors> {
    let origin = |offset: usize| {
        let line = text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1;
        Origin::File { path: path.to_owned(), line }
    };
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let syntax = |error: toml::de::Error| ConfigError::Syntax {
            origin: origin(error.span().map_or(0, |span| span.start)),
            reason: error.message().to_owned(),
        };
        return Err(ConfigErrors(errors.into_iter().map(syntax).collect()));
    }
    let span = document.span();
    let document = Spanned::new(span, DeValue::Table(document.into_inner()));
    let syntax = |(origin, reason)| ConfigError::Syntax { origin, reason };
    let tree = Node::from_toml(&document, 0, &origin).map_err(syntax)?;
    // What is not in the file has no line in it.
    Ok(Node { origin: Origin::Default, ..tree })
}

impl Sources {
    fn overlay_environment(&mut self, environment: &Environment) {
        for (variable, value) in &environment.0 {
            let is_key = variable != FILE_VARIABLE && !CLIENT_VARIABLES.contains(&variable.as_str());
            let Some(name) = variable.strip_prefix(PREFIX).filter(|_| is_key) else { continue };
            let origin = Origin::Environment { variable: variable.clone() };
            match variable_path(&self.tree, name, &origin) {
                Ok(path) => self.put(&path, value, origin),
                Err(error) => self.errors.push(error),
            }
        }
    }

    fn overlay_flags(&mut self, overrides: &Overrides) {
        let flag = |flag: &str| Origin::Flag { flag: flag.to_owned() };
        for setting in &overrides.set {
            let (key, value) = setting.split_once('=').unwrap_or((setting, ""));
            let origin = flag(&format!("--set {}", key.trim()));
            match dotted(key) {
                Some(path) if setting.contains('=') => self.put(&path, value, origin),
                _ => {
                    let reason = "write it as KEY=VALUE, for example limits.connections_max=5".to_owned();
                    self.errors.push(ConfigError::Override { origin, reason });
                }
            }
        }
        let named = [("listen", "--listen", &overrides.listen), ("data_dir", "--data-dir", &overrides.data_dir)];
        for (key, name, value) in named {
            if let Some(value) = value {
                self.put(&[key.to_owned()], value, flag(name));
            }
        }
    }

    fn put(&mut self, path: &[String], text: &str, origin: Origin) {
        let node = value_node(text.trim(), &origin);
        if let Err(reason) = self.tree.set(path, node) {
            self.errors.push(ConfigError::Override { origin, reason });
        }
    }
}

/// A variable's or flag's value: TOML if it reads as such, else the text itself.
fn value_node(text: &str, origin: &Origin) -> Node {
    let parsed = DeValue::parse(text).ok().and_then(|value| Node::from_toml(&value, 0, &|_| origin.clone()).ok());
    match parsed {
        Some(node @ Node { value: Value::String(_) | Value::Array(_) | Value::Table(_), .. }) => node,
        Some(node) => Node { raw: Some(text.to_owned()), ..node },
        None => Node { value: Value::String(text.to_owned()), origin: origin.clone(), raw: None },
    }
}

/// The keys of `a.b."c d"`, by TOML's own rules.
fn dotted(text: &str) -> Option<Vec<String>> {
    if text.contains(['\n', '\r', '=', '#', '[']) {
        return None;
    }
    let line = format!("{text} = 0");
    let mut table = DeTable::parse(&line).ok()?.into_inner();
    let mut keys = Vec::new();
    while let Some((key, value)) = table.into_iter().next() {
        keys.push(key.into_inner().into_owned());
        table = match value.into_inner() {
            DeValue::Table(inner) => inner,
            _ => break,
        };
    }
    Some(keys)
}

/// The path a variable names. Names of mounts, plugins, keys, datasources and settings are found whatever their case, and with `_`
/// for the characters a variable cannot have; variables set what is there and make no new mounts or plugins.
fn variable_path(tree: &Node, name: &str, origin: &Origin) -> Result<Vec<String>, ConfigError> {
    if name == "LOG" {
        return Ok(vec!["log".to_owned(), "filter".to_owned()]);
    }
    let mut node = Some(tree);
    let mut path: Vec<String> = Vec::new();
    for part in name.split("__") {
        let found = node.and_then(|table| table.keys().find(|key| as_variable(key) == part));
        let key = found.map_or_else(|| part.to_ascii_lowercase(), str::to_owned);
        let names_thing = path.len() == 1 && ["mount", "plugin", "key", "datasource"].contains(&path[0].as_str());
        if found.is_none() && names_thing && (path[0].as_str(), key.as_str()) != ("key", "default") {
            let parent = KeyPath::new(path.iter().map(String::as_str));
            let hint = nearest_key(&parent, &key, node.into_iter().flat_map(Node::keys), origin);
            return Err(ConfigError::UnknownKey { origin: origin.clone(), key: parent.key(&key).to_string(), hint });
        }
        node = node.and_then(|table| table.child(&Step::Key(key.clone())));
        path.push(key);
    }
    Ok(path)
}

fn as_variable(key: &str) -> String {
    key.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

/// What to say of a key that does not exist: the one with the closest name, written as at that place, or all there are.
pub(super) fn nearest_key<'k>(
    parent: &KeyPath,
    key: &str,
    known: impl Iterator<Item = &'k str>,
    origin: &Origin,
) -> String {
    let written = |name: &str| match origin {
        Origin::Environment { .. } => {
            let keys = parent.key(name);
            let parts = keys.0.iter().filter_map(|step| match step {
                Step::Key(key) => Some(as_variable(key)),
                Step::Index(_) => None,
            });
            format!("{PREFIX}{}", parts.collect::<Vec<_>>().join("__"))
        }
        _ => parent.key(name).to_string(),
    };
    let known: Vec<&str> = known.collect();
    let closeness = |name: &&&str| (strsim::normalized_damerau_levenshtein(name, key) * 1_000.0).round() as i64;
    match known.iter().max_by_key(closeness) {
        Some(name) if closeness(&name) >= 500 => format!("; did you mean {}?", written(name)),
        Some(_) => known.iter().fold("; there are".to_owned(), |mut text, name| {
            write!(text, "{} {}", if text.ends_with("are") { "" } else { "," }, written(name)).ok();
            text
        }),
        None => String::new(),
    }
}
