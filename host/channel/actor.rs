//! The actor of an awake channel: takes events from the mailbox, runs them through the plugin, commits what was written and
//! sends what may be seen. It does what the [core](super::core) says; the rules are there.

mod batch;
mod commit;
mod lifecycle;
mod refuse;
mod shadow;
mod swap;
mod tape;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::channel::actor::batch::Prepared;
use crate::channel::actor::commit::CommitUnderWay;
use crate::channel::actor::lifecycle::Live;
use crate::channel::actor::shadow::Shadows;
use crate::channel::actor::swap::{Before, SwapTurn};
use crate::channel::actor::tape::Taping;
use crate::channel::core::{BatchId, Core, Output, Step};
use crate::channel::courier::Courier;
use crate::channel::directory::{Channel, Directory};
use crate::channel::mailbox::{Enclosure, Letter, Notes, Quiet, Reply};
use crate::channel::membership::Membership;
use crate::channel::sleep::Bedtime;
use crate::channel::version::{self, Assignment};
use crate::channel::view::View;
use crate::fanout::{Recipient, Roster};
use crate::plugin::Fault;
use crate::plugin::compile::Digest;
use crate::protocol::close::Close;
use crate::protocol::event::{Event, MemberId, RequestId};
use crate::protocol::refusal::{Refusal, RefusalCode};
use crate::quota::Kept;
use crate::store::{Durability, Fence};
use crate::telemetry::now_ms;

/// Wait no longer than this at a time, so that a clock that was set is noticed.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Runs a channel from waking to sleep. `roster` has its members.
pub(super) async fn run(directory: &Arc<Directory>, channel: &Arc<Channel>, roster: Roster, poked: bool) {
    let mut actor = Actor::new(directory, channel, roster);
    if poked {
        actor.core.poke();
    }
    actor.run().await;
}

struct Actor {
    directory: Arc<Directory>,
    channel: Arc<Channel>,
    core: Core,
    /// Wakes it when nothing else does: at the latest when it must be. Set anew only if it would come too late, for that costs
    /// more than to look once too often.
    alarm: Pin<Box<Sleep>>,
    /// Whether a task that is woken goes to the end of the queue by itself: on a runtime of one thread, which has no LIFO slot.
    queues: bool,
    /// Before the channel is taken over, its members; afterwards they are in the view.
    roster: Roster,
    claim: Option<Claim>,
    instance: Option<Live>,
    /// What the instance runs, or, while there is none, what the last one ran.
    assigned: Assignment,
    /// What it should run instead.
    wanted: Option<Assignment>,
    /// The plan of versions it last looked at.
    plan_seen: u64,
    /// A deployment that this channel could not be swapped to, and does not try again.
    declined: Option<i64>,
    /// Whose turn it is to swap.
    swap_turn: SwapTurn,
    /// What it goes back to if the first batch of an instance of another version fails.
    before: Option<Before>,
    /// What runs beside it.
    shadows: Shadows,
    /// What its calls are recorded on.
    taping: Taping,
    /// A few, oldest first.
    prepared: Vec<(BatchId, Prepared)>,
    commit: Option<CommitUnderWay>,
    memberships: HashMap<MemberId, Membership>,
    /// Who has joins that are not settled yet, and how many: it becomes a member when the first of them runs.
    joining: HashMap<MemberId, (Recipient, u32)>,
    /// Members that left, until their leave is settled: frames of that very batch may still be for them.
    leaving: HashMap<MemberId, Recipient>,
    /// What rejected joiners sent meanwhile, until their refusal leaves: then they are told of it, in its turn.
    orphans: Vec<Event>,
    /// Members whose join was rejected and who were not told yet.
    rejected: HashSet<MemberId>,
    requests: HashMap<RequestId, oneshot::Sender<Reply>>,
    /// Durable timers that faulted: deleted with the next commit, or they would fault for ever.
    spent_timers: Vec<String>,
    /// Carries publications to other channels.
    courier: Courier,
    /// The limit of the tenant at which what is refused was refused.
    over: Option<String>,
    /// Somebody wants it to sleep at the end of the batch under way.
    bedtime: Option<Bedtime>,
}

/// The right to write to the channel, and the channel as it can be read.
struct Claim {
    /// As of the last batch prepared.
    fence: Fence,
    view: Arc<View>,
    durable_timers: BTreeSet<String>,
    saved: Option<bytes::Bytes>,
    /// The version that wrote last.
    pinned: Option<Digest>,
    /// What the channel keeps, as its last commit told.
    kept: Kept,
    /// A commit failed, and may have taken hold: its tenant's account is right again when the channel is taken over anew.
    is_unsure: bool,
}

/// What a batch of a tenant that is out of processor time is expected to take, until it was charged.
const BATCH_US: u64 = 1_000;

/// Messages kept from members whose join was rejected, until they can be told.
const ORPHANS_MAX: usize = 256;

/// What the actor waits for.
enum News {
    Mailbox,
    Versions,
    Commit,
    CommitDue,
    Time,
    Stop,
}

fn fresh_core(channel: &Channel, directory: &Directory) -> Core {
    let release_early = channel.logic.durability == Durability::None;
    let mut core = Core::new(Arc::clone(&channel.logic.limits), release_early, now_ms());
    if directory.is_stopping() {
        core.stop();
    }
    core
}

impl Actor {
    fn new(directory: &Arc<Directory>, channel: &Arc<Channel>, roster: Roster) -> Self {
        Self {
            core: fresh_core(channel, directory),
            assigned: channel.logic.rollout.assign(&channel.name, None),
            wanted: None,
            plan_seen: channel.logic.rollout.changes(),
            declined: None,
            swap_turn: SwapTurn::None,
            before: None,
            shadows: Shadows::default(),
            taping: Taping::default(),
            alarm: Box::pin(sleep_until(Instant::now() + WAIT_MAX)),
            queues: Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread,
            directory: Arc::clone(directory),
            channel: Arc::clone(channel),
            roster,
            claim: None,
            instance: None,
            prepared: Vec::new(),
            commit: None,
            memberships: HashMap::new(),
            joining: HashMap::new(),
            leaving: HashMap::new(),
            orphans: Vec::new(),
            rejected: HashSet::new(),
            requests: HashMap::new(),
            spent_timers: Vec::new(),
            courier: Courier::default(),
            over: None,
            bedtime: None,
        }
    }

    /// What takes a moment is boxed: an actor that waits, as most do most of the time, must not hold room for it; and the
    /// memory it gets is that which another actor just gave back, and still in the processor's cache.
    async fn run(&mut self) {
        let mut turn = None;
        loop {
            // What is on disk leaves before anything new is begun.
            if let Some(result) = self.finished_commit() {
                Box::pin(self.commit_came_back(result)).await;
                self.let_sockets_be_read().await;
            }
            self.empty_mailbox().await;
            if self.is_to_swap() {
                Box::pin(self.swap()).await;
            }
            // Clients that went away wait for nothing.
            self.requests.retain(|_, waiting| !waiting.is_closed());
            if self.is_bedtime() && Box::pin(self.go_to_bed()).await {
                return;
            }
            let busy = !self.requests.is_empty() || self.courier.is_busy();
            let idle_ms = self.directory.idle_ms(&self.channel);
            match self.core.next(now_ms(), rand::random(), busy, idle_ms) {
                Step::Start => Box::pin(self.start()).await,
                // Its senders wait with it, for nothing is taken from the mailbox; and what came back meanwhile is looked at before it runs.
                // Not right after a swap: others wait for their turn to swap until the first batch ran.
                Step::Run(..) if turn.is_none() && !self.holds_a_turn() && self.channel.quota.is_out_of_cpu() => {
                    self.core.undo();
                    self.swap_turn = SwapTurn::None;
                    turn = Some(self.channel.quota.wait_in_line(BATCH_US).await);
                }
                Step::Run(id, batch) => {
                    Box::pin(self.run_batch(id, batch)).await;
                    turn = None;
                    // A channel that never waits must not keep its thread from others.
                    if self.channel.mailbox.has_letters() {
                        self.let_sockets_be_read().await;
                    }
                }
                Step::Sleep => {
                    if Box::pin(self.sleep()).await {
                        return;
                    }
                }
                Step::Wait { until_ms } => {
                    turn = None;
                    self.wait(until_ms, idle_ms).await;
                }
            }
        }
    }

    /// Goes to the end of the queue of tasks that are ready. A task that is woken by another, or by tokio's own `yield_now`, goes to
    /// its front instead (tokio's "LIFO slot"): then every message would be a batch of its own, while other sockets wait to be
    /// read, and few channels would keep the thread to themselves. This way what is ready is read first, and joins the batch.
    async fn let_others_go_first(&mut self) {
        let mut went = self.queues;
        std::future::poll_fn(|cx| {
            if std::mem::replace(&mut went, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    /// Lets the runtime look for what came in, and others read it.
    async fn let_sockets_be_read(&mut self) {
        tokio::task::yield_now().await;
        self.let_others_go_first().await;
    }

    /// What is taken from the mailbox now. Also while a batch that rejects a join is on the way: what the joiner sends meanwhile
    /// is told to it with the refusal, and nobody could tell it later. Nothing else, if it is to sleep when that is done.
    fn appetite(&self) -> (usize, usize) {
        if self.bedtime.is_some() && self.rejected.is_empty() {
            return (0, 0);
        }
        self.core.appetite(!self.rejected.is_empty())
    }

    /// Takes what the core wants from the mailbox; in quarantine, refuses it.
    async fn empty_mailbox(&mut self) {
        let (events_max, bytes_max) = self.appetite();
        let mut letters = Vec::new();
        let Notes { quiet, poked, bedtime } = self.channel.mailbox.take(events_max, bytes_max, &mut letters);
        if poked {
            self.core.poke();
        }
        self.bedtime = bedtime.or(self.bedtime.take());
        for quiet in quiet {
            self.with_roster(|roster| match quiet {
                Quiet::Join(recipient) => drop(roster.insert(recipient)),
                Quiet::Leave(member) => drop(roster.remove(member)),
            });
        }
        if letters.is_empty() {
            return;
        }
        let mut events = Vec::with_capacity(letters.len());
        for letter in letters {
            if let Some(event) = self.open_letter(letter).await {
                events.push(event);
            }
        }
        let now = now_ms();
        self.core.accept(events, now);
        if self.core.quarantine(now).is_some() {
            let mut out = Vec::new();
            self.core.refuse_waiting(&mut out);
            Box::pin(self.carry_out(out)).await;
        }
    }

    /// Keeps what goes with an event. A message of somebody who is no member any more ends here.
    async fn open_letter(&mut self, letter: Letter) -> Option<Event> {
        match (&letter.event, letter.enclosure) {
            (Event::Join { member, .. }, Enclosure::Joiner(recipient, membership)) => {
                if !membership.is_active() {
                    // The join before this one was refused after this one was sent.
                    Box::pin(self.tell_orphan(&recipient, &letter.event)).await;
                    return None;
                }
                let members_max = self.channel.logic.limits.members_per_channel_max;
                if self.with_roster(|roster| roster.len()) >= members_max {
                    membership.end();
                    let why = Refusal::new(RefusalCode::Unavailable, "the channel is full");
                    Box::pin(self.tell(&recipient, &letter.event, &why)).await;
                    return None;
                }
                self.memberships.insert(*member, membership);
                self.joining.entry(*member).or_insert((recipient, 0)).1 += 1;
                if self.rejected.contains(member) {
                    return self.keep_orphan(letter.event);
                }
            }
            (event, Enclosure::Reply(reply)) => {
                if let Some(request) = event.request() {
                    self.requests.insert(request, reply);
                }
            }
            // Its join was rejected, and the refusal waits for its commit: it is no member, and is told so in its turn.
            (Event::Message { member, .. }, _) if self.rejected.contains(member) => {
                return self.keep_orphan(letter.event);
            }
            // Its join was refused meanwhile, so the plugin does not know it: its leave is no news, and its messages, sent before
            // it learned of the refusal, are nobody's.
            (Event::Leave { member, .. } | Event::Message { member, .. }, _)
                if self.with_roster(|roster| roster.find(*member).is_none()) && !self.joining.contains_key(member) =>
            {
                metrics::counter!("hotbay_refusals_total", "code" => RefusalCode::NotJoined.as_str()).increment(1);
                return None;
            }
            _ => {}
        }
        Some(letter.event)
    }

    /// Keeps what is told after the refusal of a join; only counts it if there is too much of it.
    fn keep_orphan(&mut self, event: Event) -> Option<Event> {
        if self.orphans.len() < ORPHANS_MAX || matches!(event, Event::Join { .. }) {
            self.orphans.push(event);
        } else {
            metrics::counter!("hotbay_refusals_total", "code" => RefusalCode::NotJoined.as_str()).increment(1);
        }
        None
    }

    /// Waits for whatever comes first. Stopping and commits go before traffic, traffic before time.
    async fn wait(&mut self, until_ms: u64, idle_ms: u64) {
        let pause = Duration::from_millis(until_ms.saturating_sub(now_ms())).min(WAIT_MAX);
        let deadline = Instant::now() + pause;
        let wants_events = self.appetite().0 > 0;
        let due = self.commit.as_ref().map_or(deadline, |commit| commit.due().min(deadline));
        if self.alarm.deadline() > due || self.alarm.is_elapsed() {
            self.alarm.as_mut().reset(due);
        }
        let (mailbox, commit, alarm) = (&self.channel.mailbox, &mut self.commit, &mut self.alarm);
        // Not what the node does now: it may have begun to stop before this actor, or since the core was last asked.
        let (stopping, directory, channel) = (self.core.is_stopping(), &self.directory, &self.channel);
        let (rollout, plan_seen, swap_turn) = (&self.channel.logic.rollout, self.plan_seen, &mut self.swap_turn);
        let news = std::future::poll_fn(|cx| {
            // This registers the actor; what is looked at afterwards cannot be missed.
            let has_mail = mailbox.poll_news(cx, wants_events);
            if !stopping && directory.is_stopping() {
                return Poll::Ready(News::Stop);
            }
            if let Some(under_way) = commit.as_mut()
                && let Poll::Ready(result) = under_way.poll(cx)
            {
                under_way.came_back(result);
                return Poll::Ready(News::Commit);
            }
            if has_mail {
                return Poll::Ready(News::Mailbox);
            }
            if rollout.changes() != plan_seen || swap_turn.poll(cx).is_ready() {
                return Poll::Ready(News::Versions);
            }
            if directory.idle_ms(channel) < idle_ms {
                return Poll::Ready(News::Time);
            }
            if alarm.as_mut().poll(cx).is_ready() {
                let due = commit.as_ref().is_some_and(|commit| commit.due() <= Instant::now());
                return Poll::Ready(if due { News::CommitDue } else { News::Time });
            }
            Poll::Pending
        })
        .await;
        match news {
            News::Mailbox => self.let_others_go_first().await,
            // It is looked at before anything else.
            News::Commit | News::Versions | News::Time => {}
            News::Stop => self.core.stop(),
            News::CommitDue => Box::pin(self.commit_is_due()).await,
        }
    }

    async fn carry_out(&mut self, outputs: Vec<Output>) {
        // Found now: a refusal may be what ends their membership.
        let mut closing: Vec<Recipient> = Vec::new();
        for output in &outputs {
            if let Output::CloseMember(member) = output {
                closing.extend(self.recipient(*member));
            }
        }
        for output in outputs {
            match output {
                Output::Commit(id) => self.submit(id, None),
                Output::CommitAgain(id, pause_ms) => self.submit(id, Some(pause_ms)),
                Output::Release(id) => self.release(id).await,
                Output::Discard(id) => self.discard(id),
                Output::Refuse(event, code) => Box::pin(self.refuse(event, code)).await,
                Output::Unsure(event) => Box::pin(self.tell_unsure(event)).await,
                Output::CloseMember(member) => {
                    let theirs = closing.iter().filter(|recipient| recipient.member == member);
                    theirs.for_each(|recipient| _ = recipient.outbox.dismiss(&Close::FAULT));
                }
                Output::DropInstance => {
                    (self.instance, self.before) = (None, None);
                    self.shadows.end();
                }
                Output::DropClaim => self.drop_claim(),
                Output::Quarantine(until_ms) => {
                    let pause_ms = until_ms.saturating_sub(now_ms());
                    tracing::error!(channel = %self.channel.name, pause_ms, "the channel faults again and again: quarantined");
                    metrics::counter!("hotbay_channel_quarantines_total").increment(1);
                }
            }
        }
    }

    /// A member, or one that joins or leaves at this time.
    fn recipient(&mut self, member: MemberId) -> Option<Recipient> {
        let known = self.with_roster(|roster| roster.find(member).cloned());
        known.or_else(|| self.joiner(member)).or_else(|| self.leaving.get(&member).cloned())
    }

    fn answer(&mut self, request: Option<RequestId>, reply: Reply) {
        if let Some(waiting) = request.and_then(|request| self.requests.remove(&request)) {
            // A client that went away waits for nothing.
            drop(waiting.send(reply));
        }
    }

    fn with_roster<T>(&mut self, work: impl FnOnce(&mut Roster) -> T) -> T {
        match &self.claim {
            Some(claim) => claim.view.with_roster(work),
            None => work(&mut self.roster),
        }
    }

    /// Counts a fault of what it runs.
    fn count_fault(&self, fault: &Fault) {
        self.count_fault_of(&self.assigned, fault);
    }

    fn count_fault_of(&self, of: &Assignment, fault: &Fault) {
        version::count_fault(&of.version, &of.deployed, fault);
        let plugin = of.version.plugin.name();
        metrics::counter!("hotbay_plugin_faults_total", "plugin" => plugin.to_owned(), "kind" => fault.kind())
            .increment(1);
        let digest = of.version.digest();
        if let Fault::Quota { .. } = fault {
            // A tenant at a limit decides how often: not for every log.
            return tracing::debug!(channel = %self.channel.name, plugin, %digest, %fault, "refused at a limit of the tenant");
        }
        tracing::warn!(channel = %self.channel.name, plugin, %digest, deployment = of.deployed.id, %fault, "plugin fault");
    }
}

/// An actor that panics, which is a bug of the broker, takes its channel down for a moment, and nothing else: its members are
/// told to come back, and the next event finds a channel that sleeps, with everything that was committed.
impl Drop for Actor {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.drop_claim();
            let members = self.roster.iter().chain(self.joining.values().map(|(recipient, _)| recipient));
            members.for_each(|recipient| recipient.outbox.close(Close::INTERNAL));
            for recipient in self.channel.mailbox.abandon() {
                recipient.outbox.close(Close::INTERNAL);
            }
        }
    }
}
