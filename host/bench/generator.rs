//! Many connections on one thread: one epoll, one buffer that all of them are read into, nothing allocated per message.
//! Carries out what [`super::run`] decides, and counts in a [`Tally`] what comes back.

use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use super::BenchError;
use super::link::{Flushed, Link, Phase};
use super::plan::Plan;
use super::stamp::Stamp;
use super::tally::{Tally, example};
use super::template::Values;
use super::wire::{self, Answer};

const BUFFER_BYTES: usize = 256 << 10;
const EVENTS_MAX: usize = 1_024;
/// Longest answer to a ping.
const PONG_BYTES_MAX: usize = 125;
/// Marks the timer among the events.
const TIMER: u64 = u64::MAX;

/// The generator.
pub(super) struct Generator<'p> {
    plan: &'p Plan,
    start: Instant,
    epoll: OwnedFd,
    /// Wakes exactly when something is due; epoll's own time has milliseconds.
    timer: OwnedFd,
    /// When the timer wakes.
    timer_ns: u64,
    events: Vec<Event>,
    buffer: Box<[u8]>,
    text: Vec<u8>,
    links: Vec<Link>,
    rooms: Vec<Room>,
    unflushed: Vec<u32>,
    pub(super) tally: Tally,
    pub(super) opened: u32,
    pub(super) joined: u32,
}

/// What the generator knows of a room.
#[derive(Debug, Clone, Copy, Default)]
struct Room {
    members: u32,
    next_publisher: u32,
    under_way: u32,
}

/// Whether something was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Publishing {
    Done,
    /// Later: too much is under way.
    Full,
    /// Nobody is left in the room who could.
    Nobody,
}

impl<'p> Generator<'p> {
    pub(super) fn new(plan: &'p Plan) -> Result<Self, BenchError> {
        let failed = |what| move |error: rustix::io::Errno| BenchError::System { what, reason: error.to_string() };
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(failed("epoll_create"))?;
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)
            .map_err(failed("timerfd_create"))?;
        epoll::add(&epoll, &timer, EventData::new_u64(TIMER), EventFlags::IN).map_err(failed("epoll_ctl"))?;
        let mut rooms = vec![Room::default(); plan.rooms as usize];
        let links = (0..plan.connections).map(|index| {
            let room = index % plan.rooms;
            rooms[room as usize].members += 1;
            Link::to(room)
        });
        Ok(Self {
            plan,
            start: Instant::now(),
            epoll,
            timer,
            timer_ns: 0,
            events: Vec::with_capacity(EVENTS_MAX),
            buffer: vec![0; BUFFER_BYTES].into(),
            text: Vec::new(),
            links: links.collect(),
            rooms,
            unflushed: Vec::new(),
            tally: Tally::new(),
            opened: 0,
            joined: 0,
        })
    }

    /// Nanoseconds since the generator was made.
    pub(super) fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// Begins the next connection, which was due then.
    pub(super) fn open_next(&mut self, due_ns: u64) -> Result<(), BenchError> {
        let index = self.opened;
        let link = &mut self.links[index as usize];
        link.due_ns = due_ns;
        let source = (self.plan.source_addresses > 1).then(|| index % self.plan.source_addresses);
        if let Err(error) = link.open(self.plan.target.address, source) {
            return Err(self.not_connected(&error));
        }
        self.opened += 1;
        if let Some(socket) = &link.socket {
            let data = EventData::new_u64(u64::from(index));
            epoll::add(&self.epoll, socket, data, EventFlags::OUT)
                .map_err(|e| BenchError::System { what: "epoll_ctl", reason: e.to_string() })?;
        }
        Ok(())
    }

    /// Waits for events, at most until then, and handles them.
    pub(super) fn step(&mut self, until_ns: u64) -> Result<(), BenchError> {
        self.flush();
        let now_ns = self.now_ns();
        let wait_ns = until_ns.saturating_sub(now_ns);
        if wait_ns > 0 && self.timer_ns != until_ns {
            self.set_timer(wait_ns)?;
            self.timer_ns = until_ns;
        }
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let timeout = (wait_ns == 0).then_some(&zero);
        let mut events = mem::take(&mut self.events);
        match epoll::wait(&self.epoll, spare_capacity(&mut events), timeout) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(BenchError::System { what: "epoll_wait", reason: error.to_string() }),
        }
        for event in &events {
            let (flags, data) = (event.flags, event.data.u64());
            if data != TIMER {
                self.handle(data as usize, flags)?;
            }
        }
        events.clear();
        self.events = events;
        Ok(())
    }

    /// Publishes in a room what was due then.
    pub(super) fn publish(&mut self, room: u32, due_ns: u64) -> Publishing {
        let Self { plan, rooms, links, tally, text, unflushed, .. } = self;
        let state = &mut rooms[room as usize];
        let expected = state.members.saturating_sub(u32::from(plan.sender_excluded));
        let publisher = (0..plan.publishers).find_map(|_| {
            let index = state.next_publisher * plan.rooms + room;
            state.next_publisher = (state.next_publisher + 1) % plan.publishers;
            links.get(index as usize).filter(|link| link.phase == Phase::Joined).map(|_| index)
        });
        let Some(index) = publisher.filter(|_| expected > 0) else { return Publishing::Nobody };
        let link = &mut links[index as usize];
        if link.is_full() {
            return Publishing::Full;
        }
        let Some(stamp) = tally.ledger.publish(due_ns, room, expected) else { return Publishing::Full };
        let token = token(plan, index);
        let seq = tally.counts.published;
        text.clear();
        let values = Values { room, conn: index, seq, stamp, token, bytes: plan.message_bytes };
        plan.wording.publish.fill(&values, text);
        wire::push_frame(wire::TEXT, text, &mut link.out);
        tally.counts.published += 1;
        state.under_way += 1;
        to_be_flushed(link, index, unflushed);
        Publishing::Done
    }

    /// Publishes until the room's window is full.
    pub(super) fn refill(&mut self, room: u32) -> Publishing {
        while self.rooms[room as usize].under_way < self.plan.window {
            let now_ns = self.now_ns();
            let published = self.publish(room, now_ns);
            if published != Publishing::Done {
                return published;
            }
        }
        Publishing::Done
    }

    /// Takes the rooms in which publishes were finished.
    pub(super) fn take_finished(&mut self, rooms: &mut Vec<u32>) {
        rooms.append(&mut self.tally.finished_in);
        for room in rooms {
            let state = &mut self.rooms[*room as usize];
            state.under_way = state.under_way.saturating_sub(1);
        }
    }

    /// The first connection that is opened and has not joined, and what it waits for.
    pub(super) fn straggler(&self) -> Option<(usize, String)> {
        let waits = |link: &Link| match link.phase {
            Phase::Connecting => Some("the TCP connection".to_owned()),
            Phase::Upgrading => Some("the answer to the handshake".to_owned()),
            Phase::Greeting => {
                let awaited =
                    self.plan.wording.hello.get(usize::from(link.greeted)).and_then(|(_, text)| text.as_ref());
                awaited.map(|text| format!("a message with {:?}", String::from_utf8_lossy(text)))
            }
            Phase::Closed | Phase::Joined | Phase::Lost => None,
        };
        self.links.iter().enumerate().find_map(|(index, link)| Some((index, waits(link)?)))
    }

    fn set_timer(&self, wait_ns: u64) -> Result<(), BenchError> {
        let value = Timespec {
            tv_sec: (wait_ns / 1_000_000_000).cast_signed(),
            tv_nsec: (wait_ns % 1_000_000_000).cast_signed(),
        };
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let once = Itimerspec { it_interval: never, it_value: value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)
            .map_err(|e| BenchError::System { what: "timerfd_settime", reason: e.to_string() })?;
        Ok(())
    }

    fn flush(&mut self) {
        let mut unflushed = mem::take(&mut self.unflushed);
        for index in unflushed.drain(..) {
            self.links[index as usize].unflushed = false;
            self.flush_one(index as usize);
        }
        self.unflushed = unflushed;
    }

    fn flush_one(&mut self, index: usize) {
        let link = &mut self.links[index];
        let wants_room = match link.flush() {
            Ok(flushed) => flushed == Flushed::Some,
            Err(error) => return self.lose(index, || error.to_string()),
        };
        if wants_room != link.awaits_room {
            link.awaits_room = wants_room;
            let flags = if wants_room { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            self.watch(index, flags);
        }
    }

    fn watch(&mut self, index: usize, flags: EventFlags) {
        let Some(socket) = &self.links[index].socket else { return };
        if let Err(error) = epoll::modify(&self.epoll, socket, EventData::new_u64(index as u64), flags) {
            self.lose(index, || format!("epoll_ctl: {error}"));
        }
    }

    fn handle(&mut self, index: usize, flags: EventFlags) -> Result<(), BenchError> {
        if self.links[index].phase == Phase::Connecting {
            return self.connected(index);
        }
        if flags.contains(EventFlags::OUT) {
            self.flush_one(index);
        }
        if !flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR | EventFlags::RDHUP) {
            return Ok(());
        }
        let was = self.links[index].phase;
        let mut buffer = mem::take(&mut self.buffer);
        let read = self.links[index].read(&mut buffer);
        let done = match read {
            Ok(None) => Ok(()),
            Ok(Some(0)) => {
                self.lose(index, || "the server ended the connection".to_owned());
                Ok(())
            }
            Ok(Some(count)) => {
                self.tally.counts.reads += 1;
                self.received(index, &buffer[..count])
            }
            Err(error) => {
                self.lose(index, || error.to_string());
                Ok(())
            }
        };
        self.buffer = buffer;
        done?;
        let lost = self.links[index].phase == Phase::Lost;
        if lost && was != Phase::Joined && was != Phase::Lost {
            let reason = self.tally.first_loss.clone().unwrap_or_default();
            return Err(BenchError::Join { reason, before: self.joined as usize });
        }
        Ok(())
    }

    fn connected(&mut self, index: usize) -> Result<(), BenchError> {
        let link = &mut self.links[index];
        let Some(socket) = &link.socket else { return Ok(()) };
        match socket.take_error() {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => return Err(self.not_connected(&error)),
        }
        link.phase = Phase::Upgrading;
        let values = values(self.plan, link.room, index as u32);
        let wording = &self.plan.wording;
        let headers: Vec<String> = wording.headers.iter().map(|header| header.text(&values)).collect();
        let request = wire::request(&self.plan.target.host, &wording.path.text(&values), &headers);
        link.out.extend_from_slice(request.as_bytes());
        self.watch(index, EventFlags::IN);
        self.flush_one(index);
        Ok(())
    }

    fn received(&mut self, index: usize, bytes: &[u8]) -> Result<(), BenchError> {
        let link = &mut self.links[index];
        if link.phase != Phase::Upgrading {
            self.frames(index, bytes);
            return Ok(());
        }
        link.answer.extend_from_slice(bytes);
        match wire::answer(&link.answer) {
            Answer::Partial => Ok(()),
            Answer::Refused(answer) => {
                let target = self.plan.wording.path.text(&values(self.plan, link.room, index as u32));
                // Tokens belong into no error message.
                let target = target.split(['?']).next().unwrap_or_default().to_owned();
                let remedy = BenchError::refused_remedy(&answer);
                Err(BenchError::Refused { target, answer, before: self.joined as usize, remedy })
            }
            Answer::Upgraded(at) => {
                let early = mem::take(&mut link.answer).split_off(at);
                link.phase = Phase::Greeting;
                self.greet(index);
                self.frames(index, &early);
                Ok(())
            }
        }
    }

    /// Sends the protocol's first messages, up to the next whose answer is awaited.
    fn greet(&mut self, index: usize) {
        let Self { plan, links, text, unflushed, .. } = self;
        let link = &mut links[index];
        if greet(plan, index as u32, link, text) {
            self.joined += 1;
            self.tally.handshakes.record(self.start.elapsed().as_nanos() as u64 - link.due_ns);
        }
        to_be_flushed(link, index as u32, unflushed);
    }

    fn frames(&mut self, index: usize, bytes: &[u8]) {
        let now_ns = self.now_ns();
        let Self { plan, links, tally, text, joined, unflushed, .. } = self;
        let plan = *plan;
        let link = &mut links[index];
        let refusal = plan.wording.refusal.as_deref();
        let mut walker = mem::take(&mut link.walker);
        let mut end = None;
        let walked = walker.walk(bytes, |frame| {
            match frame.opcode {
                0x1 | 0x2 if link.phase == Phase::Joined => tally.message(frame.payload, now_ns, refusal),
                0x1 | 0x2 => {
                    let awaited = plan.wording.hello.get(usize::from(link.greeted)).and_then(|(_, text)| text.as_ref());
                    if awaited.is_some_and(|awaited| contains(frame.payload, awaited)) {
                        link.greeted += 1;
                        if greet(plan, index as u32, link, text) {
                            *joined += 1;
                            tally.handshakes.record(now_ns.saturating_sub(link.due_ns));
                        }
                        to_be_flushed(link, index as u32, unflushed);
                    } else if refusal.is_some_and(|refusal| frame.payload.starts_with(refusal)) {
                        end = Some(format!("refused: {}", example(frame.payload)));
                    }
                }
                wire::PING => {
                    let payload = &frame.payload[..frame.payload.len().min(PONG_BYTES_MAX)];
                    wire::push_frame(wire::PONG, payload, &mut link.out);
                    to_be_flushed(link, index as u32, unflushed);
                }
                wire::CLOSE => end = Some(wire::close_words(frame.payload)),
                _ => {}
            }
            end.is_none()
        });
        link.walker = walker;
        if let Err(malformed) = walked {
            end = Some(format!("the server sent {malformed}"));
        }
        if let Some(words) = end {
            self.lose(index, || words);
        }
    }

    /// A connection ended.
    fn lose(&mut self, index: usize, words: impl FnOnce() -> String) {
        let link = &mut self.links[index];
        if link.phase == Phase::Lost {
            return;
        }
        link.lose();
        self.rooms[link.room as usize].members -= 1;
        self.tally.counts.lost += 1;
        self.tally.loss(words);
    }

    fn not_connected(&self, error: &io::Error) -> BenchError {
        BenchError::Connect {
            address: self.plan.target.address,
            reason: error.to_string(),
            before: self.joined as usize,
            remedy: BenchError::connect_remedy(error),
        }
    }
}

/// Whether the connection has joined now.
fn greet(plan: &Plan, index: u32, link: &mut Link, text: &mut Vec<u8>) -> bool {
    let values = values(plan, link.room, index);
    while let Some((hello, awaited)) = plan.wording.hello.get(usize::from(link.greeted)) {
        text.clear();
        hello.fill(&values, text);
        if !text.is_empty() {
            wire::push_frame(wire::TEXT, text, &mut link.out);
        }
        if awaited.is_some() {
            return false;
        }
        link.greeted += 1;
    }
    link.phase = Phase::Joined;
    true
}

fn values(plan: &Plan, room: u32, conn: u32) -> Values<'_> {
    Values { room, conn, seq: 0, stamp: Stamp { due_ns: 0, slot: 0 }, token: token(plan, conn), bytes: 0 }
}

fn token(plan: &Plan, index: u32) -> &str {
    let tokens = &plan.wording.tokens;
    &tokens[index as usize % tokens.len()]
}

fn to_be_flushed(link: &mut Link, index: u32, unflushed: &mut Vec<u32>) {
    if !link.unflushed {
        link.unflushed = true;
        unflushed.push(index);
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    part.is_empty() || bytes.windows(part.len()).any(|window| window == part)
}
