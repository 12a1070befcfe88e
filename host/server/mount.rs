//! Requests on mounts: which mount they are for, and whether they become a connection, an event, or a refusal.

use std::borrow::Cow;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Response, StatusCode, header};

use crate::auth::{AuthError, Gate, Wish};
use crate::channel::Reply;
use crate::config::{HttpRoute, Mount, RouteAuth};
use crate::connection::{Endpoint, UserRates, handshake};
use crate::protocol::event::HttpRequest;
use crate::protocol::identity::Identity;
use crate::protocol::name::ChannelName;
use crate::protocol::template::{Source, Template, TemplateError, Values};
use crate::server::accept::Peer;
use crate::server::answer::Answers;
use crate::server::body::Bounds;
use crate::server::doors::{self, Match};
use crate::server::respond;
use crate::server::shares::Shares;
use crate::server::{Site, cors, upgrade};
use crate::telemetry::{now_ms, wall_ms};

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
    /// Requests of a caller: together they may be as many as the messages of a connection.
    requests: UserRates,
    /// Requests that wait for an answer.
    waiting: Arc<Shares>,
}

impl MountPoint {
    /// A mount with its gate and what its connections share.
    pub fn new(config: Mount, gate: Gate, endpoint: Arc<Endpoint>) -> Self {
        let requests = UserRates::new(config.limits.rate_per_connection);
        let waiting = Shares::new(config.limits.requests_waiting_max);
        Self { config, gate, endpoint, answers: Answers::default(), requests, waiting }
    }

    fn may_ask(&self, caller: &Caller<'_>, identity: Option<&Identity>) -> bool {
        let now_ms = now_ms();
        let own = identity.is_none_or(|identity| self.endpoint.user_rates.take(identity, now_ms));
        own && self.requests.take_as(caller.tenant, &caller.name, now_ms)
    }
}

/// Whose share of the bounds a request takes: a user's, or, where nobody is asked who it is, an address's.
struct Caller<'a> {
    tenant: &'a str,
    name: Cow<'a, str>,
}

impl<'a> Caller<'a> {
    fn of(found: &Match<'a>, parts: &Parts, identity: Option<&'a Identity>) -> Self {
        if let Some(identity) = identity.filter(|_| found.mount.gate.anonymous().is_none()) {
            return Self { tenant: identity.tenant(), name: identity.user().into() };
        }
        let address = parts.extensions.get::<Peer>().map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.0);
        // No tenant has this name.
        Self { tenant: "", name: address.to_string().into() }
    }

    fn text(&self) -> String {
        format!("{}/{}", self.tenant, self.name)
    }
}

/// Every request that is for no other endpoint.
pub(super) async fn handle(State(site): State<Arc<Site>>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Some(found) = doors::find(&site.doors, &parts) else {
        return respond::refusal(StatusCode::NOT_FOUND, "nothing is mounted here");
    };
    if found.is_endpoint() && handshake::is_upgrade(&parts) {
        return upgrade::upgrade(&site, &found, &parts);
    }
    if parts.method == Method::OPTIONS
        && let Some(response) = cors::preflight(&found, &parts.headers)
    {
        return response;
    }
    let response = if found.routes().next().is_some() {
        request_event(&site, &found, &parts, body).await
    } else {
        // Only where sockets come in there is a match without a route.
        let mut response =
            found.refusal(StatusCode::UPGRADE_REQUIRED, "this is a WebSocket endpoint: connect with ws://");
        response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        response
    };
    cors::share(&found, &parts.headers, response)
}

/// An HTTP request becomes an event of a channel, and its answer comes from there.
async fn request_event(site: &Site, found: &Match<'_>, parts: &Parts, body: Body) -> Response<Body> {
    let Some(route) = found.routes().find(|route| route.answers(&parts.method)) else {
        let mut response = found.refusal(StatusCode::METHOD_NOT_ALLOWED, "this path does not answer that method");
        let methods: Vec<&str> =
            found.routes().flat_map(|route| &route.methods).map(|method| method.as_str()).collect();
        if let Ok(methods) = HeaderValue::from_str(&methods.join(", ")) {
            response.headers_mut().insert(header::ALLOW, methods);
        }
        return response;
    };
    let identity = match authenticate(found, route, parts) {
        Ok(identity) => identity,
        Err(error) => return found.auth_refusal(&error),
    };
    let name = match found.channel(&route.channel, identity.as_ref()) {
        Ok(name) => name,
        Err(error) => return found.channel_refusal(&error),
    };
    let caller = Caller::of(found, parts, identity.as_ref());
    let key = caller.text();
    if !found.mount.may_ask(&caller, identity.as_ref()) {
        let message = "too many requests (rate_per_connection, rate_per_user): slow down";
        return respond::later(found.refusal(StatusCode::TOO_MANY_REQUESTS, message), Duration::from_secs(1));
    }
    let quota = site.hub.directory.quotas().of(name.tenant());
    if let Err((over, wait)) = quota.admit(now_ms()) {
        return respond::later(found.refusal(StatusCode::TOO_MANY_REQUESTS, &over.to_string()), wait);
    }
    let limits = &found.mount.config.limits;
    let (body, room) = match site.bodies.read(&key, &parts.method, body, &Bounds::of(limits)).await {
        Ok(read) => read,
        Err((status, message)) => return found.refusal(status, &message),
    };
    quota.receive_body(body.len(), now_ms());
    let mut waits = found.mount.waiting.begin(&key);
    if !waits.grow(1) {
        let message = "too many requests wait for answers (requests_waiting_max); try again";
        return found.refusal(StatusCode::SERVICE_UNAVAILABLE, message);
    }
    let _waiting = Waiting::begin();
    let secret: Vec<&str> = found.mount.gate.token_parameters().collect();
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
    let answer = async {
        let answer = site.hub.directory.request(&name, &found.mount.endpoint.logic, http).await;
        drop(room); // It counts in the channel's mailbox now.
        match answer {
            Ok(answer) => answer.await.map_err(|_| "the channel ended before it answered; try again".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    };
    match tokio::time::timeout(Duration::from_millis(limits.request_ms_max), answer).await {
        Ok(Ok(Reply::Response(response))) => found.mount.answers.response(&found.mount.config.name, response),
        Ok(Ok(Reply::Refused(why))) => {
            let status = StatusCode::from_u16(why.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            found.refusal(status, &why.message)
        }
        Ok(Ok(Reply::Published { .. })) => {
            found.refusal(StatusCode::INTERNAL_SERVER_ERROR, "an answer of the wrong kind")
        }
        Ok(Err(message)) => found.refusal(StatusCode::SERVICE_UNAVAILABLE, &message),
        Err(_) => found.refusal(StatusCode::GATEWAY_TIMEOUT, "the plugin did not answer in time"),
    }
}

/// A request that waits, counted until this is dropped.
struct Waiting;

impl Waiting {
    fn begin() -> Self {
        metrics::gauge!("hotbay_http_requests_waiting").increment(1.0);
        Self
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        metrics::gauge!("hotbay_http_requests_waiting").decrement(1.0);
    }
}

fn authenticate(found: &Match<'_>, route: &HttpRoute, parts: &Parts) -> Result<Option<Identity>, AuthError> {
    let gate = &found.mount.gate;
    match route.auth {
        RouteAuth::Required => {
            let identity = gate.authenticate(parts, Wish::Response, wall_ms())?;
            gate.check_stated(parts, Wish::Response, &identity, &route.must_state)?;
            Ok(Some(found.entered_by(&identity)))
        }
        RouteAuth::None => gate.authenticate_nobody(parts).map(|()| None),
    }
}

impl Match<'_> {
    /// A refusal by the host, in the form the mount's clients know.
    pub(super) fn refusal(&self, status: StatusCode, message: &str) -> Response<Body> {
        respond::refusal_as(self.mount.config.errors, status, message)
    }

    pub(super) fn auth_refusal(&self, error: &AuthError) -> Response<Body> {
        metrics::counter!("hotbay_auth_refusals_total", "reason" => error.as_str()).increment(1);
        // Strangers decide how often: not for every log.
        tracing::debug!(mount = %self.mount.config.name, reason = error.as_str(), "token verification failed");
        let status = StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::UNAUTHORIZED);
        self.refusal(status, &error.to_string())
    }

    /// There is no channel for this request.
    pub(super) fn channel_refusal(&self, error: &TemplateError) -> Response<Body> {
        let status = if error.is_of_identity() { StatusCode::UNAUTHORIZED } else { StatusCode::BAD_REQUEST };
        self.refusal(status, &error.to_string())
    }

    /// The channel a template names for this request.
    pub(super) fn channel(
        &self,
        template: &Template,
        identity: Option<&Identity>,
    ) -> Result<ChannelName, TemplateError> {
        let tenant = identity.map_or(self.mount.config.auth.tenant.as_str(), Identity::tenant);
        let values = RequestValues { found: self, identity, tenant };
        let name = template.fill(&values)?;
        ChannelName::new(tenant, &name).map_err(|error| TemplateError::Name { what: "the channel".to_owned(), error })
    }
}

struct RequestValues<'a> {
    found: &'a Match<'a>,
    identity: Option<&'a Identity>,
    tenant: &'a str,
}

impl Values for RequestValues<'_> {
    fn value(&self, source: &Source) -> Option<Cow<'_, str>> {
        match source {
            Source::User => self.identity.map(|identity| identity.user().into()),
            Source::Tenant => Some(self.tenant.into()),
            Source::Claim(name) => self.identity.and_then(|identity| identity.claim(name)).map(Cow::Owned),
            Source::Query(name) => self.found.query.get(name).map(Cow::Borrowed),
            Source::Path(name) => self.found.path.get(name).map(Cow::Borrowed),
        }
    }
}
