//! Who asks, and what they may ask for.

use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use axum::http::{Response, StatusCode, Uri, header};
use axum::response::IntoResponse;
use percent_encoding::percent_decode_str;

use crate::auth::{Gate, Keys, Policy, Wish};
use crate::config::AdminConfig;
use crate::protocol::name::check_part;
use crate::registry::Actor;
use crate::server::Site;
use crate::server::accept::Peer;
use crate::server::admin::failure::Failure;
use crate::server::keys::{KeyError, bearer};
use crate::telemetry::wall_ms;

/// How API keys begin; everything else that is sent as a bearer is a token.
const KEY_PREFIX: &str = "hb_";

/// Whose tokens count as an operator's.
pub struct Operators {
    gate: Option<Gate>,
    role: String,
}

impl Operators {
    /// Without `[admin]` in the configuration no token counts, only keys.
    pub fn new(config: Option<&AdminConfig>, keys: &Keys) -> Self {
        let policy = |config: &AdminConfig| Policy {
            keys: config.keys.clone(),
            sources: config.sources.clone(),
            ..Policy::default()
        };
        Self {
            gate: config.map(|config| keys.gate(&policy(config), None, &[])),
            role: config.map(|config| config.role.clone()).unwrap_or_default(),
        }
    }

    /// The place of a request without the token in its query, if tokens may be there: for handlers it is no parameter.
    pub(super) fn without_token(&self, uri: &Uri) -> Option<Uri> {
        let names: Vec<&str> = self.gate.as_ref()?.token_parameters().collect();
        let is_token = |pair: &&str| {
            let name = pair.split('=').next().unwrap_or_default();
            names.contains(&&*percent_decode_str(name).decode_utf8_lossy())
        };
        let query = uri.query().filter(|_| !names.is_empty())?;
        let rest: Vec<&str> = query.split('&').filter(|pair| !is_token(pair)).collect();
        format!("{}?{}", uri.path(), rest.join("&")).parse().ok()
    }

    fn authenticate(&self, parts: &Parts) -> Result<Caller, Failure> {
        let Some(gate) = &self.gate else {
            let came = if parts.headers.contains_key(header::AUTHORIZATION) { "what came is no API key: " } else { "" };
            let message = format!(
                "{came}an operator's API key is needed: \"Authorization: Bearer hb_…\", made by `hotbay key create --operator --name \
                 NAME`; tokens count if [admin] of the configuration names their keys"
            );
            return Err(Failure::unauthorized(message));
        };
        let identity = gate.authenticate(parts, Wish::Response, wall_ms()).map_err(|error| {
            metrics::counter!("hotbay_auth_refusals_total", "reason" => error.as_str()).increment(1);
            let status = StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::UNAUTHORIZED);
            let message = format!("{error}; or an API key: \"Authorization: Bearer hb_…\"");
            if status == StatusCode::UNAUTHORIZED {
                Failure::unauthorized(message)
            } else {
                Failure::new(status, "forbidden", message)
            }
        })?;
        if identity.role() != self.role {
            let message = format!(
                "the token's role is {:?}; the admin API needs the role {:?} ([admin] role in the configuration)",
                identity.role(),
                self.role
            );
            return Err(Failure::forbidden(message));
        }
        let name = format!("user {}/{}", identity.tenant(), identity.user());
        Ok(Caller { name, scope: Scope::Operator })
    }
}

/// Who asks.
#[derive(Clone)]
pub(super) struct Caller {
    /// As the audit log says it: `key default/ci`, `user acme/ann`.
    name: String,
    scope: Scope,
}

#[derive(Clone, PartialEq, Eq)]
enum Scope {
    /// May do everything.
    Operator,
    /// May look after the plugins of its tenant.
    Tenant(String),
}

impl Caller {
    /// As the registry knows them.
    pub(super) fn actor(&self, reason: Option<String>) -> Actor {
        Actor { name: self.name.clone(), reason }
    }

    /// Refuses everybody but operators.
    pub(super) fn must_be_operator(&self) -> Result<(), Failure> {
        match self.scope {
            Scope::Operator => Ok(()),
            Scope::Tenant(_) => Err(Failure::forbidden(format!(
                "the {} is not an operator's, and may only upload plugins of its tenant and look at them; `hotbay key create --operator` \
                 makes one that may do this",
                self.name
            ))),
        }
    }

    /// Whose share of bounds their requests take: all keys of a tenant have one together.
    pub(super) fn share(&self) -> &str {
        match &self.scope {
            Scope::Operator => &self.name,
            Scope::Tenant(tenant) => tenant,
        }
    }
}

/// Finds out who asks.
pub(super) async fn authenticate(site: &Site, parts: &Parts) -> Result<Caller, Failure> {
    let Some(secret) = bearer(&parts.headers).filter(|secret| secret.starts_with(KEY_PREFIX)) else {
        return site.operators.authenticate(parts);
    };
    let peer = parts.extensions.get::<Peer>().map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.0);
    let key = site.api_keys.find(secret, peer).await.map_err(|error| match error {
        KeyError::Unknown => {
            Failure::unauthorized("the API key is not known or was revoked; `hotbay key create` makes one")
        }
        KeyError::TooOften { wait } => {
            let message = "too many API keys from this address were not known; try again later";
            Failure::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", message).after(wait)
        }
        KeyError::Store(error) => error.into(),
    })?;
    let scope = if key.operator { Scope::Operator } else { Scope::Tenant(key.tenant.clone()) };
    Ok(Caller { name: format!("key {}/{}", key.tenant, key.name), scope })
}

/// The refusal for everybody but operators, at endpoints outside of the admin API.
pub(in crate::server) async fn must_be_operator(site: &Site, parts: &Parts) -> Result<(), Response<Body>> {
    let caller = authenticate(site, parts).await.map_err(IntoResponse::into_response)?;
    caller.must_be_operator().map_err(IntoResponse::into_response)
}

fn of(parts: &Parts) -> Result<Caller, Failure> {
    // The guard puts it there before anything else.
    let caller = parts.extensions.get::<Caller>().cloned();
    caller.ok_or_else(|| Failure::unauthorized("nobody said who asks"))
}

/// An operator asks. Everybody else is refused.
pub(super) struct Operator(pub(super) Caller);

impl FromRequestParts<Arc<Site>> for Operator {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _site: &Arc<Site>) -> Result<Self, Failure> {
        let caller = of(parts)?;
        caller.must_be_operator()?;
        Ok(Self(caller))
    }
}

/// Somebody asks about what a tenant owns who may: an operator, or the tenant itself.
pub(super) struct Owner {
    /// Who.
    pub(super) caller: Caller,
    /// The tenant of the path; `""`, if it has none, for the platform.
    pub(super) tenant: String,
}

impl FromRequestParts<Arc<Site>> for Owner {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, site: &Arc<Site>) -> Result<Self, Failure> {
        let caller = of(parts)?;
        let params =
            RawPathParams::from_request_parts(parts, site).await.map_err(|e| Failure::invalid(e.body_text()))?;
        let tenant = params.iter().find_map(|(name, value)| (name == "tenant").then(|| value.to_owned()));
        match (&caller.scope, tenant) {
            (Scope::Operator, None) => Ok(Self { caller, tenant: String::new() }),
            (Scope::Operator, Some(tenant)) => {
                check_part("tenant", &tenant).map_err(|e| Failure::invalid(e.to_string()))?;
                Ok(Self { caller, tenant })
            }
            (Scope::Tenant(own), None) => Err(Failure::forbidden(format!(
                "the {} may only upload plugins of its tenant and look at them: ask for /v1/admin/tenants/{own}/… (`--tenant {own}`)",
                caller.name
            ))),
            (Scope::Tenant(own), Some(tenant)) if *own == tenant => Ok(Self { caller, tenant }),
            // Whether it is there is nobody's business.
            (Scope::Tenant(_), Some(tenant)) => Err(Failure::not_found(format!("there is no tenant {tenant:?}"))),
        }
    }
}
