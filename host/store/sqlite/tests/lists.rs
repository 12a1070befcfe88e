//! Lists of the registry: filters, pages, and what they cost.

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU8, Ordering};

use sqlx::{AssertSqlSafe, Row};

use super::Fixture;
use super::rows::{approval, audit, deployment, key, tape, tenant, version};
use crate::limits::{CATALOG_ROWS_MAX, CATALOG_TEXT_BYTES_MAX, READ_BYTES_MAX};
use crate::protocol::name::ChannelName;
use crate::store::catalog::{
    AuditFilter, Change, ChannelFilter, ChannelSummary, Cursor, Deployment, DeploymentFilter, DeploymentState, Listing,
    Status, Tape, TapeFilter, Version, VersionFilter,
};
use crate::store::sqlite::catalog::every_select;
use crate::store::{Store, StoreError};

/// All rows of a list by what `name` says of them, with cursors as a client would give them back. `disturb` is done after each of
/// the first pages.
async fn all<T>(
    page: impl AsyncFn(Option<&Cursor>) -> Result<Listing<T>, StoreError>,
    disturb: impl AsyncFn(),
    name: impl Fn(&T) -> String,
) -> Vec<String> {
    let mut found = Vec::new();
    let mut after = None;
    for number in 0.. {
        let Listing { rows, next } = page(after.as_ref()).await.unwrap();
        assert!(next.is_none() || !rows.is_empty(), "an empty page in the midst");
        found.extend(rows.iter().map(&name));
        let Some(next) = next else { break };
        after = Some(next.to_string().parse().unwrap());
        if number < 3 {
            disturb().await;
        }
    }
    found
}

/// Goal: every row that was there all the time comes exactly once and in order, whatever the size of pages, while others come and
/// go before and behind the place where a page ended; and none of those others comes twice.
async fn check<T>(
    expected: impl IntoIterator<Item = impl ToString>,
    page: impl AsyncFn(Option<&Cursor>, u32) -> Result<Listing<T>, StoreError>,
    disturb: impl AsyncFn(),
    name: impl Fn(&T) -> String,
) {
    let expected: Vec<String> = expected.into_iter().map(|name| name.to_string()).collect();
    for limit in [1, 3, 10, 11, 100] {
        let mut found = all(async |after| page(after, limit).await, &disturb, &name).await;
        assert_eq!(found.iter().collect::<HashSet<_>>().len(), found.len(), "limit {limit}: {found:?}");
        found.retain(|name| expected.contains(name));
        assert_eq!(found, expected, "limit {limit}");
    }
}

/// Counts what comes and goes, from 100 on.
fn next(count: &AtomicU8) -> u8 {
    100 + count.fetch_add(1, Ordering::Relaxed)
}

#[tokio::test]
async fn pages_of_versions_and_deployments_are_whole() {
    let fixture = Fixture::new().await;
    let (catalog, count) = (fixture.catalog(), AtomicU8::new(0));
    let add = async |digest| {
        let deploy = Change::InsertDeployment(deployment("chat", "acme", digest));
        fixture.change([Change::InsertVersion(version("acme", digest)), deploy]).await.unwrap();
    };
    for digest in 0..10 {
        add(digest).await;
    }
    let disturb = async || add(next(&count)).await;

    let filter = VersionFilter { tenant: Some("acme".to_owned()), ..VersionFilter::default() };
    for filter in [VersionFilter::default(), filter] {
        let page = async |after: Option<&Cursor>, limit| catalog.versions(&filter, after, limit).await;
        check((0..10).rev(), page, disturb, |version: &Version| version.digest[0].to_string()).await;
    }
    let filter = DeploymentFilter { state: Some(DeploymentState::Active), ..DeploymentFilter::default() };
    for filter in [DeploymentFilter::default(), filter] {
        let page = async |after: Option<&Cursor>, limit| catalog.deployments(&filter, after, limit).await;
        check((0..10).rev(), page, disturb, |deployment: &Deployment| deployment.digest[0].to_string()).await;
    }
}

#[tokio::test]
async fn pages_of_tapes_and_approvals_are_whole() {
    let fixture = Fixture::new().await;
    let (catalog, count) = (fixture.catalog(), AtomicU8::new(0));
    fixture.change([Change::InsertVersion(version("acme", 1))]).await.unwrap();
    let add = async |number: u8| {
        let approve = Change::InsertApproval(approval(1, u64::from(number)));
        fixture.change([Change::InsertTape(tape(&number.to_string())), approve]).await.unwrap().ids[0]
    };
    for number in 0..10 {
        add(number).await;
    }
    // The newest tape goes away again, and one that is there for this alone.
    let mut old = Vec::new();
    for number in 50..90 {
        old.push(add(number).await);
    }
    let old = std::sync::Mutex::new(old);
    let disturb = async || {
        add(next(&count)).await;
        let newest = add(next(&count)).await;
        let oldest = old.lock().unwrap().pop();
        for id in [Some(newest), oldest].into_iter().flatten() {
            fixture.change([Change::DeleteTape { id }]).await.unwrap();
        }
    };

    let page = async |after: Option<&Cursor>, limit| catalog.tapes(&TapeFilter::default(), after, limit).await;
    check((0..10).rev(), page, disturb, |tape: &Tape| tape.channel.clone()).await;
    let page = async |after: Option<&Cursor>, limit| catalog.approvals("acme", &[1; 32], after, limit).await;
    check(0..10, page, disturb, |approval| approval.at_ms.to_string()).await;
}

#[tokio::test]
async fn pages_of_tenants_keys_and_channels_are_whole() {
    let fixture = Fixture::new().await;
    let (catalog, count) = (fixture.catalog(), AtomicU8::new(0));
    let add = async |name: &str, number| {
        let both = [Change::PutTenant(tenant(name)), Change::InsertKey(key("acme", name, number))];
        fixture.change(both).await.unwrap();
        fixture.store.acquire(&ChannelName::new("acme", name).unwrap(), "test").await.unwrap();
    };
    let names: Vec<String> = (0..10).map(|index| format!("m{index}")).collect();
    for (name, number) in names.iter().zip(0..) {
        add(name, number).await;
    }
    for (tenant, number) in [("aaaa", 50), ("zzzz", 51)] {
        fixture.change([Change::InsertKey(key(tenant, tenant, number))]).await.unwrap();
        fixture.store.acquire(&ChannelName::new(tenant, tenant).unwrap(), "test").await.unwrap();
    }
    // Before all of them, and behind them.
    let disturb = async || {
        for place in ["a", "m9a"] {
            let number = next(&count);
            add(&format!("{place}{number}"), number).await;
        }
    };

    let page = async |after: Option<&Cursor>, limit| catalog.tenants(after, limit).await;
    check(&names, page, disturb, |tenant| tenant.name.clone()).await;
    for tenant in [None, Some("acme")] {
        let page = async |after: Option<&Cursor>, limit| catalog.keys(tenant, after, limit).await;
        check(&names, page, disturb, |key| key.name.clone()).await;
    }
    let of_tenant = |prefix: &str| ChannelFilter::Tenant { tenant: "acme".to_owned(), prefix: prefix.to_owned() };
    for filter in [ChannelFilter::All, of_tenant(""), of_tenant("m")] {
        let page = async |after: Option<&Cursor>, limit| catalog.channels(&filter, after, limit).await;
        let name = |channel: &ChannelSummary| channel.name.clone();
        check(&names, page, disturb, name).await;
    }
}

/// Goal: many entries of one time are told apart, and a clock that was set back leaves no gap.
#[tokio::test]
async fn pages_of_the_audit_log_are_whole() {
    let fixture = Fixture::new().await;
    let (catalog, count) = (fixture.catalog(), AtomicU8::new(0));
    let add = async |at_ms, number: u8| {
        catalog.change(vec![], Some(audit(at_ms, &number.to_string()))).await.unwrap().unwrap();
    };
    for number in 0..10 {
        // 9 and 8 are of the same time, 7 and 6 of an earlier one.
        add(1_000 + u64::from(number / 2), number).await;
    }
    let disturb = async || {
        for at_ms in [2_000, 1_002, 10] {
            add(at_ms, next(&count)).await;
        }
    };
    let of = |tenant: Option<&str>, subject: Option<&str>, since_ms| AuditFilter {
        tenant: tenant.map(str::to_owned),
        subject: subject.map(str::to_owned),
        since_ms,
    };

    let (acme, chat) = (Some("acme"), Some("plugin/chat"));
    for filter in [of(None, None, None), of(acme, None, None), of(None, chat, Some(5)), of(acme, chat, Some(1_000))] {
        let page = async |after: Option<&Cursor>, limit| catalog.audit(&filter, after, limit).await;
        check((0..10).rev(), page, disturb, |audited| audited.entry.action.clone()).await;
    }
    let since = catalog.audit(&of(acme, None, Some(1_004)), None, 100).await.unwrap().rows;
    assert!(since.iter().all(|audited| audited.entry.at_ms >= 1_004));
    let actions: Vec<_> = since.iter().map(|audited| audited.entry.action.as_str()).filter(|a| a.len() == 1).collect();
    assert_eq!(actions, ["9", "8"]);
    for nobody in [of(Some(""), None, None), of(None, Some("plugin"), None), of(None, None, Some(u64::MAX))] {
        let found = catalog.audit(&nobody, None, 100).await.unwrap();
        assert_eq!(found, Listing { rows: vec![], next: None });
    }
}

#[tokio::test]
async fn a_filter_leaves_what_fits_all_of_it() {
    let fixture = Fixture::new().await;
    let catalog = fixture.catalog();
    let named = |name: &str, version: Version| Version { name: name.to_owned(), ..version };
    let versions = [version("acme", 1), version("", 1), named("poll", version("acme", 2)), version("acme", 3)];
    let changes = versions.map(Change::InsertVersion).into_iter();
    let approve = Change::SetStatus {
        tenant: "acme".to_owned(),
        digest: [3; 32],
        from: vec![Status::Uploaded],
        to: Status::Approved,
        reason: None,
    };
    fixture.change(changes.chain([approve]).collect::<Vec<_>>()).await.unwrap();
    let all_tenants = Deployment { tenant: None, ..deployment("chat", "", 1) };
    let stopped = Deployment { state: DeploymentState::Stopped, ..deployment("chat", "acme", 3) };
    let deployments = [deployment("chat", "acme", 1), all_tenants, stopped, deployment("poll", "acme", 2)];
    fixture.change(deployments.map(Change::InsertDeployment)).await.unwrap();
    let of_another = Tape { tenant: "other".to_owned(), ..tape("room:1") };
    let of_poll = Tape { mount: "poll".to_owned(), ..tape("room:1") };
    fixture.change([tape("room:1"), tape("room:2"), of_another, of_poll].map(Change::InsertTape)).await.unwrap();

    let versions = async |tenant: Option<&str>, name: Option<&str>, status| {
        let (tenant, name) = (tenant.map(str::to_owned), name.map(str::to_owned));
        let found = catalog.versions(&VersionFilter { tenant, name, status }, None, 10).await.unwrap();
        found.rows.into_iter().map(|found| (found.tenant, found.digest[0])).collect::<Vec<_>>()
    };
    let acme = |digest| ("acme".to_owned(), digest);
    let platform = || (String::new(), 1);
    assert_eq!(versions(None, None, None).await, [acme(3), acme(2), platform(), acme(1)]);
    assert_eq!(versions(Some(""), None, None).await, [platform()]);
    assert_eq!(versions(Some("acme"), Some("chat"), None).await, [acme(3), acme(1)]);
    assert_eq!(versions(None, Some("chat"), Some(Status::Uploaded)).await, [platform(), acme(1)]);
    assert_eq!(versions(Some("acme"), None, Some(Status::Approved)).await, [acme(3)]);
    assert_eq!(versions(Some("acm"), None, None).await, []);

    let deployments = async |mount: Option<&str>, tenant: Option<&str>, state, digest: Option<u8>| {
        let (mount, tenant) = (mount.map(str::to_owned), tenant.map(str::to_owned));
        let filter = DeploymentFilter { mount, tenant, state, digest: digest.map(|digest| [digest; 32]) };
        let found = catalog.deployments(&filter, None, 10).await.unwrap();
        found.rows.into_iter().map(|found| (found.owner, found.digest[0])).collect::<Vec<_>>()
    };
    let active = Some(DeploymentState::Active);
    assert_eq!(deployments(Some("chat"), None, None, None).await, [acme(3), platform(), acme(1)]);
    assert_eq!(deployments(Some("chat"), None, active, None).await, [platform(), acme(1)]);
    assert_eq!(deployments(None, Some("acme"), active, None).await, [acme(2), acme(1)]);
    assert_eq!(deployments(None, None, None, Some(1)).await, [platform(), acme(1)]);

    let tapes = async |tenant: Option<&str>, channel: Option<&str>, mount: Option<&str>| {
        let [tenant, channel, mount] = [tenant, channel, mount].map(|text| text.map(str::to_owned));
        let found = catalog.tapes(&TapeFilter { tenant, channel, mount }, None, 10).await.unwrap();
        found.rows.into_iter().map(|found| found.id).collect::<Vec<_>>()
    };
    assert_eq!(tapes(None, None, None).await, [4, 3, 2, 1]);
    assert_eq!(tapes(Some("acme"), None, None).await, [4, 2, 1]);
    assert_eq!(tapes(Some("acme"), Some("room:1"), None).await, [4, 1]);
    assert_eq!(tapes(None, None, Some("poll")).await, [4]);
    assert_eq!(tapes(None, Some("room:2"), Some("poll")).await, [0; 0]);
}

/// Goal: a prefix is a prefix of bytes, not of words, and of one tenant.
#[tokio::test]
async fn channels_are_found_by_the_beginning_of_their_name() {
    let fixture = Fixture::new().await;
    for name in ["room", "room:1", "room:10", "room:2", "rooms", "Room:1", "s", "a~", "room:~"] {
        fixture.acquire(name).await;
    }
    fixture.store.acquire(&ChannelName::new("other", "room:1").unwrap(), "test").await.unwrap();
    let find = async |tenant: &str, prefix: &str| {
        let filter = ChannelFilter::Tenant { tenant: tenant.to_owned(), prefix: prefix.to_owned() };
        let find = async |after: Option<&Cursor>| fixture.catalog().channels(&filter, after, 2).await;
        all(find, async || (), |channel| channel.name.clone()).await
    };

    assert_eq!(find("default", "room:").await, ["room:1", "room:10", "room:2", "room:~"]);
    assert_eq!(find("default", "room").await, ["room", "room:1", "room:10", "room:2", "room:~", "rooms"]);
    assert_eq!(find("default", "room:1").await, ["room:1", "room:10"]);
    assert_eq!(find("default", "").await.len(), 9);
    assert_eq!(find("other", "r").await, ["room:1"]);
    assert_eq!(find("othe", "").await, [""; 0]);
    assert_eq!(find("default", "room:'\"%_").await, [""; 0]);
}

/// Goal: a page of large rows is short instead of large.
#[tokio::test]
async fn a_page_is_bounded_by_bytes() {
    let fixture = Fixture::new().await;
    let large = |digest| Version { manifest: "x".repeat(CATALOG_TEXT_BYTES_MAX), ..version("acme", digest) };
    for digest in 0..40 {
        fixture.change([Change::InsertVersion(large(digest))]).await.unwrap();
    }

    let first = fixture.catalog().versions(&VersionFilter::default(), None, 1_000).await.unwrap();
    assert_eq!(first.rows.len(), READ_BYTES_MAX / CATALOG_TEXT_BYTES_MAX);
    let page =
        async |after: Option<&Cursor>, limit| fixture.catalog().versions(&VersionFilter::default(), after, limit).await;
    check((0..40).rev(), page, async || (), |version| version.digest[0].to_string()).await;
}

#[tokio::test]
async fn a_page_has_at_least_one_row_and_at_most_a_thousand() {
    let fixture = Fixture::new().await;
    let tenants = (0..=CATALOG_ROWS_MAX).map(|index| Change::PutTenant(tenant(&index.to_string())));
    fixture.change(tenants.collect::<Vec<_>>()).await.unwrap();
    let count = async |limit| fixture.catalog().tenants(None, limit).await.unwrap().rows.len();

    assert_eq!(count(0).await, 1);
    assert_eq!(count(u32::MAX).await, CATALOG_ROWS_MAX as usize);
}

fn refused<T: Debug>(result: &Result<T, StoreError>) {
    assert!(matches!(result, Err(StoreError::Constraint { .. })), "{result:?}");
}

/// Goal: a cursor of another list is refused, and never taken for a place in this one.
#[tokio::test]
async fn a_cursor_of_another_list_is_refused() {
    let fixture = Fixture::new().await;
    let catalog = fixture.catalog();
    let id: Cursor = "i7".parse().unwrap();
    let name: Cursor = "n61.61".parse().unwrap();
    let time: Cursor = "t1.1".parse().unwrap();

    let of_b = ChannelFilter::Tenant { tenant: "b".to_owned(), prefix: String::new() };
    for wrong in [&name, &time] {
        refused(&catalog.versions(&VersionFilter::default(), Some(wrong), 1).await);
        refused(&catalog.deployments(&DeploymentFilter::default(), Some(wrong), 1).await);
        refused(&catalog.tapes(&TapeFilter::default(), Some(wrong), 1).await);
        refused(&catalog.approvals("a", &[0; 32], Some(wrong), 1).await);
    }
    for wrong in [&id, &time] {
        refused(&catalog.tenants(Some(wrong), 1).await);
        refused(&catalog.keys(None, Some(wrong), 1).await);
        refused(&catalog.channels(&ChannelFilter::All, Some(wrong), 1).await);
    }
    for wrong in [&id, &name] {
        refused(&catalog.audit(&AuditFilter::default(), Some(wrong), 1).await);
    }
    refused(&catalog.keys(Some("b"), Some(&name), 1).await);
    refused(&catalog.channels(&of_b, Some(&name), 1).await);
}

/// Goal: no list becomes slower with the number of rows it does not show: each statement goes along an index, in its order.
#[tokio::test]
async fn every_list_goes_along_an_index() {
    let fixture = Fixture::new().await;
    let mut connection = fixture.stranger().await;
    let every = every_select();
    assert!(every.len() > 50, "{}", every.len());

    for sql in every {
        let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
        let steps = sqlx::query(explain).fetch_all(&mut connection).await.unwrap();
        let steps: Vec<String> = steps.iter().map(|step| step.get("detail")).collect();
        assert!(steps.iter().all(|step| step.starts_with("SEARCH ")), "{steps:?}: {sql}");
        // What is asked for besides the place narrows the search, and a tenant's is narrowed to its own.
        if sql.contains(" = ?") {
            assert!(steps.iter().all(|step| step.contains("=?")), "{steps:?}: {sql}");
        }
        if sql.contains("tenant = ?") {
            let own = ["tenant=?", "digest=?", "channel=?"];
            assert!(steps.iter().all(|step| own.iter().any(|own| step.contains(own))), "{steps:?}: {sql}");
        }
    }
}
