//! `plugin.toml`, by which a plugin's author says what a version is called, what it may import, which saved state it understands
//! and how much it wants at most. Signatures are over its bytes, so its text is kept as it came; this module only reads it.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use semver::Version;
use serde::Deserialize;

use crate::limits::{MANIFEST_BYTES_MAX, MANIFEST_VERSION_BYTES_MAX, MountLimits, SCHEMAS_ACCEPTED_MAX};
use crate::plugin::compile::Digest;
use crate::protocol::capability::Capability;
use crate::protocol::name::{NameError, check_part};

/// The name of the file in an author's folder, and in messages.
pub const FILE_NAME: &str = "plugin.toml";
/// How a digest is written in a manifest.
const DIGEST_PREFIX: &str = "sha256:";
/// Smallest linear memory there is, in bytes: one page.
const PAGE_BYTES: usize = 64 << 10;

/// What a version says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// What it is called: a valid part of a name.
    pub name: String,
    /// Its version.
    pub version: Version,
    /// The component it belongs to. Absent in an author's source; a signature needs it.
    pub digest: Option<Digest>,
    /// What its component may import.
    pub capabilities: BTreeSet<Capability>,
    /// The oldest host it runs on.
    pub minimum_host: Version,
    /// The state it saves, and the state it takes over.
    pub state: StateSchemas,
    /// What it wants at most.
    pub limits: ManifestLimits,
    /// How it is built, in an author's source; nothing to anybody else, and left out by [`with_digest`].
    pub build: Option<Build>,
}

/// `[build]`: how an author's folder becomes a component.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// A program and its arguments, run in that folder.
    pub command: Vec<String>,
    /// The component that comes of it, from that folder.
    pub component: String,
}

/// Schemas of what `save` returns and of what is kept in state and log, as numbers that the author gives them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateSchemas {
    /// The one it writes.
    pub schema: u32,
    /// Those it can take over from other versions; its own is always among them.
    pub accepts: BTreeSet<u32>,
}

/// What a version wants at most. The smaller of this and the mount's limits holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestLimits {
    /// Linear memory of one instance, in bytes.
    pub memory_bytes_max: Option<usize>,
    /// CPU time of one call, in milliseconds.
    pub cpu_ms_max: Option<u64>,
}

/// The file, before its values are judged. What must be there is optional here, so that its absence can be told with a remedy.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    name: Option<String>,
    version: Option<String>,
    digest: Option<String>,
    #[serde(default)]
    capabilities: Vec<String>,
    minimum_host: Option<String>,
    #[serde(default)]
    state: SourceState,
    #[serde(default)]
    limits: ManifestLimits,
    build: Option<Build>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SourceState {
    schema: Option<u32>,
    #[serde(default)]
    accepts: Vec<u32>,
}

impl Manifest {
    /// Reads a manifest as it was uploaded.
    ///
    /// # Errors
    /// Like [`Manifest::parse`], and if it is no text.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ManifestError> {
        check_size(bytes.len())?;
        Self::parse(std::str::from_utf8(bytes).map_err(|e| ManifestError::NotText { at: e.valid_up_to() })?)
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// If it is too large, not TOML, or says something this host does not understand or cannot give. Names the key.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        check_size(text.len())?;
        let file = toml::Deserializer::parse(text).map_err(|e| syntax(text, &e))?;
        // Of a key that is not known the cause says which there are.
        let source: Source = serde_path_to_error::deserialize(file)
            .map_err(|e| ManifestError::Value { key: e.path().to_string(), cause: e.inner().message().to_owned() })?;
        let name = source.name.ok_or_else(|| missing("name", "community-chat"))?;
        check_part("plugin", &name).map_err(|cause| ManifestError::Name { name: short(&name), cause })?;
        let version = version("version", &source.version.ok_or_else(|| missing("version", "1.0.0"))?)?;
        let minimum_host = match source.minimum_host {
            Some(text) => self::version("minimum_host", &text)?,
            None => Version::new(0, 0, 0),
        };
        if minimum_host > host_version() {
            return Err(ManifestError::HostTooOld { minimum: minimum_host, host: host_version() });
        }
        Ok(Self {
            name,
            version,
            digest: source.digest.as_deref().map(digest).transpose()?,
            capabilities: source.capabilities.iter().map(|name| capability(name)).collect::<Result<_, _>>()?,
            minimum_host,
            state: schemas(&source.state)?,
            limits: check_limits(source.limits)?,
            build: source.build,
        })
    }

    /// The manifest of a component that was configured without one: it may import all it was granted.
    pub fn synthesized(name: &str, grants: &BTreeSet<Capability>) -> Self {
        Self {
            name: name.to_owned(),
            version: Version::new(0, 0, 0),
            digest: None,
            capabilities: grants.clone(),
            minimum_host: Version::new(0, 0, 0),
            state: StateSchemas { schema: 1, accepts: BTreeSet::from([1]) },
            limits: ManifestLimits::default(),
            build: None,
        }
    }

    /// What holds for this version on a mount: the smaller of what the mount allows and what it wants.
    pub fn limits(&self, mount: &MountLimits) -> MountLimits {
        let wanted = self.limits;
        MountLimits {
            memory_bytes_max: wanted.memory_bytes_max.map_or(mount.memory_bytes_max, |w| w.min(mount.memory_bytes_max)),
            cpu_ms_max: wanted.cpu_ms_max.map_or(mount.cpu_ms_max, |w| w.min(mount.cpu_ms_max)),
            ..mount.clone()
        }
    }

    /// The text of a file that says the same, for a manifest that was not written by anybody.
    pub fn to_toml(&self) -> String {
        let capabilities: Vec<_> = self.capabilities.iter().map(|one| format!("\"{}\"", one.as_str())).collect();
        let accepts: Vec<_> = self.state.accepts.iter().map(u32::to_string).collect();
        let mut text = format!("name = \"{}\"\nversion = \"{}\"\n", self.name, self.version);
        if let Some(digest) = self.digest {
            text.extend(["digest = \"", DIGEST_PREFIX, &digest.to_string(), "\"\n"]);
        }
        text.extend(["capabilities = [", &capabilities.join(", "), "]\n"]);
        text.extend(["minimum_host = \"", &self.minimum_host.to_string(), "\"\n"]);
        text.extend(["\n[state]\nschema = ", &self.state.schema.to_string()]);
        text.extend(["\naccepts = [", &accepts.join(", "), "]\n"]);
        if self.limits != ManifestLimits::default() {
            text.push_str("\n[limits]\n");
            let memory = self.limits.memory_bytes_max.map(|bytes| ("memory_bytes_max", bytes as u64));
            let cpu = self.limits.cpu_ms_max.map(|ms| ("cpu_ms_max", ms));
            for (key, value) in memory.into_iter().chain(cpu) {
                text.extend([key, " = ", &value.to_string(), "\n"]);
            }
        }
        text
    }
}

impl StateSchemas {
    /// Whether the version can take over what one with this schema saved and kept.
    pub fn accepts(&self, schema: u32) -> bool {
        self.accepts.contains(&schema)
    }
}

/// The version of this host.
pub fn host_version() -> Version {
    // Of our own Cargo.toml, so it is one; a test says so.
    Version::parse(env!("CARGO_PKG_VERSION")).unwrap_or(Version::new(0, 0, 0))
}

/// A manifest's text with the digest of its component: added, or in place of what was there; and without `[build]`, which is the author's
/// own. Everything else stays as it was written, comments too.
///
/// # Errors
/// If the text is not TOML.
pub fn with_digest(text: &str, digest: Digest) -> Result<String, ManifestError> {
    check_size(text.len())?;
    let mut document: toml_edit::DocumentMut = text.parse().map_err(|e: toml_edit::TomlError| {
        ManifestError::Syntax { line: line(text, e.span()), cause: e.message().to_owned() }
    })?;
    document.remove("build");
    let line = format!("{DIGEST_PREFIX}{digest}");
    match document.get_mut("digest").and_then(toml_edit::Item::as_value_mut) {
        Some(value) => {
            let decor = value.decor().clone();
            *value = line.into();
            *value.decor_mut() = decor;
        }
        None => document["digest"] = toml_edit::value(line),
    }
    let text = document.to_string();
    check_size(text.len())?;
    Ok(text)
}

fn check_size(bytes: usize) -> Result<(), ManifestError> {
    if bytes > MANIFEST_BYTES_MAX { Err(ManifestError::TooLarge { bytes }) } else { Ok(()) }
}

fn missing(key: &'static str, example: &'static str) -> ManifestError {
    ManifestError::Missing { key, example }
}

fn syntax(text: &str, error: &toml::de::Error) -> ManifestError {
    ManifestError::Syntax { line: line(text, error.span()), cause: error.message().to_owned() }
}

/// The line a span begins in, counted from 1.
fn line(text: &str, span: Option<std::ops::Range<usize>>) -> usize {
    let before = span.and_then(|span| text.as_bytes().get(..span.start)).unwrap_or_default();
    before.split(|byte| *byte == b'\n').count()
}

/// A value that may be long, for a message.
fn short(value: &str) -> String {
    const CHARS_MAX: usize = 80;
    let mut cut: String = value.chars().take(CHARS_MAX).collect();
    if cut.len() < value.len() {
        cut.push('…');
    }
    cut
}

fn version(key: &'static str, text: &str) -> Result<Version, ManifestError> {
    let refused = |cause: String| ManifestError::Version { key, found: short(text), cause };
    if text.len() > MANIFEST_VERSION_BYTES_MAX {
        return Err(refused(format!("it is longer than {MANIFEST_VERSION_BYTES_MAX} bytes")));
    }
    Version::parse(text).map_err(|e| refused(e.to_string()))
}

fn digest(text: &str) -> Result<Digest, ManifestError> {
    let hex = text.strip_prefix(DIGEST_PREFIX).filter(|hex| !hex.bytes().any(|byte| byte.is_ascii_uppercase()));
    let mut digest = Digest([0; 32]);
    match hex.map(|hex| hex::decode_to_slice(hex, &mut digest.0)) {
        Some(Ok(())) => Ok(digest),
        _ => Err(ManifestError::Digest { found: short(text) }),
    }
}

fn capability(name: &str) -> Result<Capability, ManifestError> {
    let found = Capability::ALL.into_iter().find(|capability| capability.as_str() == name);
    found.ok_or_else(|| ManifestError::Capability {
        found: short(name),
        known: Capability::ALL.map(Capability::as_str).join(", "),
    })
}

fn schemas(state: &SourceState) -> Result<StateSchemas, ManifestError> {
    if state.accepts.len() > SCHEMAS_ACCEPTED_MAX {
        return Err(ManifestError::TooManySchemas { found: state.accepts.len() });
    }
    let schema = state.schema.unwrap_or(1);
    if schema == 0 || state.accepts.contains(&0) {
        let key = if schema == 0 { "state.schema" } else { "state.accepts" };
        return Err(ManifestError::Range { key, found: 0, min: 1 });
    }
    Ok(StateSchemas { schema, accepts: state.accepts.iter().copied().chain([schema]).collect() })
}

fn check_limits(limits: ManifestLimits) -> Result<ManifestLimits, ManifestError> {
    let memory = limits.memory_bytes_max.map(|bytes| ("limits.memory_bytes_max", bytes as u64, PAGE_BYTES as u64));
    let cpu = limits.cpu_ms_max.map(|ms| ("limits.cpu_ms_max", ms, 1));
    match memory.into_iter().chain(cpu).find(|(_, found, min)| found < min) {
        Some((key, found, min)) => Err(ManifestError::Range { key, found, min }),
        None => Ok(limits),
    }
}

/// What is wrong with a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Over the size limit.
    #[error("{FILE_NAME} has {bytes} bytes; the limit is {MANIFEST_BYTES_MAX}: leave out what is not about the plugin")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Not UTF-8.
    #[error("{FILE_NAME} is not text: the byte at {at} is not UTF-8; save it as UTF-8")]
    NotText {
        /// Offset of the first byte that is not.
        at: usize,
    },
    /// Not TOML.
    #[error("{FILE_NAME}:{line}: not TOML: {cause}")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// The parser's words.
        cause: String,
    },
    /// A value of the wrong type, or a key that is not known.
    #[error("{FILE_NAME}: `{key}`: {cause}")]
    Value {
        /// Its path.
        key: String,
        /// What is wrong, and what was expected.
        cause: String,
    },
    /// A key that must be there is not.
    #[error("{FILE_NAME}: `{key}` is missing; add it, for example: {key} = \"{example}\"")]
    Missing {
        /// Which.
        key: &'static str,
        /// A value.
        example: &'static str,
    },
    /// The name is none.
    #[error("{FILE_NAME}: `name` is {name:?}: {cause}; choose a name like \"community-chat\"")]
    Name {
        /// What was found.
        name: String,
        /// Why.
        #[source]
        cause: NameError,
    },
    /// Not a semantic version.
    #[error(
        "{FILE_NAME}: `{key}` is {found:?}, which is no semantic version: {cause}; write three numbers, for example \"1.4.0\""
    )]
    Version {
        /// Which.
        key: &'static str,
        /// What was found.
        found: String,
        /// Why.
        cause: String,
    },
    /// This host is older than the plugin asks for.
    #[error(
        "{FILE_NAME}: `minimum_host` is {minimum}, but this is hotbay {host}; update the host, or build the plugin for an older one"
    )]
    HostTooOld {
        /// What it asks for.
        minimum: Version,
        /// What this is.
        host: Version,
    },
    /// Not a digest.
    #[error(
        "{FILE_NAME}: `digest` is {found:?}; it must be {DIGEST_PREFIX} and 64 hexadecimal digits in lower case, as `sha256sum` prints \
         them; without the line, `hotbay plugin push` adds it"
    )]
    Digest {
        /// What was found.
        found: String,
    },
    /// Not a capability.
    #[error("{FILE_NAME}: `capabilities` has {found:?}, which is none; there are: {known}")]
    Capability {
        /// What was found.
        found: String,
        /// Those there are.
        known: String,
    },
    /// Too many schemas.
    #[error(
        "{FILE_NAME}: `state.accepts` has {found} entries; the limit is {SCHEMAS_ACCEPTED_MAX}: leave out the oldest"
    )]
    TooManySchemas {
        /// How many.
        found: usize,
    },
    /// A number that is too small.
    #[error("{FILE_NAME}: `{key}` is {found}; it must be at least {min}, or left out")]
    Range {
        /// Which.
        key: &'static str,
        /// What was found.
        found: u64,
        /// The smallest.
        min: u64,
    },
}
