//! Where events wait for their channel. Bounded in events and bytes: a full mailbox takes nothing, and the socket that
//! wanted to put something in is not read until there is room. The mailbox also knows whether the channel sleeps, so
//! that waking it and putting something in are one step.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use futures_util::task::AtomicWaker;
use tokio::sync::oneshot;

use crate::channel::directory::Glance;
use crate::channel::membership::Membership;
use crate::channel::sleep::Bedtime;
use crate::fanout::{Recipient, Roster};
use crate::limits::MountLimits;
use crate::protocol::event::{Event, HttpResponse, MemberId};
use crate::protocol::refusal::Refusal;

/// An event and what goes with it, which is the actor's business and not the core's.
pub struct Letter {
    /// What happened.
    pub event: Event,
    /// What goes with it.
    pub enclosure: Enclosure,
}

/// What goes with an event.
pub enum Enclosure {
    /// Nothing.
    None,
    /// With a `join`: the new member.
    Joiner(Recipient, Membership),
    /// With a `publish` or `request`: where the answer goes.
    Reply(oneshot::Sender<Reply>),
}

/// The answer to a publish or an HTTP request.
#[derive(Debug)]
pub enum Reply {
    /// The publish took hold: epoch and sequence number of its commit.
    Published {
        /// The channel's epoch.
        epoch: u64,
        /// The last commit that it depends on.
        seq: u64,
    },
    /// The plugin's answer to an HTTP request.
    Response(HttpResponse),
    /// Neither: it had no effect.
    Refused(Refusal),
}

/// The mailbox of a channel.
#[derive(Default)]
pub(super) struct Mailbox {
    state: Mutex<State>,
    actor: AtomicWaker,
}

#[derive(Default)]
struct State {
    phase: Phase,
    letters: VecDeque<Letter>,
    bytes: usize,
    /// Members who join and leave without an event, for an actor that is awake.
    quiet: Vec<Quiet>,
    poked: bool,
    /// Somebody wants the channel to sleep now.
    bedtime: Option<Bedtime>,
    waiting: Vec<Waker>,
}

/// What the actor finds beside letters.
pub(super) struct Notes {
    /// Members that came and went quietly.
    pub(super) quiet: Vec<Quiet>,
    /// Whether a timer of the channel is due that only the store knows.
    pub(super) poked: bool,
    /// Somebody wants the channel to sleep now.
    pub(super) bedtime: Option<Bedtime>,
}

/// A membership without events: see [`Mailbox::join_quietly`].
pub(super) enum Quiet {
    /// A new member.
    Join(Recipient),
    /// A member that is gone.
    Leave(MemberId),
}

/// Whether somebody empties the mailbox.
pub(super) enum Phase {
    /// Nobody; here are the members.
    Asleep(Roster),
    /// An actor.
    Awake,
    /// The channel was forgotten: look it up again.
    Gone,
}

impl Default for Phase {
    fn default() -> Self {
        Self::Asleep(Roster::default())
    }
}

/// What came of putting something in.
pub(super) enum Put {
    /// It is in, and an actor will find it.
    Done,
    /// It is in, but the channel slept: whoever gets this starts an actor, with these members.
    Wake(Roster),
    /// There is no room; here it is again.
    Full(Letter),
    /// The channel was forgotten; here it is again, for a new lookup.
    Gone(Letter),
}

impl Mailbox {
    /// Puts a letter in.
    pub(super) fn put(&self, letter: Letter, limits: &MountLimits) -> Put {
        let mut state = self.lock();
        if matches!(state.phase, Phase::Gone) {
            return Put::Gone(letter);
        }
        let bytes = letter.event.bytes();
        // A leave must get in: it is what makes room elsewhere, and there is at most one per member.
        let must = matches!(letter.event, Event::Leave { .. });
        let full = state.letters.len() >= limits.mailbox_events_max
            || (!state.letters.is_empty() && state.bytes + bytes > limits.mailbox_bytes_max);
        if full && !must {
            return Put::Full(letter);
        }
        state.bytes += bytes;
        state.letters.push_back(letter);
        self.wake(state)
    }

    /// Wakes the channel without an event, because a timer is due.
    pub(super) fn poke(&self) -> Option<Roster> {
        let mut state = self.lock();
        if matches!(state.phase, Phase::Gone) {
            return None;
        }
        state.poked = true;
        match self.wake(state) {
            Put::Wake(roster) => Some(roster),
            Put::Done | Put::Full(_) | Put::Gone(_) => None,
        }
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) -> Put {
        match std::mem::replace(&mut state.phase, Phase::Awake) {
            Phase::Asleep(roster) => Put::Wake(roster),
            Phase::Awake => {
                drop(state);
                self.actor.wake();
                Put::Done
            }
            Phase::Gone => {
                state.phase = Phase::Gone;
                Put::Done
            }
        }
    }

    /// Adds a member without an event, and without waking a channel that sleeps. False if the channel was forgotten.
    pub(super) fn join_quietly(&self, recipient: Recipient) -> bool {
        let mut state = self.lock();
        match &mut state.phase {
            Phase::Asleep(roster) => drop(roster.insert(recipient)),
            Phase::Awake => self.tell_quietly(state, Quiet::Join(recipient)),
            Phase::Gone => return false,
        }
        true
    }

    /// Takes such a member out again.
    pub(super) fn leave_quietly(&self, member: MemberId) {
        let mut state = self.lock();
        match &mut state.phase {
            Phase::Asleep(roster) => drop(roster.remove(member)),
            Phase::Awake => self.tell_quietly(state, Quiet::Leave(member)),
            Phase::Gone => {}
        }
    }

    fn tell_quietly(&self, mut state: MutexGuard<'_, State>, quiet: Quiet) {
        state.quiet.push(quiet);
        drop(state);
        self.actor.wake();
    }

    /// The actor is gone without a word: here are the members that wait for it; the next letter starts another one.
    pub(super) fn abandon(&self) -> Vec<Recipient> {
        let abandoned = {
            let mut state = self.lock();
            drop(self.actor.take());
            std::mem::take(&mut *state)
        };
        abandoned.waiting.into_iter().for_each(Waker::wake);
        let joins = abandoned.letters.into_iter().filter_map(|letter| match letter.enclosure {
            Enclosure::Joiner(recipient, _) => Some(recipient),
            _ => None,
        });
        let quiet = abandoned.quiet.into_iter().filter_map(|quiet| match quiet {
            Quiet::Join(recipient) => Some(recipient),
            Quiet::Leave(_) => None,
        });
        joins.chain(quiet).collect()
    }

    /// What can be seen from outside; of the members only while nobody has them.
    pub(super) fn glance(&self) -> Glance {
        let state = self.lock();
        Glance {
            is_awake: matches!(state.phase, Phase::Awake),
            members: match &state.phase {
                Phase::Asleep(roster) => Some(roster.len()),
                Phase::Awake => None,
                Phase::Gone => Some(0),
            },
            events_waiting: state.letters.len(),
            bytes_waiting: state.bytes,
        }
    }

    /// Looks at the members, if nobody has them.
    pub(super) fn members<T>(&self, look: impl FnOnce(&Roster) -> T) -> Option<T> {
        match &self.lock().phase {
            Phase::Asleep(roster) => Some(look(roster)),
            Phase::Awake => None,
            Phase::Gone => Some(look(&Roster::default())),
        }
    }

    /// Asks to be woken when there is room again. The caller tries once more after this, before it waits.
    pub(super) fn wait_for_room(&self, cx: &Context<'_>) {
        let mut state = self.lock();
        if !state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.waiting.push(cx.waker().clone());
        }
    }

    /// Takes letters out, at most so many and so many bytes, but at least one if there is one and any are wanted; and what there
    /// is beside them. Called by the actor, which is woken when more comes.
    pub(super) fn take(&self, events_max: usize, bytes_max: usize, into: &mut Vec<Letter>) -> Notes {
        let mut state = self.lock();
        let mut bytes = 0;
        while into.len() < events_max
            && let Some(letter) = state.letters.front()
        {
            bytes += letter.event.bytes();
            if bytes > bytes_max && !into.is_empty() {
                break;
            }
            let Some(letter) = state.letters.pop_front() else { break };
            state.bytes -= letter.event.bytes();
            into.push(letter);
        }
        if state.letters.is_empty() {
            state.letters = VecDeque::new(); // Gives the memory of a burst back.
        }
        let waiting = if into.is_empty() { Vec::new() } else { std::mem::take(&mut state.waiting) };
        let notes = Notes {
            quiet: std::mem::take(&mut state.quiet),
            poked: std::mem::take(&mut state.poked),
            bedtime: state.bedtime.take(),
        };
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
        notes
    }

    /// Whether something waits.
    pub(super) fn has_letters(&self) -> bool {
        !self.lock().letters.is_empty()
    }

    /// Whether the actor has something to look at; registers it to be woken otherwise.
    pub(super) fn poll_news(&self, cx: &Context<'_>, wants_events: bool) -> bool {
        self.actor.register(cx.waker());
        let state = self.lock();
        (wants_events && !state.letters.is_empty()) || !state.quiet.is_empty() || state.poked || state.bedtime.is_some()
    }

    /// Asks the actor to let the channel sleep. It sleeps if there is none.
    ///
    /// # Errors
    /// If somebody else has asked, and still waits.
    pub(super) fn send_to_bed(&self, bedtime: Bedtime) -> Result<(), Bedtime> {
        let mut state = self.lock();
        if !matches!(state.phase, Phase::Awake) {
            drop(state);
            bedtime.done();
            return Ok(());
        }
        if state.bedtime.as_ref().is_some_and(Bedtime::is_awaited) {
            return Err(bedtime);
        }
        state.bedtime = Some(bedtime);
        drop(state);
        self.actor.wake();
        Ok(())
    }

    /// Wakes the actor, if there is one that waits, to look at something else than letters.
    pub(super) fn wake_actor(&self) {
        self.actor.wake();
    }

    /// Goes to sleep, unless something came in meanwhile: then the members come back and the actor goes on.
    ///
    /// # Errors
    /// With the members, if there is something to do.
    pub(super) fn sleep(&self, roster: Roster) -> Result<(), Roster> {
        let mut state = self.lock();
        if !state.letters.is_empty() || !state.quiet.is_empty() || state.poked {
            return Err(roster);
        }
        state.phase = Phase::Asleep(roster);
        if let Some(bedtime) = state.bedtime.take() {
            bedtime.done();
        }
        // The waker keeps the whole task in memory, ended or not.
        drop(self.actor.take());
        Ok(())
    }

    /// Forgets the channel if it sleeps and has no members. True if it is gone.
    pub(super) fn retire(&self) -> bool {
        let mut state = self.lock();
        match &state.phase {
            Phase::Asleep(roster) if roster.is_empty() => state.phase = Phase::Gone,
            Phase::Asleep(_) | Phase::Awake => return false,
            Phase::Gone => {}
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::outbox::Outbox;
    use crate::protocol::identity::Identity;

    #[derive(Default)]
    struct Woken(AtomicU32);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn recipient() -> Recipient {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let outbox = Arc::new(Outbox::new(stream, 1 << 10));
        Recipient { member: MemberId(1), identity: Identity::anonymous("default"), outbox }
    }

    /// Goal: an actor that waits is woken for members who come and go quietly, each time: what is told to nobody in particular
    /// does not pile up until somebody speaks.
    #[tokio::test]
    async fn an_actor_that_waits_is_woken_for_quiet_members() {
        let mailbox = Mailbox::default();
        mailbox.poke();
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let cx = Context::from_waker(&waker);
        mailbox.take(1, 1, &mut Vec::new());
        assert!(!mailbox.poll_news(&cx, true));

        assert!(mailbox.join_quietly(recipient().await));

        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert!(mailbox.poll_news(&cx, false));
        let Notes { quiet, .. } = mailbox.take(0, 0, &mut Vec::new());
        assert!(matches!(quiet.as_slice(), [Quiet::Join(_)]));
        assert!(!mailbox.poll_news(&cx, true));
        mailbox.leave_quietly(MemberId(1));
        assert_eq!(woken.0.load(Ordering::Relaxed), 2);
        let Notes { quiet, .. } = mailbox.take(0, 0, &mut Vec::new());
        assert!(matches!(quiet.as_slice(), [Quiet::Leave(MemberId(1))]));
    }
}
