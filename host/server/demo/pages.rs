//! The demo pages, read from the source at build time, so that they always fit the broker that serves them. Their scripts are bundled
//! from `host/web` with npm before that; where npm was missing there are none, and each page says so.

use std::sync::LazyLock;

use axum::body::Body;
use axum::extract::Path;
use axum::http::{HeaderName, HeaderValue, Response, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect};
use base64::Engine as _;
use sha2::{Digest, Sha256};

use crate::server::respond::refusal;

/// The chat is one file, script and style inside, and shows how little a client needs.
static CHAT: LazyLock<Page> = LazyLock::new(|| Page::new(include_str!("../../../examples/chat.html")));

/// What pages with files of their own may load: those files.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data: 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The pages by name, without their scripts.
const PAGES: [(&str, &str); 5] = [
    ("", include_str!("../../web/pages/index.html")),
    ("metrics", include_str!("../../web/pages/metrics.html")),
    ("widgets", include_str!("../../web/pages/widgets.html")),
    ("events", include_str!("../../web/pages/events.html")),
    ("drafts", include_str!("../../web/pages/drafts.html")),
];

const STYLE: &str = include_str!("../../web/pages/style.css");

// The bundled scripts, as `SCRIPTS: [(&str, Option<&str>); …]`, by `build.rs`.
include!(concat!(env!("OUT_DIR"), "/scripts.rs"));

/// `/`, where no mount has it, and `/demo`.
pub(in crate::server) async fn index() -> impl IntoResponse {
    Redirect::temporary("/demo/")
}

/// `/demo/` and the pages below it.
pub(in crate::server) async fn page(name: Option<Path<String>>) -> Response<Body> {
    let name = name.map_or_else(String::new, |Path(name)| name);
    if name == "chat" {
        return CHAT.response();
    }
    match PAGES.iter().find(|(known, _)| *known == name) {
        Some((_, html)) => with_policy(Html(*html).into_response(), &HeaderValue::from_static(POLICY)),
        None => refusal(StatusCode::NOT_FOUND, "there is no such demo page; all are listed at /demo/"),
    }
}

/// `/demo/assets/NAME`.
pub(in crate::server) async fn asset(Path(name): Path<String>) -> Response<Body> {
    let script = SCRIPTS.iter().find(|(known, _)| *known == name);
    let (kind, text) = match (name.as_str(), script) {
        ("style.css", _) => ("text/css; charset=utf-8", STYLE),
        (_, Some((_, Some(text)))) => ("text/javascript; charset=utf-8", *text),
        (_, Some((_, None))) => {
            let message = "this script was not built: install Node.js with npm, then run make build";
            return refusal(StatusCode::NOT_FOUND, message);
        }
        (_, None) => return refusal(StatusCode::NOT_FOUND, "there is no such file"),
    };
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    with_policy(response, &HeaderValue::from_static(POLICY))
}

fn with_policy(mut response: Response<Body>, policy: &HeaderValue) -> Response<Body> {
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
    headers.insert(header::CONTENT_SECURITY_POLICY, policy.clone());
    response
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
        match &self.policy {
            Some(policy) => with_policy(Html(self.html).into_response(), policy),
            None => refusal(StatusCode::INTERNAL_SERVER_ERROR, "the page's policy is no header"),
        }
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

    /// The policy has a hash for exactly one script and one style, and the page has nothing else a policy would refuse.
    #[test]
    fn the_page_keeps_to_its_own_policy() {
        let page = Page::new(include_str!("../../../examples/chat.html"));
        let policy = page.policy.unwrap();
        assert_eq!(policy.to_str().unwrap().matches("'sha256-").count(), 2);
        for (tag, times) in [("<script", 1), ("<style", 1)] {
            assert_eq!(page.html.matches(tag).count(), times, "{tag}");
        }
        for refused in [" style=\"", " onclick=\"", "javascript:", "innerHTML", "insertAdjacentHTML", "eval("] {
            assert!(!page.html.contains(refused), "{refused}");
        }
    }

    /// A page that its own policy stops would stay blank.
    #[test]
    fn no_page_asks_for_what_its_policy_refuses() {
        for (name, html) in PAGES {
            for refused in ["<style", " style=\"", " onclick=\"", "javascript:", "http://", "https://"] {
                assert!(!html.contains(refused), "{name}: {refused}");
            }
            let inline =
                html.matches("<script").count() - html.matches("<script type=\"module\" src=\"/demo/assets/").count();
            assert_eq!(inline, 0, "{name}");
            for (_, after) in html.match_indices("/demo/assets/").map(|(at, found)| (found, &html[at + found.len()..]))
            {
                let file = after.split('"').next().unwrap();
                assert!(file == "style.css" || SCRIPTS.iter().any(|(known, _)| *known == file), "{name}: {file}");
            }
        }
    }
}
