//! What the registry keeps: tenants, versions of plugins with their vetting, approvals and deployments, tapes, and who did what.
//!
//! The registry and the admin API call this. It knows shapes and conditions, not policy: which status may follow which is the
//! caller's to say, in [`Change::SetStatus`]. Everything that changes goes through [`Catalog::change`], in one transaction with its
//! entry in the audit log, and is on disk when that has answered.

mod cursor;
mod row;

use crate::limits::{CATALOG_CHANGE_BYTES_MAX, CATALOG_TEXT_BYTES_MAX, VETTING_STEPS_MAX};
use crate::protocol::name::ChannelName;
use crate::store::{ApiKey, StoreError, StoreFuture};

pub use crate::store::catalog::cursor::{Cursor, CursorError};
pub use crate::store::catalog::row::{
    Approval, AuditEntry, Audited, ChannelSummary, Deployment, DeploymentState, Status, Tape, Tenant, TenantKept,
    UnknownWord, Verdict, Version, Vetting, VettingStep,
};

/// The registry's part of a store.
///
/// Lists come in pages: `after` is where the page before ended, `limit` from 1 to
/// [`CATALOG_ROWS_MAX`](crate::limits::CATALOG_ROWS_MAX) rows (other numbers count as the nearest of these); a page has fewer if they are more than about
/// [`READ_BYTES_MAX`](crate::limits::READ_BYTES_MAX) bytes. Rows that come or go meanwhile never make another one come twice or stay
/// away. `Constraint` if the cursor is of another list.
pub trait Catalog: Send + Sync + 'static {
    /// Makes all these changes and writes the audit entry, or, if the condition of any of them does not hold, nothing at all: then
    /// the answer is `None`. They are made in their order, each seeing what the ones before did.
    ///
    /// `Constraint` if a text or all of them together are too long, or a text that must be JSON is none.
    fn change(&self, changes: Vec<Change>, audit: Option<AuditEntry>) -> StoreFuture<'_, Option<Changed>>;

    /// Tenants, by name.
    fn tenants<'a>(&'a self, after: Option<&'a Cursor>, limit: u32) -> StoreFuture<'a, Listing<Tenant>>;
    /// One tenant.
    fn tenant<'a>(&'a self, name: &'a str) -> StoreFuture<'a, Option<Tenant>>;

    /// Versions, the latest upload first.
    fn versions<'a>(
        &'a self,
        filter: &'a VersionFilter,
        after: Option<&'a Cursor>,
        limit: u32,
    ) -> StoreFuture<'a, Listing<Version>>;
    /// A tenant's version by the digest of its component.
    fn version<'a>(&'a self, tenant: &'a str, digest: &'a [u8; 32]) -> StoreFuture<'a, Option<Version>>;
    /// A tenant's version by the plugin's name and its semantic version.
    fn version_named<'a>(
        &'a self,
        tenant: &'a str,
        name: &'a str,
        version: &'a str,
    ) -> StoreFuture<'a, Option<Version>>;
    /// Who uploaded a component, by tenant, and the status it has there: at most one for each tenant.
    fn statuses<'a>(&'a self, digest: &'a [u8; 32]) -> StoreFuture<'a, Vec<(String, Status)>>;
    /// How many versions a tenant uploaded since then.
    fn count_uploads_since<'a>(&'a self, tenant: &'a str, since_ms: u64) -> StoreFuture<'a, u64>;

    /// The last vetting of a version, with its steps in their order.
    fn vetting<'a>(&'a self, tenant: &'a str, digest: &'a [u8; 32]) -> StoreFuture<'a, Option<Vetting>>;
    /// Approvals of a version, the oldest first.
    fn approvals<'a>(
        &'a self,
        tenant: &'a str,
        digest: &'a [u8; 32],
        after: Option<&'a Cursor>,
        limit: u32,
    ) -> StoreFuture<'a, Listing<Approval>>;

    /// Deployments, the latest first.
    fn deployments<'a>(
        &'a self,
        filter: &'a DeploymentFilter,
        after: Option<&'a Cursor>,
        limit: u32,
    ) -> StoreFuture<'a, Listing<Deployment>>;
    /// One deployment.
    fn deployment(&self, id: i64) -> StoreFuture<'_, Option<Deployment>>;

    /// The audit log, the latest first: by the time of the entries, and those of one time by their order.
    fn audit<'a>(
        &'a self,
        filter: &'a AuditFilter,
        after: Option<&'a Cursor>,
        limit: u32,
    ) -> StoreFuture<'a, Listing<Audited>>;

    /// Tapes, the latest first.
    fn tapes<'a>(
        &'a self,
        filter: &'a TapeFilter,
        after: Option<&'a Cursor>,
        limit: u32,
    ) -> StoreFuture<'a, Listing<Tape>>;
    /// One tape.
    fn tape(&self, id: i64) -> StoreFuture<'_, Option<Tape>>;

    /// API keys of one tenant, or of all, by tenant and name, without those that were revoked.
    fn keys<'a>(
        &'a self,
        tenant: Option<&'a str>,
        after: Option<&'a Cursor>,
        limit: u32,
    ) -> StoreFuture<'a, Listing<ApiKey>>;

    /// Channels that were ever acquired, by tenant and name.
    fn channels<'a>(
        &'a self,
        filter: &'a ChannelFilter,
        after: Option<&'a Cursor>,
        limit: u32,
    ) -> StoreFuture<'a, Listing<ChannelSummary>>;
    /// One channel.
    fn channel<'a>(&'a self, name: &'a ChannelName) -> StoreFuture<'a, Option<ChannelSummary>>;

    /// What each tenant's channels keep together: of the tenants after this one, by name, at most `limit`, which is not clamped; fewer are
    /// the last ones. It walks through all their channels: for the start of the broker, and not for every day.
    fn kept<'a>(&'a self, after: &'a str, limit: u32) -> StoreFuture<'a, Vec<TenantKept>>;
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing<T> {
    /// In the order of the list.
    pub rows: Vec<T>,
    /// Where the next page begins. Absent if this was the last one.
    pub next: Option<Cursor>,
}

/// Which versions; all of what is given must be so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VersionFilter {
    /// Whose; `""` for the platform's own.
    pub tenant: Option<String>,
    /// Of which plugin.
    pub name: Option<String>,
    /// In which status.
    pub status: Option<Status>,
}

/// Which deployments; all of what is given must be so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeploymentFilter {
    /// To which mount.
    pub mount: Option<String>,
    /// To this tenant's channels alone, not those to all tenants.
    pub tenant: Option<String>,
    /// In which state.
    pub state: Option<DeploymentState>,
    /// Of the component with this digest.
    pub digest: Option<[u8; 32]>,
}

/// Which audit entries; all of what is given must be so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Whom they concern; `""` for the platform.
    pub tenant: Option<String>,
    /// What they are about.
    pub subject: Option<String>,
    /// Not older than this, in milliseconds since the Unix epoch.
    pub since_ms: Option<u64>,
}

/// Which tapes; all of what is given must be so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TapeFilter {
    /// Of whose channels.
    pub tenant: Option<String>,
    /// Of the channel with this name.
    pub channel: Option<String>,
    /// Of channels of this mount.
    pub mount: Option<String>,
}

/// Which channels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ChannelFilter {
    /// All of them.
    #[default]
    All,
    /// A tenant's channels whose names begin so; all of its channels if that is empty.
    Tenant {
        /// Whose.
        tenant: String,
        /// How their names begin.
        prefix: String,
    },
}

/// What [`Catalog::change`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// The ids of the rows that `InsertApproval`, `InsertDeployment` and `InsertTape` added, in the order of the changes.
    pub ids: Vec<i64>,
}

/// A change of the registry. Its condition, if it has one, is said with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Adds a tenant, or puts this in the place of one, except for its `created_ms`.
    PutTenant(Tenant),
    /// Condition: there is such a tenant.
    DeleteTenant {
        /// Which.
        name: String,
    },
    /// Condition: the tenant has neither this digest nor this version of the plugin.
    InsertVersion(Version),
    /// Removes a version that was rejected because it failed vetting, so that its component may come again with another manifest.
    /// Condition: there is such a version.
    ForgetFailed {
        /// Whose; `""` for the platform's own.
        tenant: String,
        /// Of its component.
        digest: [u8; 32],
    },
    /// Only a condition: the tenant uploaded fewer versions than this since then. Before `InsertVersion` it keeps uploads at the same
    /// time within their quota.
    RequireUploadsBelow {
        /// Whose.
        tenant: String,
        /// In milliseconds since the Unix epoch.
        since_ms: u64,
        /// How many are one too many.
        count: u64,
    },
    /// Condition: there is such a version, in one of the statuses `from`.
    SetStatus {
        /// Whose; `""` for the platform's own.
        tenant: String,
        /// Of its component.
        digest: [u8; 32],
        /// What it must be.
        from: Vec<Status>,
        /// What it becomes.
        to: Status,
        /// Why; in the place of the reason before.
        reason: Option<String>,
    },
    /// Only a condition: there is such a version, in one of these statuses.
    RequireStatus {
        /// Whose; `""` for the platform's own.
        tenant: String,
        /// Of its component.
        digest: [u8; 32],
        /// What it may be.
        any: Vec<Status>,
    },
    /// Puts this in the place of the vetting before and all its steps. Condition: there is such a version.
    PutVetting(Vetting),
    /// Adds a step or puts it in the place of the one there. Condition: there is a vetting of such a version.
    PutVettingStep {
        /// Whose; `""` for the platform's own.
        tenant: String,
        /// Of its component.
        digest: [u8; 32],
        /// Counted from 0.
        position: u32,
        /// What came out.
        step: VettingStep,
    },
    /// Condition: there is a vetting of such a version, and it has no verdict yet.
    EndVetting {
        /// Whose; `""` for the platform's own.
        tenant: String,
        /// Of its component.
        digest: [u8; 32],
        /// What came out.
        verdict: Verdict,
        /// When, in milliseconds since the Unix epoch.
        ended_ms: u64,
    },
    /// Adds it under a new id. Condition: there is such a version.
    InsertApproval(Approval),
    /// Adds it under a new id. Condition: there is such a version.
    InsertDeployment(Deployment),
    /// Condition: there is such a deployment, in one of the states `from`.
    UpdateDeployment {
        /// Which.
        id: i64,
        /// What it must be.
        from: Vec<DeploymentState>,
        /// What it becomes.
        to: DeploymentState,
        /// In the place of the strategy before, if given: JSON.
        strategy: Option<String>,
        /// In the place of the reason before, if given.
        reason: Option<String>,
        /// When, in milliseconds since the Unix epoch.
        changed_ms: u64,
    },
    /// Adds it under a new id.
    InsertTape(Tape),
    /// Condition: there is such a tape.
    UpdateTape {
        /// Which.
        id: i64,
        /// How many it has now.
        batches: u64,
        /// Of its file, as it is now.
        bytes: u64,
        /// When its recording ended, in milliseconds since the Unix epoch, if it has.
        ended_ms: Option<u64>,
    },
    /// Condition: there is such a tape.
    DeleteTape {
        /// Which.
        id: i64,
    },
    /// Condition: the tenant has no key of this name, and nobody one with this hash.
    InsertKey(ApiKey),
    /// Condition: the tenant has a key of this name.
    RevokeKey {
        /// Whose.
        tenant: String,
        /// Which.
        name: String,
    },
    /// Takes away what a channel keeps, but its log's offsets, which go on; and raises its epoch, so that whoever had it is fenced out. Its
    /// log may not be read any more and is deleted by [`Change::SweepLog`]. Condition: there is such a channel.
    ResetChannel {
        /// Which.
        channel: ChannelName,
    },
    /// Deletes the oldest entries of a channel's log that may not be read any more, at most
    /// [`LOG_SWEPT_MAX`](crate::limits::LOG_SWEPT_MAX). Condition: there are some; so repeat it until there are none.
    SweepLog {
        /// Whose.
        channel: ChannelName,
    },
    /// Deletes the oldest audit entries that are older than this, at most
    /// [`AUDIT_PRUNED_MAX`](crate::limits::AUDIT_PRUNED_MAX). Condition: there are some; so repeat it until there are none.
    PruneAudit {
        /// In milliseconds since the Unix epoch.
        before_ms: u64,
    },
}

/// What one call of [`Catalog::change`] asks for.
#[derive(Debug, Clone, Default)]
pub(super) struct Changes {
    pub(super) changes: Vec<Change>,
    pub(super) audit: Option<AuditEntry>,
}

impl Changes {
    /// Bytes this holds in memory, roughly; for bounding groups.
    pub(super) fn bytes(&self) -> usize {
        self.texts().map(str::len).sum::<usize>() + self.changes.len() * size_of::<Change>()
    }

    /// Whether it is within the bounds of the registry.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let refuse = |detail: String| Err(StoreError::Constraint { detail });
        if let Some(text) = self.texts().find(|text| text.len() > CATALOG_TEXT_BYTES_MAX) {
            return refuse(format!("a text has {} bytes; the limit is {CATALOG_TEXT_BYTES_MAX}", text.len()));
        }
        let bytes = self.bytes();
        if bytes > CATALOG_CHANGE_BYTES_MAX {
            return refuse(format!(
                "the changes have {bytes} bytes; the limit is {CATALOG_CHANGE_BYTES_MAX}: make fewer"
            ));
        }
        let most = self.changes.iter().map(|change| match change {
            Change::PutVetting(vetting) => vetting.steps.len(),
            Change::PutVettingStep { position, .. } => *position as usize + 1,
            _ => 0,
        });
        match most.max() {
            Some(steps) if steps > VETTING_STEPS_MAX => {
                refuse(format!("a vetting has {steps} steps; the limit is {VETTING_STEPS_MAX}"))
            }
            _ => Ok(()),
        }
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        self.changes.iter().flat_map(Change::texts).chain(self.audit.iter().flat_map(AuditEntry::texts))
    }
}

impl Change {
    /// Every text of it.
    fn texts(&self) -> Vec<&str> {
        match self {
            Self::PutTenant(tenant) => tenant.texts(),
            Self::DeleteTenant { name } => vec![name],
            Self::InsertVersion(version) => version.texts(),
            Self::SetStatus { tenant, reason, .. } => [tenant.as_str()].into_iter().chain(reason.as_deref()).collect(),
            Self::ForgetFailed { tenant, .. }
            | Self::RequireUploadsBelow { tenant, .. }
            | Self::RequireStatus { tenant, .. }
            | Self::EndVetting { tenant, .. } => vec![tenant],
            Self::PutVetting(vetting) => vetting.texts(),
            Self::PutVettingStep { tenant, step, .. } => vec![tenant, &step.step, &step.evidence],
            Self::InsertApproval(approval) => approval.texts(),
            Self::InsertDeployment(deployment) => deployment.texts(),
            Self::UpdateDeployment { strategy, reason, .. } => {
                strategy.iter().chain(reason).map(String::as_str).collect()
            }
            Self::InsertTape(tape) => vec![&tape.tenant, &tape.channel, &tape.mount, &tape.path],
            Self::InsertKey(ApiKey { tenant, name, .. }) | Self::RevokeKey { tenant, name } => vec![tenant, name],
            Self::ResetChannel { channel } | Self::SweepLog { channel } => vec![channel.tenant(), channel.name()],
            Self::UpdateTape { .. } | Self::DeleteTape { .. } | Self::PruneAudit { .. } => Vec::new(),
        }
    }
}
