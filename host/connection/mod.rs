//! A client's connection, from the upgrade to the end: reads its socket, holds it to its limits, hands its messages to
//! channels, and writes what its outbox could not write at once. One task per connection, and nothing else: heartbeats and
//! deadlines come from one [`clock`] for all.

mod clock;
mod extension;
mod farewell;
pub mod handshake;
mod inflation;
mod membership;
mod rate;
mod reader;
mod scan;

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpStream;

use crate::channel::{Arrival, Channel, Directory, Letter, Logic, LookupError, Membership, count_fault};
use crate::connection::clock::Pulse;
use crate::connection::farewell::linger;
use crate::connection::rate::Bucket;
use crate::connection::reader::{Inbound, Reader};
use crate::fanout::Recipient;
use crate::limits::LAST_WORD_MS_MAX;
use crate::outbox::{Outbox, PerMinute, Progress};
use crate::protocol::close::Close;
use crate::protocol::deflate::Compression;
use crate::protocol::event::{Event, LeaveReason, MemberId};
use crate::protocol::frame::{Delivery, Payload, encode_payload};
use crate::protocol::identity::Identity;
use crate::protocol::ids::Ids;
use crate::protocol::name::ChannelName;
use crate::protocol::refusal::{Refusal, RefusalCode};
use crate::quota::{Hold, Quota};
use crate::telemetry::{hot, now_ms};

pub use crate::connection::clock::{Clock, ConnectionStatus};
pub use crate::connection::rate::UserRates;

/// What the connections of a mount share.
pub struct Endpoint {
    /// The mount's plugin, bounds and census.
    pub logic: Arc<Logic>,
    /// Whether the plugin says where each frame goes.
    pub route: bool,
    /// Whether a user's newest connection takes the place of its oldest, rather than being refused.
    pub evict: bool,
    /// Between two pings, in milliseconds.
    pub heartbeat_interval_ms: u64,
    /// Without a sign of life after which the connection ends, in milliseconds.
    pub heartbeat_timeout_ms: u64,
    /// How messages are compressed for clients that negotiate it; `None` if the mount does not offer it.
    pub compression: Option<Compression>,
    /// Buckets of users, where the mount limits them.
    pub user_rates: UserRates,
}

/// What all connections of the node share.
pub struct Hub {
    /// The channels.
    pub directory: Arc<Directory>,
    /// Heartbeats and deadlines.
    pub clock: Arc<Clock>,
    ids: Ids,
}

impl Hub {
    /// A hub without connections. Ids are others than those of an earlier run.
    pub fn new(directory: Arc<Directory>) -> Self {
        Self { directory, clock: Arc::new(Clock::new()), ids: Ids::default() }
    }

    /// Asks every client to reconnect elsewhere, and waits until all connections have ended.
    pub async fn close_all(&self) {
        self.clock.close_all(&Close::RESTART).await;
    }
}

/// A connection that was accepted and upgraded.
pub struct Opened {
    /// Its socket.
    pub stream: TcpStream,
    /// Bytes of the client that came with the handshake.
    pub early: Bytes,
    /// Whether compression was negotiated.
    pub compressed: bool,
    /// Whose it is.
    pub identity: Identity,
    /// The account it is on.
    pub quota: Arc<Quota>,
    /// When it came, among the connections of the mount.
    pub arrival: Arrival,
    /// The mount's.
    pub endpoint: Arc<Endpoint>,
    /// The channel it joins at once.
    pub channel: Option<ChannelName>,
    /// Channels it joins without waking them.
    pub quiet: Vec<ChannelName>,
}

/// Refuses a connection that is already upgraded, for mounts whose clients cannot read an HTTP status.
pub async fn refuse(stream: TcpStream, code: u16, reason: &str) {
    let outbox = Outbox::new(stream, 1 << 10);
    outbox.close_with(code, reason);
    linger(&outbox).await;
}

/// Runs a connection to its end; `counted` is held until then. Not an `async fn`: its arguments would stay in the future, which
/// every idle connection is.
pub fn run<C: Send>(hub: &Arc<Hub>, opened: Opened, counted: C) -> impl Future<Output = ()> + Send + use<C> {
    let early = (!opened.early.is_empty()).then(|| Box::new(opened.early.clone()));
    let mut connection = Connection::new(hub, opened);
    async move {
        if Box::pin(connection.join_at_once()).await {
            if let Some(early) = early {
                connection.read_bytes(&early);
            }
            connection.serve().await;
        }
        // While it exists, the clock knows of the connection, and a broker that stops waits for it.
        let pulse = Arc::clone(&connection.pulse);
        drop(connection);
        Box::pin(linger(pulse.outbox())).await;
        drop((pulse, counted));
    }
}

/// What a connection does next.
enum Next {
    Read,
    /// What was read and waited may go on.
    HandOver,
    /// It caught up, and is to be told what it missed.
    Tell,
    /// The host closes it.
    Dismissed(&'static Close),
    End,
}

struct Connection {
    hub: Arc<Hub>,
    endpoint: Arc<Endpoint>,
    id: MemberId,
    identity: Identity,
    outbox: Arc<Outbox>,
    pulse: Arc<Pulse>,
    reader: Reader,
    /// Messages read and not yet handed over.
    inbox: VecDeque<Inbound>,
    joined: Vec<Joined>,
    quiet: Vec<Arc<Channel>>,
    bucket: Option<Bucket>,
    excess: PerMinute,
    /// The node goes down: nothing more is read.
    paused: bool,
    quota: Arc<Quota>,
    /// Messages and bytes that are not on its account yet.
    admitted: u32,
    bytes_read: u32,
    /// The tenant brought too much: until then, nothing more is handed over or read.
    hold: Option<Hold>,
}

struct Joined {
    channel: Arc<Channel>,
    membership: Membership,
}

impl Connection {
    fn new(hub: &Arc<Hub>, opened: Opened) -> Self {
        let Opened { stream, early: _, compressed, identity, quota, arrival, endpoint, channel, quiet } = opened;
        let limits = Arc::clone(&endpoint.logic.limits);
        let id = MemberId(hub.ids.give());
        let compression = endpoint.compression.filter(|_| compressed);
        let outbox = Arc::new(Outbox::new(stream, limits.outbox_bytes_max).compressing(compression));
        let pulse = Pulse::new(Arc::clone(&outbox), Arc::clone(&endpoint), id, identity.clone(), now_ms());
        let pulse = Arc::new(pulse);
        hub.clock.add(&pulse);
        if endpoint.evict {
            endpoint.logic.census.seat(&identity, arrival, &outbox, limits.connections_per_user_max);
        }
        let mut connection = Self {
            hub: Arc::clone(hub),
            quota,
            admitted: 0,
            bytes_read: 0,
            hold: None,
            id,
            identity,
            pulse,
            reader: Reader::new(&limits, compression.is_some()),
            inbox: VecDeque::new(),
            joined: Vec::new(),
            quiet: Vec::new(),
            bucket: limits.rate_per_connection.map(|rate| Bucket::new(rate, now_ms())),
            excess: PerMinute::default(),
            paused: false,
            outbox,
            endpoint,
        };
        connection.join_first(channel, &quiet);
        connection
    }

    fn recipient(&self) -> Recipient {
        Recipient { member: self.id, identity: self.identity.clone(), outbox: Arc::clone(&self.outbox) }
    }

    fn join_first(&mut self, channel: Option<ChannelName>, quiet: &[ChannelName]) {
        let recipient = self.recipient();
        for name in quiet {
            match self.hub.directory.join_quietly(name, &self.endpoint.logic, &recipient) {
                Ok(channel) => self.quiet.push(channel),
                Err(error) => tracing::warn!(channel = %name, %error, "a connection could not join its channel"),
            }
        }
        if let Some(name) = channel {
            match self.hub.directory.get(&name, &self.endpoint.logic) {
                Ok(channel) => {
                    // Exactly: most connections join one channel, and there are many of them.
                    self.joined.reserve_exact(1);
                    self.joined.push(Joined { channel, membership: Membership::begin() });
                }
                Err(error) => self.cannot_have(&error),
            }
        }
    }

    /// Joins the mount's own channel. False if the connection ends here.
    async fn join_at_once(&mut self) -> bool {
        let recipient = self.recipient();
        let Some(joined) = self.joined.first_mut() else { return self.outbox.closed_with().is_none() };
        let letter = Directory::join_letter(recipient, joined.membership.clone(), None);
        let posted = post(&self.hub, &self.pulse, &mut joined.channel, letter).await;
        if posted.is_err() {
            self.joined.clear();
            self.outbox.close(Close::RESTART);
        }
        posted.is_ok()
    }

    /// Reads and writes until the connection ends.
    async fn serve(&mut self) {
        loop {
            while !self.paused
                && self.hold.is_none()
                && let Some(inbound) = self.inbox.pop_front()
            {
                // A client that never stops must not keep its thread from others.
                tokio::task::coop::consume_budget().await;
                // Boxed while it lasts: calls into the plugin have large futures; an idle connection must not hold them.
                Box::pin(self.take(inbound)).await;
            }
            if self.hold.is_none() {
                self.charge(now_ms());
                if self.inbox.capacity() > 0 {
                    self.inbox = VecDeque::new(); // Gives the memory of a burst back.
                }
            }
            if self.reader.has_left() {
                tokio::task::coop::consume_budget().await; // For the same reason.
            }
            let (outbox, paused, has_left) = (&self.outbox, self.paused, self.reader.has_left());
            let has_waiting = !self.inbox.is_empty();
            self.pulse.hold_up(self.hold.is_some());
            let (hold, pulse) = (&mut self.hold, &self.pulse);
            let progress = std::future::poll_fn(|cx| match outbox.poll_progress(cx) {
                // Nothing of the client counts any more; what it is still owed has a time of its own.
                Progress::Done | Progress::Closing => Poll::Ready(Next::End),
                Progress::Dismissed(close) => Poll::Ready(Next::Dismissed(close)),
                Progress::Idle | Progress::Shed | Progress::Blocked if paused => Poll::Pending,
                Progress::Shed => Poll::Ready(Next::Tell),
                Progress::Idle | Progress::Blocked if is_held(hold, pulse, cx) => Poll::Pending,
                Progress::Idle | Progress::Blocked if has_waiting => Poll::Ready(Next::HandOver),
                Progress::Idle | Progress::Blocked if has_left => Poll::Ready(Next::Read),
                Progress::Idle | Progress::Blocked => {
                    outbox.stream().poll_read_ready(cx).map(|ready| if ready.is_ok() { Next::Read } else { Next::End })
                }
            });
            match progress.await {
                Next::HandOver => {}
                Next::Read if self.read() => {}
                Next::Tell => self.tell_about_shed_frames().await,
                Next::Dismissed(close) => Box::pin(self.dismiss(close)).await,
                Next::Read | Next::End => return,
            }
        }
    }

    /// Reads what the socket has, or had. False at its end.
    fn read(&mut self) -> bool {
        let left = self.reader.take_left();
        if !left.is_empty() {
            self.take_bytes(&left);
            return true;
        }
        let outbox = Arc::clone(&self.outbox);
        let read = reader::read_socket(outbox.stream(), |bytes| {
            self.read_bytes(bytes);
            !bytes.is_empty()
        });
        read.unwrap_or_else(|e| e.kind() == std::io::ErrorKind::WouldBlock)
    }

    fn read_bytes(&mut self, bytes: &[u8]) {
        hot::BYTES_IN.increment(bytes.len() as u64);
        // A read is no larger than a thread's buffer.
        self.bytes_read = self.bytes_read.saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.take_bytes(bytes);
    }

    fn take_bytes(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let now = now_ms();
        reader::with_messages(|messages| {
            let replies = self.reader.read(bytes, messages);
            self.pulse.heard(now, self.reader.is_in_message());
            if !replies.is_empty() {
                self.outbox.send(replies, Delivery::HIGH);
            }
            for inbound in messages.drain(..) {
                let rest = self.take_at_once(inbound, now);
                self.inbox.extend(rest);
            }
        });
        // What waits is paid for when it is its turn.
        if self.inbox.is_empty() {
            self.charge(now);
        }
    }

    /// Puts what was read, and is not there yet, on the tenant's account. What is over the client's own rates is refused, and no message
    /// there: or one client could use up what is for all.
    fn charge(&mut self, now_ms: u64) {
        let (messages, bytes) = (std::mem::take(&mut self.admitted), std::mem::take(&mut self.bytes_read));
        if messages > 0 || bytes > 0 {
            self.hold = self.quota.receive(messages as usize, bytes as usize, now_ms);
        }
    }

    /// Puts one message on the tenant's account. False if it has to wait until it is paid for, and nothing behind it overtakes it.
    fn is_paid(&mut self, payload: &Payload, now_ms: u64) -> bool {
        if !self.quota.limits_messages() {
            self.admitted += 1; // All of a read at once: nobody waits.
            return true;
        }
        // What came in an earlier read, or was larger when it was inflated, is no more than what was read.
        let bytes = u32::try_from(payload.bytes().len()).unwrap_or(u32::MAX).min(self.bytes_read);
        self.bytes_read -= bytes;
        self.hold = self.quota.receive_in_turn(bytes as usize, now_ms);
        self.hold.is_none()
    }

    /// Hands a message over without waiting, if that can be done: nearly always. What takes longer comes back.
    fn take_at_once(&mut self, inbound: Inbound, now_ms: u64) -> Option<Inbound> {
        let Inbound::Message(payload) = inbound else { return Some(inbound) };
        if !self.inbox.is_empty() || self.paused || self.endpoint.route {
            return Some(Inbound::Message(payload));
        }
        hot::MESSAGES_IN.increment(1);
        if !self.within_rate(now_ms) {
            return Some(Inbound::OverRate(payload));
        }
        if !self.is_paid(&payload, now_ms) {
            return Some(Inbound::Admitted(payload));
        }
        let Some(joined) = self.joined.first_mut().filter(|joined| joined.membership.is_active()) else {
            return Some(Inbound::Admitted(payload));
        };
        let letter = Directory::message_letter(self.id, &self.identity, payload);
        match self.hub.directory.post(&mut joined.channel, letter) {
            Ok(Some(Letter { event: Event::Message { payload, .. }, .. })) => Some(Inbound::Admitted(payload)),
            Ok(None | Some(_)) => None,
            Err(error) => {
                self.note(&Err(error));
                None
            }
        }
    }

    /// Does what came in. Waits while the channel's mailbox is full, so that the socket is not read meanwhile.
    async fn take(&mut self, inbound: Inbound) {
        match inbound {
            Inbound::Message(payload) => {
                hot::MESSAGES_IN.increment(1);
                let now_ms = now_ms();
                if !self.within_rate(now_ms) {
                    self.over_rate(payload).await;
                } else if self.is_paid(&payload, now_ms) {
                    self.admitted(payload).await;
                } else {
                    self.inbox.push_front(Inbound::Admitted(payload));
                }
            }
            Inbound::Admitted(payload) => self.admitted(payload).await,
            Inbound::OverRate(payload) => self.over_rate(payload).await,
            Inbound::Close(close) => self.outbox.close_with(close.code, close.reason),
        }
    }

    async fn over_rate(&mut self, payload: Payload) {
        if self.excess.count(now_ms()) > self.endpoint.logic.limits.rate_excess_per_minute_max {
            return self.dismiss(&Close::RATE).await;
        }
        let why = Refusal::new(RefusalCode::RateLimited, "too many messages; slow down");
        self.refuse(&payload, &why).await;
    }

    async fn admitted(&mut self, payload: Payload) {
        if self.endpoint.route {
            self.route(payload).await;
        } else {
            self.deliver_to(0, payload).await;
        }
    }

    /// Tells the client, in the plugin's words, that its message had no effect.
    async fn refuse(&self, frame: &Payload, why: &Refusal) {
        metrics::counter!("hotbay_refusals_total", "code" => why.code.as_str()).increment(1);
        self.tell(Some(frame), why).await;
        let limits = &self.endpoint.logic.limits;
        self.outbox.count_refusal(why.code, limits.bad_messages_per_minute_max, now_ms());
    }

    async fn tell(&self, frame: Option<&Payload>, why: &Refusal) {
        let assigned = self.endpoint.logic.rollout.of_tenant(self.identity.tenant());
        let router = &assigned.version.router;
        if assigned.version.is_withdrawn() {
            return self.outbox.close(Close::WITHDRAWN); // It has no words any more.
        }
        match router.refused_for(Some(&self.quota), &self.identity, now_ms(), frame, why).await {
            Ok(Some(payload)) => self.outbox.send(encode_payload(&payload), Delivery::HIGH),
            Ok(None) => {}
            Err(fault) => {
                count_fault(&assigned.version, &assigned.deployed, &fault);
                tracing::warn!(plugin = assigned.version.plugin.name(), %fault, "plugin fault in refused");
            }
        }
    }

    /// Closes, after the plugin's last word if it has one in time.
    async fn dismiss(&self, close: &Close) {
        let why = Refusal::new(RefusalCode::Closing, close.reason);
        drop(tokio::time::timeout(Duration::from_millis(LAST_WORD_MS_MAX), self.tell(None, &why)).await);
        self.outbox.close(*close);
    }

    /// A slow reader that caught up learns how much it missed.
    async fn tell_about_shed_frames(&self) {
        let shed = self.outbox.take_shed();
        if shed > 0 {
            let why = format!("{shed} messages for you were dropped because you read too slowly");
            Box::pin(self.tell(None, &Refusal::new(RefusalCode::Lost, why))).await;
        }
    }

    fn within_rate(&mut self, now_ms: u64) -> bool {
        let own = self.bucket.as_mut().is_none_or(|bucket| bucket.take(now_ms));
        own && self.endpoint.user_rates.take(&self.identity, now_ms)
    }
}

/// Leaves every channel, whatever ended the connection; what is left is the way out.
impl Drop for Connection {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.outbox.abort();
        }
        let why = if self.outbox.closed_with().is_some() { LeaveReason::Closed } else { LeaveReason::Disconnected };
        for mut joined in std::mem::take(&mut self.joined) {
            if joined.membership.is_active() {
                // A mailbox never refuses a leave for want of room.
                drop(self.hub.directory.post(&mut joined.channel, self.leave_letter(why, None)));
            }
        }
        for channel in std::mem::take(&mut self.quiet) {
            self.hub.directory.leave_quietly(&channel, self.id);
        }
        self.endpoint.logic.census.disconnect(&self.identity, Some(&self.outbox));
    }
}

/// Whether the connection may not be read now. While it is held, the client's silence is none.
fn is_held(hold: &mut Option<Hold>, pulse: &Pulse, cx: &mut Context<'_>) -> bool {
    if hold.as_mut().is_some_and(|hold| hold.as_mut().poll(cx).is_ready()) {
        *hold = None;
        pulse.heard(now_ms(), false);
        pulse.hold_up(false);
    }
    hold.is_some()
}

/// Waits while what waits for the client is still written, and until the client is gone or must go.
async fn wait_beside<T>(pulse: &Pulse, mut waiting: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Option<T> {
    pulse.hold_up(true);
    let ended = std::future::poll_fn(|cx| match waiting(cx) {
        Poll::Ready(ended) => Poll::Ready(Some(ended)),
        Poll::Pending => match pulse.outbox().poll_progress(cx) {
            Progress::Done | Progress::Dismissed(_) => Poll::Ready(None),
            _ => Poll::Pending,
        },
    });
    let ended = ended.await;
    pulse.hold_up(false);
    ended
}

/// Puts a letter into a mailbox; while it is full, what waits for the client is still written.
async fn post(hub: &Hub, pulse: &Pulse, channel: &mut Arc<Channel>, letter: Letter) -> Result<(), LookupError> {
    let mut waiting = hub.directory.post(channel, letter)?;
    if waiting.is_none() {
        return Ok(());
    }
    metrics::counter!("hotbay_backpressure_total").increment(1);
    let posted = wait_beside(pulse, |cx| hub.directory.poll_post(channel, &mut waiting, cx)).await;
    // If the client is gone or must go, so must its message.
    posted.unwrap_or(Ok(()))
}
