//! The registry's rows in SQLite: each list is one statement made by [`select`], each change a few made by [`change`].

mod change;
mod decode;
mod reset;
mod select;

use sqlx::sqlite::SqliteRow;

use self::decode::Decode;
use self::select::Select;
use super::SqliteStore;
use crate::limits::CATALOG_ROWS_MAX;
use crate::protocol::name::ChannelName;
use crate::store::catalog::{
    Approval, AuditEntry, AuditFilter, Audited, Catalog, Change, Changed, Changes, ChannelFilter, ChannelSummary,
    Cursor, Deployment, DeploymentFilter, Listing, Status, Tape, TapeFilter, Tenant, TenantKept, Version,
    VersionFilter, Vetting,
};
use crate::store::{ApiKey, StoreError, StoreFuture};

pub(super) use self::change::make;
pub(super) use self::decode::digest_if_any;
#[cfg(test)]
pub(super) use self::select::every_one as every_select;

impl Catalog for SqliteStore {
    fn change(&self, changes: Vec<Change>, audit: Option<AuditEntry>) -> StoreFuture<'_, Option<Changed>> {
        Box::pin(self.queue.change(Changes { changes, audit }))
    }

    fn tenants<'a>(&'a self, after: Option<&'a Cursor>, limit: u32) -> StoreFuture<'a, Listing<Tenant>> {
        Box::pin(async move { self.list(select::tenants(after)?, limit).await })
    }

    fn tenant<'a>(&'a self, name: &'a str) -> StoreFuture<'a, Option<Tenant>> {
        Box::pin(self.one_of(select::tenant(name)))
    }

    fn versions<'a>(
        &'a self,
        filter: &'a VersionFilter,
        after: Option<&'a Cursor>,
        limit: u32,
    ) -> StoreFuture<'a, Listing<Version>> {
        Box::pin(async move { self.list(select::versions(filter, after)?, limit).await })
    }

    fn version<'a>(&'a self, tenant: &'a str, digest: &'a [u8; 32]) -> StoreFuture<'a, Option<Version>> {
        Box::pin(self.one_of(select::version(tenant, digest)))
    }

    fn version_named<'a>(
        &'a self,
        tenant: &'a str,
        name: &'a str,
        version: &'a str,
    ) -> StoreFuture<'a, Option<Version>> {
        Box::pin(self.one_of(select::version_named(tenant, name, version)))
    }

    fn statuses<'a>(&'a self, digest: &'a [u8; 32]) -> StoreFuture<'a, Vec<(String, Status)>> {
        Box::pin(async move { self.reader.all(select::statuses(digest).query()?, decode::tenant_status).await })
    }

    fn count_uploads_since<'a>(&'a self, tenant: &'a str, since_ms: u64) -> StoreFuture<'a, u64> {
        Box::pin(async move {
            let count = self.reader.one(select::uploads(tenant, since_ms).query()?, decode::count).await?;
            Ok(count.unwrap_or_default())
        })
    }

    fn vetting<'a>(&'a self, tenant: &'a str, digest: &'a [u8; 32]) -> StoreFuture<'a, Option<Vetting>> {
        Box::pin(async move {
            let rows = self.reader.all(select::vetting(tenant, digest).query()?, decode::vetting).await?;
            Ok(rows.into_iter().reduce(|mut vetting, more| {
                vetting.steps.extend(more.steps);
                vetting
            }))
        })
    }

    fn approvals<'a>(
        &'a self,
        tenant: &'a str,
        digest: &'a [u8; 32],
        after: Option<&'a Cursor>,
        limit: u32,
    ) -> StoreFuture<'a, Listing<Approval>> {
        Box::pin(async move { self.list(select::approvals(tenant, digest, after)?, limit).await })
    }

    fn deployments<'a>(
        &'a self,
        filter: &'a DeploymentFilter,
        after: Option<&'a Cursor>,
        limit: u32,
    ) -> StoreFuture<'a, Listing<Deployment>> {
        Box::pin(async move { self.list(select::deployments(filter, after)?, limit).await })
    }

    fn deployment(&self, id: i64) -> StoreFuture<'_, Option<Deployment>> {
        Box::pin(self.one_of(select::deployment(id)))
    }

    fn audit<'a>(
        &'a self,
        filter: &'a AuditFilter,
        after: Option<&'a Cursor>,
        limit: u32,
    ) -> StoreFuture<'a, Listing<Audited>> {
        Box::pin(async move { self.list(select::audit(filter, after)?, limit).await })
    }

    fn tapes<'a>(
        &'a self,
        filter: &'a TapeFilter,
        after: Option<&'a Cursor>,
        limit: u32,
    ) -> StoreFuture<'a, Listing<Tape>> {
        Box::pin(async move { self.list(select::tapes(filter, after)?, limit).await })
    }

    fn tape(&self, id: i64) -> StoreFuture<'_, Option<Tape>> {
        Box::pin(self.one_of(select::tape(id)))
    }

    fn keys<'a>(
        &'a self,
        tenant: Option<&'a str>,
        after: Option<&'a Cursor>,
        limit: u32,
    ) -> StoreFuture<'a, Listing<ApiKey>> {
        Box::pin(async move { self.list(select::keys(tenant, after)?, limit).await })
    }

    fn channels<'a>(
        &'a self,
        filter: &'a ChannelFilter,
        after: Option<&'a Cursor>,
        limit: u32,
    ) -> StoreFuture<'a, Listing<ChannelSummary>> {
        Box::pin(async move { self.list(select::channels(filter, after)?, limit).await })
    }

    fn channel<'a>(&'a self, name: &'a ChannelName) -> StoreFuture<'a, Option<ChannelSummary>> {
        Box::pin(self.one_of(select::channel(name)))
    }

    fn kept<'a>(&'a self, after: &'a str, limit: u32) -> StoreFuture<'a, Vec<TenantKept>> {
        Box::pin(async move { self.reader.all(select::kept(after).limit(limit).query()?, decode::kept).await })
    }
}

impl SqliteStore {
    pub(super) async fn key(&self, hash: &[u8; 32]) -> Result<Option<ApiKey>, StoreError> {
        self.one_of(select::key(hash)).await
    }

    async fn list<T: Decode>(&self, select: Select, limit: u32) -> Result<Listing<T>, StoreError> {
        let limit = limit.clamp(1, CATALOG_ROWS_MAX);
        // One more tells whether there are more.
        let query = select.limit(limit + 1).query()?;
        let row = |row: &SqliteRow| T::decode(row);
        let (mut rows, whole) = self.reader.bounded(query, row, T::bytes).await?;
        let more = !whole || rows.len() > limit as usize;
        rows.truncate(limit as usize);
        let next = rows.last().filter(|_| more).map(|(_, cursor)| cursor.clone());
        Ok(Listing { rows: rows.into_iter().map(|(row, _)| row).collect(), next })
    }

    async fn one_of<T: Decode>(&self, select: Select) -> Result<Option<T>, StoreError> {
        let row = self.reader.one(select.query()?, |row| T::decode(row)).await?;
        Ok(row.map(|(row, _)| row))
    }
}
