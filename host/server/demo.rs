//! What development gets on top: the demo pages, and tokens for them. None of it is served otherwise.
//!
//! A token is handed to whoever asks, so the endpoint must not exist on an address that other machines can reach, and
//! must not answer to a page of another site that got here by a name it pointed at this machine (DNS rebinding).

use std::sync::{Arc, LazyLock};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use axum::response::{Html, IntoResponse};
use base64::Engine as _;
use serde_json::{Map, json};
use sha2::{Digest, Sha256};

use crate::auth::{self, Algorithm, Secret};
use crate::config::{Config, SecretFileError};
use crate::protocol::name::check_part;
use crate::protocol::query::Query;
use crate::server::Site;
use crate::server::respond::{json_response, refusal};
use crate::telemetry::wall_ms;

/// Where the chat page connects.
const CHAT_PATH: &str = "/api/community/ws";
/// How long a token of the demo is valid. The page gets a new one by itself.
const TOKEN_TTL_S: u64 = 60 * 60;

/// The page is read from the source at build time, so it always fits the broker that serves it.
static CHAT: LazyLock<Page> = LazyLock::new(|| Page::new(include_str!("../../examples/chat.html")));

pub(super) async fn index() -> impl IntoResponse {
    axum::response::Redirect::temporary("/demo/chat")
}

pub(super) async fn chat() -> impl IntoResponse {
    CHAT.response()
}

/// `GET /demo/token?user=NAME` answers `{"success":true,"user","token","expiresAt"}`, `expiresAt` in ms; 400 for a name that
/// is not one, 403 for a page of another host.
pub(super) async fn token(State(site): State<Arc<Site>>, request: Request) -> Response<Body> {
    let mut response = match site.demo_tokens.as_ref() {
        Some(tokens) => tokens.answer(&request),
        None => refusal(
            StatusCode::NOT_FOUND,
            "tokens are given out in development on a loopback address only: make one with `hotbay token --user NAME --key chat`",
        ),
    };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Signs tokens for the demo pages.
pub struct DemoTokens {
    algorithm: Algorithm,
    secret: Secret,
    kid: Option<String>,
}

impl DemoTokens {
    /// With the key of the chat's mount. `None` outside development, on an address that other machines can reach, and
    /// where the chat has no key that signs.
    ///
    /// # Errors
    /// If the development secret cannot be read or made.
    pub fn open(config: &Config) -> Result<Option<Self>, SecretFileError> {
        if !config.development || !config.listen.ip().is_loopback() {
            return Ok(None);
        }
        let Some(mount) = config.mounts.iter().find(|mount| mount.paths.matches(CHAT_PATH).is_some()) else {
            return Ok(None);
        };
        for key in mount.auth.keys.iter().filter_map(|name| config.keys.get(name)) {
            if let Some(secret) = key.secret()? {
                return Ok(Some(Self { algorithm: key.algorithm, secret, kid: key.rules.kid.clone() }));
            }
        }
        Ok(None)
    }

    fn answer(&self, request: &Request) -> Response<Body> {
        if !is_for_loopback(request.headers()) {
            let message = "tokens are given out to http://localhost and http://127.0.0.1 only";
            return refusal(StatusCode::FORBIDDEN, message);
        }
        let query = Query::of(request.uri());
        let user = query.get("user").unwrap_or_default();
        if let Err(error) = check_part("user", user) {
            return refusal(StatusCode::BAD_REQUEST, &error.to_string());
        }
        let issued_s = wall_ms() / 1_000;
        let expires_s = issued_s + TOKEN_TTL_S;
        let claims = json!({ "sub": user, "iat": issued_s, "exp": expires_s });
        let empty = Map::new();
        let claims = claims.as_object().unwrap_or(&empty);
        match auth::sign(self.algorithm, &self.secret, self.kid.as_deref(), claims) {
            Some(token) => {
                let body = json!({ "success": true, "user": user, "token": token, "expiresAt": expires_s * 1_000 });
                json_response(StatusCode::OK, &body)
            }
            None => refusal(StatusCode::INTERNAL_SERVER_ERROR, "the token could not be signed"),
        }
    }
}

/// Whether the request names this machine as its host, as the address bar of the demo page does.
fn is_for_loopback(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    matches!(name, "localhost" | "127.0.0.1" | "[::1]")
}

/// A page in one file, with a policy that lets nothing but its own script and style run.
struct Page {
    html: &'static str,
    policy: Option<HeaderValue>,
}

impl Page {
    fn new(html: &'static str) -> Self {
        let policy = format!(
            "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; img-src data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            source(html, "<script>", "</script>"),
            source(html, "<style>", "</style>"),
        );
        Self { html, policy: HeaderValue::try_from(policy).ok() }
    }

    fn response(&self) -> Response<Body> {
        let mut response = Html(self.html).into_response();
        let headers = response.headers_mut();
        let fixed: [(HeaderName, &'static str); 4] = [
            (header::CACHE_CONTROL, "no-store"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        ];
        for (name, value) in fixed {
            headers.insert(name, HeaderValue::from_static(value));
        }
        if let Some(policy) = &self.policy {
            headers.insert(header::CONTENT_SECURITY_POLICY, policy.clone());
        }
        response
    }
}

/// The content between two tags, as a source of a Content-Security-Policy; there is one such element per page.
fn source(html: &str, open: &str, close: &str) -> String {
    let inline = html.split_once(open).and_then(|(_, rest)| rest.split_once(close)).map(|(inline, _)| inline);
    match inline {
        Some(inline) => {
            let hash = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(inline.as_bytes()));
            format!("'sha256-{hash}'")
        }
        None => "'none'".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_for_pages_of_this_machine() {
        let named = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
            is_for_loopback(&headers)
        };
        for host in ["localhost", "localhost:3000", "127.0.0.1:3000", "[::1]:3000", "[::1]"] {
            assert!(named(host), "{host}");
        }
        for host in ["evil.example", "evil.example:3000", "localhost.evil.example:3000", "127.0.0.1.evil.example", ""] {
            assert!(!named(host), "{host}");
        }
        assert!(!is_for_loopback(&HeaderMap::new()));
    }

    /// The policy has a hash for exactly one script and one style, and the page has nothing else a policy would refuse.
    #[test]
    fn the_page_keeps_to_its_own_policy() {
        let page = Page::new(include_str!("../../examples/chat.html"));
        let policy = page.policy.unwrap();
        assert_eq!(policy.to_str().unwrap().matches("'sha256-").count(), 2);
        for (tag, times) in [("<script", 1), ("<style", 1)] {
            assert_eq!(page.html.matches(tag).count(), times, "{tag}");
        }
        for refused in [" style=\"", " onclick=\"", "javascript:", "innerHTML", "insertAdjacentHTML", "eval("] {
            assert!(!page.html.contains(refused), "{refused}");
        }
    }
}
