//! Where versions run: deploying, rolling back, stopping.

use std::sync::Arc;

use serde_json::json;

use crate::channel::Version;
use crate::protocol::capability::Capability;
use crate::protocol::name::{ChannelPattern, check_part};
use crate::registry::mounts::{Active, counts, scope};
use crate::registry::strategy::{Counts, Kind, Strategy};
use crate::registry::{Actor, Registry, RegistryError};
use crate::store::catalog::{
    self, Change, Cursor, Deployment, DeploymentFilter, DeploymentState, Listing, Status, VersionFilter,
};
use crate::telemetry::wall_ms;

/// Deployments read at once.
pub(super) const PAGE: u32 = 500;

/// What to deploy where.
#[derive(Debug, Clone, PartialEq)]
pub struct Deploy {
    /// To which mount.
    pub mount: String,
    /// To whose channels alone.
    pub tenant: Option<String>,
    /// To which channels alone.
    pub pattern: Option<String>,
    /// Whose version: a tenant's, or `""` for the platform's.
    pub owner: String,
    /// The version: a digest, or `NAME@VERSION`.
    pub version: String,
    /// How.
    pub strategy: Strategy,
}

/// A deployment and what it did since this broker started.
#[derive(Debug, Clone, PartialEq)]
pub struct DeploymentStatus {
    /// The deployment.
    pub row: Deployment,
    /// What it did; absent if it is not in force.
    pub counts: Option<Counts>,
    /// The last difference of a shadow, in words.
    pub last_difference: Option<String>,
}

impl Registry {
    /// A version by its digest or `NAME@VERSION`.
    ///
    /// # Errors
    /// If there is none.
    pub async fn find(&self, owner: &str, version: &str) -> Result<catalog::Version, RegistryError> {
        let missing = || RegistryError::no_version(owner, version);
        let text = version.strip_prefix("sha256:").unwrap_or(version);
        if let Some((name, version)) = text.split_once('@') {
            return self.catalog().version_named(owner, name, version).await?.ok_or_else(missing);
        }
        match <[u8; 32]>::try_from(hex::decode(text).unwrap_or_default()) {
            Ok(digest) => self.catalog().version(owner, &digest).await?.ok_or_else(missing),
            Err(_) if text.len() >= 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                self.find_by_prefix(owner, text).await?.ok_or_else(missing)
            }
            Err(_) => Err(RegistryError::Invalid(format!(
                "{version:?} names no version: write NAME@VERSION, or at least 8 digits of its digest"
            ))),
        }
    }

    /// The only version whose digest begins so.
    async fn find_by_prefix(&self, owner: &str, prefix: &str) -> Result<Option<catalog::Version>, RegistryError> {
        let filter = VersionFilter { tenant: Some(owner.to_owned()), ..VersionFilter::default() };
        let mut found: Option<catalog::Version> = None;
        let mut after: Option<Cursor> = None;
        loop {
            let page: Listing<catalog::Version> = self.catalog().versions(&filter, after.as_ref(), PAGE).await?;
            for row in page.rows {
                if hex::encode(row.digest).starts_with(&prefix.to_ascii_lowercase()) && found.replace(row).is_some() {
                    let why = format!("several versions have a digest that begins with {prefix}; write more of it");
                    return Err(RegistryError::Invalid(why));
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(found);
            }
        }
    }

    /// Deploys a version. It takes hold in awake channels within moments, and in sleeping ones when they wake.
    ///
    /// # Errors
    /// If there is no such mount or version, it may not run there, it asks for more than its owner is granted now, or the channels' state is none it takes over.
    pub async fn deploy(&self, who: &Actor, ask: Deploy) -> Result<Deployment, RegistryError> {
        let _turn = self.deploying.lock().await;
        ask.strategy.check()?;
        let row = self.find(&ask.owner, &ask.version).await?;
        self.check_scope(&ask, &row)?;
        self.terms(&row.tenant).await?.check_grants(&row)?;
        let (plugin, manifest) = self.load(&row).await?;
        let missing = || RegistryError::NotFound { what: format!("mount {:?}", ask.mount) };
        self.check_schema(&ask, &row, &manifest.state.accepts.iter().copied().collect::<Vec<_>>())?;
        self.mounts.version(&ask.mount, &ask.owner, &plugin, &manifest).ok_or_else(missing)?;
        let now_ms = wall_ms();
        let mut deployment = Deployment {
            id: 0,
            mount: ask.mount,
            tenant: ask.tenant,
            pattern: ask.pattern,
            owner: ask.owner,
            digest: row.digest,
            strategy: ask.strategy.to_json(),
            state: DeploymentState::Active,
            reason: who.reason.clone(),
            by: who.name.clone(),
            created_ms: now_ms,
            changed_ms: now_ms,
        };
        let superseded = self.superseded_by(&deployment, &ask.strategy);
        let mut changes = vec![
            Change::RequireStatus { tenant: row.tenant.clone(), digest: row.digest, any: vec![Status::Approved] },
            Change::InsertDeployment(deployment.clone()),
        ];
        changes.extend(superseded.iter().map(|active| ended(active, DeploymentState::Superseded, None)));
        let detail = json!({
            "version": format!("{}@{}", row.name, row.version), "digest": hex::encode(row.digest), "owner": row.tenant,
            "pattern": deployment.pattern, "strategy": ask.strategy,
        });
        let tenant = deployment.tenant.clone().unwrap_or_default();
        let audit = who.did("deployment.created", &tenant, deployment.mount.clone(), &detail);
        let changed = self.catalog().change(changes, Some(audit)).await?;
        let Some(id) = changed.and_then(|changed| changed.ids.first().copied()) else {
            let why = "the version was revoked, or the deployments of this scope changed meanwhile; try again";
            return Err(RegistryError::Conflict(why.to_owned()));
        };
        deployment.id = id;
        for active in &superseded {
            self.mounts.remove(active.row.id, false);
        }
        self.mounts.put(deployment.clone(), ask.strategy);
        self.apply();
        Ok(deployment)
    }

    /// Whether a version may run there at all.
    fn check_scope(&self, ask: &Deploy, row: &catalog::Version) -> Result<(), RegistryError> {
        let Some(logic) = self.mounts.logic(&ask.mount) else {
            let known = self.mounts.names().join(", ");
            return Err(RegistryError::NotFound { what: format!("mount {:?}; there are: {known}", ask.mount) });
        };
        if let Some(tenant) = &ask.tenant {
            check_part("tenant", tenant).map_err(|e| RegistryError::Invalid(e.to_string()))?;
        }
        if !ask.owner.is_empty() && ask.tenant.as_deref() != Some(&ask.owner) {
            let why = format!("a version of the tenant {:?} runs on channels of that tenant alone: say so", ask.owner);
            return Err(RegistryError::Forbidden(why));
        }
        if let Some(pattern) = &ask.pattern {
            ChannelPattern::parse(pattern).map_err(|e| RegistryError::Invalid(format!("pattern: {e}")))?;
        }
        let wants_sql = row.capabilities.iter().any(|name| name == Capability::Sql.as_str());
        if !ask.owner.is_empty() && wants_sql {
            let open = logic.statements.iter().find(|(_, statement)| !statement.is_bound_to_tenant());
            if let Some((name, _)) = open {
                return Err(RegistryError::Forbidden(format!(
                    "the statement {name:?} of this mount has no parameter \"tenant\", so it could read what is another tenant's; \
                     only plugins of the platform may run it"
                )));
            }
        }
        Ok(())
    }

    /// What the channels of a scope have now must be what the version takes over.
    fn check_schema(&self, ask: &Deploy, row: &catalog::Version, accepts: &[u32]) -> Result<(), RegistryError> {
        for current in self.current(ask) {
            if current.schema != row.schema && !accepts.contains(&current.schema) {
                return Err(RegistryError::Schema {
                    version: format!("{} {}", row.name, row.version),
                    schema: current.schema,
                    current: current.plugin.name().to_owned(),
                    accepts: accepts.to_vec(),
                });
            }
        }
        Ok(())
    }

    /// Versions that channels of this scope may run now.
    fn current(&self, ask: &Deploy) -> Vec<Arc<Version>> {
        let Some(logic) = self.mounts.logic(&ask.mount) else { return Vec::new() };
        let plan = logic.rollout.plan();
        let overlaps = |tenant: Option<&str>| match (tenant, ask.tenant.as_deref()) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        let rules = plan.rules.iter().filter(|rule| overlaps(rule.tenant.as_deref()));
        rules.map(|rule| Arc::clone(&rule.version)).chain([Arc::clone(&plan.base)]).collect()
    }

    /// Deployments whose place a new one takes: all of the same scope if it is for all; else the one of its kind.
    fn superseded_by(&self, row: &Deployment, strategy: &Strategy) -> Vec<Active> {
        let active = self.mounts.active().into_iter().filter(|active| active.scope() == scope(row));
        active.filter(|active| strategy.kind == Kind::All || active.strategy.kind == strategy.kind).collect()
    }

    /// Deployments, the latest first, with what those in force did.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn deployments(
        &self,
        filter: &DeploymentFilter,
        after: Option<&Cursor>,
        limit: u32,
    ) -> Result<Listing<DeploymentStatus>, RegistryError> {
        let page = self.catalog().deployments(filter, after, limit).await?;
        Ok(Listing { rows: page.rows.into_iter().map(|row| self.status(row)).collect(), next: page.next })
    }

    /// One deployment.
    ///
    /// # Errors
    /// If there is none, or the store cannot be read.
    pub async fn deployment(&self, id: i64) -> Result<DeploymentStatus, RegistryError> {
        let missing = || RegistryError::NotFound { what: format!("deployment {id}") };
        Ok(self.status(self.catalog().deployment(id).await?.ok_or_else(missing)?))
    }

    fn status(&self, row: Deployment) -> DeploymentStatus {
        let active = self.mounts.find(row.id);
        let words = |active: &Active| {
            active.tally.last_difference.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
        };
        DeploymentStatus {
            counts: active.as_ref().map(|active| counts(&active.tally)),
            last_difference: active.as_ref().and_then(words),
            row,
        }
    }
}

/// The change that ends a deployment.
pub(super) fn ended(active: &Active, to: DeploymentState, reason: Option<String>) -> Change {
    Change::UpdateDeployment {
        id: active.row.id,
        from: vec![DeploymentState::Active],
        to,
        strategy: None,
        reason,
        changed_ms: wall_ms(),
    }
}
