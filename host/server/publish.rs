//! `POST /v1/channels/{channel}/publish`: application servers publish to channels of their tenant.

use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, Response, StatusCode, header};
use serde_json::json;

use crate::channel::{LookupError, Publication, PublishError, Reply};
use crate::limits::IDEMPOTENCY_KEY_BYTES_MAX;
use crate::protocol::frame::Payload;
use crate::protocol::name::ChannelName;
use crate::quota::Quota;
use crate::server::Site;
use crate::server::accept::Peer;
use crate::server::body::Bounds;
use crate::server::keys::{KeyError, bearer};
use crate::server::respond::{json_response, later, refusal};
use crate::store::ApiKey;
use crate::telemetry::{self, now_ms};

/// Publishes the body: text if it is JSON or text, else binary. Answers when it is committed, with the position of its commit.
pub(super) async fn publish(
    State(site): State<Arc<Site>>,
    Path(channel): Path<String>,
    request: Request,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let refuse = |response| {
        metrics::counter!("hotbay_publishes_refused_total").increment(1);
        response
    };
    let key = match authenticate(&site, &parts).await {
        Ok(key) => key,
        Err(response) => return refuse(response),
    };
    let quota = site.hub.directory.quotas().of(&key.tenant);
    if let Err((over, wait)) = quota.admit(now_ms()) {
        return refuse(later(refusal(StatusCode::TOO_MANY_REQUESTS, &over.to_string()), wait));
    }
    match try_publish(&site, (key, &quota), &channel, &parts.headers, body).await {
        Ok((epoch, seq)) => {
            let body = json!({ "success": true, "channel": channel, "epoch": epoch, "seq": seq });
            json_response(StatusCode::OK, &body)
        }
        Err((status, message)) => refuse(refusal(status, &message)),
    }
}

/// Whose request it is, or the refusal.
async fn authenticate(site: &Site, parts: &Parts) -> Result<ApiKey, Response<Body>> {
    let Some(secret) = bearer(&parts.headers) else {
        let message = "an API key is needed: Authorization: Bearer <key> (made by `hotbay key create`)";
        return Err(refusal(StatusCode::UNAUTHORIZED, message));
    };
    let peer = parts.extensions.get::<Peer>().map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.0);
    site.api_keys.find(secret, peer).await.map_err(|error| match error {
        KeyError::Unknown => refusal(StatusCode::UNAUTHORIZED, "the API key is not known or was revoked"),
        KeyError::TooOften { wait } => {
            let message = "too many API keys from this address were not known; try again later";
            later(refusal(StatusCode::TOO_MANY_REQUESTS, message), wait)
        }
        KeyError::Store(error) => refusal(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    })
}

async fn try_publish(
    site: &Arc<Site>,
    (key, quota): (ApiKey, &Quota),
    channel: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<(u64, u64), (StatusCode, String)> {
    let unavailable = |message: String| (StatusCode::SERVICE_UNAVAILABLE, message);
    let idempotency_key = idempotency_key(headers)?;
    let name = ChannelName::new(&key.tenant, channel).map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
    let logic = site.hub.directory.logic_of(channel).map_err(|error| lookup(&error))?;
    let caller = format!("{}/key {}", key.tenant, key.name);
    let (body, room) = site.bodies.read(&caller, &Method::POST, body, &Bounds::of(&logic.limits)).await?;
    quota.receive_body(body.len(), now_ms());
    let binary = headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/octet-stream");
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
    let published = telemetry::spawn("publish", async move {
        let published = publisher.publisher.publish(publication).await;
        drop(room);
        published
    });
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
        LookupError::TooMany { .. } | LookupError::Quota(_) | LookupError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, error.to_string())
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
