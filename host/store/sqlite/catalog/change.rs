//! Carries out changes of the registry: within the transaction of a group, each call's changes behind a savepoint of their own, so that
//! one whose condition does not hold leaves nothing behind and the others do not notice.

use serde::Serialize;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteQueryResult;

use crate::limits::AUDIT_PRUNED_MAX;
use crate::store::ApiKey;
use crate::store::catalog::{
    Approval, AuditEntry, Change, Changed, Changes, Deployment, Status, Tape, Tenant, Verdict, Version, Vetting,
    VettingStep,
};
use crate::store::sqlite::catalog::reset;
use crate::store::sqlite::read::{Query, clamp};

/// Makes each call's changes. `None` for one whose condition did not hold.
pub(in crate::store::sqlite) async fn make(
    connection: &mut SqliteConnection,
    calls: &[Changes],
) -> Result<Vec<Option<Changed>>, sqlx::Error> {
    let mut made = Vec::with_capacity(calls.len());
    for call in calls {
        run(connection, sqlx::query("SAVEPOINT call")).await?;
        let changed = make_all(connection, call).await?;
        if changed.is_none() {
            run(connection, sqlx::query("ROLLBACK TO call")).await?;
        }
        run(connection, sqlx::query("RELEASE call")).await?;
        made.push(changed);
    }
    Ok(made)
}

async fn make_all(connection: &mut SqliteConnection, call: &Changes) -> Result<Option<Changed>, sqlx::Error> {
    let mut changed = Changed::default();
    for change in &call.changes {
        if !make_one(connection, change, &mut changed).await? {
            return Ok(None);
        }
    }
    if let Some(entry) = &call.audit {
        run(connection, audit(entry)).await?;
    }
    Ok(Some(changed))
}

/// Whether its condition held.
async fn make_one(
    connection: &mut SqliteConnection,
    change: &Change,
    changed: &mut Changed,
) -> Result<bool, sqlx::Error> {
    let query = match change {
        Change::PutTenant(tenant) => put_tenant(tenant)?,
        Change::DeleteTenant { name } => sqlx::query("DELETE FROM tenant WHERE name = ?").bind(name.clone()),
        Change::InsertVersion(version) => insert_version(version)?,
        Change::ForgetFailed { tenant, digest } => sqlx::query(
            "DELETE FROM plugin WHERE tenant = ? AND digest = ? AND status = 'rejected' AND EXISTS (SELECT 1 FROM vetting \
             WHERE vetting.tenant = plugin.tenant AND vetting.digest = plugin.digest AND verdict = 'failed')",
        )
        .bind(tenant.clone())
        .bind(digest.to_vec()),
        Change::RequireUploadsBelow { tenant, since_ms, count } => {
            let sql = "SELECT 1 WHERE (SELECT count(*) FROM plugin WHERE tenant = ? AND uploaded_ms >= ?) < ?";
            return holds(connection, sqlx::query(sql).bind(tenant.clone()).bind(clamp(*since_ms)).bind(clamp(*count))).await;
        }
        Change::SetStatus { tenant, digest, from, to, reason } => set_status(tenant, digest, from, *to, reason.as_ref())?,
        Change::RequireStatus { tenant, digest, any } => {
            let sql = "SELECT 1 FROM plugin WHERE digest = ? AND tenant = ? AND status IN (SELECT value FROM json_each(?))";
            return holds(connection, sqlx::query(sql).bind(digest.to_vec()).bind(tenant.clone()).bind(json(any)?)).await;
        }
        Change::PutVetting(vetting) => return replace_vetting(connection, vetting).await,
        Change::PutVettingStep { tenant, digest, position, step } => put_step(tenant, digest, *position, step),
        Change::EndVetting { tenant, digest, verdict, ended_ms } => sqlx::query(
            "UPDATE vetting SET verdict = ?, ended_ms = ? WHERE tenant = ? AND digest = ? AND verdict IS NULL",
        )
        .bind(verdict.as_str())
        .bind(clamp(*ended_ms))
        .bind(tenant.clone())
        .bind(digest.to_vec()),
        Change::InsertApproval(approval) => return insert(connection, insert_approval(approval), changed).await,
        Change::InsertDeployment(deployment) => {
            return insert(connection, insert_deployment(deployment), changed).await;
        }
        Change::UpdateDeployment { id, from, to, strategy, reason, changed_ms } => sqlx::query(
            "UPDATE deployment SET state = ?, strategy = coalesce(?, strategy), reason = coalesce(?, reason), changed_ms = ? \
             WHERE id = ? AND state IN (SELECT value FROM json_each(?))",
        )
        .bind(to.as_str())
        .bind(strategy.clone())
        .bind(reason.clone())
        .bind(clamp(*changed_ms))
        .bind(*id)
        .bind(json(from)?),
        Change::InsertTape(tape) => return insert(connection, insert_tape(tape), changed).await,
        Change::UpdateTape { id, batches, bytes, ended_ms } => {
            sqlx::query("UPDATE tape SET batches = ?, bytes = ?, ended_ms = ? WHERE id = ?")
                .bind(clamp(*batches))
                .bind(clamp(*bytes))
                .bind(ended_ms.map(clamp))
                .bind(*id)
        }
        Change::DeleteTape { id } => sqlx::query("DELETE FROM tape WHERE id = ?").bind(*id),
        Change::InsertKey(key) => insert_key(key),
        Change::RevokeKey { tenant, name } => sqlx::query(
            "UPDATE api_key SET revoked_ms = CAST(unixepoch('subsec') * 1000 AS INTEGER) \
             WHERE tenant = ? AND name = ? AND revoked_ms IS NULL",
        )
        .bind(tenant.clone())
        .bind(name.clone()),
        Change::ResetChannel { channel } => return reset::reset(connection, channel).await,
        Change::SweepLog { channel } => return reset::sweep(connection, channel).await,
        Change::PruneAudit { before_ms } => sqlx::query(
            "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at_ms < ? ORDER BY at_ms LIMIT ?)",
        )
        .bind(clamp(*before_ms))
        .bind(i64::from(AUDIT_PRUNED_MAX)),
    };
    Ok(run(connection, query).await?.rows_affected() > 0)
}

pub(super) async fn run(connection: &mut SqliteConnection, query: Query) -> Result<SqliteQueryResult, sqlx::Error> {
    query.execute(connection).await
}

/// Whether it finds a row.
async fn holds(connection: &mut SqliteConnection, query: Query) -> Result<bool, sqlx::Error> {
    Ok(query.fetch_optional(connection).await?.is_some())
}

/// Whether it added a row, whose id is then in `changed`.
async fn insert(connection: &mut SqliteConnection, query: Query, changed: &mut Changed) -> Result<bool, sqlx::Error> {
    let result = run(connection, query).await?;
    let inserted = result.rows_affected() > 0;
    if inserted {
        changed.ids.push(result.last_insert_rowid());
    }
    Ok(inserted)
}

fn json(value: &impl Serialize) -> Result<String, sqlx::Error> {
    serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(error.into()))
}

fn put_tenant(tenant: &Tenant) -> Result<Query, sqlx::Error> {
    let query = sqlx::query(
        "INSERT INTO tenant (name, policy, grants, limits, trusted_keys, created_ms, changed_ms) VALUES (?, ?, ?, ?, ?, ?, ?) \
         ON CONFLICT (name) DO UPDATE SET policy = excluded.policy, grants = excluded.grants, limits = excluded.limits, \
         trusted_keys = excluded.trusted_keys, changed_ms = excluded.changed_ms",
    );
    let query = query.bind(tenant.name.clone()).bind(tenant.policy.clone()).bind(json(&tenant.grants)?);
    let query = query.bind(tenant.limits.clone()).bind(json(&tenant.trusted_keys)?);
    Ok(query.bind(clamp(tenant.created_ms)).bind(clamp(tenant.changed_ms)))
}

fn insert_version(version: &Version) -> Result<Query, sqlx::Error> {
    let query = sqlx::query(
        "INSERT INTO plugin (tenant, digest, name, version, contract, manifest, schema, accepts, capabilities, bytes, uploader, \
         uploaded_ms, status, reason) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
    );
    let query = query.bind(version.tenant.clone()).bind(version.digest.to_vec()).bind(version.name.clone());
    let query = query.bind(version.version.clone()).bind(version.contract.clone()).bind(version.manifest.clone());
    let query = query.bind(version.schema).bind(json(&version.accepts)?).bind(json(&version.capabilities)?);
    let query = query.bind(clamp(version.bytes)).bind(version.uploader.clone()).bind(clamp(version.uploaded_ms));
    Ok(query.bind(version.status.as_str()).bind(version.reason.clone()))
}

fn set_status(
    tenant: &str,
    digest: &[u8; 32],
    from: &[Status],
    to: Status,
    reason: Option<&String>,
) -> Result<Query, sqlx::Error> {
    let query = sqlx::query(
        "UPDATE plugin SET status = ?, reason = ? \
         WHERE digest = ? AND tenant = ? AND status IN (SELECT value FROM json_each(?))",
    );
    let query = query.bind(to.as_str()).bind(reason.cloned()).bind(digest.to_vec()).bind(tenant.to_owned());
    Ok(query.bind(json(&from)?))
}

async fn replace_vetting(connection: &mut SqliteConnection, vetting: &Vetting) -> Result<bool, sqlx::Error> {
    let query = sqlx::query(
        "INSERT INTO vetting (tenant, digest, verdict, started_ms, ended_ms) \
         SELECT tenant, digest, ?, ?, ? FROM plugin WHERE digest = ? AND tenant = ? \
         ON CONFLICT (tenant, digest) DO UPDATE \
         SET verdict = excluded.verdict, started_ms = excluded.started_ms, ended_ms = excluded.ended_ms",
    );
    let query = query.bind(vetting.verdict.map(Verdict::as_str)).bind(clamp(vetting.started_ms));
    let query = query.bind(vetting.ended_ms.map(clamp)).bind(vetting.digest.to_vec()).bind(vetting.tenant.clone());
    if run(connection, query).await?.rows_affected() == 0 {
        return Ok(false);
    }
    let query = sqlx::query("DELETE FROM vetting_step WHERE tenant = ? AND digest = ?");
    run(connection, query.bind(vetting.tenant.clone()).bind(vetting.digest.to_vec())).await?;
    for (position, step) in (0..).zip(&vetting.steps) {
        run(connection, put_step(&vetting.tenant, &vetting.digest, position, step)).await?;
    }
    Ok(true)
}

fn put_step(tenant: &str, digest: &[u8; 32], position: u32, step: &VettingStep) -> Query {
    let query = sqlx::query(
        "INSERT INTO vetting_step (tenant, digest, position, step, verdict, ms, evidence) \
         SELECT tenant, digest, ?, ?, ?, ?, ? FROM vetting WHERE tenant = ? AND digest = ? \
         ON CONFLICT (tenant, digest, position) DO UPDATE \
         SET step = excluded.step, verdict = excluded.verdict, ms = excluded.ms, evidence = excluded.evidence",
    );
    let query = query.bind(position).bind(step.step.clone()).bind(step.verdict.as_str()).bind(clamp(step.ms));
    query.bind(step.evidence.clone()).bind(tenant.to_owned()).bind(digest.to_vec())
}

fn insert_approval(approval: &Approval) -> Query {
    let query = sqlx::query(
        "INSERT INTO approval (tenant, digest, by, key_id, signature, at_ms, reason) \
         SELECT tenant, digest, ?, ?, ?, ?, ? FROM plugin WHERE digest = ? AND tenant = ?",
    );
    let query = query.bind(approval.by.clone()).bind(approval.key_id.clone()).bind(approval.signature.clone());
    let query = query.bind(clamp(approval.at_ms)).bind(approval.reason.clone());
    query.bind(approval.digest.to_vec()).bind(approval.tenant.clone())
}

fn insert_deployment(deployment: &Deployment) -> Query {
    let query = sqlx::query(
        "INSERT INTO deployment (mount, tenant, pattern, owner, digest, strategy, state, reason, by, created_ms, changed_ms) \
         SELECT ?, ?, ?, tenant, digest, ?, ?, ?, ?, ?, ? FROM plugin WHERE digest = ? AND tenant = ?",
    );
    let query = query.bind(deployment.mount.clone()).bind(deployment.tenant.clone()).bind(deployment.pattern.clone());
    let query = query.bind(deployment.strategy.clone()).bind(deployment.state.as_str());
    let query = query.bind(deployment.reason.clone()).bind(deployment.by.clone());
    let query = query.bind(clamp(deployment.created_ms)).bind(clamp(deployment.changed_ms));
    query.bind(deployment.digest.to_vec()).bind(deployment.owner.clone())
}

fn insert_tape(tape: &Tape) -> Query {
    let query = sqlx::query(
        "INSERT INTO tape (tenant, channel, mount, digest, started_ms, ended_ms, batches, bytes, path) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    );
    let query = query.bind(tape.tenant.clone()).bind(tape.channel.clone()).bind(tape.mount.clone());
    let query = query.bind(tape.digest.to_vec()).bind(clamp(tape.started_ms)).bind(tape.ended_ms.map(clamp));
    query.bind(clamp(tape.batches)).bind(clamp(tape.bytes)).bind(tape.path.clone())
}

fn insert_key(key: &ApiKey) -> Query {
    let query = sqlx::query(
        "INSERT INTO api_key (hash, tenant, name, created_ms, operator) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
    );
    let query = query.bind(key.hash.to_vec()).bind(key.tenant.clone()).bind(key.name.clone());
    query.bind(clamp(key.created_ms)).bind(key.operator)
}

fn audit(entry: &AuditEntry) -> Query {
    let query = sqlx::query(
        "INSERT INTO audit (at_ms, actor, tenant, action, subject, reason, detail) VALUES (?, ?, ?, ?, ?, ?, ?)",
    );
    let query = query.bind(clamp(entry.at_ms)).bind(entry.actor.clone()).bind(entry.tenant.clone());
    let query = query.bind(entry.action.clone()).bind(entry.subject.clone()).bind(entry.reason.clone());
    query.bind(entry.detail.clone())
}
