//! Tokens for the demo pages: to whoever asks, so never on an address that other machines can reach, and never to a page of
//! another site that got here by a name it pointed at this machine (DNS rebinding).

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value, json};

use crate::auth::{self, Algorithm, Secret};
use crate::config::{Config, SecretFileError};
use crate::protocol::name::check_part;
use crate::protocol::query::Query;
use crate::server::Site;
use crate::server::respond::{json_response, refusal};
use crate::telemetry::wall_ms;

/// How long a token of the demo is valid. The pages get new ones by themselves.
const TOKEN_TTL_S: u64 = 60 * 60;
/// The key that signs if the page names none.
const DEFAULT_KEY: &str = "default";
/// Most claims a page may ask for.
const CLAIMS_MAX: usize = 16;

/// `GET /demo/token?user=NAME&key=KEY&CLAIM=VALUE…` answers `{"success":true,"user","token","expiresAt"}`, `expiresAt` in ms. `key` is
/// the name of a key that signs (`default`); a value that is a JSON array, object, number or boolean is taken for that. 400 for a name or a
/// key that is none, 403 for a page of another host.
pub(in crate::server) async fn token(State(site): State<Arc<Site>>, request: Request) -> Response<Body> {
    let mut response = match site.demo_tokens.as_ref() {
        Some(tokens) => tokens.answer(&request),
        None => refusal(
            StatusCode::NOT_FOUND,
            "tokens are given out in development on a loopback address only: make one with `hotbay token --user NAME`",
        ),
    };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Signs tokens for the demo pages.
pub struct DemoTokens {
    keys: BTreeMap<String, SigningKey>,
}

struct SigningKey {
    algorithm: Algorithm,
    secret: Secret,
    kid: Option<String>,
}

impl DemoTokens {
    /// With all keys that sign. `None` outside development, and on an address that other machines can reach.
    ///
    /// # Errors
    /// If the development secret cannot be read or made.
    pub fn open(config: &Config) -> Result<Option<Self>, SecretFileError> {
        if !config.development || !config.listen.ip().is_loopback() {
            return Ok(None);
        }
        let mut keys = BTreeMap::new();
        for (name, key) in &config.keys {
            if let Some(secret) = key.secret()? {
                let key = SigningKey { algorithm: key.algorithm, secret, kid: key.rules.kid.clone() };
                keys.insert(name.clone(), key);
            }
        }
        Ok(Some(Self { keys }))
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
        let name = query.get("key").unwrap_or(DEFAULT_KEY);
        let Some(key) = self.keys.get(name) else {
            let there: Vec<&str> = self.keys.keys().map(String::as_str).collect();
            let message = format!("there is no key of that name that signs; there are: {}", there.join(", "));
            return refusal(StatusCode::BAD_REQUEST, &message);
        };
        let asked = query.iter().filter(|(name, _)| !matches!(*name, "user" | "key"));
        let mut claims: Map<String, Value> =
            asked.take(CLAIMS_MAX).map(|(name, value)| (name.to_owned(), claim(value))).collect();
        let issued_s = wall_ms() / 1_000;
        let expires_s = issued_s + TOKEN_TTL_S;
        claims.insert("sub".to_owned(), user.into());
        claims.insert("iat".to_owned(), issued_s.into());
        claims.insert("exp".to_owned(), expires_s.into());
        match auth::sign(key.algorithm, &key.secret, key.kid.as_deref(), &claims) {
            Some(token) => {
                let body = json!({ "success": true, "user": user, "token": token, "expiresAt": expires_s * 1_000 });
                json_response(StatusCode::OK, &body)
            }
            None => refusal(StatusCode::INTERNAL_SERVER_ERROR, "the token could not be signed"),
        }
    }
}

/// A claim as it was meant: JSON if it is more than a text.
fn claim(value: &str) -> Value {
    match serde_json::from_str(value) {
        Ok(json @ (Value::Array(_) | Value::Object(_) | Value::Number(_) | Value::Bool(_))) => json,
        _ => value.into(),
    }
}

/// Whether the request names this machine as its host, as the address bar of the demo page does, and no proxy says that it speaks
/// for others.
fn is_for_loopback(headers: &HeaderMap) -> bool {
    if headers
        .keys()
        .any(|name| name == header::FORWARDED || name == "x-real-ip" || name.as_str().starts_with("x-forwarded-"))
    {
        return false;
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    matches!(name, "localhost" | "127.0.0.1" | "[::1]")
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
        for proxied in ["forwarded", "x-real-ip", "x-forwarded-for", "x-forwarded-host"] {
            let headers = [("host", "localhost:3000"), (proxied, "203.0.113.7")];
            let headers = headers.map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
            assert!(!is_for_loopback(&HeaderMap::from_iter(headers)), "{proxied}");
        }
        for host in ["evil.example", "evil.example:3000", "localhost.evil.example:3000", "127.0.0.1.evil.example", ""] {
            assert!(!named(host), "{host}");
        }
        assert!(!is_for_loopback(&HeaderMap::new()));
    }
}
