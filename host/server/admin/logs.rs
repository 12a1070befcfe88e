//! What plugins log, as it happens.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use utoipa::IntoParams;

use crate::protocol::name::ChannelPattern;
use crate::server::Site;
use crate::server::admin::caller::Operator;
use crate::server::admin::failure::{Failure, FailureBody};
use crate::server::admin::input::Asked;
use crate::server::admin::stream::{Follow, QUIET, QUIET_EVENT, events};
use crate::server::shares::Share;
use crate::telemetry::{PluginLine, follow_plugins};

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
    /// By its name in the configuration.
    fn plugin_of(&self, channel: &str) -> Option<&str> {
        self.site.hub.directory.logic_of(channel).ok().map(|logic| logic.plugin.as_str())
    }

    fn wants(&self, line: &PluginLine) -> bool {
        let Some((tenant, name)) = line.channel.split_once('/') else { return false };
        let plugin = || self.plugin_of(name);
        self.tenant.as_deref().is_none_or(|wanted| wanted == tenant)
            && self.pattern.as_ref().is_none_or(|pattern| pattern.matches(name))
            && self.plugin.as_deref().is_none_or(|wanted| plugin() == Some(wanted))
    }
}

/// A line with the plugin that its channel runs: what it prints, such as a panic, does not say that.
#[derive(Serialize)]
struct Told<'a> {
    plugin: Option<&'a str>,
    #[serde(flatten)]
    line: &'a PluginLine,
}

impl Follow for Following {
    /// `None` when the broker stops.
    async fn next(&mut self) -> Option<String> {
        let quiet = tokio::time::sleep(QUIET);
        tokio::pin!(quiet);
        loop {
            let line = tokio::select! {
                biased;
                _ = self.stop.wait_for(|stop| *stop) => return None,
                line = self.lines.recv() => line,
                () = &mut quiet => return Some(QUIET_EVENT.to_owned()),
            };
            match line {
                Ok(line) if self.wants(&line) => {
                    // Texts and numbers always serialise, and have no line breaks then.
                    let plugin = line.channel.split_once('/').and_then(|(_, name)| self.plugin_of(name));
                    let json = serde_json::to_string(&Told { plugin, line: &line }).unwrap_or_default();
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
/// Server-sent events: each has `at_ms`, `plugin`, `channel`, `level` and `message`. An event `missed` has the number of `lines` that came faster
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
    let mut turn = site.followers.logs.begin(caller.share());
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
    Ok(events(following))
}
