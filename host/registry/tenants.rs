//! What a tenant's uploads may become: who approves them, and what they may be granted.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::limits::{CATALOG_ROWS_MAX, UPLOADS_PER_DAY};
use crate::protocol::capability::Capability;
use crate::protocol::name::check_part;
use crate::quota::{Kept, Quotas, TenantLimits};
use crate::registry::signature::TrustedKey;
use crate::registry::{Actor, Registry, RegistryError};
use crate::store::catalog::{Change, Cursor, Tenant, TenantKept, Version};
use crate::telemetry::wall_ms;

/// Most public keys a tenant may trust.
const TRUSTED_KEYS_MAX: usize = 16;

/// Who approves a tenant's versions once they passed vetting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// A signature by a key the tenant trusts is enough. Without one, an operator.
    Auto,
    /// An operator, whoever signed it.
    #[default]
    Review,
    /// Nobody: it may not upload at all.
    Closed,
}

impl Policy {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Review => "review",
            Self::Closed => "closed",
        }
    }

    /// Reads its word.
    ///
    /// # Errors
    /// If there is no such policy; says which there are.
    pub fn parse(word: &str) -> Result<Self, RegistryError> {
        match word {
            "auto" => Ok(Self::Auto),
            "review" => Ok(Self::Review),
            "closed" => Ok(Self::Closed),
            other => Err(RegistryError::Invalid(format!("policy {other:?}: there are auto, review and closed"))),
        }
    }
}

/// What a tenant's uploads may become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Who approves them.
    pub policy: Policy,
    /// What they may be granted.
    pub grants: BTreeSet<Capability>,
    /// Whose signatures count.
    pub trusted: Vec<TrustedKey>,
    /// How many within 24 hours.
    pub uploads_max: Option<u64>,
}

impl Terms {
    /// Of a tenant nobody said anything about: an operator looks at each version, and it may keep state and write log lines.
    fn of_stranger() -> Self {
        let grants = BTreeSet::from([Capability::Kv, Capability::Log, Capability::Logging]);
        Self { policy: Policy::Review, grants, trusted: Vec::new(), uploads_max: Some(UPLOADS_PER_DAY) }
    }

    /// Of the platform itself.
    fn of_platform() -> Self {
        let grants = Capability::ALL.into_iter().collect();
        Self { policy: Policy::Review, grants, trusted: Vec::new(), uploads_max: None }
    }

    fn read(row: &Tenant) -> Result<Self, RegistryError> {
        Ok(Self {
            policy: Policy::parse(&row.policy)?,
            grants: row.grants.iter().map(|name| capability(name)).collect::<Result<_, _>>()?,
            trusted: row.trusted_keys.iter().map(|key| trusted(key)).collect::<Result<_, _>>()?,
            uploads_max: Some(limits(row)?.uploads_per_day.unwrap_or(UPLOADS_PER_DAY)),
        })
    }

    /// Refuses a tenant that may not upload.
    pub(super) fn check_open(&self, tenant: &str) -> Result<(), RegistryError> {
        if self.policy == Policy::Closed {
            let why = format!("the tenant {tenant:?} may not upload plugins (its policy is closed); ask an operator");
            return Err(RegistryError::Forbidden(why));
        }
        Ok(())
    }

    /// Refuses a version that asks for more than its owner is granted now: what it was granted when it was vetted may have been taken back.
    pub(super) fn check_grants(&self, row: &Version) -> Result<(), RegistryError> {
        let granted: BTreeSet<&str> = self.grants.iter().map(|one| one.as_str()).collect();
        let asked: BTreeSet<&str> = row.capabilities.iter().map(String::as_str).collect();
        let Some(missing) = asked.difference(&granted).next() else { return Ok(()) };
        let all: Vec<&str> = granted.union(&asked).copied().collect();
        Err(RegistryError::Forbidden(format!(
            "{}@{} asks for the capability {missing:?}, which the tenant {tenant:?} is not granted; `hotbay tenant set {tenant} --grants {}` \
             grants it",
            row.name,
            row.version,
            all.join(","),
            tenant = row.tenant
        )))
    }
}

fn limits(row: &Tenant) -> Result<TenantLimits, RegistryError> {
    TenantLimits::parse(&row.limits).map_err(|e| RegistryError::Invalid(format!("limits: {e}")))
}

fn capability(name: &str) -> Result<Capability, RegistryError> {
    let found = Capability::ALL.into_iter().find(|capability| capability.as_str() == name);
    found.ok_or_else(|| {
        let known = Capability::ALL.map(Capability::as_str).join(", ");
        RegistryError::Invalid(format!("grants: there is no capability {name:?}; there are: {known}"))
    })
}

fn trusted(key: &str) -> Result<TrustedKey, RegistryError> {
    TrustedKey::parse(key).map_err(|e| RegistryError::Invalid(format!("trusted_keys: {e}")))
}

impl Registry {
    /// What a tenant's uploads may become. The tenant `""` is the platform.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn terms(&self, tenant: &str) -> Result<Terms, RegistryError> {
        if tenant.is_empty() {
            return Ok(Terms::of_platform());
        }
        match self.catalog().tenant(tenant).await? {
            Some(row) => Terms::read(&row),
            None => Ok(Terms::of_stranger()),
        }
    }

    /// Opens the accounts of all tenants: their limits, and what they keep.
    pub(super) async fn open_accounts(&self, quotas: &Quotas) -> Result<(), RegistryError> {
        let mut after: Option<Cursor> = None;
        loop {
            let page = self.catalog().tenants(after.as_ref(), CATALOG_ROWS_MAX).await?;
            for row in page.rows {
                match limits(&row) {
                    Ok(limits) => quotas.set(&row.name, limits),
                    Err(error) => {
                        tracing::error!(tenant = row.name, %error, "the tenant has no limits until `hotbay tenant set` says which");
                    }
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let mut last = String::new();
        loop {
            let page = self.catalog().kept(&last, CATALOG_ROWS_MAX).await?;
            for TenantKept { tenant, state_bytes, log_bytes } in &page {
                quotas.of(tenant).keeps_at_start(Kept { state: *state_bytes, log: *log_bytes });
            }
            match page.into_iter().last() {
                Some(row) => last = row.tenant,
                None => return Ok(()),
            }
        }
    }

    /// Lets a tenant's limits take hold, as they are written down now, and answers what is. One after another, so that the last one stays.
    async fn apply_limits(&self, tenant: &str) -> Result<Option<Tenant>, RegistryError> {
        let _turn = self.limiting.lock().await;
        let row = self.catalog().tenant(tenant).await?;
        if let Some(directory) = self.directory.get() {
            match &row {
                Some(row) => directory.quotas().set(tenant, limits(row)?),
                None => directory.quotas().unset(tenant),
            }
        }
        Ok(row)
    }

    /// Adds a tenant, or changes it. Its limits hold at once.
    ///
    /// # Errors
    /// If what is said of it makes no sense.
    pub async fn put_tenant(&self, who: &Actor, mut row: Tenant) -> Result<Tenant, RegistryError> {
        check_part("tenant", &row.name).map_err(|e| RegistryError::Invalid(e.to_string()))?;
        Terms::read(&row)?;
        if row.trusted_keys.len() > TRUSTED_KEYS_MAX {
            return Err(RegistryError::TooMuch(format!("trusted_keys: at most {TRUSTED_KEYS_MAX}")));
        }
        row.changed_ms = wall_ms();
        row.created_ms = row.changed_ms;
        let detail = json!({
            "policy": row.policy, "grants": row.grants, "limits": row.limits, "trusted_keys": row.trusted_keys,
        });
        let audit = who.did("tenant.put", &row.name, row.name.clone(), &detail);
        self.catalog().change(vec![Change::PutTenant(row.clone())], Some(audit)).await?;
        Ok(self.apply_limits(&row.name).await?.unwrap_or(row))
    }

    /// Removes what was said of a tenant: from then on it is one that nobody said anything about. Its channels, keys and versions stay.
    ///
    /// # Errors
    /// If there is no such tenant.
    pub async fn delete_tenant(&self, who: &Actor, name: &str) -> Result<(), RegistryError> {
        let audit = who.did("tenant.deleted", name, name, &json!({}));
        let change = Change::DeleteTenant { name: name.to_owned() };
        match self.catalog().change(vec![change], Some(audit)).await? {
            Some(_) => self.apply_limits(name).await.map(drop),
            None => Err(RegistryError::NotFound { what: format!("tenant {name:?}") }),
        }
    }
}
