//! The application's own heartbeat: a `PING` to all, by one timer; any message of a client says that it is alive, and who
//! stays silent too long is disconnected.

use hotbay_sdk::{Audience, Channel, Delivery, MemberId, TimerKeep};

use crate::WidgetSync;
use crate::encode;
use crate::publish::SERVER;

/// When the next `PING` is due.
pub(crate) const HEARTBEAT_TIMER: &str = "heartbeat";
/// Close code of a client that stays silent: it may reconnect (4000–4499).
pub(crate) const HEARTBEAT_CLOSE: u16 = 4410;
const HEARTBEAT_REASON: &str = "Heartbeat timeout";
/// Clients disconnected at once; the others follow with the next `PING`.
const DEAD_MAX: usize = 250;

impl WidgetSync {
    /// Asks all whether they are alive, and disconnects who did not answer the last ones.
    pub(crate) fn beat(&mut self, channel: &mut Channel) {
        self.beating = false;
        let dead = self.clients.beat(self.settings.heartbeat_misses, DEAD_MAX);
        let audience = if dead.is_empty() {
            Audience::All
        } else {
            let alive = self.clients.iter().map(|(id, _)| id).filter(|id| dead.binary_search(id).is_err());
            Audience::Only(alive.collect())
        };
        let mut ping = self.envelopes.begin(channel.now_ms(), "PING", SERVER, 2);
        ping.payload().push_str("{}");
        channel.emit(&audience, ping.end(None), &Delivery::LOW);
        for id in dead {
            self.disconnect(channel, id, HEARTBEAT_CLOSE, HEARTBEAT_REASON);
        }
        self.keep_beating(channel);
    }

    /// Says why, and closes.
    fn disconnect(&mut self, channel: &mut Channel, id: MemberId, code: u16, reason: &str) {
        if let Some(client) = self.clients.get(id) {
            let mut frame = self.envelopes.begin(channel.now_ms(), "DISCONNECT", &client.user, reason.len() + 16);
            encode::reason(frame.payload(), reason);
            channel.emit(&Audience::Only(vec![id]), frame.end(None), &Delivery::HIGH);
        }
        channel.close(id, code, reason);
    }

    /// The timer runs while somebody is there; otherwise it would keep the channel awake.
    pub(crate) fn keep_beating(&mut self, channel: &mut Channel) {
        let anybody = self.clients.len() > 0;
        if anybody && !self.beating {
            channel.set_timer(HEARTBEAT_TIMER, self.settings.heartbeat_interval_ms, TimerKeep::Volatile);
        } else if !anybody && self.beating {
            channel.cancel_timer(HEARTBEAT_TIMER);
        }
        self.beating = anybody;
    }
}
