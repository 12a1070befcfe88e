//! What plugins log, as it happens: server-sent events (the HTML standard, section 9.2).

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures_util::stream::{self, StreamExt as _};
use serde::Deserialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use utoipa::IntoParams;

use crate::limits::LOG_FOLLOWERS_MAX;
use crate::protocol::name::ChannelPattern;
use crate::server::Site;
use crate::server::admin::caller::Operator;
use crate::server::admin::failure::{Failure, FailureBody};
use crate::server::admin::input::Asked;
use crate::server::shares::{Share, Shares};
use crate::telemetry::{PluginLine, follow_plugins};

/// After so long without a line something is sent, so that whoever is in between does not end the connection.
const QUIET: Duration = Duration::from_secs(15);

/// Those who follow.
pub struct Followers(Arc<Shares>);

impl Default for Followers {
    fn default() -> Self {
        Self(Shares::new(LOG_FOLLOWERS_MAX))
    }
}

/// Which lines.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct LogsAsked {
    /// Only of this plugin, by its name in the configuration.
    plugin: Option<String>,
    /// Only of this tenant's channels.
    tenant: Option<String>,
    /// Only of channels with such names: a name, or one whose last part is `*`.
    channel: Option<String>,
}

/// What one of them wants, and where it is.
struct Following {
    site: Arc<Site>,
    lines: Receiver<Arc<PluginLine>>,
    stop: watch::Receiver<bool>,
    plugin: Option<String>,
    tenant: Option<String>,
    pattern: Option<ChannelPattern>,
    _turn: Share,
}

impl Following {
    fn wants(&self, line: &PluginLine) -> bool {
        let Some((tenant, name)) = line.channel.split_once('/') else { return false };
        let plugin = || self.site.hub.directory.logic_of(name).ok().map(|logic| logic.plugin.as_str());
        self.tenant.as_deref().is_none_or(|wanted| wanted == tenant)
            && self.pattern.as_ref().is_none_or(|pattern| pattern.matches(name))
            && self.plugin.as_deref().is_none_or(|wanted| plugin() == Some(wanted))
    }

    /// The next event; `None` when the broker stops.
    async fn next(&mut self) -> Option<String> {
        let quiet = tokio::time::sleep(QUIET);
        tokio::pin!(quiet);
        loop {
            let line = tokio::select! {
                biased;
                _ = self.stop.wait_for(|stop| *stop) => return None,
                line = self.lines.recv() => line,
                () = &mut quiet => return Some(":\n\n".to_owned()),
            };
            match line {
                Ok(line) if self.wants(&line) => {
                    // Texts and numbers always serialise, and have no line breaks then.
                    let json = serde_json::to_string(&*line).unwrap_or_default();
                    return Some(format!("data: {json}\n\n"));
                }
                Ok(_) => {}
                Err(RecvError::Lagged(missed)) => {
                    return Some(format!("event: missed\ndata: {{\"lines\":{missed}}}\n\n"));
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

/// Follows what plugins log from now on
///
/// Server-sent events: each has `at_ms`, `channel`, `level` and `message`. An event `missed` has the number of `lines` that came faster
/// than they were taken.
#[utoipa::path(
    get, path = "/logs", tag = "plugins", params(LogsAsked),
    responses((status = 200, body = String, content_type = "text/event-stream"), (status = 503, body = FailureBody))
)]
pub(super) async fn follow(
    State(site): State<Arc<Site>>,
    Operator(caller): Operator,
    Asked(asked): Asked<LogsAsked>,
) -> Result<Response, Failure> {
    let pattern = asked.channel.as_deref().map(ChannelPattern::parse).transpose();
    let pattern = pattern.map_err(|e| Failure::invalid(format!("channel: {e}")))?;
    let mut turn = site.followers.0.begin(caller.share());
    if !turn.grow(1) {
        return Err(Failure::unavailable("as many follow the logs as may; try again when somebody has ended"));
    }
    let following = Following {
        lines: follow_plugins(),
        stop: site.hub.directory.stop_signal(),
        plugin: asked.plugin,
        tenant: asked.tenant,
        pattern,
        _turn: turn,
        site,
    };
    // At once, so that whoever asked knows that it is followed.
    let begin = stream::iter([Ok::<_, std::convert::Infallible>(":\n\n".to_owned())]);
    let events = stream::unfold(following, |mut following| async move {
        let event = following.next().await?;
        Some((Ok(event), following))
    });
    let events = begin.chain(events);
    let mut response = Response::new(Body::from_stream(events));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    Ok(response)
}
