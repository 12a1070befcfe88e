//! Changes of the registry: each whole or not at all, with its audit entry; and what became of databases from before there was one.

use sqlx::ConnectOptions;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};

use super::rows::{approval, audit, deployment, key, tape, tenant, version};
use super::{Fixture, appends, name, offsets, put};
use crate::limits::{AUDIT_PRUNED_MAX, CATALOG_CHANGE_BYTES_MAX, CATALOG_TEXT_BYTES_MAX, VETTING_STEPS_MAX};
use crate::store::catalog::{
    Approval, AuditEntry, AuditFilter, Catalog, Change, Changed, Deployment, DeploymentFilter, DeploymentState, Status,
    Tape, Tenant, Verdict, Version, VersionFilter, Vetting, VettingStep,
};
use crate::store::sqlite::SqliteStore;
use crate::store::{Store, StoreError, Writes};

impl Fixture {
    pub(super) fn catalog(&self) -> &dyn Catalog {
        self.store.catalog()
    }

    pub(super) async fn change(&self, changes: impl Into<Vec<Change>>) -> Option<Changed> {
        self.catalog().change(changes.into(), None).await.unwrap()
    }

    /// Actions of the audit log, the latest first.
    async fn actions(&self) -> Vec<String> {
        let page = self.catalog().audit(&AuditFilter::default(), None, 1_000).await.unwrap();
        page.rows.into_iter().map(|audited| audited.entry.action).collect()
    }

    async fn status(&self, tenant: &str, digest: u8) -> Option<Status> {
        self.catalog().version(tenant, &[digest; 32]).await.unwrap().map(|version| version.status)
    }
}

fn step(name: &str, evidence: &str) -> VettingStep {
    VettingStep { step: name.to_owned(), verdict: Verdict::Passed, ms: 7, evidence: evidence.to_owned() }
}

fn set_status(tenant: &str, digest: u8, from: &[Status], to: Status) -> Change {
    Change::SetStatus { tenant: tenant.to_owned(), digest: [digest; 32], from: from.to_vec(), to, reason: None }
}

#[tokio::test]
async fn what_was_put_is_found_as_it_was() {
    let fixture = Fixture::new().await;
    let catalog = fixture.catalog();
    let (acme, mut chat) = (tenant("acme"), version("acme", 1));
    let changes = vec![Change::PutTenant(acme.clone()), Change::InsertVersion(chat.clone())];
    assert_eq!(catalog.change(changes, Some(audit(2_000, "upload"))).await.unwrap(), Some(Changed::default()));

    assert_eq!(catalog.tenant("acme").await.unwrap(), Some(acme));
    assert_eq!(catalog.version("acme", &[1; 32]).await.unwrap(), Some(chat.clone()));
    assert_eq!(catalog.version_named("acme", "chat", "0.0.1").await.unwrap(), Some(chat.clone()));
    let log = catalog.audit(&AuditFilter::default(), None, 10).await.unwrap();
    assert_eq!(log.rows.iter().map(|audited| &audited.entry).collect::<Vec<_>>(), [&audit(2_000, "upload")]);

    let change = Change::SetStatus {
        tenant: "acme".to_owned(),
        digest: [1; 32],
        from: vec![Status::Uploaded],
        to: Status::Rejected,
        reason: Some("imports sockets".to_owned()),
    };
    assert!(fixture.change([change]).await.is_some());
    (chat.status, chat.reason) = (Status::Rejected, Some("imports sockets".to_owned()));
    assert_eq!(catalog.version("acme", &[1; 32]).await.unwrap(), Some(chat));

    for (tenant, digest) in [("acme", 2), ("", 1), ("other", 1)] {
        assert_eq!(catalog.version(tenant, &[digest; 32]).await.unwrap(), None);
    }
    assert_eq!(catalog.version_named("acme", "chat", "0.0.2").await.unwrap(), None);
    assert_eq!(catalog.tenant("other").await.unwrap(), None);
}

/// Goal: of a change whose condition does not hold nothing is left, whatever came before it in its transaction, and those of others
/// in the same group do not notice.
#[tokio::test]
async fn a_condition_that_does_not_hold_undoes_its_own_changes_alone() {
    let fixture = Fixture::new().await;
    let catalog = fixture.catalog();
    fixture.change([Change::InsertVersion(version("acme", 1)), Change::InsertVersion(version("acme", 2))]).await;
    let acquired = fixture.acquire("room:1").await;

    let approve = |digest| set_status("acme", digest, &[Status::Vetted, Status::Uploaded], Status::Approved);
    let refused = vec![
        Change::PutTenant(tenant("refused")),
        approve(2),
        Change::InsertDeployment(deployment("refused", "acme", 2)),
        set_status("acme", 1, &[Status::Vetted], Status::Approved),
    ];
    let (commit, before, refused, after, acquired_too) = tokio::join!(
        fixture.commit(acquired.fence, appends(1..=2)),
        catalog.change(vec![Change::PutTenant(tenant("before"))], Some(audit(1, "before"))),
        catalog.change(refused, Some(audit(2, "refused"))),
        catalog.change(vec![approve(1), Change::PutTenant(tenant("after"))], Some(audit(3, "after"))),
        fixture.acquire("room:2"),
    );

    assert!(commit.is_ok());
    assert_eq!(acquired_too.fence.epoch, 1);
    assert!(before.unwrap().is_some() && after.unwrap().is_some());
    assert_eq!(refused.unwrap(), None);
    assert_eq!(offsets(&fixture.log(&acquired).await), [1, 2]);
    let tenants = catalog.tenants(None, 10).await.unwrap();
    assert_eq!(tenants.rows, [tenant("after"), tenant("before")]);
    assert_eq!(fixture.actions().await, ["after", "before"]);
    assert_eq!(fixture.status("acme", 1).await, Some(Status::Approved));
    assert_eq!(fixture.status("acme", 2).await, Some(Status::Uploaded));
    assert_eq!(catalog.deployments(&DeploymentFilter::default(), None, 10).await.unwrap().rows, []);
}

/// Goal: what the database itself refuses is refused alone, and with all that came with it.
#[tokio::test]
async fn what_is_no_json_is_refused_alone_and_whole() {
    let fixture = Fixture::new().await;
    let catalog = fixture.catalog();
    let acquired = fixture.acquire("room:1").await;
    let wrong = Tenant { limits: "{".to_owned(), ..tenant("wrong") };

    let (commit, whole, wrong, detail) = tokio::join!(
        fixture.commit(acquired.fence, put("key", "value")),
        catalog.change(vec![Change::PutTenant(tenant("whole"))], None),
        catalog.change(vec![Change::PutTenant(tenant("with it")), Change::PutTenant(wrong)], Some(audit(1, "wrong"))),
        catalog.change(
            vec![Change::PutTenant(tenant("with it"))],
            Some(AuditEntry { detail: "no".to_owned(), ..audit(1, "") })
        ),
    );

    assert!(commit.is_ok() && whole.unwrap().is_some());
    assert!(matches!(wrong, Err(StoreError::Constraint { .. })), "{wrong:?}");
    assert!(matches!(detail, Err(StoreError::Constraint { .. })), "{detail:?}");
    assert_eq!(catalog.tenants(None, 10).await.unwrap().rows, [tenant("whole")]);
    assert_eq!(fixture.actions().await, [""; 0]);
}

/// Goal: a text without end never gets to the database, and a legal one as long as may be does.
#[tokio::test]
async fn a_change_is_bounded_in_bytes() {
    let fixture = Fixture::new().await;
    let catalog = fixture.catalog();
    let manifest = |bytes| Version { manifest: "x".repeat(bytes), ..version("acme", 1) };
    let steps = |count| {
        let steps = vec![step("step", "{}"); count];
        Vetting { tenant: "acme".to_owned(), digest: [1; 32], verdict: None, steps, started_ms: 1, ended_ms: None }
    };
    let many = CATALOG_CHANGE_BYTES_MAX / CATALOG_TEXT_BYTES_MAX;
    let last = Change::PutVettingStep {
        tenant: "acme".to_owned(),
        digest: [1; 32],
        position: VETTING_STEPS_MAX as u32,
        step: step("step", "{}"),
    };

    for wrong in [
        vec![Change::InsertVersion(manifest(CATALOG_TEXT_BYTES_MAX + 1))],
        vec![Change::InsertVersion(manifest(CATALOG_TEXT_BYTES_MAX)); many],
        vec![Change::PutVetting(steps(VETTING_STEPS_MAX + 1))],
        vec![last],
    ] {
        let result = catalog.change(wrong, None).await;
        assert!(matches!(result, Err(StoreError::Constraint { .. })), "{result:?}");
    }
    let right =
        vec![Change::InsertVersion(manifest(CATALOG_TEXT_BYTES_MAX)), Change::PutVetting(steps(VETTING_STEPS_MAX))];
    assert!(catalog.change(right, None).await.unwrap().is_some());
}

#[tokio::test]
async fn a_version_is_there_once_by_digest_and_by_name() {
    let fixture = Fixture::new().await;
    assert!(fixture.change([Change::InsertVersion(version("acme", 1))]).await.is_some());
    let same_name = Version { digest: [2; 32], ..version("acme", 1) };
    let same_digest = Version { version: "9.9.9".to_owned(), ..version("acme", 1) };

    assert_eq!(fixture.change([Change::InsertVersion(same_name)]).await, None);
    assert_eq!(fixture.change([Change::InsertVersion(same_digest)]).await, None);
    assert!(fixture.change([Change::InsertVersion(version("", 1))]).await.is_some(), "another's is another");
    set(&fixture, "", Status::Revoked).await;

    let statuses = fixture.catalog().statuses(&[1; 32]).await.unwrap();
    assert_eq!(statuses, [(String::new(), Status::Revoked), ("acme".to_owned(), Status::Uploaded)]);
    assert_eq!(fixture.catalog().statuses(&[2; 32]).await.unwrap(), []);
}

async fn set(fixture: &Fixture, tenant: &str, to: Status) {
    assert!(fixture.change([set_status(tenant, 1, Status::ALL, to)]).await.is_some());
}

/// Goal: a version that was revoked meanwhile is never deployed, and of two who decide at once one does.
#[tokio::test]
async fn a_status_is_a_condition() {
    let fixture = Fixture::new().await;
    let catalog = fixture.catalog();
    fixture.change([Change::InsertVersion(version("acme", 1))]).await;
    set(&fixture, "acme", Status::Approved).await;
    let require = Change::RequireStatus { tenant: "acme".to_owned(), digest: [1; 32], any: vec![Status::Approved] };
    let deploy = vec![require, Change::InsertDeployment(deployment("chat", "acme", 1))];
    let revoke = |reason| vec![set_status("acme", 1, &[Status::Approved], reason)];

    let (first, revoked, rejected, second) = tokio::join!(
        catalog.change(deploy.clone(), None),
        catalog.change(revoke(Status::Revoked), None),
        catalog.change(revoke(Status::Rejected), None),
        catalog.change(deploy, None),
    );

    assert_eq!(first.unwrap().map(|changed| changed.ids.len()), Some(1));
    assert!(revoked.unwrap().is_some());
    assert_eq!((rejected.unwrap(), second.unwrap()), (None, None));
    assert_eq!(fixture.status("acme", 1).await, Some(Status::Revoked));
    assert_eq!(catalog.deployments(&DeploymentFilter::default(), None, 10).await.unwrap().rows.len(), 1);
    let nothing = Change::RequireStatus { tenant: "acme".to_owned(), digest: [1; 32], any: Vec::new() };
    assert_eq!(fixture.change([nothing]).await, None);
}

/// Goal: uploads at the same time do not get past their quota together.
#[tokio::test]
async fn uploads_at_once_keep_their_quota() {
    let fixture = Fixture::new().await;
    fixture.change([Change::InsertVersion(Version { uploaded_ms: 999, ..version("acme", 100) })]).await;
    fixture.change([Change::InsertVersion(version("other", 1))]).await;
    let upload = |digest| {
        let quota = Change::RequireUploadsBelow { tenant: "acme".to_owned(), since_ms: 1_000, count: 3 };
        fixture.catalog().change(vec![quota, Change::InsertVersion(version("acme", digest))], None)
    };

    let uploads = futures_util::future::join_all((1..=5).map(upload)).await;

    assert_eq!(uploads.into_iter().filter(|upload| matches!(upload, Ok(Some(_)))).count(), 3);
    assert_eq!(fixture.catalog().count_uploads_since("acme", 1_000).await.unwrap(), 3);
    assert_eq!(fixture.catalog().count_uploads_since("acme", 0).await.unwrap(), 4);
    assert_eq!(fixture.catalog().count_uploads_since("acme", u64::MAX).await.unwrap(), 0);
}

#[tokio::test]
async fn a_tenant_is_changed_in_place_and_keeps_its_birthday() {
    let fixture = Fixture::new().await;
    fixture.change([Change::PutTenant(tenant("acme"))]).await;
    let changed =
        Tenant { policy: "closed".to_owned(), grants: vec![], created_ms: 9_000, changed_ms: 9_000, ..tenant("acme") };

    fixture.change([Change::PutTenant(changed.clone())]).await;

    let expected = Tenant { created_ms: 1_000, ..changed };
    assert_eq!(fixture.catalog().tenant("acme").await.unwrap(), Some(expected));
    assert!(fixture.change([Change::DeleteTenant { name: "acme".to_owned() }]).await.is_some());
    assert_eq!(fixture.change([Change::DeleteTenant { name: "acme".to_owned() }]).await, None);
}

#[tokio::test]
async fn a_vetting_grows_step_by_step_and_the_next_one_begins_anew() {
    let fixture = Fixture::new().await;
    let begun = Vetting {
        tenant: "acme".to_owned(),
        digest: [1; 32],
        verdict: None,
        steps: vec![],
        started_ms: 5_000,
        ended_ms: None,
    };
    let put_step = |position, step: &VettingStep| {
        [Change::PutVettingStep { tenant: "acme".to_owned(), digest: [1; 32], position, step: step.clone() }]
    };
    let end = |verdict| [Change::EndVetting { tenant: "acme".to_owned(), digest: [1; 32], verdict, ended_ms: 6_000 }];
    let vetting = async || fixture.catalog().vetting("acme", &[1; 32]).await.unwrap();
    let (size, imports) = (step("size", r#"{"bytes":1}"#), step("imports", "[]"));

    assert_eq!(fixture.change([Change::PutVetting(begun.clone())]).await, None, "no such version");
    fixture.change([Change::InsertVersion(version("acme", 1))]).await;
    assert_eq!(fixture.change(put_step(0, &size)).await, None, "no vetting yet");
    assert_eq!(vetting().await, None);

    assert!(fixture.change([Change::PutVetting(begun.clone())]).await.is_some());
    assert_eq!(vetting().await, Some(begun.clone()));
    for (position, step) in [(1, &imports), (0, &imports), (0, &size)] {
        assert!(fixture.change(put_step(position, step)).await.is_some());
    }
    let steps = vec![size, imports];
    assert_eq!(vetting().await, Some(Vetting { steps: steps.clone(), ..begun.clone() }));
    assert!(fixture.change(end(Verdict::Failed)).await.is_some());
    assert_eq!(fixture.change(end(Verdict::Passed)).await, None, "it has a verdict");
    let ended = Vetting { steps, verdict: Some(Verdict::Failed), ended_ms: Some(6_000), ..begun.clone() };
    assert_eq!(vetting().await, Some(ended));

    let again = Vetting { steps: vec![step("size", "1")], started_ms: 7_000, ..begun };
    assert!(fixture.change([Change::PutVetting(again.clone())]).await.is_some());
    assert_eq!(vetting().await, Some(again));
}

#[tokio::test]
async fn a_deployment_takes_the_place_of_the_one_before_in_one_step() {
    let fixture = Fixture::new().await;
    let catalog = fixture.catalog();
    fixture.change([Change::InsertVersion(version("", 1)), Change::InsertVersion(version("", 2))]).await;
    assert_eq!(
        fixture.change([Change::InsertDeployment(deployment("chat", "acme", 1))]).await,
        None,
        "no such version"
    );
    let platform = Deployment { tenant: None, pattern: Some("room:*".to_owned()), ..deployment("chat", "", 1) };
    let first = fixture.change([Change::InsertDeployment(platform.clone())]).await.unwrap().ids;

    let supersede = |id| Change::UpdateDeployment {
        id,
        from: vec![DeploymentState::Active],
        to: DeploymentState::Superseded,
        strategy: None,
        reason: Some("by the next".to_owned()),
        changed_ms: 6_000,
    };
    let replace = vec![supersede(first[0]), Change::InsertDeployment(deployment("chat", "", 2))];
    let second = fixture.change(replace.clone()).await.unwrap().ids;
    assert_eq!(fixture.change(replace).await, None, "somebody else did it");
    let grow = Change::UpdateDeployment {
        id: second[0],
        from: vec![DeploymentState::Active],
        to: DeploymentState::Active,
        strategy: Some(r#"{"canary":{"percent":50}}"#.to_owned()),
        reason: None,
        changed_ms: 7_000,
    };
    assert!(fixture.change([grow]).await.is_some());

    let found = catalog.deployments(&DeploymentFilter::default(), None, 10).await.unwrap();
    let (first, second) = (first[0], second[0]);
    let before = Deployment {
        id: first,
        state: DeploymentState::Superseded,
        reason: Some("by the next".to_owned()),
        changed_ms: 6_000,
        ..platform
    };
    let strategy = r#"{"canary":{"percent":50}}"#.to_owned();
    let now = Deployment { id: second, strategy, changed_ms: 7_000, ..deployment("chat", "", 2) };
    assert_eq!(found.rows, [now.clone(), before]);
    assert_eq!(catalog.deployment(second).await.unwrap(), Some(now));
    assert_eq!(catalog.deployment(second + 1).await.unwrap(), None);
}

#[tokio::test]
async fn approvals_tapes_and_keys_come_and_go() {
    let fixture = Fixture::new().await;
    let catalog = fixture.catalog();
    let approval = approval(1, 1_000);
    assert_eq!(fixture.change([Change::InsertApproval(approval.clone())]).await, None, "no such version");
    fixture.change([Change::InsertVersion(version("acme", 1))]).await;
    let signed = Approval { key_id: Some("RWQ".to_owned()), signature: Some("sig".to_owned()), ..approval.clone() };
    let both = [Change::InsertApproval(approval.clone()), Change::InsertApproval(signed.clone())];
    let ids = fixture.change(both).await.unwrap().ids;
    let found = catalog.approvals("acme", &[1; 32], None, 10).await.unwrap().rows;
    assert_eq!(found, [Approval { id: ids[0], ..approval }, Approval { id: ids[1], ..signed }]);

    let id = fixture.change([Change::InsertTape(tape("room:1"))]).await.unwrap().ids[0];
    let ended = Change::UpdateTape { id, batches: 3, bytes: 99, ended_ms: Some(2_000) };
    assert!(fixture.change([ended.clone()]).await.is_some());
    let expected = Tape { id, batches: 3, bytes: 99, ended_ms: Some(2_000), ..tape("room:1") };
    assert_eq!(catalog.tape(id).await.unwrap(), Some(expected));
    assert!(fixture.change([Change::DeleteTape { id }]).await.is_some());
    assert_eq!(fixture.change([Change::DeleteTape { id }]).await, None);
    assert_eq!(fixture.change([ended]).await, None);
    assert_eq!(catalog.tape(id).await.unwrap(), None);
    let next = fixture.change([Change::InsertTape(tape("room:2"))]).await.unwrap().ids[0];
    assert!(next > id, "an id is never given again");
}

#[tokio::test]
async fn api_keys_are_found_until_they_are_revoked() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let insert = |key| [Change::InsertKey(key)];
    let revoke = |tenant: &str, name: &str| [Change::RevokeKey { tenant: tenant.to_owned(), name: name.to_owned() }];
    for new in [key("b", "x", 1), key("a", "y", 2), key("a", "x", 3), key("", "x", 7)] {
        assert!(fixture.change(insert(new)).await.is_some());
    }
    let keys = async |tenant| fixture.catalog().keys(tenant, None, 10).await.unwrap().rows;

    assert_eq!(fixture.change(insert(key("a", "x", 4))).await, None, "the name is taken");
    assert_eq!(fixture.change(insert(key("a", "z", 1))).await, None, "the hash is taken");
    assert_eq!(store.find_key(&[3; 32]).await.unwrap(), Some(key("a", "x", 3)));
    assert_eq!(store.find_key(&[2; 32]).await.unwrap().map(|key| key.operator), Some(false));
    assert_eq!(store.find_key(&[4; 32]).await.unwrap(), None);
    assert_eq!(keys(None).await, [key("", "x", 7), key("a", "x", 3), key("a", "y", 2), key("b", "x", 1)]);
    assert_eq!(keys(Some("a")).await, [key("a", "x", 3), key("a", "y", 2)]);
    assert_eq!(keys(Some("")).await, [key("", "x", 7)]);

    assert!(fixture.change(revoke("a", "x")).await.is_some());
    assert_eq!(fixture.change(revoke("a", "x")).await, None);
    assert_eq!(fixture.change(revoke("c", "x")).await, None);
    assert_eq!(store.find_key(&[3; 32]).await.unwrap(), None);
    assert_eq!(keys(Some("a")).await, [key("a", "y", 2)]);
    assert!(fixture.change(insert(key("a", "x", 5))).await.is_some());
    assert_eq!(store.find_key(&[5; 32]).await.unwrap(), Some(key("a", "x", 5)));
}

/// Goal: old audit entries go away in bounded steps, and no other.
#[tokio::test]
async fn old_audit_entries_are_deleted_by_and_by() {
    let fixture = Fixture::new().await;
    let catalog = fixture.catalog();
    let entries = u64::from(AUDIT_PRUNED_MAX) + 10;
    // The newest first: it is the time that counts.
    let written = (0..entries).rev().map(|at_ms| catalog.change(vec![], Some(audit(at_ms, "old"))));
    assert!(futures_util::future::join_all(written).await.iter().all(|one| matches!(one, Ok(Some(_)))));
    let prune = async |before_ms| fixture.change([Change::PruneAudit { before_ms }]).await.is_some();
    let kept = async || fixture.count("SELECT count(*) FROM audit").await;

    assert!(!prune(0).await);
    assert!(prune(3).await);
    assert_eq!(kept().await, entries.cast_signed() - 3);
    assert!(prune(u64::MAX).await);
    assert_eq!(kept().await, 7);
    assert_eq!(fixture.count("SELECT min(at_ms) FROM audit").await, entries.cast_signed() - 7);
    assert!(prune(u64::MAX).await && !prune(u64::MAX).await);
}

/// Goal: a number beyond what SQLite can hold becomes the largest it can.
#[tokio::test]
async fn a_number_beyond_63_bits_is_stored_as_the_largest() {
    let fixture = Fixture::new().await;
    let largest = Version { uploaded_ms: u64::MAX, bytes: u64::MAX, ..version("acme", 1) };

    assert!(fixture.change([Change::InsertVersion(largest)]).await.is_some());

    let found = fixture.catalog().version("acme", &[1; 32]).await.unwrap().unwrap();
    assert_eq!((found.uploaded_ms, found.bytes), (i64::MAX as u64, i64::MAX as u64));
}

/// Goal: a database from before the registry keeps all it has, and becomes one with it.
#[tokio::test]
async fn a_database_from_before_the_registry_is_migrated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.sqlite");
    let before = folder.path().join("migrations");
    std::fs::create_dir(&before).unwrap();
    let channels = include_str!("../../../../migrations/sqlite/0001_channels.sql");
    std::fs::write(before.join("0001_channels.sql"), channels).unwrap();
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut connection = options.journal_mode(SqliteJournalMode::Wal).connect().await.unwrap();
    Migrator::new(before.as_path()).await.unwrap().run(&mut connection).await.unwrap();
    for row in [
        "INSERT INTO channel (tenant, name, epoch, seq, owner, acquired_ms, log_next, state_bytes) \
         VALUES ('default', 'room:1', 3, 5, 'test', 1000, 2, 8)",
        "INSERT INTO state VALUES (1, CAST('key' AS BLOB), CAST('value' AS BLOB))",
        "INSERT INTO log VALUES (1, 1, 1000, x'01')",
        "INSERT INTO api_key VALUES (zeroblob(32), 'default', 'app', 1000, NULL)",
    ] {
        sqlx::query(row).execute(&mut connection).await.unwrap();
    }
    sqlx::Connection::close(connection).await.unwrap();

    let store = SqliteStore::open(&path).await.unwrap();

    let channel = store.catalog().channel(&name("room:1")).await.unwrap().unwrap();
    assert_eq!((channel.epoch, channel.seq, channel.log, channel.state_bytes), (3, 5, (1, 2), 8));
    assert_eq!(channel.version, None);
    let acquired = store.acquire(&name("room:1"), "test").await.unwrap();
    assert_eq!((acquired.fence.epoch, acquired.version), (4, None));
    assert_eq!(store.get(acquired.fence.channel, "key").await.unwrap(), Some("value".into()));
    let found = store.find_key(&[0; 32]).await.unwrap().unwrap();
    assert_eq!((found.name.as_str(), found.operator), ("app", false));
    let pin = Writes { version: Some([7; 32]), ..Writes::default() };
    store.commit(super::commit(acquired.fence, pin)).await.unwrap();
    let channel = store.catalog().channel(&name("room:1")).await.unwrap().unwrap();
    assert_eq!(channel.version, Some([7; 32]));
    let changes = vec![Change::InsertVersion(version("", 7))];
    assert!(store.catalog().change(changes, Some(audit(1, "upload"))).await.unwrap().is_some());
    let versions = store.catalog().versions(&VersionFilter::default(), None, 10).await.unwrap();
    assert_eq!(versions.rows, [version("", 7)]);
}
