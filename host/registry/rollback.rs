//! Deployments that end: rolled back, so that what their channels had before is in force again, or stopped.

use std::collections::HashSet;

use serde_json::json;

use crate::registry::deploy::{PAGE, ended};
use crate::registry::mounts::{Active, counts, scope};
use crate::registry::strategy::{Kind, Strategy};
use crate::registry::{Actor, Registry, RegistryError};
use crate::store::catalog::{Change, Cursor, Deployment, DeploymentFilter, DeploymentState, Status};
use crate::telemetry::{utc, wall_ms};

/// What becomes of a deployment that a mount stands on, if there is nothing before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    /// It goes on.
    Stays,
    /// It ends. The mount has no version then, until another one is deployed.
    Ends,
}

impl Registry {
    /// Rolls a deployment back: what its channels had before is in force again.
    ///
    /// # Errors
    /// If it is not in force, or there is nothing before it.
    pub async fn roll_back(&self, who: &Actor, id: i64) -> Result<Option<Deployment>, RegistryError> {
        let _turn = self.deploying.lock().await;
        self.roll_back_in_turn(who, id, Last::Stays).await
    }

    pub(super) async fn roll_back_in_turn(
        &self,
        who: &Actor,
        id: i64,
        last: Last,
    ) -> Result<Option<Deployment>, RegistryError> {
        let Some(active) = self.mounts.find(id) else { return Err(self.not_in_force(id).await?) };
        match self.catch_up(&active).await? {
            None => {}
            Some((DeploymentState::RolledBack, again)) => {
                metrics::counter!("hotbay_rollbacks_total", "mount" => active.row.mount.clone()).increment(1);
                return Ok(again);
            }
            Some(_) => return Err(self.not_in_force(id).await?),
        }
        let before = match active.strategy.kind {
            Kind::All => self.before(&active).await?,
            Kind::Canary | Kind::Shadow => None,
        };
        if active.is_base() && before.is_none() && last == Last::Stays {
            let why = format!(
                "there is nothing before deployment {id} of {:?} that may still run; deploy another version",
                active.row.mount
            );
            return Err(RegistryError::Conflict(why));
        }
        let mut changes = vec![ended(&active, DeploymentState::RolledBack, who.reason.clone())];
        if let Some((before, _)) = &before {
            changes.push(Change::UpdateDeployment {
                id: before.id,
                from: vec![DeploymentState::Superseded],
                to: DeploymentState::Active,
                strategy: Some(Strategy::all().to_json()),
                reason: None,
                changed_ms: wall_ms(),
            });
        }
        let detail = json!({
            "deployment": id, "digest": hex::encode(active.row.digest),
            "again": before.as_ref().map(|(before, _)| before.id), "counts": counts(&active.tally),
        });
        let tenant = active.row.tenant.clone().unwrap_or_default();
        let audit = who.did("deployment.rolled_back", &tenant, active.row.mount.clone(), &detail);
        if self.catalog().change(changes, Some(audit)).await?.is_none() {
            return Err(RegistryError::Conflict(format!("deployment {id} changed meanwhile; look at it again")));
        }
        self.mounts.remove(id, true);
        let again = before.map(|(row, strategy)| {
            self.mounts.put(row.clone(), strategy);
            row
        });
        metrics::counter!("hotbay_rollbacks_total", "mount" => active.row.mount.clone()).increment(1);
        self.apply();
        Ok(again)
    }

    /// If the store says that a deployment ended, what is in force follows: the change was made, and the answer to it got lost, so that
    /// nothing came of it here. What ended it, and what is for all of its scope now, unless it was before.
    async fn catch_up(&self, active: &Active) -> Result<Option<(DeploymentState, Option<Deployment>)>, RegistryError> {
        let state = self.catalog().deployment(active.row.id).await?.map(|row| row.state);
        let Some(state) = state.filter(|state| *state != DeploymentState::Active) else { return Ok(None) };
        let mut others = Vec::new();
        for row in self.deployments_in_force().await?.into_iter().filter(|row| scope(row) == active.scope()) {
            // Nothing is changed here before all of it is read, or who tries again would find nothing to catch up with.
            if self.mounts.find(row.id).is_none() && self.prepare(&row).await? {
                let strategy = Strategy::parse(&row.strategy)?;
                others.push((row, strategy));
            }
        }
        tracing::warn!(
            deployment = active.row.id,
            mount = active.row.mount,
            ?state,
            "it has ended already, and nothing came of it"
        );
        self.mounts.remove(active.row.id, state == DeploymentState::RolledBack);
        let mut again = None;
        for (row, strategy) in others {
            if strategy.kind == Kind::All {
                again = Some(row.clone());
            }
            self.mounts.put(row, strategy);
        }
        self.apply();
        Ok(Some((state, again)))
    }

    /// The latest earlier deployment of the same scope that was for all and whose version may still run, loaded. Not one of a version that
    /// was rolled back since.
    async fn before(&self, active: &Active) -> Result<Option<(Deployment, Strategy)>, RegistryError> {
        let filter = DeploymentFilter { mount: Some(active.row.mount.clone()), ..DeploymentFilter::default() };
        let mut rolled_back = HashSet::new();
        let mut after: Option<Cursor> = None;
        loop {
            let page = self.catalog().deployments(&filter, after.as_ref(), PAGE).await?;
            // The latest first, so what was rolled back comes before the deployments that it must not go back to.
            for mut row in page.rows.into_iter().filter(|row| scope(row) == active.scope()) {
                let kind = Strategy::parse(&row.strategy).map(|strategy| strategy.kind);
                let version = (row.owner.clone(), row.digest);
                if row.state == DeploymentState::RolledBack && kind != Ok(Kind::Shadow) {
                    rolled_back.insert(version);
                    continue;
                }
                let is_earlier = row.id < active.row.id && row.state == DeploymentState::Superseded;
                let is_same = version == (active.row.owner.clone(), active.row.digest);
                if !is_earlier || kind != Ok(Kind::All) || is_same || rolled_back.contains(&version) {
                    continue;
                }
                if self.prepare(&row).await? {
                    row.state = DeploymentState::Active;
                    return Ok(Some((row, Strategy::all())));
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(None);
            }
        }
    }

    /// Loads the version of a deployment that may be in force again; false if it may not run any more.
    async fn prepare(&self, row: &Deployment) -> Result<bool, RegistryError> {
        let Some(version) = self.catalog().version(&row.owner, &row.digest).await? else { return Ok(false) };
        if version.status != Status::Approved {
            return Ok(false);
        }
        if let Err(error) = self.terms(&version.tenant).await?.check_grants(&version) {
            tracing::warn!(deployment = row.id, mount = row.mount, %error, "a deployment cannot be in force again");
            return Ok(false);
        }
        match self.load(&version).await {
            Ok((plugin, manifest)) => Ok(self.mounts.version(&row.mount, &row.owner, &plugin, &manifest).is_some()),
            Err(error) => {
                tracing::warn!(deployment = row.id, mount = row.mount, %error, "a deployment cannot be in force again");
                Ok(false)
            }
        }
    }

    /// Ends a deployment that is not for all of a mount: its channels get what they would have without it.
    ///
    /// # Errors
    /// If it is not in force, or is what all others stand on.
    pub async fn stop(&self, who: &Actor, id: i64) -> Result<(), RegistryError> {
        let _turn = self.deploying.lock().await;
        let Some(active) = self.mounts.find(id) else { return Err(self.not_in_force(id).await?) };
        match self.catch_up(&active).await? {
            None => {}
            Some((DeploymentState::Stopped, _)) => return Ok(()),
            Some(_) => return Err(self.not_in_force(id).await?),
        }
        if active.is_base() {
            let why = format!(
                "deployment {id} is what the channels of {:?} run; roll it back, or deploy another one",
                active.row.mount
            );
            return Err(RegistryError::Conflict(why));
        }
        let changes = vec![ended(&active, DeploymentState::Stopped, who.reason.clone())];
        let tenant = active.row.tenant.clone().unwrap_or_default();
        let audit = who.did("deployment.stopped", &tenant, active.row.mount.clone(), &json!({ "deployment": id }));
        if self.catalog().change(changes, Some(audit)).await?.is_none() {
            return Err(RegistryError::Conflict(format!("deployment {id} changed meanwhile; look at it again")));
        }
        self.mounts.remove(id, false);
        self.apply();
        Ok(())
    }

    /// Why a deployment can be neither rolled back nor stopped.
    async fn not_in_force(&self, id: i64) -> Result<RegistryError, RegistryError> {
        let row = self.catalog().deployment(id).await?;
        let Some(row) = row else { return Ok(RegistryError::NotFound { what: format!("deployment {id}") }) };
        Ok(RegistryError::Conflict(format!("deployment {id} is not in force: {}", what_ended(&row))))
    }
}

/// What ended a deployment, when and why.
fn what_ended(row: &Deployment) -> String {
    let (at, reason) = (utc(row.changed_ms), row.reason.as_deref().unwrap_or("without a reason"));
    match row.state {
        DeploymentState::RolledBack => format!("it was rolled back at {at}: {reason}"),
        DeploymentState::Stopped => format!("it was stopped at {at}: {reason}"),
        DeploymentState::Superseded => format!("another one took its place at {at}"),
        DeploymentState::Active => {
            "its mount is not configured any more, or it could not be restored when the broker started; the \
                                    broker's log says which"
                .to_owned()
        }
    }
}
