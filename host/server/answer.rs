//! What of a plugin's answer to an HTTP request goes out: its status and body, and headers that speak of that body. Headers
//! that speak of the connection, of the whole host or to a proxy are the operator's, not a tenant's.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Response, StatusCode, header};

use crate::protocol::event::HttpResponse;

/// Headers a plugin may set; all others are dropped.
const ALLOWED: [HeaderName; 14] = [
    header::ALLOW,
    header::CACHE_CONTROL,
    header::CONTENT_DISPOSITION,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_TYPE,
    header::ETAG,
    header::EXPIRES,
    header::LAST_MODIFIED,
    header::LINK,
    header::LOCATION,
    header::RETRY_AFTER,
    header::VARY,
    header::WWW_AUTHENTICATE,
];
/// A plugin's page runs nothing and is of no origin: with the host's it could act for whoever has cookies here.
const SANDBOX: HeaderValue = HeaderValue::from_static("default-src 'none'; sandbox");
/// Names that are remembered to have been logged; they come from plugins.
const TOLD_MAX: usize = 64;

/// Puts out the answers of a mount's plugin.
#[derive(Default)]
pub struct Answers {
    /// Headers whose loss was logged.
    told: Mutex<BTreeSet<String>>,
}

impl Answers {
    /// The response to the client. A dropped header is logged once per name.
    pub(super) fn response(&self, mount: &str, answer: HttpResponse) -> Response<Body> {
        let mut response = Response::new(Body::from(answer.body));
        *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, SANDBOX);
        response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        for (name, value) in answer.headers {
            match (HeaderName::try_from(&name), HeaderValue::try_from(value)) {
                (Ok(name), Ok(value)) if ALLOWED.contains(&name) => {
                    response.headers_mut().insert(name, value);
                }
                _ if self.is_news(&name) => {
                    tracing::warn!(mount, header = ?name, "a header of the plugin's answer is dropped: it may not set it");
                }
                _ => {}
            }
        }
        response
    }

    /// Whether this name was not logged yet, and may be.
    fn is_news(&self, name: &str) -> bool {
        const NAME_CHARS_MAX: usize = 64;
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        name.len() <= NAME_CHARS_MAX && told.len() < TOLD_MAX && told.insert(name.to_ascii_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(headers: &[(&str, &str)]) -> Response<Body> {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Answers::default().response("mount", HttpResponse { status: 201, headers, body: "{}".into() })
    }

    #[test]
    fn what_speaks_of_the_body_goes_out() {
        let response = response(&[
            ("Content-Type", "application/json"),
            ("cache-control", "no-store"),
            ("ETag", "\"1\""),
            ("Location", "/elsewhere"),
        ]);

        assert_eq!((response.status().as_u16(), response.headers().len()), (201, 6));
        assert_eq!(response.headers()["content-type"], "application/json");
    }

    /// Law: a tenant's plugin decides nothing for the host, its other tenants, or a proxy before it.
    #[test]
    fn what_speaks_for_the_host_does_not() {
        let none = response(&[]).headers().clone();
        for name in [
            "Set-Cookie",
            "Connection",
            "Keep-Alive",
            "Transfer-Encoding",
            "Content-Length",
            "Upgrade",
            "Trailer",
            "Access-Control-Allow-Origin",
            "Access-Control-Allow-Credentials",
            "Strict-Transport-Security",
            "Content-Security-Policy",
            "Clear-Site-Data",
            "Alt-Svc",
            "Service-Worker-Allowed",
            "Server",
            "Date",
            "X-Accel-Redirect",
            "X-Sendfile",
            "X-Anything",
        ] {
            assert_eq!(*response(&[(name, "1")]).headers(), none, "{name}");
        }
        assert_eq!(*response(&[("Location", "a\r\nSet-Cookie: b"), ("a b", "c"), ("", "d")]).headers(), none);
    }

    /// Law: a plugin's page acts for nobody.
    #[test]
    fn a_page_of_a_plugin_has_no_origin_and_runs_nothing() {
        let page = response(&[("Content-Type", "text/html"), ("Content-Security-Policy", "default-src *")]);

        assert_eq!(page.headers()["content-security-policy"], "default-src 'none'; sandbox");
        assert_eq!(page.headers()["x-content-type-options"], "nosniff");
    }

    #[test]
    fn each_name_is_told_once_and_not_too_many() {
        let answers = Answers::default();
        assert!(answers.is_news("Set-Cookie"));
        assert!(!answers.is_news("set-cookie"));
        let told = (0..1_000).filter(|number| answers.is_news(&format!("x-{number}"))).count();
        assert_eq!(told, TOLD_MAX - 1);
        assert!(!Answers::default().is_news(&"x".repeat(65)));
    }
}
