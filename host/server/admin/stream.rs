//! Answers that go on: server-sent events (the HTML standard, section 9.2), for as long as somebody reads them.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures_util::stream::{self, StreamExt as _};

use crate::limits::{LOG_FOLLOWERS_MAX, TAILS_MAX};
use crate::server::shares::Shares;

/// After so long without an event something is sent, so that whoever is in between does not end the connection.
pub(super) const QUIET: Duration = Duration::from_secs(15);
/// What that is: a comment.
pub(super) const QUIET_EVENT: &str = ":\n\n";

/// Those who follow something.
pub struct Followers {
    /// What plugins log.
    pub(super) logs: Arc<Shares>,
    /// What channels do.
    pub(super) channels: Arc<Shares>,
}

impl Default for Followers {
    fn default() -> Self {
        Self { logs: Shares::new(LOG_FOLLOWERS_MAX), channels: Shares::new(TAILS_MAX) }
    }
}

/// What one of them follows.
pub(super) trait Follow: Send + 'static {
    /// The next event as it is written; `None` after the last one.
    fn next(&mut self) -> impl Future<Output = Option<String>> + Send;
}

/// The answer.
pub(super) fn events(following: impl Follow) -> Response {
    // At once, so that whoever asked knows that it is followed.
    let begin = stream::iter([Ok::<_, Infallible>(QUIET_EVENT.to_owned())]);
    let events = stream::unfold(following, |mut following| async move {
        let event = following.next().await?;
        Some((Ok(event), following))
    });
    let mut response = Response::new(Body::from_stream(begin.chain(events)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}
