//! Uploads of versions: `multipart/form-data` with the parts `manifest`, perhaps `signature`, and `component`, in this order. The
//! component goes to the disk as it comes; it is neither held nor looked into here.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::HttpBody as _;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::limits::{MANIFEST_BYTES_MAX, SIGNATURE_BYTES_MAX, UPLOAD_MS_MAX, UPLOADS_MAX};
use crate::registry::manifest::Manifest;
use crate::registry::{self, RegistryError};
use crate::server::Site;
use crate::server::admin::PREFIX;
use crate::server::admin::caller::Owner;
use crate::server::admin::failure::Failure;
use crate::server::admin::input::Asked;
use crate::server::admin::multipart::{MultipartError, Parts};
use crate::server::admin::plugins::VersionView;
use crate::server::shares::Shares;
use crate::store::catalog::Version;

/// What an upload has beside the component at most, in bytes: the other parts and what is between them.
const AROUND_BYTES_MAX: usize = MANIFEST_BYTES_MAX + SIGNATURE_BYTES_MAX + (16 << 10);
/// How long a refused upload is read on, so that its client gets to read the refusal: many write first.
const DRAIN: Duration = Duration::from_secs(5);

/// Uploads under way: so many in all, and of each tenant and operator one.
pub struct Uploads(Arc<Shares>);

impl Default for Uploads {
    fn default() -> Self {
        Self(Shares::new(UPLOADS_MAX))
    }
}

/// What an upload asks for.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct UploadAsked {
    /// Numbers of tapes that it is played when it is vetted, separated by commas [default: the latest of its mount]. Those of a tenant's
    /// channels alone, if the plugin is a tenant's.
    tapes: Option<String>,
}

impl UploadAsked {
    fn tapes(&self) -> Result<Vec<i64>, Failure> {
        let numbers = self.tapes.iter().flat_map(|tapes| tapes.split(',')).map(|number| {
            number
                .trim()
                .parse()
                .map_err(|_| Failure::invalid(format!("tapes: {number:?} is not the number of a tape")))
        });
        numbers.collect()
    }
}

/// What was taken in.
#[derive(Serialize, ToSchema)]
pub(super) struct Uploaded {
    /// The version. It waits to be vetted.
    version: VersionView,
    /// Where its vetting can be followed.
    vetting: String,
}

/// The parts of an upload, in this order.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only for the document")]
pub(super) struct Upload {
    /// The text of `plugin.toml`.
    manifest: String,
    /// A signature of it, in the format of minisign.
    signature: Option<String>,
    /// The component.
    #[schema(value_type = String, format = Binary)]
    component: Vec<u8>,
}

/// Uploads a version
///
/// It is vetted before anything of it runs, in the background; follow `vetting`. Needs the parts in the order `manifest`, `signature`
/// (if any), `component`. Of a tenant as many are taken within 24 hours as its `uploads_per_day` says (100 unless it is set), and at most 8 wait
/// to be vetted at a time: further ones get 429.
#[utoipa::path(
    post, path = "/plugins", tag = "plugins", params(UploadAsked),
    request_body(content = Upload, content_type = "multipart/form-data"),
    responses(
        (status = 202, body = Uploaded), (status = 400, body = super::failure::FailureBody),
        (status = 403, body = super::failure::FailureBody), (status = 404, body = super::failure::FailureBody),
        (status = 409, body = super::failure::FailureBody), (status = 413, body = super::failure::FailureBody),
        (status = 429, body = super::failure::FailureBody),
    )
)]
pub(super) async fn upload(
    State(site): State<Arc<Site>>,
    owner: Owner,
    Asked(asked): Asked<UploadAsked>,
    request: Request,
) -> Result<Response, Failure> {
    let tapes = asked.tapes()?;
    let component_bytes_max = site.limits.plugin_bytes_max;
    let (head, body) = request.into_parts();
    let announced = body.size_hint().lower();
    let mut parts = Parts::new(&head.headers, body)?;
    if announced > (component_bytes_max + AROUND_BYTES_MAX) as u64 {
        let message = format!(
            "the upload is too large: a component has at most {component_bytes_max} bytes (limits.plugin_bytes_max)"
        );
        // Who waits to be told to go on has sent nothing.
        if !head.headers.contains_key(header::EXPECT) {
            parts.drain(DRAIN).await;
        }
        return Err(Failure::too_large(message));
    }
    let mut turn = site.uploads.0.begin(owner.caller.share());
    if !turn.grow(1) {
        if !head.headers.contains_key(header::EXPECT) {
            parts.drain(DRAIN).await;
        }
        let message = "too many uploads are under way; of each tenant and operator one is taken at a time: try again when it has ended";
        return Err(Failure::unavailable(message).after(Duration::from_secs(1)));
    }
    let limit = Duration::from_millis(UPLOAD_MS_MAX);
    let taken = tokio::time::timeout(limit, take(&site, &owner, &tapes, &mut parts)).await;
    let slow =
        || Failure::new(StatusCode::REQUEST_TIMEOUT, "too_slow", format!("the upload took longer than {limit:?}"));
    match taken.unwrap_or_else(|_| Err(slow())) {
        Ok(version) => {
            let vetting = place(&version);
            let mut headers = HeaderMap::new();
            if let Ok(place) = HeaderValue::from_str(&vetting) {
                headers.insert(header::LOCATION, place);
            }
            let body = Uploaded { version: VersionView::of(version), vetting };
            Ok((StatusCode::ACCEPTED, headers, Json(body)).into_response())
        }
        Err(failure) => {
            parts.drain(DRAIN).await;
            Err(failure)
        }
    }
}

/// Where a version is shown.
fn place(version: &Version) -> String {
    let digest = hex::encode(version.digest);
    match version.tenant.as_str() {
        "" => format!("{PREFIX}/plugins/{digest}"),
        tenant => format!("{PREFIX}/tenants/{tenant}/plugins/{digest}"),
    }
}

async fn take(site: &Site, owner: &Owner, tapes: &[i64], parts: &mut Parts) -> Result<Version, Failure> {
    expect(parts, "manifest").await?;
    let manifest = parts.text("manifest", MANIFEST_BYTES_MAX).await?;
    // Known before the component comes.
    Manifest::parse(&manifest).map_err(|e| Failure::invalid(e.to_string()))?;
    let mut name = parts.next().await?;
    let mut signature = None;
    if name.as_deref() == Some("signature") {
        signature = Some(parts.text("signature", SIGNATURE_BYTES_MAX).await?);
        name = parts.next().await?;
    }
    if name.as_deref() != Some("component") {
        return Err(misplaced("component", name.as_deref()));
    }
    site.registry.expect(&owner.tenant).await?;
    let mut incoming = site.registry.receive().await?;
    while let Some(piece) = parts.piece().await? {
        incoming.write(&piece).await.map_err(|error| match error {
            RegistryError::TooMuch(message) => Failure::too_large(message),
            error => error.into(),
        })?;
    }
    if let Some(more) = parts.next().await? {
        return Err(Failure::invalid(format!("the part {more:?} is one too many; the component is the last one")));
    }
    let who = owner.caller.actor(None);
    let upload = registry::Upload { manifest: &manifest, signature: signature.as_deref(), tapes };
    Ok(site.registry.take_in(&who, &owner.tenant, &upload, incoming).await?)
}

async fn expect(parts: &mut Parts, wanted: &'static str) -> Result<(), Failure> {
    let name = parts.next().await?;
    if name.as_deref() == Some(wanted) { Ok(()) } else { Err(misplaced(wanted, name.as_deref())) }
}

fn misplaced(wanted: &str, found: Option<&str>) -> Failure {
    let found = found.map_or_else(|| "nothing".to_owned(), |found| format!("{found:?}"));
    Failure::invalid(format!(
        "the part {wanted:?} is missing, and {found} is in its place; the order is manifest, signature (if any), component"
    ))
}

impl From<MultipartError> for Failure {
    fn from(error: MultipartError) -> Self {
        let message = error.to_string();
        match error {
            MultipartError::TooLong { .. } => Self::too_large(message),
            MultipartError::Stalled(_) => Self::new(StatusCode::REQUEST_TIMEOUT, "too_slow", message),
            _ => Self::invalid(message),
        }
    }
}
