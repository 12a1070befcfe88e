//! The demo pages of development.

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{Html, IntoResponse};

type Page = ([(HeaderName, HeaderValue); 1], Html<&'static str>);

/// Pages are read from the source at build time, so they always fit the broker that serves them.
fn page(html: &'static str) -> Page {
    ([(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))], Html(html))
}

pub(super) async fn index() -> impl IntoResponse {
    axum::response::Redirect::temporary("/demo/chat")
}

pub(super) async fn chat() -> impl IntoResponse {
    page(include_str!("../../examples/chat.html"))
}
