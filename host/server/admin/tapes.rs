//! Tapes, and the recordings that make them.

use std::sync::Arc;

use axum::Json;
use axum::body::Body as HttpBody;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;
use utoipa::{IntoParams, ToSchema};

use crate::limits::{TAPE_AGE_MS_MAX, TAPE_BYTES_MAX, TAPES_MAX};
use crate::registry::{Record, RecordingStatus};
use crate::server::Site;
use crate::server::admin::caller::Operator;
use crate::server::admin::failure::{Failure, FailureBody};
use crate::server::admin::input::{Answer, Asked, Because, Body, Named, reason};
use crate::server::admin::mounts::PageAsked;
use crate::server::admin::page::{self, Page};
use crate::server::admin::tenants::GoneAsked;
use crate::store::catalog::{Tape, TapeFilter};

/// How long a recording lasts if nobody says: ten minutes.
const DURATION_S: u64 = 600;
/// Bytes of a tape's file that are read at once.
const CHUNK: usize = 64 << 10;

/// A tape: what happened in a channel.
#[derive(Serialize, ToSchema)]
#[schema(as = Tape)]
pub(super) struct TapeView {
    id: i64,
    tenant: String,
    channel: String,
    mount: String,
    /// The version that ran when it began.
    digest: String,
    started_ms: u64,
    /// Absent while it is recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_ms: Option<u64>,
    batches: u64,
    bytes: u64,
}

impl TapeView {
    fn of(row: Tape) -> Self {
        let Tape { id, tenant, channel, mount, digest, started_ms, ended_ms, batches, bytes, path: _ } = row;
        Self { id, tenant, channel, mount, digest: hex::encode(digest), started_ms, ended_ms, batches, bytes }
    }
}

/// A tape with the first line of its file.
#[derive(Serialize, ToSchema)]
pub(super) struct TapeDetail {
    #[serde(flatten)]
    tape: TapeView,
    /// The conditions it was made under.
    #[schema(value_type = Object)]
    header: serde_json::Value,
}

/// Which tapes.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct TapesAsked {
    /// Only of this tenant's channels.
    tenant: Option<String>,
    /// Only of channels of this name.
    channel: Option<String>,
    /// Only of this mount.
    mount: Option<String>,
    /// Rows of a page, 1 to 1,000 [default: 100].
    limit: Option<u32>,
    /// `next` of the page before.
    after: Option<String>,
}

/// Lists tapes, the latest first
#[utoipa::path(
    get, path = "/tapes", tag = "tapes", params(TapesAsked),
    responses((status = 200, body = Page<TapeView>), (status = 400, body = FailureBody))
)]
pub(super) async fn list(
    State(site): State<Arc<Site>>,
    _: Operator,
    Asked(asked): Asked<TapesAsked>,
) -> Answer<Page<TapeView>> {
    let filter = TapeFilter { tenant: asked.tenant, channel: asked.channel, mount: asked.mount };
    let (limit, after) = (page::limit(asked.limit)?, page::cursor(asked.after.as_deref())?);
    let listing = site.store.catalog().tapes(&filter, after.as_ref(), limit).await?;
    Ok(Json(Page::of(listing, TapeView::of)))
}

/// The tape that a path names.
#[derive(Deserialize)]
pub(super) struct TapeNamed {
    id: i64,
}

/// Shows a tape, with the conditions it was made under
#[utoipa::path(
    get, path = "/tapes/{id}", tag = "tapes", params(("id" = i64, Path, description = "Its number")),
    responses((status = 200, body = TapeDetail), (status = 404, body = FailureBody))
)]
pub(super) async fn show(
    State(site): State<Arc<Site>>,
    _: Operator,
    Named(TapeNamed { id }): Named<TapeNamed>,
) -> Answer<TapeDetail> {
    let (row, header) = site.registry.tape(id).await?;
    let header = serde_json::to_value(header).map_err(|e| Failure::unavailable(e.to_string()))?;
    Ok(Json(TapeDetail { tape: TapeView::of(row), header }))
}

/// Downloads a tape, as far as it is written: JSON lines, as `hotbay tape show` and `hotbay tape replay` read them
#[utoipa::path(
    get, path = "/tapes/{id}/file", tag = "tapes", params(("id" = i64, Path, description = "Its number")),
    responses((status = 200, body = String, content_type = "application/x-ndjson"), (status = 404, body = FailureBody))
)]
pub(super) async fn file(
    State(site): State<Arc<Site>>,
    Operator(caller): Operator,
    Named(TapeNamed { id }): Named<TapeNamed>,
) -> Result<Response, Failure> {
    let (row, file) = site.registry.tape_file(id).await?;
    // Who has it has what people said.
    let detail = serde_json::json!({ "tape": id });
    site.registry.note(&caller.actor(None), "tape.fetched", &row.tenant, &row.channel, &detail).await?;
    let pieces = stream::unfold(file, |mut file| async move {
        let mut piece = BytesMut::with_capacity(CHUNK);
        match file.read_buf(&mut piece).await {
            Ok(0) => None,
            Ok(_) => Some((Ok::<Bytes, std::io::Error>(piece.freeze()), file)),
            Err(error) => Some((Err(error), file)),
        }
    });
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    let name = HeaderValue::try_from(format!("attachment; filename=\"tape-{id}.jsonl\""));
    let name = name.unwrap_or_else(|_| HeaderValue::from_static("attachment"));
    Ok(([kind, (header::CONTENT_DISPOSITION, name)], HttpBody::from_stream(pieces)).into_response())
}

/// Deletes a tape that has ended, with its file
#[utoipa::path(
    delete, path = "/tapes/{id}", tag = "tapes", params(("id" = i64, Path, description = "Its number"), GoneAsked),
    responses((status = 204), (status = 404, body = FailureBody), (status = 409, body = FailureBody))
)]
pub(super) async fn delete(
    State(site): State<Arc<Site>>,
    Operator(caller): Operator,
    Named(TapeNamed { id }): Named<TapeNamed>,
    Asked(asked): Asked<GoneAsked>,
) -> Result<StatusCode, Failure> {
    site.registry.delete_tape(&caller.actor(reason(asked.reason)?), id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A recording that goes on.
#[derive(Serialize, ToSchema)]
#[schema(as = Recording)]
pub(super) struct RecordingView {
    id: u64,
    mount: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pattern: Option<String>,
    /// JSON pointers to what is taken out before anything is written.
    redact: Vec<String>,
    /// Size of each tape.
    bytes_max: u64,
    /// Channels that are recorded at most.
    channels_max: usize,
    /// Tapes it made so far.
    tapes: usize,
    /// When it ends.
    ends_ms: u64,
}

impl RecordingView {
    fn of(status: RecordingStatus) -> Self {
        let RecordingStatus { id, asked, tapes, ends_ms } = status;
        let Record { mount, tenant, pattern, redact, bytes_max, channels_max, duration_ms: _ } = asked;
        Self { id, mount, tenant, pattern, redact, bytes_max, channels_max, tapes, ends_ms }
    }
}

/// Lists the recordings that go on
#[utoipa::path(
    get, path = "/recordings", tag = "tapes", params(PageAsked),
    responses((status = 200, body = Page<RecordingView>), (status = 400, body = FailureBody))
)]
pub(super) async fn recordings(
    State(site): State<Arc<Site>>,
    _: Operator,
    Asked(asked): Asked<PageAsked>,
) -> Answer<Page<RecordingView>> {
    let (limit, after) = (page::limit(asked.limit)? as usize, page::id(asked.after.as_deref())?);
    let mut all = site.registry.recordings();
    all.sort_by_key(|recording| recording.id);
    let mut rest = all.into_iter().filter(|recording| after.is_none_or(|after| recording.id > after));
    let items: Vec<RecordingView> = rest.by_ref().take(limit).map(RecordingView::of).collect();
    let next = rest.next().and(items.last()).map(|last| last.id.to_string());
    Ok(Json(Page { items, next }))
}

/// Which channels to record, and how.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RecordAsked {
    /// Channels of this mount.
    mount: String,
    /// Of this tenant alone.
    tenant: Option<String>,
    /// With such names alone: a name, or one whose last part is `*`.
    pattern: Option<String>,
    /// JSON pointers to what is taken out of every message that is JSON, before anything is written.
    #[serde(default)]
    redact: Vec<String>,
    /// Size of each tape, in bytes.
    bytes_max: Option<u64>,
    /// How long, in seconds [default: 600].
    duration_s: Option<u64>,
    /// How many channels at most.
    channels_max: Option<usize>,
    /// Why, for the audit log.
    reason: Option<String>,
}

/// Begins to record channels; each gets a tape of its own
///
/// What members send and get is on it, except for what `redact` takes out.
#[utoipa::path(
    post, path = "/recordings", tag = "tapes", request_body = RecordAsked,
    responses((status = 201, body = RecordingView), (status = 400, body = FailureBody), (status = 404, body = FailureBody))
)]
pub(super) async fn record(
    State(site): State<Arc<Site>>,
    Operator(caller): Operator,
    Body(asked): Body<RecordAsked>,
) -> Result<(StatusCode, Json<RecordingView>), Failure> {
    let who = caller.actor(reason(asked.reason)?);
    let record = Record {
        mount: asked.mount,
        tenant: asked.tenant,
        pattern: asked.pattern,
        redact: asked.redact,
        bytes_max: asked.bytes_max.unwrap_or(TAPE_BYTES_MAX),
        duration_ms: asked
            .duration_s
            .unwrap_or(DURATION_S)
            .saturating_mul(1_000)
            .min(TAPE_AGE_MS_MAX.saturating_add(1)),
        channels_max: asked.channels_max.unwrap_or(TAPES_MAX),
    };
    let status = site.registry.record(&who, record).await?;
    Ok((StatusCode::CREATED, Json(RecordingView::of(status))))
}

/// The recording that a path names.
#[derive(Deserialize)]
pub(super) struct RecordingNamed {
    id: u64,
}

/// Ends a recording, and its tapes
#[utoipa::path(
    post, path = "/recordings/{id}/stop", tag = "tapes", request_body = Because,
    params(("id" = u64, Path, description = "Its number")),
    responses((status = 204), (status = 404, body = FailureBody))
)]
pub(super) async fn stop(
    State(site): State<Arc<Site>>,
    Operator(caller): Operator,
    Named(RecordingNamed { id }): Named<RecordingNamed>,
    Body(because): Body<Because>,
) -> Result<StatusCode, Failure> {
    site.registry.stop_recording(&caller.actor(because.optional()?), id).await?;
    Ok(StatusCode::NO_CONTENT)
}
