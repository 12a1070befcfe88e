//! What a mount is: a path bound to a plugin. Types as they are read from `[mount.NAME]`, and what they become.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::auth::{Policy, Stated};
use crate::limits::MountLimits;
use crate::protocol::deflate::Compression;
use crate::protocol::name::ChannelPattern;
use crate::protocol::path::{MountPath, MountPaths};
use crate::protocol::query::Query;
use crate::protocol::template::Template;
use crate::store::Durability;

/// A path bound to a plugin, checked.
#[derive(Debug, Clone)]
pub struct Mount {
    /// Its name in the configuration, for logs, metrics and overrides.
    pub name: String,
    /// The paths it takes sockets on.
    pub paths: MountPaths,
    /// The path its `http` routes lie below; without one, below each of `paths`.
    pub http_path: Option<MountPath>,
    /// Query parameters a request must have to be this mount's. Two mounts may share a path and differ by these.
    pub required_query: RequiredQuery,
    /// The plugin, by its name under `[plugin]`.
    pub plugin: String,
    /// The channel every connection joins at once.
    pub channel: Option<Template>,
    /// Channels every connection joins passively: the join wakes nobody.
    pub auto_join: Vec<Template>,
    /// Channels that frames (`route`), publishes and HTTP routes may name. Never empty.
    pub channels: Vec<ChannelPattern>,
    /// Whether the plugin's `route` says where each frame goes: many channels on one socket.
    pub route: bool,
    /// Who may connect.
    pub auth: Policy,
    /// How a connection without an identity is refused.
    pub refusal: RefusalStyle,
    /// The form of the host's own HTTP refusals.
    pub errors: ErrorForm,
    /// Pages that may connect, as `scheme://host[:port]`; `*` allows all. See [`crate::auth::Gate::authenticate`].
    pub origins: Option<Vec<String>>,
    /// Subprotocols to answer with if offered; if empty, the first offered one that is not a token.
    pub subprotocols: Vec<String>,
    /// Protocol pings.
    pub heartbeat: Heartbeat,
    /// How messages are compressed for clients that offer it; none are without.
    pub compression: Option<Compression>,
    /// Bounds.
    pub limits: MountLimits,
    /// What becomes of a connection over `limits.connections_per_user_max`.
    pub on_excess: OnExcess,
    /// When a batch counts as committed.
    pub durability: Durability,
    /// Statements its plugin may run, as `DATASOURCE.STATEMENT`, by the names the plugin knows them by.
    pub statements: BTreeMap<String, String>,
    /// Passed to the plugin as it stands; an object.
    pub settings: serde_json::Value,
    /// Plain HTTP requests that become `request` events.
    pub http: Vec<HttpRoute>,
}

impl Mount {
    /// Whether a channel of this name belongs to this mount.
    pub fn has_channel(&self, name: &str) -> bool {
        self.channels.iter().any(|pattern| pattern.matches(name))
    }
}

/// `[mount.NAME]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MountSettings {
    pub(super) path: MountPaths,
    pub(super) http_path: Option<MountPath>,
    #[serde(default)]
    pub(super) required_query: RequiredQuery,
    pub(super) plugin: String,
    pub(super) channel: Option<Template>,
    #[serde(default)]
    pub(super) auto_join: Vec<Template>,
    pub(super) channels: Option<Vec<String>>,
    #[serde(default)]
    pub(super) route: bool,
    #[serde(default)]
    pub(super) auth: Policy,
    #[serde(default)]
    pub(super) refusal: RefusalStyle,
    #[serde(default)]
    pub(super) errors: ErrorForm,
    pub(super) origins: Option<Vec<String>>,
    #[serde(default)]
    pub(super) subprotocols: Vec<String>,
    #[serde(default)]
    pub(super) heartbeat: Heartbeat,
    pub(super) compression: Option<Compression>,
    #[serde(default)]
    pub(super) limits: MountLimits,
    #[serde(default)]
    pub(super) on_excess: OnExcess,
    #[serde(default)]
    pub(super) durability: Durability,
    #[serde(default)]
    pub(super) statements: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) settings: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    pub(super) http: Vec<HttpRoute>,
}

impl MountSettings {
    /// The paths below which its HTTP routes lie.
    pub(super) fn http_paths(&self) -> MountPaths {
        self.http_path.clone().map_or_else(|| self.path.clone(), MountPaths::from)
    }
}

/// Query parameters a request must have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RequiredQuery {
    /// All of these.
    pub all: Vec<String>,
    /// And at least one of these, if there are any.
    pub any: Vec<String>,
}

impl RequiredQuery {
    /// Whether a request has what is required. A parameter with an empty value counts.
    pub fn matches(&self, query: &Query) -> bool {
        let has = |name: &String| query.get(name).is_some();
        self.all.iter().all(has) && (self.any.is_empty() || self.any.iter().any(has))
    }

    /// Whether requests can be told apart by what the two require.
    pub fn differs(&self, other: &Self) -> bool {
        self.normal() != other.normal()
    }

    /// What is required, in order; one of one is all.
    fn normal(&self) -> (BTreeSet<&String>, BTreeSet<&String>) {
        match self.any.as_slice() {
            [only] => (self.all.iter().chain([only]).collect(), BTreeSet::new()),
            any => (self.all.iter().collect(), any.iter().collect()),
        }
    }

    /// How many parameters a request must have: of mounts on one path, the one that asks for more counts first.
    pub fn count(&self) -> usize {
        self.all.len() + usize::from(!self.any.is_empty())
    }
}

/// How a connection without an identity is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RefusalStyle {
    /// By an HTTP status instead of the upgrade.
    #[default]
    Http,
    /// By close code 1008 right after the upgrade, for clients that cannot read a status.
    Close,
}

/// The form of the host's own HTTP refusals on a mount; plugins write theirs themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ErrorForm {
    /// `{"success":false,"error":"…"}`.
    #[default]
    Text,
    /// `{"success":false,"error":{"code":"…","message":"…"}}`.
    Object,
}

/// What becomes of a connection over the user's limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnExcess {
    /// The new one is refused with 429.
    #[default]
    Refuse,
    /// The oldest one is closed with 4501.
    Evict,
}

/// Protocol pings (RFC 6455 §5.5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Heartbeat {
    /// Between two pings, in milliseconds.
    pub interval_ms: u64,
    /// Without a pong after which the connection is closed, in milliseconds. 35,000 with pings every 30,000 closes
    /// after one missed pong, 65,000 after two.
    pub timeout_ms: u64,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self { interval_ms: 30_000, timeout_ms: 65_000 }
    }
}

/// Plain HTTP requests that become `request` events of a channel.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpRoute {
    /// Below the mount's path or its `http_path`: `/` is that path itself, `/items/*` all below `/items`.
    #[serde(default = "root")]
    pub path: String,
    /// The methods it answers.
    #[serde(default = "get")]
    pub methods: Vec<HttpMethod>,
    /// The channel that gets the event.
    pub channel: Template,
    /// Whether a token is needed.
    #[serde(default)]
    pub auth: RouteAuth,
    /// What a request must say of itself, where `auth` says.
    #[serde(default)]
    pub must_state: Vec<Stated>,
    /// Request headers the plugin gets to see, in lower case.
    #[serde(default)]
    pub headers: Vec<String>,
}

impl HttpRoute {
    /// Whether it answers this method.
    pub fn answers(&self, method: &http::Method) -> bool {
        self.methods.iter().any(|known| known.as_str() == method.as_str())
    }

    /// Whether a path can be one of both.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let covers = |wide: &str, narrow: &str| {
            wide.strip_suffix("/*").is_some_and(|above| {
                narrow
                    .strip_suffix("/*")
                    .unwrap_or(narrow)
                    .strip_prefix(above)
                    .is_some_and(|below| below.starts_with('/') || (below.is_empty() && narrow.ends_with("/*")))
            })
        };
        self.path == other.path || covers(&self.path, &other.path) || covers(&other.path, &self.path)
    }
}

fn root() -> String {
    "/".to_owned()
}

fn get() -> Vec<HttpMethod> {
    vec![HttpMethod::Get]
}

/// A method plugins can answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "RFC 9110 §9.3 documents them")]
pub enum HttpMethod {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

impl HttpMethod {
    /// The method as it stands in a request.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// Whether an HTTP route needs a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteAuth {
    /// As for a connection.
    #[default]
    Required,
    /// Everybody gets an answer; the event has no identity.
    None,
}
