//! What a channel does, as it happens.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use tokio::sync::watch;

use crate::channel::{Tail, Tailed};
use crate::protocol::name::ChannelName;
use crate::server::Site;
use crate::server::admin::caller::Operator;
use crate::server::admin::channels::{ChannelNamed, is_there, missing};
use crate::server::admin::failure::{Failure, FailureBody};
use crate::server::admin::input::Named;
use crate::server::admin::stream::{Follow, QUIET, QUIET_EVENT, events};
use crate::server::shares::Share;

/// Somebody who follows a channel.
struct Following {
    site: Arc<Site>,
    channel: ChannelName,
    tail: Tail,
    stop: watch::Receiver<bool>,
    has_ended: bool,
    _turn: Share,
}

impl Follow for Following {
    async fn next(&mut self) -> Option<String> {
        if self.has_ended {
            return None;
        }
        let quiet = tokio::time::sleep(QUIET);
        tokio::pin!(quiet);
        loop {
            let next = tokio::select! {
                biased;
                _ = self.stop.wait_for(|stop| *stop) => None,
                next = self.tail.next() => Some(next),
                () = &mut quiet => return Some(QUIET_EVENT.to_owned()),
            };
            let Some(next) = next else { return Some(self.end("the broker is shutting down")) };
            match next {
                Tailed::Batch(line) => return Some(format!("data: {line}\n\n")),
                Tailed::Missed(batches) => {
                    return Some(format!("event: missed\ndata: {{\"batches\":{batches}}}\n\n"));
                }
                // One that nobody can be asked about is.
                Tailed::Forgotten if is_there(&self.site, &self.channel).await.unwrap_or(true) => {}
                Tailed::Forgotten => {
                    return Some(self.end("the channel is gone: it has no members, and keeps nothing"));
                }
            }
        }
    }
}

impl Following {
    fn end(&mut self, reason: &str) -> String {
        self.has_ended = true;
        format!("event: end\ndata: {}\n\n", serde_json::json!({ "reason": reason }))
    }
}

/// Follows what a channel does from now on
///
/// Server-sent events, one for each batch that took hold: `epoch` and `seq` of the last commit it depends on, `wrote` if that is its own,
/// `at_ms`, the `digest` of the version that ran, its `events` (`kind`, and who it came from) and `effects` (`kind`, and whom or what they
/// are for), payloads with their length in `bytes` and their beginning as `text` or `hex` (`cut` if there is more). Beyond 64 they are only
/// counted, in `events_left_out` and `effects_left_out`. An event `missed` has the number of `batches` that came faster than they were taken;
/// an event `end` has the `reason` why there are no more. The channel is not woken; one that sleeps is followed until it is gone. Written
/// into the audit log.
#[utoipa::path(
    get, path = "/channels/{tenant}/{name}/tail", tag = "channels",
    params(("tenant" = String, Path, description = "Whose"), ("name" = String, Path, description = "Its name")),
    responses(
        (status = 200, body = String, content_type = "text/event-stream"), (status = 404, body = FailureBody),
        (status = 503, body = FailureBody)
    )
)]
pub(super) async fn follow(
    State(site): State<Arc<Site>>,
    Operator(caller): Operator,
    Named(named): Named<ChannelNamed>,
) -> Result<Response, Failure> {
    let channel = named.channel()?;
    let mut turn = site.followers.channels.begin(caller.share());
    if !turn.grow(1) {
        return Err(Failure::unavailable("as many follow channels as may; try again when somebody has ended"));
    }
    let following = Following {
        // From here on nothing is missed, not even that it is gone.
        tail: site.hub.directory.follow(&channel),
        stop: site.hub.directory.stop_signal(),
        has_ended: false,
        _turn: turn,
        channel,
        site,
    };
    let (site, channel) = (&following.site, &following.channel);
    if !is_there(site, channel).await? {
        return Err(missing(channel));
    }
    let detail = serde_json::json!({});
    site.registry.note(&caller.actor(None), "channel.tailed", channel.tenant(), channel.name(), &detail).await?;
    Ok(events(following))
}
