//! `hotbay:channel/stats`: numbers about the mount.

use crate::plugin::bindings::hotbay::channel::stats;
use crate::plugin::state::State;

impl stats::Host for State {
    fn read(&mut self) -> wasmtime::Result<stats::Snapshot> {
        let (channel, _, _) = self.channel()?;
        let now = channel.stats();
        let link = stats::LinkState::Disabled; // A node alone has no link.
        Ok(stats::Snapshot {
            uptime_ms: now.uptime_ms,
            connections: now.connections,
            users: now.users,
            channels: now.channels,
            cluster: stats::Link { publisher: link, subscriber: link, subscribed: 0 },
        })
    }
}
