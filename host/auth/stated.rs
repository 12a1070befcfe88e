//! What a request says of itself without proof: a tenant and a user in its query, headers or cookies. With a token it must say the
//! same as the token; without one it is believed only where a mount was told to (`insecure_user_id`, `insecure_query`), for frontends
//! that have no tokens yet. What stands in the query counts when a socket is opened; the query of other requests is the plugin's.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use http::HeaderName;
use http::request::Parts;
use serde::{Deserialize, Deserializer, de};

use super::request::{header_values, in_cookies, in_query, single};
use super::{AuthError, Gate, TokenSource};
use crate::limits::NAME_PART_BYTES_MAX;
use crate::protocol::identity::Identity;
use crate::protocol::name::check_part;

/// A place where a request may say who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatedSource {
    /// `query:NAME`.
    Query(String),
    /// `header:NAME`.
    Header(HeaderName),
    /// `cookie:NAME`.
    Cookie(String),
    /// `bearer`: `Authorization: Bearer ID`, an id where a token would be.
    Bearer,
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// An upgrade.
    Socket,
    /// An answer.
    Response,
}

impl Wish {
    /// Whether what a place says counts.
    fn counts(self, source: &StatedSource) -> bool {
        self == Self::Socket || !matches!(source, StatedSource::Query(_))
    }
}

/// Of whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stated {
    /// The tenant, in the places `stated_tenant`.
    Tenant,
    /// The user, in the places `stated_user`.
    User,
}

impl Gate {
    /// Checks that a request says of itself what its identity is, as far as it says anything, and that it says what it must.
    ///
    /// # Errors
    /// [`AuthError::NotStated`], [`AuthError::Mismatch`], or [`AuthError::Malformed`] if a place says two things.
    pub fn check_stated(
        &self,
        request: &Parts,
        wish: Wish,
        identity: &Identity,
        must: &[Stated],
    ) -> Result<(), AuthError> {
        for stated in [Stated::Tenant, Stated::User] {
            let (sources, is) = match stated {
                Stated::Tenant => (&self.policy().stated_tenant, identity.tenant()),
                Stated::User => (&self.policy().stated_user, identity.user()),
            };
            let mut found = false;
            for source in sources.iter().filter(|source| wish.counts(source)) {
                match source.find(request)? {
                    Some(says) if says != is => return Err(AuthError::Mismatch { place: source.to_string() }),
                    Some(_) => found = true,
                    None => {}
                }
            }
            if !found && must.contains(&stated) {
                return Err(not_stated(sources, wish));
            }
        }
        Ok(())
    }

    /// The identity of a request without a token, where the mount believes what it says.
    pub(super) fn believe(&self, request: &Parts, wish: Wish) -> Option<Result<Identity, AuthError>> {
        let policy = self.policy();
        if policy.insecure_query {
            return Some(self.believe_query(request, wish));
        }
        let stated = policy.insecure_user_id.then(|| first(&policy.user_id_sources, request, wish))?;
        match stated {
            Ok(Some((source, user))) => {
                // Browsers send cookies for pages of other sites, too.
                let cookie = matches!(source, StatedSource::Cookie(_));
                Some(self.check_origin(request, cookie).and_then(|()| plain(&policy.tenant, &user, source)))
            }
            Ok(None) => None,
            Err(error) => Some(Err(error)),
        }
    }

    fn believe_query(&self, request: &Parts, wish: Wish) -> Result<Identity, AuthError> {
        let policy = self.policy();
        let tenant = first(&policy.stated_tenant, request, wish)?;
        let (tenant_source, tenant) = tenant.ok_or_else(|| not_stated(&policy.stated_tenant, wish))?;
        let user = first(&policy.stated_user, request, wish)?;
        let (user_source, user) = user.ok_or_else(|| not_stated(&policy.stated_user, wish))?;
        // Browsers send cookies for pages of other sites, too.
        let cookie = [tenant_source, user_source].iter().any(|source| matches!(source, StatedSource::Cookie(_)));
        self.check_origin(request, cookie)?;
        check_part("tenant", &tenant).map_err(|_| AuthError::NoName { place: tenant_source.to_string() })?;
        plain(&tenant, &user, user_source)
    }

    /// Whether the request has a bearer that is an id rather than a token, which the mount believes.
    pub(super) fn takes_plain_bearer(&self, source: &TokenSource, token: &str) -> bool {
        let policy = self.policy();
        policy.insecure_user_id
            && *source == TokenSource::Header
            && policy.user_id_sources.contains(&StatedSource::Bearer)
            && token.bytes().filter(|byte| *byte == b'.').count() != 2
    }
}

/// An identity without proof: no role, no claims, no end.
fn plain(tenant: &str, user: &str, source: &StatedSource) -> Result<Identity, AuthError> {
    if user.is_empty() || user.len() > NAME_PART_BYTES_MAX || user.chars().any(char::is_control) {
        return Err(AuthError::NoName { place: source.to_string() });
    }
    Ok(Identity::new(tenant, user, "", "{}", None))
}

fn first<'s, 'r>(
    sources: &'s [StatedSource],
    request: &'r Parts,
    wish: Wish,
) -> Result<Option<(&'s StatedSource, Cow<'r, str>)>, AuthError> {
    for source in sources.iter().filter(|source| wish.counts(source)) {
        if let Some(found) = source.find(request)? {
            return Ok(Some((source, found)));
        }
    }
    Ok(None)
}

fn not_stated(sources: &[StatedSource], wish: Wish) -> AuthError {
    let places: Vec<_> = sources.iter().filter(|source| wish.counts(source)).map(ToString::to_string).collect();
    AuthError::NotStated { places: places.join(" or ") }
}

impl StatedSource {
    /// What the request says here. Empty is nothing.
    fn find<'r>(&self, request: &'r Parts) -> Result<Option<Cow<'r, str>>, AuthError> {
        match self {
            Self::Query(name) => in_query(request, name),
            Self::Header(name) => {
                single(header_values(&request.headers, name).filter(|value| !value.is_empty()).map(Cow::Borrowed))
            }
            Self::Cookie(name) => in_cookies(request, name),
            Self::Bearer => TokenSource::Header.find(request),
        }
    }
}

/// As it is said to clients.
impl fmt::Display for StatedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Query(name) => f.write_str(name),
            Self::Header(name) => write!(f, "the header {name}"),
            Self::Cookie(name) => write!(f, "the cookie {name}"),
            Self::Bearer => f.write_str("the header authorization"),
        }
    }
}

/// A place that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no place for an id; there are query:NAME, header:NAME, cookie:NAME and bearer")]
pub struct StatedSourceError {
    text: String,
}

impl FromStr for StatedSource {
    type Err = StatedSourceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || StatedSourceError { text: text.to_owned() };
        match text.split_once(':') {
            None if text == "bearer" => Ok(Self::Bearer),
            Some(("query", name)) if !name.is_empty() => Ok(Self::Query(name.to_owned())),
            Some(("cookie", name)) if !name.is_empty() => Ok(Self::Cookie(name.to_owned())),
            Some(("header", name)) => name.parse().map(Self::Header).map_err(|_| wrong()),
            _ => Err(wrong()),
        }
    }
}

impl<'de> Deserialize<'de> for StatedSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}
