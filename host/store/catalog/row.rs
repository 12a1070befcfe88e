//! The rows of the registry.
//!
//! Times are milliseconds since the Unix epoch. The tenant `""` is the platform itself. Whatever is JSON here is kept as text and never
//! looked into.

use crate::store::ChannelKey;

/// An enum of words, which is how the database, the API and people know its values.
macro_rules! words {
    ($(#[$of_type:meta])* $name:ident, $what:literal { $($(#[$of_value:meta])* $value:ident = $word:literal,)+ }) => {
        $(#[$of_type])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $($(#[$of_value])* #[serde(rename = $word)] $value,)+
        }

        impl $name {
            /// Every value, in their order.
            pub const ALL: &[Self] = &[$(Self::$value,)+];

            /// Its word.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $word,)+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = UnknownWord;

            fn from_str(word: &str) -> Result<Self, UnknownWord> {
                let known = || [$($word,)+].join(", ");
                let found = Self::ALL.iter().copied().find(|value| value.as_str() == word);
                found.ok_or_else(|| UnknownWord { what: $what, found: word.to_owned(), known: known() })
            }
        }
    };
}

/// A word that is none of an enum's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is no {what}; there are {known}")]
pub struct UnknownWord {
    /// What it should be.
    pub what: &'static str,
    /// The word.
    pub found: String,
    /// Those there are.
    pub known: String,
}

words! {
    /// What has become of a version. The registry says which follows which.
    Status, "status of a version" {
        /// Its bytes are here; nobody has looked at them.
        Uploaded = "uploaded",
        /// Its vetting goes on.
        Vetting = "vetting",
        /// Its vetting passed; somebody must approve it.
        Vetted = "vetted",
        /// Its vetting failed, or somebody refused it.
        Rejected = "rejected",
        /// It may run.
        Approved = "approved",
        /// It may not run any more.
        Revoked = "revoked",
    }
}

words! {
    /// What came out of a vetting, or of a step of it.
    Verdict, "verdict" {
        /// Nothing speaks against it.
        Passed = "passed",
        /// It is refused.
        Failed = "failed",
        /// It was not looked at; the evidence says why.
        Skipped = "skipped",
    }
}

words! {
    /// What has become of a deployment.
    DeploymentState, "state of a deployment" {
        /// Its channels run the version, or will when they wake.
        Active = "active",
        /// A later deployment took its place.
        Superseded = "superseded",
        /// It went wrong: by its budget, or because somebody said so.
        RolledBack = "rolled_back",
        /// Somebody ended it.
        Stopped = "stopped",
    }
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its name.
    pub name: String,
    /// Who approves its versions.
    pub policy: String,
    /// Capabilities its plugins may be given.
    pub grants: Vec<String>,
    /// Its limits: JSON.
    pub limits: String,
    /// Public keys whose signatures count as its approval.
    pub trusted_keys: Vec<String>,
    /// When it was added.
    pub created_ms: u64,
    /// When it was changed last.
    pub changed_ms: u64,
}

/// A version of a plugin. Only its status, with the reason, ever changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Whose.
    pub tenant: String,
    /// SHA-256 of the component.
    pub digest: [u8; 32],
    /// The plugin's name.
    pub name: String,
    /// Semantic version.
    pub version: String,
    /// Version of the WIT package it was built for.
    pub contract: String,
    /// The manifest, byte by byte as it may be signed.
    pub manifest: String,
    /// Schema of what it saves and of what it keeps.
    pub schema: u32,
    /// Schemas of others it takes over.
    pub accepts: Vec<u32>,
    /// What it may import.
    pub capabilities: Vec<String>,
    /// Bytes of the component.
    pub bytes: u64,
    /// Who uploaded it.
    pub uploader: String,
    /// When.
    pub uploaded_ms: u64,
    /// What has become of it.
    pub status: Status,
    /// Why.
    pub reason: Option<String>,
}

/// A vetting of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vetting {
    /// Whose version.
    pub tenant: String,
    /// Its digest.
    pub digest: [u8; 32],
    /// What came out. Absent while it goes on.
    pub verdict: Option<Verdict>,
    /// Its steps so far, in their order.
    pub steps: Vec<VettingStep>,
    /// When it began.
    pub started_ms: u64,
    /// When it ended.
    pub ended_ms: Option<u64>,
}

/// A step of a vetting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VettingStep {
    /// Its name.
    pub step: String,
    /// What came out.
    pub verdict: Verdict,
    /// How long it took, in milliseconds.
    pub ms: u64,
    /// What shows it: JSON, at most [`CATALOG_TEXT_BYTES_MAX`](crate::limits::CATALOG_TEXT_BYTES_MAX) bytes.
    pub evidence: String,
}

/// An approval of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// Given by the store; passed over when it is inserted.
    pub id: i64,
    /// Whose version.
    pub tenant: String,
    /// Its digest.
    pub digest: [u8; 32],
    /// Who, for people.
    pub by: String,
    /// The trusted key, if it is by signature.
    pub key_id: Option<String>,
    /// The signature.
    pub signature: Option<String>,
    /// When.
    pub at_ms: u64,
    /// Why.
    pub reason: Option<String>,
}

/// Which version runs where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// Given by the store; passed over when it is inserted.
    pub id: i64,
    /// To which mount.
    pub mount: String,
    /// To whose channels. Absent: all tenants'.
    pub tenant: Option<String>,
    /// To which channels. Absent: all of them.
    pub pattern: Option<String>,
    /// Whose version.
    pub owner: String,
    /// Its digest.
    pub digest: [u8; 32],
    /// How it spreads: JSON.
    pub strategy: String,
    /// What has become of it.
    pub state: DeploymentState,
    /// Why.
    pub reason: Option<String>,
    /// Who deployed it, for people.
    pub by: String,
    /// When.
    pub created_ms: u64,
    /// When its strategy or state was changed last.
    pub changed_ms: u64,
}

/// Who did what, when and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// When.
    pub at_ms: u64,
    /// Who.
    pub actor: String,
    /// Whom it concerns.
    pub tenant: String,
    /// What was done.
    pub action: String,
    /// To what.
    pub subject: String,
    /// Why.
    pub reason: Option<String>,
    /// What else is to be known: JSON.
    pub detail: String,
}

/// An entry of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audited {
    /// Grows from entry to entry.
    pub id: i64,
    /// The entry.
    pub entry: AuditEntry,
}

/// A recording of a channel; its bytes are a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tape {
    /// Given by the store; passed over when it is inserted.
    pub id: i64,
    /// Whose channel.
    pub tenant: String,
    /// The channel's name.
    pub channel: String,
    /// Its mount.
    pub mount: String,
    /// The version that ran.
    pub digest: [u8; 32],
    /// When the recording began.
    pub started_ms: u64,
    /// When it ended. Absent while it goes on.
    pub ended_ms: Option<u64>,
    /// Batches on it.
    pub batches: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// The file.
    pub path: String,
}

/// A channel's row, for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelSummary {
    /// Names its rows.
    pub key: ChannelKey,
    /// Whose.
    pub tenant: String,
    /// Its name within the tenant.
    pub name: String,
    /// How often it was acquired.
    pub epoch: u64,
    /// Commits since it was acquired last.
    pub seq: u64,
    /// Who acquired it last.
    pub owner: String,
    /// When, by the clock of the database.
    pub acquired_ms: u64,
    /// Offset of the oldest log entry kept, and of the next append.
    pub log: (u64, u64),
    /// Bytes of keys and values in the state.
    pub state_bytes: u64,
    /// Bytes of the log's entries, also of trimmed ones that are not deleted yet.
    pub log_bytes: u64,
    /// The version it is pinned to, by its digest.
    pub version: Option<[u8; 32]>,
}

/// What a tenant's channels keep together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantKept {
    /// Whose.
    pub tenant: String,
    /// Bytes of keys and values in their state.
    pub state_bytes: u64,
    /// Bytes of the entries in their logs, also of trimmed ones that are not deleted yet.
    pub log_bytes: u64,
}

impl Tenant {
    pub(super) fn texts(&self) -> Vec<&str> {
        let lists = self.grants.iter().chain(&self.trusted_keys).map(String::as_str);
        lists.chain([self.name.as_str(), &self.policy, &self.limits]).collect()
    }
}

impl Version {
    pub(super) fn texts(&self) -> Vec<&str> {
        let texts = [self.tenant.as_str(), &self.name, &self.version, &self.contract, &self.manifest, &self.uploader];
        let lists = self.capabilities.iter().map(String::as_str);
        texts.into_iter().chain(lists).chain(self.reason.as_deref()).collect()
    }
}

impl Vetting {
    pub(super) fn texts(&self) -> Vec<&str> {
        let steps = self.steps.iter().flat_map(|step| [step.step.as_str(), &step.evidence]);
        steps.chain([self.tenant.as_str()]).collect()
    }
}

impl Approval {
    pub(super) fn texts(&self) -> Vec<&str> {
        let optional = [&self.key_id, &self.signature, &self.reason].into_iter().flatten().map(String::as_str);
        optional.chain([self.tenant.as_str(), &self.by]).collect()
    }
}

impl Deployment {
    pub(super) fn texts(&self) -> Vec<&str> {
        let optional = [&self.tenant, &self.pattern, &self.reason].into_iter().flatten().map(String::as_str);
        optional.chain([self.mount.as_str(), &self.owner, &self.strategy, &self.by]).collect()
    }
}

impl AuditEntry {
    pub(super) fn texts(&self) -> Vec<&str> {
        let texts = [self.actor.as_str(), &self.tenant, &self.action, &self.subject, &self.detail];
        texts.into_iter().chain(self.reason.as_deref()).collect()
    }
}
