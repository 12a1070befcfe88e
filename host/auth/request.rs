//! What a request says before anybody believes it: tokens, offered subprotocols, the page's origin.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use http::header::{AUTHORIZATION, COOKIE, HOST, HeaderMap, HeaderName, ORIGIN, SEC_WEBSOCKET_PROTOCOL};
use http::request::Parts;
use serde::{Deserialize, Deserializer, de};

use super::AuthError;
use crate::protocol::query::Query;

/// How a page stands to what it asks (Fetch Metadata, W3C); pages cannot set it.
static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Before a token in `Sec-WebSocket-Protocol`.
const SUBPROTOCOL_PREFIX: &str = "bearer.";

/// Where a mount looks for tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// `header`: `Authorization: Bearer <JWT>`.
    Header,
    /// `query:NAME`. Tokens in URLs end up in the logs of proxies: only for clients that cannot do better.
    Query(String),
    /// `cookie:NAME`. Browsers send cookies for other sites' pages too, so the page's origin is checked.
    Cookie(String),
    /// `subprotocol`: `bearer.<JWT>` among the offered subprotocols.
    Subprotocol,
}

impl TokenSource {
    /// The token this source of the request has, if any.
    ///
    /// # Errors
    /// [`AuthError::Malformed`] if it has two, since nobody can say which one counts.
    pub(super) fn find<'r>(&self, request: &'r Parts) -> Result<Option<Cow<'r, str>>, AuthError> {
        match self {
            Self::Header => single(texts(&request.headers, &AUTHORIZATION).filter_map(bearer).map(Cow::Borrowed)),
            Self::Query(name) => in_query(request, name),
            Self::Cookie(name) => in_cookies(request, name),
            Self::Subprotocol => single(
                offered(&request.headers).filter_map(|offer| offer.strip_prefix(SUBPROTOCOL_PREFIX)).map(Cow::Borrowed),
            ),
        }
    }
}

/// The value of a query parameter that is not empty, if it has only one.
pub(super) fn in_query<'r>(request: &'r Parts, name: &str) -> Result<Option<Cow<'r, str>>, AuthError> {
    let query = Query::of(&request.uri);
    let values = query.iter().filter(|(found, value)| *found == name && !value.is_empty());
    single(values.map(|(_, value)| Cow::Owned(value.to_owned())))
}

/// The same of a cookie.
pub(super) fn in_cookies<'r>(request: &'r Parts, name: &str) -> Result<Option<Cow<'r, str>>, AuthError> {
    single(cookies(&request.headers, name).map(Cow::Borrowed))
}

pub(super) fn single<'r>(mut tokens: impl Iterator<Item = Cow<'r, str>>) -> Result<Option<Cow<'r, str>>, AuthError> {
    let first = tokens.next();
    match tokens.next() {
        None => Ok(first),
        Some(_) => Err(AuthError::Malformed),
    }
}

fn texts<'r>(headers: &'r HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'r str> {
    headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok())
}

/// The values of a header that are text.
pub(super) fn header_values<'r>(headers: &'r HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'r str> {
    texts(headers, name).map(str::trim)
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn cookies<'r>(headers: &'r HeaderMap, name: &str) -> impl Iterator<Item = &'r str> {
    let pairs =
        texts(headers, &COOKIE).flat_map(|header| header.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs
        .filter(move |(found, _)| *found == name)
        .map(|(_, value)| value.trim_matches('"'))
        .filter(|value| !value.is_empty())
}

/// The subprotocols a client offers, in its order, tokens too.
fn offered(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    texts(headers, &SEC_WEBSOCKET_PROTOCOL)
        .flat_map(|header| header.split(','))
        .map(str::trim)
        .filter(|offer| !offer.is_empty())
}

/// The subprotocol to answer with: the first offered one that the mount knows, or, if it names none, the first that is
/// not a token. A token is never sent back.
pub(super) fn subprotocol<'r>(headers: &'r HeaderMap, known: &[String]) -> Option<&'r str> {
    let mut others = offered(headers).filter(|offer| !offer.starts_with(SUBPROTOCOL_PREFIX));
    if known.is_empty() { others.next() } else { others.find(|offer| known.iter().any(|name| name == offer)) }
}

/// Whether a request may come from where it says it comes from.
///
/// Only browsers send `Origin`, and they do not let pages forge it. With a list, an origin must be on it. Without one,
/// any page may connect that has a token of its own, but a token in a cookie, which the browser adds for every
/// page, counts only for pages of the same host. `*` in the list allows every origin.
pub(super) fn origin_allowed(headers: &HeaderMap, allowed: Option<&[String]>, cookie: bool) -> bool {
    let origin = texts(headers, &ORIGIN).next();
    match (origin, allowed) {
        (Some(origin), Some(list)) => is_listed(origin, list),
        (Some(origin), None) => !cookie || same_host(origin, texts(headers, &HOST).next()),
        (None, _) if headers.contains_key(ORIGIN) => false,
        (None, _) if !cookie => true,
        // Browsers name no origin when a page asks its own host, but say that it is so. Who else has the token can send it as a header.
        (None, list) => {
            texts(headers, &SEC_FETCH_SITE).eq(["same-origin"])
                && list.is_none_or(|list| is_own_host_listed(headers, list))
        }
    }
}

/// Whether pages of the host that the request is for are on a list of origins.
fn is_own_host_listed(headers: &HeaderMap, list: &[String]) -> bool {
    let Some(host) = texts(headers, &HOST).next() else { return false };
    ["https", "http"].iter().any(|scheme| is_listed(&format!("{scheme}://{host}"), list))
}

/// Whether an origin is on a list; `*` lists every origin.
pub fn is_listed(origin: &str, list: &[String]) -> bool {
    list.iter().any(|entry| entry == "*" || entry.eq_ignore_ascii_case(origin))
}

fn same_host(origin: &str, host: Option<&str>) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let default_port = match scheme {
        "https" => ":443",
        _ => ":80",
    };
    let bare = |text: &str| text.strip_suffix(default_port).unwrap_or(text).to_ascii_lowercase();
    host.is_some_and(|host| bare(host) == bare(authority))
}

impl fmt::Display for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => f.write_str("header"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Subprotocol => f.write_str("subprotocol"),
        }
    }
}

/// A token source that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no token source; there are header, query:NAME, cookie:NAME and subprotocol")]
pub struct TokenSourceError {
    text: String,
}

impl FromStr for TokenSource {
    type Err = TokenSourceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            None if text == "header" => Ok(Self::Header),
            None if text == "subprotocol" => Ok(Self::Subprotocol),
            Some(("query", name)) if !name.is_empty() => Ok(Self::Query(name.to_owned())),
            Some(("cookie", name)) if !name.is_empty() => Ok(Self::Cookie(name.to_owned())),
            _ => Err(TokenSourceError { text: text.to_owned() }),
        }
    }
}

impl<'de> Deserialize<'de> for TokenSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}
