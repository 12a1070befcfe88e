//! Looks after deployments while they are in force: lets canaries grow, and rolls back what breaks its budget.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::watch;

use crate::registry::mounts::{Active, counts};
use crate::registry::rollback::Last;
use crate::registry::strategy::{Kind, Strategy};
use crate::registry::{Actor, Registry, RegistryError};
use crate::store::catalog::{Change, DeploymentState, Status};
use crate::telemetry::wall_ms;

/// How often.
const TICK: Duration = Duration::from_millis(250);
/// When a deployment is looked at again that is over its budget and has nothing before it.
const LATER: Duration = Duration::from_mins(1);

/// When a deployment is looked at next.
enum Next {
    Tick,
    Later,
}

impl Registry {
    /// Looks after them until the broker stops.
    pub async fn watch(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        // Deployments with nothing before them, and when they are looked at again.
        let mut stuck: HashMap<i64, Instant> = HashMap::new();
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(TICK) => {}
            }
            if let Err(error) = self.look_after_tapes().await {
                tracing::warn!(%error, "the rows of tapes cannot be written; trying again");
            }
            stuck.retain(|_, until| *until > Instant::now());
            for active in self.mounts.active() {
                if stuck.contains_key(&active.row.id) {
                    continue;
                }
                let looked_at = self.look_at(&active).await;
                if let Ok(Next::Later) = looked_at {
                    stuck.insert(active.row.id, Instant::now() + LATER);
                }
                if let Err(error) = looked_at {
                    tracing::warn!(deployment = active.row.id, mount = active.row.mount, %error, "a deployment cannot be changed; trying again");
                }
            }
        }
    }

    async fn look_at(&self, active: &Active) -> Result<Next, RegistryError> {
        let id = active.row.id;
        let _turn = self.deploying.lock().await;
        if let Some(why) = active.strategy.budget.broken(&counts(&active.tally)) {
            return match self.roll_back_in_turn(&Actor::new("budget").because(&why), id, Last::Stays).await {
                Ok(_) => {
                    tracing::error!(deployment = id, mount = active.row.mount, why, "rolled back");
                    Ok(Next::Tick)
                }
                // There is nothing before it, or somebody was faster.
                Err(RegistryError::Conflict(error)) => {
                    tracing::warn!(
                        deployment = id,
                        mount = active.row.mount,
                        error,
                        why,
                        "over its budget, and not rolled back"
                    );
                    Ok(Next::Later)
                }
                Err(error) => Err(error),
            };
        }
        let due_ms =
            active.row.changed_ms.saturating_add(active.strategy.step_s.unwrap_or(u64::MAX).saturating_mul(1_000));
        match active.strategy.next() {
            Some(next) if due_ms <= wall_ms() => self.step(active, next).await,
            _ => Ok(Next::Tick),
        }
    }

    /// The next step of a canary; after the last one it is for all, and takes the place of what was.
    async fn step(&self, active: &Active, next: Strategy) -> Result<Next, RegistryError> {
        let mut row = active.row.clone();
        row.changed_ms = wall_ms();
        row.strategy = next.to_json();
        let is_last = next.kind == Kind::All;
        let others = self.mounts.active().into_iter().filter(|other| other.row.id != row.id);
        let replaced: Vec<Active> = others.filter(|other| is_last && other.scope() == active.scope()).collect();
        let mut changes = vec![
            // A revocation may have been cut off after its status was written: a step would put the version back in force.
            Change::RequireStatus { tenant: row.owner.clone(), digest: row.digest, any: vec![Status::Approved] },
            Change::UpdateDeployment {
                id: row.id,
                from: vec![DeploymentState::Active],
                to: DeploymentState::Active,
                strategy: Some(row.strategy.clone()),
                reason: row.reason.clone(),
                changed_ms: row.changed_ms,
            },
        ];
        changes.extend(replaced.iter().map(|other| super::deploy::ended(other, DeploymentState::Superseded, None)));
        let detail = json!({ "deployment": row.id, "strategy": next, "counts": counts(&active.tally) });
        let action = if is_last { "deployment.promoted" } else { "deployment.grown" };
        let audit = Actor::new("strategy").did(action, row.tenant.as_deref().unwrap_or(""), row.mount.clone(), &detail);
        if self.catalog().change(changes, Some(audit)).await?.is_none() {
            // Its version was revoked, or it is not in force in the store any more: not four times a second.
            tracing::warn!(
                deployment = row.id,
                mount = row.mount,
                "its version was revoked, or it has ended: it does not grow"
            );
            return Ok(Next::Later);
        }
        tracing::info!(deployment = row.id, mount = row.mount, strategy = row.strategy, "{action}");
        for other in &replaced {
            self.mounts.remove(other.row.id, false);
        }
        self.mounts.put(row, next);
        self.apply();
        Ok(Next::Tick)
    }
}
