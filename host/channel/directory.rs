//! Finds channels, and starts them: looking one up, making it and waking it are one step, so that no channel ever has two
//! actors. Also the clock that wakes sleeping channels for their timers.

use std::collections::HashMap;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{Notify, Semaphore, oneshot, watch};

use crate::channel::actor;
use crate::channel::logic::Logic;
use crate::channel::mailbox::{Enclosure, Letter, Mailbox, Put, Reply};
use crate::channel::membership::Membership;
use crate::channel::tail::Tails;
use crate::fanout::{Recipient, Roster};
use crate::limits::{CORES_PER_SWAP, NodeLimits, SHADOWS_MAX};
use crate::protocol::event::{Event, HttpRequest, MemberId, RequestId};
use crate::protocol::frame::Payload;
use crate::protocol::identity::Identity;
use crate::protocol::ids::Ids;
use crate::protocol::name::ChannelName;
use crate::quota::{Over, Quota, Quotas};
use crate::store::{DueMark, Store, StoreError};
use crate::telemetry;

const SHARDS: usize = 64;
/// How often sleeping channels' timers are looked for.
const TIMER_POLL: Duration = Duration::from_millis(500);
/// How many of them are read at once.
const TIMER_PAGE: u32 = 1_000;
/// How many pages are read each time. If more are due, the next time goes on from there: timers of channels that no mount
/// serves stay due for ever, and must neither hide others nor take all the time.
const TIMER_PAGES_MAX: usize = 10;

/// A channel of this node, awake or asleep.
pub struct Channel {
    /// Its name.
    pub name: ChannelName,
    /// What it means.
    pub logic: Arc<Logic>,
    /// Whose account it is on.
    pub quota: Arc<Quota>,
    pub(super) mailbox: Mailbox,
}

/// What can be seen of a channel without asking it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Glance {
    /// Whether it has an actor.
    pub is_awake: bool,
    /// How many members it has; unknown while it wakes.
    pub members: Option<usize>,
    /// Events that wait for it.
    pub events_waiting: usize,
    /// Their bytes.
    pub bytes_waiting: usize,
}

impl Channel {
    /// What can be seen of it.
    pub fn glance(&self) -> Glance {
        let seen = self.mailbox.glance();
        Glance { members: seen.members.or_else(|| self.logic.census.members(&self.name, Roster::len)), ..seen }
    }

    /// Its members with their identities, by their ids. `None` while it wakes.
    pub fn members(&self) -> Option<Vec<(MemberId, Identity)>> {
        let list = |roster: &Roster| {
            let members = roster.iter().map(|recipient| (recipient.member, recipient.identity.clone()));
            members.collect::<Vec<_>>()
        };
        let mut members = self.mailbox.members(list).or_else(|| self.logic.census.members(&self.name, list))?;
        members.sort_unstable_by_key(|(member, _)| *member);
        Some(members)
    }
}

/// All channels of this node.
pub struct Directory {
    pub(super) store: Arc<dyn Store>,
    pub(super) owner: String,
    /// Permits for instances.
    pub(super) awake: Arc<Semaphore>,
    /// Turns to swap, which end when the first batch of the new instance succeeded.
    pub(super) swaps: Arc<Semaphore>,
    /// Permits for instances that run beside another one.
    pub(super) shadows: Arc<Semaphore>,
    /// Who follows what channels do.
    pub(super) tails: Tails,
    stop: watch::Sender<bool>,
    limits: NodeLimits,
    logics: Vec<Arc<Logic>>,
    shards: Vec<Mutex<HashMap<ChannelName, Arc<Channel>>>>,
    hasher: RandomState,
    channels: AtomicUsize,
    actors: AtomicUsize,
    /// Actors, and couriers that have something to deliver.
    tasks: AtomicUsize,
    task_ended: Notify,
    /// Like `stop`, for those who ask for every message, and for actors, which are woken.
    stopping: AtomicBool,
    requests: Ids,
    /// The accounts of tenants.
    quotas: Arc<Quotas>,
    /// When channels of a tenant were last hurried to sleep, in milliseconds since the Unix epoch.
    hurried_ms: AtomicU64,
    /// Set while awake channels are nearly as many as may be: they sleep sooner then.
    crowded: AtomicBool,
}

/// A task that [`Directory::drain`] waits for, until it ends, however it ends.
struct Counted(Arc<Directory>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.tasks.fetch_sub(1, Ordering::Relaxed);
        self.0.task_ended.notify_waiters();
    }
}

/// A round through all timers that are due, which may take several looks.
#[derive(Default)]
struct TimerRound {
    /// Where it goes on; absent at its beginning.
    after: Option<DueMark>,
    told_unserved: bool,
    told_skipped: bool,
}

impl TimerRound {
    /// Says once that there are channels nobody serves any more.
    fn pass_over(&mut self, channel: &ChannelName) {
        if !std::mem::replace(&mut self.told_unserved, true) {
            tracing::warn!(
                %channel,
                "a timer is due in a channel that no mount serves, so it waits until one does; others like it are not told"
            );
        }
    }

    fn count_skipped(&mut self, skipped: u64) {
        metrics::counter!("hotbay_timers_skipped_total").increment(skipped);
        if skipped > 0 && !std::mem::replace(&mut self.told_skipped, true) {
            tracing::error!(
                skipped,
                "timers are due in channels whose names in the database are damaged; they cannot be woken"
            );
        }
    }
}

/// Why a channel cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// No mount serves the name.
    #[error("no mount serves a channel of this name")]
    NotServed,
    /// There are as many as may be.
    #[error("this node has {channels_max} channels, as many as it may (limits.channels_max)")]
    TooMany {
        /// The bound.
        channels_max: usize,
    },
    /// The tenant has as many as it may.
    #[error(transparent)]
    Quota(#[from] Over),
    /// The node is going down.
    #[error("the broker is shutting down")]
    Stopping,
}

/// How many channels swap at a time: more would only make each of them stand still for longer.
fn swaps_max() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (cores / CORES_PER_SWAP).max(1)
}

impl Directory {
    /// A directory over a store. `owner` names this node in it.
    pub fn new(store: Arc<dyn Store>, owner: String, limits: &NodeLimits, logics: Vec<Arc<Logic>>) -> Arc<Self> {
        Arc::new(Self {
            store,
            owner,
            awake: Arc::new(Semaphore::new(limits.channels_awake_max)),
            swaps: Arc::new(Semaphore::new(swaps_max())),
            shadows: Arc::new(Semaphore::new(SHADOWS_MAX)),
            tails: Tails::default(),
            stop: watch::Sender::new(false),
            limits: limits.clone(),
            logics,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            channels: AtomicUsize::new(0),
            actors: AtomicUsize::new(0),
            tasks: AtomicUsize::new(0),
            task_ended: Notify::new(),
            stopping: AtomicBool::new(false),
            requests: Ids::default(),
            quotas: Quotas::new(limits.connections_per_tenant_max),
            hurried_ms: AtomicU64::new(0),
            crowded: AtomicBool::new(false),
        })
    }

    /// The accounts of tenants.
    pub fn quotas(&self) -> &Arc<Quotas> {
        &self.quotas
    }

    /// The channel of this name, known or new. It is not woken by that.
    ///
    /// # Errors
    /// If there are too many channels, on the node or of the tenant, or the node is going down.
    pub fn get(&self, name: &ChannelName, logic: &Arc<Logic>) -> Result<Arc<Channel>, LookupError> {
        if self.is_stopping() {
            return Err(LookupError::Stopping);
        }
        self.find_or_make(name, logic)
    }

    fn find_or_make(&self, name: &ChannelName, logic: &Arc<Logic>) -> Result<Arc<Channel>, LookupError> {
        let mut shard = self.shard(name);
        if let Some(channel) = shard.get(name) {
            return Ok(Arc::clone(channel));
        }
        if self.channels.load(Ordering::Relaxed) >= self.limits.channels_max {
            return Err(LookupError::TooMany { channels_max: self.limits.channels_max });
        }
        let quota = self.quotas.of(name.tenant());
        quota.add_channel()?;
        let logic = Arc::clone(logic);
        let channel = Arc::new(Channel { name: name.clone(), logic, quota, mailbox: Mailbox::default() });
        shard.insert(name.clone(), Arc::clone(&channel));
        self.channels.fetch_add(1, Ordering::Relaxed);
        Ok(channel)
    }

    /// A channel that is awake here, or has members here.
    pub fn find(&self, name: &ChannelName) -> Option<Arc<Channel>> {
        self.shard(name).get(name).cloned()
    }

    /// The logic that serves channels of this name.
    ///
    /// # Errors
    /// If no mount does.
    pub fn logic_of(&self, channel: &str) -> Result<&Arc<Logic>, LookupError> {
        self.logics.iter().find(|logic| logic.serves(channel)).ok_or(LookupError::NotServed)
    }

    /// Puts a letter into a channel's mailbox and starts an actor if there is none: one step, under the mailbox's lock.
    /// `Some` is the letter back, because the mailbox is full.
    ///
    /// # Errors
    /// Like [`Directory::get`], if the channel was forgotten meanwhile and has to be found anew.
    pub fn post(self: &Arc<Self>, channel: &mut Arc<Channel>, letter: Letter) -> Result<Option<Letter>, LookupError> {
        if self.is_stopping() {
            return Err(LookupError::Stopping);
        }
        self.put(channel, letter)
    }

    fn put(self: &Arc<Self>, channel: &mut Arc<Channel>, mut letter: Letter) -> Result<Option<Letter>, LookupError> {
        loop {
            match channel.mailbox.put(letter, &channel.logic.limits) {
                Put::Done => return Ok(None),
                Put::Wake(roster) => {
                    self.start(channel, roster, false);
                    return Ok(None);
                }
                Put::Full(letter) => return Ok(Some(letter)),
                Put::Gone(back) => {
                    letter = back;
                    *channel = self.find_or_make(&channel.name, &channel.logic)?;
                }
            }
        }
    }

    /// Like [`Directory::post`], but waits while the mailbox is full.
    ///
    /// # Errors
    /// Like [`Directory::get`].
    pub async fn post_in_turn(self: &Arc<Self>, channel: &mut Arc<Channel>, letter: Letter) -> Result<(), LookupError> {
        let mut waiting = Some(letter);
        std::future::poll_fn(|cx| self.poll_post(channel, &mut waiting, cx)).await
    }

    /// Tries to post what waits; pending while the mailbox is full.
    pub fn poll_post(
        self: &Arc<Self>,
        channel: &mut Arc<Channel>,
        waiting: &mut Option<Letter>,
        cx: &Context<'_>,
    ) -> Poll<Result<(), LookupError>> {
        if self.is_stopping() {
            return Poll::Ready(Err(LookupError::Stopping));
        }
        self.poll_put(channel, waiting, cx)
    }

    fn poll_put(
        self: &Arc<Self>,
        channel: &mut Arc<Channel>,
        waiting: &mut Option<Letter>,
        cx: &Context<'_>,
    ) -> Poll<Result<(), LookupError>> {
        for attempt in 0..2 {
            let Some(letter) = waiting.take() else { return Poll::Ready(Ok(())) };
            *waiting = self.put(channel, letter)?;
            // Room may have come between the try and the registration, so try once more after it.
            if waiting.is_some() && attempt == 0 {
                channel.mailbox.wait_for_room(cx);
            }
        }
        if waiting.is_some() { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    /// Puts a letter of another channel into a channel's mailbox, in its turn. A node that goes down finishes that, too: the
    /// channel that sent it was told that it was sent.
    pub(super) async fn carry(
        self: &Arc<Self>,
        to: &ChannelName,
        logic: &Arc<Logic>,
        letter: Letter,
    ) -> Result<(), LookupError> {
        if !logic.serves(to.name()) {
            return Err(LookupError::NotServed);
        }
        let mut channel = self.find_or_make(to, logic)?;
        let mut waiting = Some(letter);
        std::future::poll_fn(|cx| self.poll_put(&mut channel, &mut waiting, cx)).await
    }

    /// Joins without an event and without waking the channel.
    ///
    /// # Errors
    /// Like [`Directory::get`].
    pub fn join_quietly(
        &self,
        name: &ChannelName,
        logic: &Arc<Logic>,
        recipient: &Recipient,
    ) -> Result<Arc<Channel>, LookupError> {
        loop {
            let channel = self.get(name, logic)?;
            if channel.mailbox.join_quietly(recipient.clone()) {
                return Ok(channel);
            }
        }
    }

    /// Leaves a channel joined by [`Directory::join_quietly`].
    pub fn leave_quietly(&self, channel: &Channel, member: MemberId) {
        channel.mailbox.leave_quietly(member);
        self.forget_if_empty(channel);
    }

    /// Hands an HTTP request to a channel.
    ///
    /// # Errors
    /// Like [`Directory::get`].
    pub async fn request(
        self: &Arc<Self>,
        name: &ChannelName,
        logic: &Arc<Logic>,
        http: HttpRequest,
    ) -> Result<oneshot::Receiver<Reply>, LookupError> {
        let (reply, answer) = oneshot::channel();
        let event = Event::Request { request: self.request_id(), http: Box::new(http) };
        let mut channel = self.get(name, logic)?;
        self.post_in_turn(&mut channel, Letter { event, enclosure: Enclosure::Reply(reply) }).await?;
        Ok(answer)
    }

    /// The letter of a join.
    pub fn join_letter(recipient: Recipient, membership: Membership, frame: Option<Payload>) -> Letter {
        let event = Event::Join { member: recipient.member, identity: recipient.identity.clone(), frame };
        Letter { event, enclosure: Enclosure::Joiner(recipient, membership) }
    }

    /// The letter of a message.
    pub fn message_letter(member: MemberId, identity: &Identity, payload: Payload) -> Letter {
        let event = Event::Message { member, identity: identity.clone(), payload };
        Letter { event, enclosure: Enclosure::None }
    }

    pub(super) fn request_id(&self) -> RequestId {
        RequestId(self.requests.give())
    }

    fn start(self: &Arc<Self>, channel: &Arc<Channel>, roster: Roster, poked: bool) {
        let directory = Arc::clone(self);
        let channel = Arc::clone(channel);
        let awake = self.actors.fetch_add(1, Ordering::Relaxed) + 1;
        self.crowded.store(awake * 4 > self.limits.channels_awake_max * 3, Ordering::Relaxed);
        metrics::gauge!("hotbay_channels_awake").increment(1.0);
        self.spawn_counted("channel", async move {
            channel.logic.census.channel(channel.name.tenant(), true);
            // Boxed, or the tasks around it would hold room for it twice.
            let run = Box::pin(actor::run(&directory, &channel, roster, poked));
            if AssertUnwindSafe(run).catch_unwind().await.is_err() {
                tracing::error!(channel = %channel.name, "the channel's actor panicked; its members were closed");
                metrics::counter!("hotbay_actor_panics_total").increment(1);
            }
            channel.logic.census.channel(channel.name.tenant(), false);
            metrics::gauge!("hotbay_channels_awake").decrement(1.0);
            directory.forget_if_empty(&channel);
            directory.actors.fetch_sub(1, Ordering::Relaxed);
        });
    }

    /// Spawns a task that [`Directory::drain`] waits for.
    pub(super) fn spawn_counted(self: &Arc<Self>, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.fetch_add(1, Ordering::Relaxed);
        let counted = Counted(Arc::clone(self));
        telemetry::spawn(name, task.map(move |()| drop(counted)));
    }

    /// How long a channel stays awake without events.
    pub(super) fn idle_ms(&self, channel: &Channel) -> u64 {
        const CROWDED_IDLE_MS: u64 = 500;
        let idle_ms = channel.logic.limits.idle_ms;
        let is_crowded = self.crowded.load(Ordering::Relaxed) || channel.quota.is_crowded();
        if is_crowded { idle_ms.min(CROWDED_IDLE_MS) } else { idle_ms }
    }

    /// A channel of a tenant waits until one of its others sleeps: those that have nothing to do look whether they should. Not more often
    /// than twice a second, however many wait.
    pub(super) fn hurry(&self, quota: &Arc<Quota>) {
        const EVERY_MS: u64 = 500;
        let (now_ms, last_ms) = (telemetry::now_ms(), self.hurried_ms.load(Ordering::Relaxed));
        let is_time = now_ms.saturating_sub(last_ms) >= EVERY_MS;
        if is_time && self.hurried_ms.compare_exchange(last_ms, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.wake_actors(|channel| Arc::ptr_eq(&channel.quota, quota));
        }
    }

    /// Forgets a channel that sleeps and has no members, so that rooms nobody is in cost nothing.
    fn forget_if_empty(&self, channel: &Channel) {
        let mut shard = self.shard(&channel.name);
        if channel.mailbox.retire()
            && shard.get(&channel.name).is_some_and(|known| std::ptr::eq(&raw const **known, channel))
        {
            shard.remove(&channel.name);
            self.channels.fetch_sub(1, Ordering::Relaxed);
            channel.quota.forget_channel();
            self.tails.forgotten(&channel.name);
        }
    }

    /// Wakes sleeping channels when their timers are due, until the node stops.
    pub async fn run_timers(self: Arc<Self>) {
        let mut stop = self.stop.subscribe();
        let mut failing = false;
        let mut round = TimerRound::default();
        loop {
            match self.wake_due(&mut round).await {
                Ok(()) => failing = false,
                Err(error) if !failing => {
                    tracing::warn!(%error, "timers of sleeping channels cannot be read; trying again");
                    failing = true;
                }
                Err(_) => {}
            }
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(TIMER_POLL) => {}
            }
        }
    }

    /// Goes on with a round through all due timers, for so many pages.
    async fn wake_due(self: &Arc<Self>, round: &mut TimerRound) -> Result<(), StoreError> {
        let now_ms = telemetry::now_ms();
        for _ in 0..TIMER_PAGES_MAX {
            let page = self.store.due_timers(now_ms, round.after, TIMER_PAGE).await?;
            round.count_skipped(page.skipped);
            for timer in page.timers {
                let Ok(logic) = self.logic_of(timer.channel.name()).map(Arc::clone) else {
                    round.pass_over(&timer.channel);
                    continue;
                };
                let Ok(channel) = self.get(&timer.channel, &logic) else { continue };
                if let Some(roster) = channel.mailbox.poke() {
                    self.start(&channel, roster, true);
                }
            }
            round.after = page.next;
            if round.after.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Lets every awake channel finish what it has, save its memory and go to sleep; returns when all did.
    pub async fn drain(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.stop.send_replace(true);
        self.quotas.lift();
        self.wake_actors(|_| true);
        loop {
            let ended = self.task_ended.notified();
            if self.tasks.load(Ordering::Relaxed) == 0 {
                return;
            }
            ended.await;
        }
    }

    /// Lets every awake channel look at what it should run now. Those that sleep do when they wake.
    pub fn tell_of_versions(&self) {
        self.wake_actors(|_| true);
    }

    fn wake_actors(&self, which: impl Fn(&Channel) -> bool) {
        for shard in &self.shards {
            let channels = shard.lock().unwrap_or_else(PoisonError::into_inner);
            channels.values().filter(|channel| which(channel)).for_each(|channel| channel.mailbox.wake_actor());
        }
    }

    /// Whether the node is going down.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Told when the node goes down.
    pub fn stop_signal(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// Awake channels.
    pub fn awake_count(&self) -> usize {
        self.actors.load(Ordering::Relaxed)
    }

    fn shard(&self, name: &ChannelName) -> MutexGuard<'_, HashMap<ChannelName, Arc<Channel>>> {
        let shard = self.hasher.hash_one(name) as usize % SHARDS;
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
