//! `POST /v1/channels/{channel}/publish`: application servers publish to channels of their tenant.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Response, StatusCode, header};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::channel::{LookupError, Publication, PublishError, Reply};
use crate::limits::IDEMPOTENCY_KEY_BYTES_MAX;
use crate::protocol::frame::Payload;
use crate::protocol::name::ChannelName;
use crate::server::Site;
use crate::server::respond::{json_response, read_body, refusal};
use crate::telemetry;

/// Publishes the body: text if it is JSON or text, else binary. Answers when it is committed, with the position of its commit.
pub(super) async fn publish(
    State(site): State<Arc<Site>>,
    Path(channel): Path<String>,
    request: Request,
) -> Response<Body> {
    match try_publish(&site, &channel, request).await {
        Ok((epoch, seq)) => {
            let body = json!({ "success": true, "channel": channel, "epoch": epoch, "seq": seq });
            json_response(StatusCode::OK, &body)
        }
        Err((status, message)) => {
            metrics::counter!("hotbay_publishes_refused_total").increment(1);
            refusal(status, &message)
        }
    }
}

async fn try_publish(site: &Arc<Site>, channel: &str, request: Request) -> Result<(u64, u64), (StatusCode, String)> {
    let (parts, body) = request.into_parts();
    let key = bearer(&parts.headers).ok_or_else(|| {
        (
            StatusCode::UNAUTHORIZED,
            "an API key is needed: Authorization: Bearer <key> (made by `hotbay key create`)".to_owned(),
        )
    })?;
    let hash: [u8; 32] = Sha256::digest(key.as_bytes()).into();
    let unavailable = |message: String| (StatusCode::SERVICE_UNAVAILABLE, message);
    let key = site.store.find_key(&hash).await.map_err(|error| unavailable(error.to_string()))?;
    let key = key.ok_or_else(|| (StatusCode::UNAUTHORIZED, "the API key is not known or was revoked".to_owned()))?;
    let idempotency_key = idempotency_key(&parts.headers)?;
    let name = ChannelName::new(&key.tenant, channel).map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
    let logic = site.hub.directory.logic_of(channel).map_err(|error| lookup(&error))?;
    let body = read_body(body, &logic.limits).await?;
    let binary = parts.headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/octet-stream");
    let payload = match std::str::from_utf8(&body) {
        Ok(_) if !binary => Payload::Text(body),
        Err(_) if !binary => {
            let message = "the body is not UTF-8; send binary messages as application/octet-stream";
            return Err((StatusCode::BAD_REQUEST, message.to_owned()));
        }
        _ => Payload::Binary(body),
    };
    let publication = Publication { channel: name, sender: key.name.into(), payload, idempotency_key };
    // In a task of its own: a client that hangs up must not end it half-way, or its retry could publish a second time.
    let publisher = Arc::clone(site);
    let published = telemetry::spawn("publish", async move { publisher.publisher.publish(publication).await });
    let published = published.await.map_err(|error| unavailable(error.to_string()))?;
    match published {
        Ok(Reply::Published { epoch, seq }) => Ok((epoch, seq)),
        Ok(Reply::Refused(why)) => {
            let status = StatusCode::from_u16(why.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            Err((status, why.message.into_owned()))
        }
        Ok(Reply::Response(_)) => Err((StatusCode::INTERNAL_SERVER_ERROR, "an answer of the wrong kind".to_owned())),
        Err(PublishError::Lookup(error)) => Err(lookup(&error)),
        Err(error) => Err(unavailable(error.to_string())),
    }
}

fn lookup(error: &LookupError) -> (StatusCode, String) {
    let status = match error {
        LookupError::NotServed => StatusCode::NOT_FOUND,
        LookupError::TooMany { .. } | LookupError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, error.to_string())
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<Box<str>>, (StatusCode, String)> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let printable = value.to_str().ok().filter(|key| !key.is_empty() && key.len() <= IDEMPOTENCY_KEY_BYTES_MAX);
    match printable {
        Some(key) => Ok(Some(key.into())),
        None => Err((
            StatusCode::BAD_REQUEST,
            format!("Idempotency-Key must be 1 to {IDEMPOTENCY_KEY_BYTES_MAX} printable ASCII characters"),
        )),
    }
}
