//! Lets pages of the origins a mount lists read the answers of its HTTP routes (Cross-Origin Resource Sharing, the Fetch standard):
//! frontends whose broker has a host of its own. Without a list, browsers keep pages of other hosts out by themselves.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use crate::auth;
use crate::server::doors::Match;

/// How long a browser may remember the answer to a preflight, in seconds.
const MAX_AGE_S: &str = "600";

/// The origin of a request, if its mount lists it. `*` lists all, but none of them may send cookies.
fn allowed(found: &Match<'_>, headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(header::ORIGIN)?;
    let list = found.mount.config.origins.as_deref()?;
    auth::is_listed(origin.to_str().ok()?, list).then(|| origin.clone())
}

/// Answers a preflight request, if this is one and its origin is listed.
pub(super) fn preflight(found: &Match<'_>, headers: &HeaderMap) -> Option<Response<Body>> {
    headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    allowed(found, headers)?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let methods: Vec<&str> = found.routes().flat_map(|route| &route.methods).map(|method| method.as_str()).collect();
    let asked = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let answers = response.headers_mut();
    if let Ok(methods) = HeaderValue::from_str(&methods.join(", ")) {
        answers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    }
    if let Some(asked) = asked {
        // Which headers a plugin gets to see is for its route to say; others do no harm.
        answers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked);
    }
    answers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE_S));
    Some(share(found, headers, response))
}

/// Lets the page that asked read the answer.
pub(super) fn share(found: &Match<'_>, headers: &HeaderMap, mut response: Response<Body>) -> Response<Body> {
    if found.mount.config.origins.is_some() {
        response.headers_mut().append(header::VARY, HeaderValue::from_static("origin"));
    }
    if let Some(origin) = allowed(found, headers) {
        let wildcard = found.mount.config.origins.iter().flatten().any(|entry| entry == "*");
        response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if !wildcard {
            response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }
    response
}
