//! Pages of lists: `limit` and `after` of a query, `items` and `next` of an answer.

use serde::Serialize;
use utoipa::ToSchema;

use crate::limits::CATALOG_ROWS_MAX;
use crate::server::admin::failure::Failure;
use crate::store::catalog::{Cursor, Listing};

/// Rows of a page, if the query does not say.
const LIMIT_DEFAULT: u32 = 100;

/// A page of a list.
#[derive(Serialize, ToSchema)]
pub(super) struct Page<T> {
    /// In the order of the list.
    pub(super) items: Vec<T>,
    /// `after` of the next page; absent if this was the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
}

impl<T> Page<T> {
    /// Shows the rows of a page of the store.
    pub(super) fn of<R>(listing: Listing<R>, show: impl FnMut(R) -> T) -> Self {
        Self {
            items: listing.rows.into_iter().map(show).collect(),
            next: listing.next.map(|cursor| cursor.to_string()),
        }
    }
}

/// How many rows a query wants.
pub(super) fn limit(asked: Option<u32>) -> Result<u32, Failure> {
    match asked.unwrap_or(LIMIT_DEFAULT) {
        limit @ 1..=CATALOG_ROWS_MAX => Ok(limit),
        other => Err(Failure::invalid(format!("limit is {other}; a page has 1 to {CATALOG_ROWS_MAX} rows"))),
    }
}

/// Where the page before ended, if the list is of the store.
pub(super) fn cursor(after: Option<&str>) -> Result<Option<Cursor>, Failure> {
    after.map(str::parse).transpose().map_err(|e| Failure::invalid(format!("after: {e}")))
}

/// Where the page before ended, if the list goes by numbers.
pub(super) fn id(after: Option<&str>) -> Result<Option<u64>, Failure> {
    let wrong =
        |_| Failure::invalid("after: this is not a cursor; take `next` of the page before as it is, or leave it out");
    after.map(str::parse).transpose().map_err(wrong)
}
