//! Requests on mounts: which mount they are for, and whether they become a connection, an event, or a refusal.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Response, StatusCode, header};

use crate::auth::{AuthError, Gate};
use crate::channel::Reply;
use crate::config::{HttpRoute, Mount, RouteAuth};
use crate::connection::{Endpoint, handshake};
use crate::protocol::event::HttpRequest;
use crate::protocol::identity::Identity;
use crate::protocol::name::ChannelName;
use crate::protocol::path::PathValues;
use crate::protocol::query::Query;
use crate::protocol::template::{Source, Template, Values};
use crate::server::answer::Answers;
use crate::server::respond::{read_body, refusal};
use crate::server::{Site, upgrade};
use crate::telemetry::wall_ms;

/// A mount, ready for requests.
pub struct MountPoint {
    /// Its configuration.
    pub config: Mount,
    /// Who may come in.
    pub gate: Gate,
    /// What its connections share.
    pub endpoint: Arc<Endpoint>,
    /// Puts out what its plugin answers.
    pub answers: Answers,
}

/// A request that fits a mount.
pub(super) struct Match<'a> {
    pub(super) mount: &'a Arc<MountPoint>,
    path: PathValues,
    rest: &'a str,
    query: Query,
}

/// Every request that is for no other endpoint.
pub(super) async fn handle(State(site): State<Arc<Site>>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Some(found) = find(&site, &parts) else {
        return refusal(StatusCode::NOT_FOUND, "nothing is mounted here");
    };
    if found.rest == "/" && handshake::is_upgrade(&parts) {
        return upgrade::upgrade(&site, &found, &parts);
    }
    let route = found.mount.config.http.iter().find(|route| same_path(&route.path, found.rest));
    match route {
        Some(route) => answer(&site, &found, route, &parts, body).await,
        None if found.rest == "/" => {
            let mut response =
                refusal(StatusCode::UPGRADE_REQUIRED, "this is a WebSocket endpoint: connect with ws://");
            response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            response
        }
        None => refusal(StatusCode::NOT_FOUND, "nothing is mounted here"),
    }
}

/// The first mount whose path and required query fit; a path below a mount fits if one of its HTTP routes does.
fn find<'a>(site: &'a Site, parts: &'a Parts) -> Option<Match<'a>> {
    let query = Query::of(&parts.uri);
    site.mounts.iter().find_map(|mount| {
        let (path, rest) = mount.config.path.matches_start(parts.uri.path())?;
        let fits = rest == "/" || mount.config.http.iter().any(|route| same_path(&route.path, rest));
        (fits && mount.config.required_query.matches(&query)).then(|| Match { mount, path, rest, query: query.clone() })
    })
}

fn same_path(route: &str, rest: &str) -> bool {
    route == rest || (rest.len() > 1 && rest.strip_suffix('/') == Some(route))
}

/// An HTTP request becomes an event of a channel, and its answer comes from there.
async fn answer(site: &Site, found: &Match<'_>, route: &HttpRoute, parts: &Parts, body: Body) -> Response<Body> {
    if !route.methods.iter().any(|method| method.as_str() == parts.method.as_str()) {
        let mut response = refusal(StatusCode::METHOD_NOT_ALLOWED, "this path does not answer that method");
        let methods: Vec<&str> = route.methods.iter().map(|method| method.as_str()).collect();
        if let Ok(methods) = HeaderValue::from_str(&methods.join(", ")) {
            response.headers_mut().insert(header::ALLOW, methods);
        }
        return response;
    }
    let gate = &found.mount.gate;
    let identity = match route.auth {
        RouteAuth::Required => gate.authenticate(parts, wall_ms()).map(Some),
        RouteAuth::None => gate.authenticate_nobody(parts).map(|()| None),
    };
    let identity = match identity {
        Ok(identity) => identity,
        Err(error) => return auth_refusal(&error),
    };
    let name = match found.channel(&route.channel, identity.as_ref()) {
        Ok(name) => name,
        Err(message) => return refusal(StatusCode::BAD_REQUEST, &message),
    };
    let limits = &found.mount.config.limits;
    let body = match read_body(body, limits).await {
        Ok(body) => body,
        Err((status, message)) => return refusal(status, &message),
    };
    let secret: Vec<&str> = gate.token_parameters().collect();
    let query = found.query.iter().filter(|(name, _)| !secret.contains(name));
    let headers = route
        .headers
        .iter()
        .filter_map(|name| Some((name.clone(), parts.headers.get(name)?.to_str().ok()?.to_owned())));
    let http = HttpRequest {
        method: parts.method.to_string(),
        path: found.rest.to_owned(),
        query: query.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        headers: headers.collect(),
        body,
        identity,
    };
    let time = Duration::from_millis(limits.request_ms_max);
    let answer = async {
        let answer = site.hub.directory.request(&name, &found.mount.endpoint.logic, http).await;
        match answer {
            Ok(answer) => answer.await.map_err(|_| "the channel ended before it answered; try again".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    };
    match tokio::time::timeout(time, answer).await {
        Ok(Ok(Reply::Response(response))) => found.mount.answers.response(&found.mount.config.name, response),
        Ok(Ok(Reply::Refused(why))) => {
            let status = StatusCode::from_u16(why.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            refusal(status, &why.message)
        }
        Ok(Ok(Reply::Published { .. })) => refusal(StatusCode::INTERNAL_SERVER_ERROR, "an answer of the wrong kind"),
        Ok(Err(message)) => refusal(StatusCode::SERVICE_UNAVAILABLE, &message),
        Err(_) => refusal(StatusCode::GATEWAY_TIMEOUT, "the plugin did not answer in time"),
    }
}

pub(super) fn auth_refusal(error: &AuthError) -> Response<Body> {
    metrics::counter!("hotbay_auth_refusals_total", "reason" => error.as_str()).increment(1);
    let status = StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::UNAUTHORIZED);
    refusal(status, &error.to_string())
}

impl Match<'_> {
    /// The channel a template names for this request.
    pub(super) fn channel(&self, template: &Template, identity: Option<&Identity>) -> Result<ChannelName, String> {
        let values = RequestValues { found: self, identity };
        let name = template.fill(&values).map_err(|error| error.to_string())?;
        let tenant = identity.map_or(self.mount.config.auth.tenant.as_str(), Identity::tenant);
        ChannelName::new(tenant, &name).map_err(|error| error.to_string())
    }
}

struct RequestValues<'a> {
    found: &'a Match<'a>,
    identity: Option<&'a Identity>,
}

impl Values for RequestValues<'_> {
    fn value(&self, source: &Source) -> Option<Cow<'_, str>> {
        match source {
            Source::User => self.identity.map(|identity| identity.user().into()),
            Source::Claim(name) => self.identity.and_then(|identity| identity.claim(name)).map(Cow::Owned),
            Source::Query(name) => self.found.query.get(name).map(Cow::Borrowed),
            Source::Path(name) => self.found.path.get(name).map(Cow::Borrowed),
        }
    }
}
