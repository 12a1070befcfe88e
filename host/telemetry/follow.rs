//! What plugins log, for whoever follows it while it happens. Nobody waits for a follower: one that is too slow misses lines, and is told
//! how many.

use std::sync::{Arc, LazyLock};

use serde::Serialize;
use tokio::sync::broadcast;

use crate::limits::LOG_LINES_FOLLOWED_MAX;
use crate::telemetry::wall_ms;

static LINES: LazyLock<broadcast::Sender<Arc<PluginLine>>> =
    LazyLock::new(|| broadcast::Sender::new(LOG_LINES_FOLLOWED_MAX));

/// A line that a plugin logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PluginLine {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Tenant and name of the channel, as `tenant/name`.
    pub channel: String,
    /// `error`, `warn`, `info` or `debug`.
    pub level: &'static str,
    /// Its words.
    pub message: String,
}

/// Follows what plugins log from now on.
pub fn follow_plugins() -> broadcast::Receiver<Arc<PluginLine>> {
    LINES.subscribe()
}

/// Whether anybody does.
pub fn is_followed() -> bool {
    LINES.receiver_count() > 0
}

/// Tells those who follow of a line.
pub fn tell(channel: &str, level: &'static str, message: &str) {
    if is_followed() {
        let (channel, message) = (channel.to_owned(), message.to_owned());
        // The last one may have gone this very moment.
        drop(LINES.send(Arc::new(PluginLine { at_ms: wall_ms(), channel, level, message })));
    }
}
