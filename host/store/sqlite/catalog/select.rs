//! The statements that read the registry. Conditions that are not asked for are not in a statement, so that SQLite finds the index for
//! those that are; and each list is in the order of an index, so that a page costs the same wherever it begins. A tenant's list goes
//! along its own rows, never along those of all others.

use sqlx::AssertSqlSafe;

use crate::protocol::name::ChannelName;
use crate::store::StoreError;
use crate::store::catalog::{AuditFilter, ChannelFilter, Cursor, DeploymentFilter, TapeFilter, VersionFilter};
use crate::store::sqlite::read::{Query, clamp};
use crate::store::sqlite::statement::Row;

const TENANTS: &str = "SELECT name, policy, grants, limits, trusted_keys, created_ms, changed_ms FROM tenant";
const VERSIONS: &str = "SELECT id, tenant, digest, name, version, contract, manifest, schema, accepts, capabilities, bytes, \
                        uploader, uploaded_ms, status, reason FROM plugin";
const STATUSES: &str = "SELECT tenant, status FROM plugin";
const UPLOADS: &str = "SELECT count(*) FROM plugin";
/// A row for each step, or one without a step.
const VETTINGS: &str = "SELECT vetting.tenant, vetting.digest, vetting.verdict, started_ms, ended_ms, step, one.verdict, ms, evidence \
                        FROM vetting LEFT JOIN vetting_step AS one ON one.tenant = vetting.tenant AND one.digest = vetting.digest";
const APPROVALS: &str = "SELECT id, tenant, digest, by, key_id, signature, at_ms, reason FROM approval";
const DEPLOYMENTS: &str = "SELECT id, mount, tenant, pattern, owner, digest, strategy, state, reason, by, created_ms, changed_ms \
                           FROM deployment";
const AUDIT: &str = "SELECT id, at_ms, actor, tenant, action, subject, reason, detail FROM audit";
const TAPES: &str = "SELECT id, tenant, channel, mount, digest, started_ms, ended_ms, batches, bytes, path FROM tape";
const KEYS: &str = "SELECT tenant, name, hash, created_ms, operator FROM api_key";
const CHANNELS: &str = "SELECT id, tenant, name, epoch, seq, owner, acquired_ms, log_first, log_next, state_bytes, version, log_bytes \
                        FROM channel";

const KEPT: &str = "SELECT tenant, sum(state_bytes), sum(log_bytes) FROM channel";

/// A statement and what is bound to it.
pub(super) struct Select {
    sql: String,
    bound: Row,
    conditions: usize,
    narrowed: bool,
}

#[derive(Clone, Copy)]
enum Value<'a> {
    Int(i64),
    Text(&'a str),
    Blob(&'a [u8]),
}

use Value::{Blob, Int, Text};

impl Select {
    fn new(from: &'static str) -> Self {
        Self { sql: from.to_owned(), bound: Row::default(), conditions: 0, narrowed: false }
    }

    /// Adds a condition with as many question marks as values.
    fn with(mut self, condition: &'static str, values: &[Value<'_>]) -> Self {
        self.sql += if self.conditions == 0 { " WHERE " } else { " AND " };
        self.sql += condition;
        self.conditions += 1;
        for value in values {
            match *value {
                Int(value) => self.bound.int(value),
                Text(value) => self.bound.text(value),
                Blob(value) => self.bound.blob(value),
            };
        }
        self
    }

    /// Adds the condition that a column has this value, if there is one. The first such condition is the one whose index is used:
    /// SQLite cannot know which leaves fewer rows. The plus keeps it from using those of the others.
    fn given(mut self, condition: &'static str, value: Option<Value<'_>>) -> Self {
        let Some(value) = value else { return self };
        let sql = if self.narrowed { condition } else { condition.trim_start_matches('+') };
        self.narrowed = true;
        self.with(sql, &[value])
    }

    fn by(mut self, order: &'static str) -> Self {
        self.sql += " ORDER BY ";
        self.sql += order;
        self
    }

    pub(super) fn limit(mut self, rows: u32) -> Self {
        self.sql += " LIMIT ?";
        self.bound.int(i64::from(rows));
        self
    }

    pub(super) fn query(self) -> Result<Query, StoreError> {
        let failed = |error: sqlx::Error| StoreError::Constraint { detail: error.to_string() };
        // Put together of constants alone.
        Ok(sqlx::query_with(AssertSqlSafe(self.sql), self.bound.arguments().map_err(failed)?))
    }
}

fn text(value: Option<&String>) -> Option<Value<'_>> {
    value.map(|text| Text(text))
}

/// Ids before that of the cursor, for lists that begin with the latest.
fn before(after: Option<&Cursor>) -> Result<[Value<'static>; 1], StoreError> {
    Ok([Int(after.map(Cursor::id).transpose()?.unwrap_or(i64::MAX))])
}

pub(super) fn tenants(after: Option<&Cursor>) -> Result<Select, StoreError> {
    let (name, _) = after.map(Cursor::name).transpose()?.unwrap_or_default();
    Ok(Select::new(TENANTS).with("name > ?", &[Text(name)]).by("name"))
}

pub(super) fn tenant(name: &str) -> Select {
    Select::new(TENANTS).with("name = ?", &[Text(name)])
}

pub(super) fn versions(filter: &VersionFilter, after: Option<&Cursor>) -> Result<Select, StoreError> {
    let select = Select::new(VERSIONS)
        .with("id < ?", &before(after)?)
        .given("+tenant = ?", text(filter.tenant.as_ref()))
        .given("+name = ?", text(filter.name.as_ref()))
        .given("+status = ?", filter.status.map(|status| Text(status.as_str())));
    Ok(select.by("id DESC"))
}

pub(super) fn version(tenant: &str, digest: &[u8; 32]) -> Select {
    Select::new(VERSIONS).with("digest = ?", &[Blob(digest)]).with("tenant = ?", &[Text(tenant)])
}

pub(super) fn version_named(tenant: &str, name: &str, version: &str) -> Select {
    let select = Select::new(VERSIONS).with("tenant = ?", &[Text(tenant)]).with("name = ?", &[Text(name)]);
    select.with("version = ?", &[Text(version)])
}

pub(super) fn statuses(digest: &[u8; 32]) -> Select {
    Select::new(STATUSES).with("digest = ?", &[Blob(digest)]).by("tenant")
}

pub(super) fn uploads(tenant: &str, since_ms: u64) -> Select {
    Select::new(UPLOADS).with("tenant = ?", &[Text(tenant)]).with("uploaded_ms >= ?", &[Int(clamp(since_ms))])
}

pub(super) fn vetting(tenant: &str, digest: &[u8; 32]) -> Select {
    let select = Select::new(VETTINGS).with("vetting.tenant = ?", &[Text(tenant)]);
    select.with("vetting.digest = ?", &[Blob(digest)]).by("one.position")
}

pub(super) fn approvals(tenant: &str, digest: &[u8; 32], after: Option<&Cursor>) -> Result<Select, StoreError> {
    let after = after.map(Cursor::id).transpose()?.unwrap_or(0);
    let select = Select::new(APPROVALS).with("id > ?", &[Int(after)]).with("tenant = ?", &[Text(tenant)]);
    Ok(select.with("digest = ?", &[Blob(digest)]).by("id"))
}

pub(super) fn deployments(filter: &DeploymentFilter, after: Option<&Cursor>) -> Result<Select, StoreError> {
    let select = Select::new(DEPLOYMENTS)
        .with("id < ?", &before(after)?)
        .given("+digest = ?", filter.digest.as_ref().map(|digest| Blob(digest)))
        .given("+tenant = ?", text(filter.tenant.as_ref()))
        .given("+mount = ?", text(filter.mount.as_ref()))
        .given("+state = ?", filter.state.map(|state| Text(state.as_str())));
    Ok(select.by("id DESC"))
}

pub(super) fn deployment(id: i64) -> Select {
    Select::new(DEPLOYMENTS).with("id = ?", &[Int(id)])
}

pub(super) fn audit(filter: &AuditFilter, after: Option<&Cursor>) -> Result<Select, StoreError> {
    let (at_ms, id) = after.map(Cursor::time).transpose()?.unwrap_or((i64::MAX, i64::MAX));
    let mut select = Select::new(AUDIT);
    if filter.tenant.is_some() && filter.subject.is_some() {
        // SQLite would take the one for the subject alone.
        select.sql += " INDEXED BY audit_tenant_subject";
    }
    let select = select
        .with("(at_ms, id) < (?, ?)", &[Int(at_ms), Int(id)])
        .given("tenant = ?", text(filter.tenant.as_ref()))
        .given("subject = ?", text(filter.subject.as_ref()))
        .given("at_ms >= ?", filter.since_ms.map(|since_ms| Int(clamp(since_ms))));
    Ok(select.by("at_ms DESC, id DESC"))
}

pub(super) fn tapes(filter: &TapeFilter, after: Option<&Cursor>) -> Result<Select, StoreError> {
    let select = Select::new(TAPES)
        .with("id < ?", &before(after)?)
        .given("+channel = ?", text(filter.channel.as_ref()))
        .given("+tenant = ?", text(filter.tenant.as_ref()))
        .given("+mount = ?", text(filter.mount.as_ref()));
    Ok(select.by("id DESC"))
}

pub(super) fn tape(id: i64) -> Select {
    Select::new(TAPES).with("id = ?", &[Int(id)])
}

/// Written as in the index, which has only keys that were not revoked.
const NOT_REVOKED: &str = "revoked_ms IS NULL";

pub(super) fn keys(tenant: Option<&str>, after: Option<&Cursor>) -> Result<Select, StoreError> {
    let select = Select::new(KEYS).with(NOT_REVOKED, &[]);
    if let Some(tenant) = tenant {
        let after = after.map(|cursor| cursor.name_of(tenant)).transpose()?.unwrap_or_default();
        return Ok(select.with("tenant = ?", &[Text(tenant)]).with("name > ?", &[Text(after)]).by("name"));
    }
    let (tenant, name) = after.map(Cursor::name).transpose()?.unwrap_or_default();
    Ok(select.with("(tenant, name) > (?, ?)", &[Text(tenant), Text(name)]).by("tenant, name"))
}

pub(super) fn key(hash: &[u8; 32]) -> Select {
    Select::new(KEYS).with("hash = ?", &[Blob(hash)]).with(NOT_REVOKED, &[])
}

pub(super) fn kept(after: &str) -> Select {
    let mut select = Select::new(KEPT).with("tenant > ?", &[Text(after)]);
    select.sql += " GROUP BY tenant";
    select.by("tenant")
}

pub(super) fn channels(filter: &ChannelFilter, after: Option<&Cursor>) -> Result<Select, StoreError> {
    let ChannelFilter::Tenant { tenant, prefix } = filter else {
        let (tenant, name) = after.map(Cursor::name).transpose()?.unwrap_or_default();
        let select = Select::new(CHANNELS).with("(tenant, name) > (?, ?)", &[Text(tenant), Text(name)]);
        return Ok(select.by("tenant, name"));
    };
    let select = Select::new(CHANNELS).with("tenant = ?", &[Text(tenant)]);
    let after = after.map(|cursor| cursor.name_of(tenant)).transpose()?;
    let select = match after.filter(|after| *after >= prefix.as_str()) {
        Some(after) => select.with("name > ?", &[Text(after)]),
        None => select.with("name >= ?", &[Text(prefix)]),
    };
    // The last character there is: names with this prefix are before it, whatever follows.
    let end = format!("{prefix}{}", char::MAX);
    Ok(select.with("name < ?", &[Text(&end)]).by("name"))
}

pub(super) fn channel(name: &ChannelName) -> Select {
    Select::new(CHANNELS).with("tenant = ?", &[Text(name.tenant())]).with("name = ?", &[Text(name.name())])
}

/// The text of every statement there can be.
#[cfg(test)]
pub(in crate::store::sqlite) fn every_one() -> Vec<String> {
    use crate::store::catalog::{DeploymentState, Status};

    let some = || Some(String::new());
    let is = |bit: u32, bits: u32| bits & (1 << bit) != 0;
    let mut every = vec![tenant(""), version("", &[0; 32]), version_named("", "", ""), statuses(&[0; 32])];
    every.extend([uploads("", 0), vetting("", &[0; 32]), deployment(0), tape(0), key(&[0; 32])]);
    every.push(channel(&ChannelName::new("a", "a").unwrap()));
    every.push(kept("").limit(1));
    let mut lists = vec![tenants(None), approvals("", &[0; 32], None), keys(None, None), keys(Some(""), None)];
    let prefix = ChannelFilter::Tenant { tenant: String::new(), prefix: String::new() };
    lists.extend([channels(&ChannelFilter::All, None), channels(&prefix, None)]);
    lists.push(channels(&prefix, Some(&Cursor::of_name("", "a"))));
    for bits in 0..16 {
        let (tenant, name) = (some().filter(|_| is(0, bits)), some().filter(|_| is(1, bits)));
        let status = Some(Status::Vetting).filter(|_| is(2, bits));
        lists.push(versions(&VersionFilter { tenant: tenant.clone(), name: name.clone(), status }, None));
        let (state, digest) = (Some(DeploymentState::Active).filter(|_| is(2, bits)), is(3, bits).then_some([0; 32]));
        let filter = DeploymentFilter { mount: name.clone(), tenant: tenant.clone(), state, digest };
        lists.push(deployments(&filter, None));
        let since_ms = is(2, bits).then_some(0);
        lists.push(audit(&AuditFilter { tenant: tenant.clone(), subject: name.clone(), since_ms }, None));
        lists.push(tapes(&TapeFilter { tenant, channel: name, mount: some().filter(|_| is(2, bits)) }, None));
    }
    every.extend(lists.into_iter().map(|select| select.unwrap().limit(1)));
    every.into_iter().map(|select| select.sql).collect()
}
