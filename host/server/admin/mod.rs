//! The admin API, `/v1/admin/…`: tenants, keys, versions of plugins and where they run, channels, connections, tapes, and who did
//! what. One file per resource; [`caller`] says who may ask, [`failure`] what a refusal looks like, [`openapi`] has the document.
//!
//! Whoever asks must say who they are, with a header that no page of another site can set: there is no CORS here, and cookies do not
//! count. Operators may do everything; an ordinary API key may look after the plugins of its own tenant, and sees nothing of others.
//! Everything is JSON, lists come in pages, bodies and their times are bounded.

mod audit;
mod caller;
mod channels;
mod connections;
mod deployments;
mod failure;
mod input;
mod keys;
mod logs;
mod mounts;
mod multipart;
mod openapi;
mod page;
mod plugins;
mod stream;
mod tail;
mod tapes;
mod tenants;
mod upload;
mod usage;

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, Response, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, delete, get, post};

use crate::server::Site;
use crate::server::admin::failure::Failure;
use crate::telemetry;

pub(super) use crate::server::admin::caller::must_be_operator;
pub(super) use crate::server::admin::mounts::unavailable;

pub use crate::server::admin::caller::Operators;
pub use crate::server::admin::stream::Followers;
pub use crate::server::admin::upload::Uploads;

/// Where all of it is.
pub(super) const PREFIX: &str = "/v1/admin";

/// What there is below [`PREFIX`]. The document has the same paths: a test compares them.
fn routes() -> Vec<(&'static str, MethodRouter<Arc<Site>>)> {
    let owned = || get(plugins::list).post(upload::upload);
    vec![
        ("/openapi.json", get(openapi::document)),
        ("/plugins", owned()),
        ("/plugins/{version}", get(plugins::show)),
        ("/plugins/{version}/approve", post(plugins::approve)),
        ("/plugins/{version}/reject", post(plugins::reject)),
        ("/plugins/{version}/revoke", post(plugins::revoke)),
        ("/tenants/{tenant}/plugins", owned()),
        ("/tenants/{tenant}/plugins/{version}", get(plugins::show)),
        ("/tenants/{tenant}/plugins/{version}/approve", post(plugins::approve)),
        ("/tenants/{tenant}/plugins/{version}/reject", post(plugins::reject)),
        ("/tenants/{tenant}/plugins/{version}/revoke", post(plugins::revoke)),
        ("/tenants/{tenant}/deployments", get(deployments::list_of_tenant)),
        ("/mounts", get(mounts::list)),
        ("/mounts/{mount}/deployments", get(deployments::list_of_mount).post(deployments::deploy)),
        ("/deployments", get(deployments::list)),
        ("/deployments/{id}", get(deployments::show)),
        ("/deployments/{id}/rollback", post(deployments::roll_back)),
        ("/deployments/{id}/stop", post(deployments::stop)),
        ("/tenants", get(tenants::list)),
        ("/tenants/{tenant}", get(tenants::show).put(tenants::put).delete(tenants::delete)),
        ("/tenants/{tenant}/usage", get(usage::of_tenant)),
        ("/usage", get(usage::of_all)),
        ("/keys", get(keys::list).post(keys::create)),
        ("/tenants/{tenant}/keys/{name}", delete(keys::revoke)),
        ("/channels", get(channels::list)),
        ("/channels/{tenant}/{name}", get(channels::show)),
        ("/channels/{tenant}/{name}/members", get(channels::members)),
        ("/channels/{tenant}/{name}/tail", get(tail::follow)),
        ("/channels/{tenant}/{name}/sleep", post(channels::sleep)),
        ("/channels/{tenant}/{name}/reset", post(channels::reset)),
        ("/connections", get(connections::list)),
        ("/connections/{id}/close", post(connections::close)),
        ("/tapes", get(tapes::list)),
        ("/tapes/{id}", get(tapes::show).delete(tapes::delete)),
        ("/tapes/{id}/file", get(tapes::file)),
        ("/recordings", get(tapes::recordings).post(tapes::record)),
        ("/recordings/{id}/stop", post(tapes::stop)),
        ("/audit", get(audit::list)),
        ("/logs", get(logs::follow)),
    ]
}

/// All of it, to be nested at [`PREFIX`].
pub(super) fn router(site: &Arc<Site>) -> Router<Arc<Site>> {
    let router = routes().into_iter().fold(Router::new(), |router, (path, methods)| router.route(path, methods));
    router.fallback(nothing).layer(middleware::from_fn_with_state(Arc::clone(site), guard))
}

async fn nothing() -> Failure {
    Failure::not_found("there is no such endpoint; all are in /v1/admin/openapi.json")
}

/// Does what changes something in a task of its own: a client that hangs up must not leave it half done, as a version that is revoked and
/// still runs.
async fn to_its_end(answer: impl Future<Output = Response<Body>> + Send + 'static) -> Response<Body> {
    telemetry::spawn("admin", answer).await.unwrap_or_else(|error| {
        tracing::error!(%error, "a request of the admin API ended early");
        let message = "the request ended early, and may be half done; the broker's log says why";
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message).into_response()
    })
}

/// Lets nobody pass who does not say who they are; and what goes out is for nobody else to keep.
async fn guard(State(site): State<Arc<Site>>, request: Request, next: Next) -> Response<Body> {
    let (mut parts, body) = request.into_parts();
    let mut response = match caller::authenticate(&site, &parts).await {
        Ok(caller) => {
            parts.extensions.insert(caller);
            if let Some(uri) = site.operators.without_token(&parts.uri) {
                parts.uri = uri;
            }
            let is_read = matches!(parts.method, Method::GET | Method::HEAD);
            let answer = next.run(Request::from_parts(parts, body));
            if is_read { answer.await } else { to_its_end(answer).await }
        }
        Err(failure) => failure.into_response(),
    };
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        let allow = response.headers().get(header::ALLOW).cloned();
        let methods = allow.as_ref().and_then(|allow| allow.to_str().ok()).unwrap_or_default();
        let message = format!("this endpoint answers {methods}; all are in /v1/admin/openapi.json");
        response = Failure::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message).into_response();
        if let Some(allow) = allow {
            response.headers_mut().insert(header::ALLOW, allow);
        }
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
