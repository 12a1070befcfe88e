//! What waits to be written to one client. Whoever has a frame for the client pushes it here, from any task: if nothing
//! waits, it is written to the socket at once; only when the socket is full does it queue, for the connection's own task to
//! write when there is room. So a burst costs each member one lock and one system call, and a slow reader delays nobody.
//!
//! The queue is bounded in bytes. Over the bound, frames that were replaced by newer ones of the same conflation key are
//! already gone; low priority is shed first, then normal; then the client is closed as a slow reader.

mod queue;

use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use rustix::io::Errno;
use rustix::net::SendFlags;
use tokio::net::TcpStream;

use crate::outbox::queue::Queue;
use crate::protocol::burst::{Burst, Frames, Slice};
use crate::protocol::close::Close;
use crate::protocol::deflate::Compression;
use crate::protocol::frame::{Delivery, encode_close};
use crate::protocol::refusal::RefusalCode;

/// Pieces handed to one system call; more take several.
const SLICES_MAX: usize = 64;

/// The way out to one client.
pub struct Outbox {
    stream: TcpStream,
    state: Mutex<State>,
    /// The connection's own task.
    task: AtomicWaker,
    bytes_max: usize,
    /// If the client negotiated it.
    compression: Option<Compression>,
}

#[derive(Default)]
struct State {
    phase: Phase,
    /// Absent while nothing waits, which is nearly always: what is looked at for every burst stays small.
    queue: Option<Box<Queue>>,
    /// The host wants the connection closed, once the plugin had its last word.
    dismissed: Option<&'static Close>,
    /// Messages of the client that were no messages.
    bad: PerMinute,
}

/// Counts by the minute.
#[derive(Debug, Default)]
pub struct PerMinute {
    minute: u32,
    count: u32,
}

impl PerMinute {
    /// Counts one; returns how many it were in this minute.
    pub fn count(&mut self, now_ms: u64) -> u32 {
        let minute = (now_ms / 60_000) as u32;
        if self.minute != minute {
            *self = Self { minute, count: 0 };
        }
        self.count += 1;
        self.count
    }
}

impl State {
    fn queue(&mut self) -> &mut Queue {
        self.queue.get_or_insert_default()
    }

    /// Nothing waits any more.
    fn emptied(&mut self) {
        if self.queue.as_ref().is_some_and(|queue| queue.is_empty() && queue.shed() == 0) {
            self.queue = None;
        }
    }

    fn is_blocked(&self) -> bool {
        self.queue.as_ref().is_some_and(|queue| !queue.is_empty())
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Open,
    /// A close frame is the last entry; nothing more is taken.
    Closing(u16),
    /// The socket failed, or everything up to the close frame was written.
    Done(Option<u16>),
}

/// What the connection's task finds when it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Everything was written.
    Idle,
    /// Everything was written that was not dropped: the reader is to be told, see [`Outbox::take_shed`].
    Shed,
    /// Something waits for the socket.
    Blocked,
    /// The same, and the last of it is a close frame: nothing more will be taken.
    Closing,
    /// The host wants it closed; see [`Outbox::dismiss`].
    Dismissed(&'static Close),
    /// The close frame was written, or the socket failed: nothing will be written any more.
    Done,
}

impl Outbox {
    /// An outbox for a connected, upgraded socket.
    pub fn new(stream: TcpStream, bytes_max: usize) -> Self {
        Self { stream, state: Mutex::default(), task: AtomicWaker::new(), bytes_max, compression: None }
    }

    /// The same for a client that negotiated compression, if it did.
    #[must_use]
    pub fn compressing(self, compression: Option<Compression>) -> Self {
        Self { compression, ..self }
    }

    /// How frames are compressed, if the client negotiated it.
    pub fn compression(&self) -> Option<Compression> {
        self.compression
    }

    /// The form of some frames that this client gets.
    fn form<'f>(&self, frames: &'f Frames) -> &'f Frames {
        self.compression.map_or(frames, |compression| frames.deflated(compression))
    }

    /// The socket, for reading.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends one frame.
    pub fn send(&self, wire: Bytes, delivery: Delivery) {
        if self.compression.is_some() {
            return self.send_frames(&Frames::one(wire, delivery));
        }
        let mut state = self.lock();
        if state.phase != Phase::Open {
            return;
        }
        let written = if state.is_blocked() { Some(0) } else { self.write_now(&mut state, &wire) };
        if let Some(written) = written.filter(|written| *written < wire.len()) {
            state.queue().push(&Frames::one(wire, delivery), 0..1, written);
            self.settle(&mut state);
        }
    }

    /// Sends frames, all of them.
    pub fn send_frames(&self, frames: &Frames) {
        self.send_range(frames, 0..frames.len());
    }

    /// Sends some frames of a burst.
    pub fn send_slices(&self, burst: &Burst, slices: &[Slice]) {
        if let [slice] = slices {
            let (frames, range) = burst.frames(slice);
            return self.send_range(frames, range);
        }
        let part = |slice| {
            let (frames, range) = burst.frames(slice);
            (self.form(frames), range)
        };
        if self.compression.is_some() {
            // What takes a while, before the lock is held.
            slices.iter().map(part).for_each(drop);
        }
        let mut state = self.lock();
        if state.phase != Phase::Open {
            return;
        }
        for slices in slices.chunks(SLICES_MAX) {
            let parts = || slices.iter().map(part);
            let mut written = 0;
            if !state.is_blocked() {
                let mut wires = [IoSlice::new(&[]); SLICES_MAX];
                for (wire, (frames, range)) in wires.iter_mut().zip(parts()) {
                    *wire = IoSlice::new(&frames.wire[frames.bytes(&range)]);
                }
                let result = self.stream.try_write_vectored(&wires[..slices.len()]);
                let Some(count) = self.settle_write(&mut state, result) else { return };
                written = count;
            }
            for (frames, range) in parts() {
                let len = frames.bytes(&range).len();
                if written < len {
                    state.queue().push(frames, range, written);
                }
                written = written.saturating_sub(len);
            }
        }
        if state.is_blocked() {
            self.settle(&mut state);
        }
    }

    fn send_range(&self, frames: &Frames, range: Range<u32>) {
        let frames = self.form(frames);
        let mut state = self.lock();
        if state.phase != Phase::Open || range.is_empty() {
            return;
        }
        let bytes = frames.bytes(&range);
        let written =
            if state.is_blocked() { Some(0) } else { self.write_now(&mut state, &frames.wire[bytes.clone()]) };
        if let Some(written) = written.filter(|written| *written < bytes.len()) {
            state.queue().push(frames, range, written);
            self.settle(&mut state);
        }
    }

    /// Closes: what waits is still written, then a close frame, then nothing. The first close counts.
    pub fn close(&self, close: Close) {
        self.close_with(close.code, close.reason);
    }

    /// Lets the connection's own task close, with a last frame in the plugin's words before the close frame. Until then frames are taken as
    /// before. False if that was said before, or it is closed.
    pub fn dismiss(&self, close: &'static Close) -> bool {
        let mut state = self.lock();
        let is_new = state.phase == Phase::Open && state.dismissed.is_none();
        if is_new {
            state.dismissed = Some(close);
            self.task.wake();
        }
        is_new
    }

    /// Counts a refusal: a client that sends too much that is no message of its protocol within a minute is dismissed.
    pub fn count_refusal(&self, code: RefusalCode, bad_max: u32, now_ms: u64) {
        if code == RefusalCode::BadRequest && self.lock().bad.count(now_ms) > bad_max {
            self.dismiss(&Close::BAD_MESSAGES);
        }
    }

    /// Like [`Outbox::close`], with a plugin's words.
    pub fn close_with(&self, code: u16, reason: &str) {
        let mut state = self.lock();
        if state.phase != Phase::Open {
            return;
        }
        self.close_locked(&mut state, code, reason);
    }

    fn close_locked(&self, state: &mut State, code: u16, reason: &str) {
        state.phase = Phase::Closing(code);
        let wire = encode_close(code, reason);
        let written = if state.is_blocked() { Some(0) } else { self.write_now(state, &wire) };
        match written {
            Some(written) if written < wire.len() => {
                state.queue().push(&Frames::one(wire, Delivery::HIGH), 0..1, written);
            }
            Some(_) => state.phase = Phase::Done(Some(code)),
            None => {} // The socket failed.
        }
        self.task.wake();
    }

    /// Drops everything and ends the connection without a close frame: the socket failed or the peer is gone.
    pub fn abort(&self) {
        self.fail(&mut self.lock());
    }

    /// The code of a close frame the host sent, or is about to send.
    pub fn closed_with(&self) -> Option<u16> {
        let state = self.lock();
        match state.phase {
            Phase::Open => state.dismissed.map(|close| close.code),
            Phase::Closing(code) => Some(code),
            Phase::Done(code) => code,
        }
    }

    /// Bytes that wait.
    pub fn bytes_waiting(&self) -> usize {
        self.lock().queue.as_ref().map_or(0, |queue| queue.bytes())
    }

    /// Frames dropped for this reader since the last question.
    pub fn take_shed(&self) -> u64 {
        let mut state = self.lock();
        let shed = state.queue.as_mut().map_or(0, |queue| queue.take_shed());
        state.emptied();
        shed
    }

    /// Writes what waits. Called by the connection's task only; it is woken when there is more to do.
    pub fn poll_progress(&self, cx: &mut Context<'_>) -> Progress {
        self.task.register(cx.waker());
        loop {
            let blocked = {
                let mut state = self.lock();
                self.flush(&mut state);
                if let (Phase::Open, Some(close)) = (state.phase, state.dismissed) {
                    return Progress::Dismissed(close);
                }
                match state.phase {
                    Phase::Done(_) => return Progress::Done,
                    _ if !state.is_blocked() && state.queue.is_some() => return Progress::Shed,
                    _ if !state.is_blocked() => return Progress::Idle,
                    Phase::Closing(_) => Progress::Closing,
                    Phase::Open => Progress::Blocked,
                }
            };
            // The socket was full. Ask to be woken, and try again if it has room by now.
            match self.stream.poll_write_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => self.abort(),
                Poll::Pending => return blocked,
            }
        }
    }

    fn flush(&self, state: &mut State) {
        while let Some(queue) = state.queue.as_mut().filter(|queue| !queue.is_empty()) {
            let mut wires = [IoSlice::new(&[]); SLICES_MAX];
            let mut count = 0;
            for (slice, wire) in wires.iter_mut().zip(queue.wires()) {
                *slice = IoSlice::new(wire);
                count += 1;
            }
            match self.stream.try_write_vectored(&wires[..count]) {
                Ok(written) => queue.written(written),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.fail(state),
            }
        }
        state.emptied();
        if let Phase::Closing(code) = state.phase {
            state.phase = Phase::Done(Some(code));
        }
    }

    /// Writes what it can and says how much that was; `None` if the socket failed.
    fn write_now(&self, state: &mut State, wire: &[u8]) -> Option<usize> {
        // Past tokio, whose record of what the socket is ready for is one more thing to look at for each member. Only when the
        // socket takes nothing must tokio learn of it.
        let result = match rustix::net::send(&self.stream, wire, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Err(Errno::WOULDBLOCK) => self.stream.try_write(wire),
            result => result.map_err(io::Error::from),
        };
        self.settle_write(state, result)
    }

    fn settle_write(&self, state: &mut State, result: io::Result<usize>) -> Option<usize> {
        match result {
            Ok(written) => Some(written),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Some(0),
            Err(_) => {
                self.fail(state);
                None
            }
        }
    }

    /// Holds the bound, and wakes the task that waits for the socket.
    fn settle(&self, state: &mut State) {
        let queue = state.queue();
        if queue.bytes() > self.bytes_max {
            queue.shed_down_to(self.bytes_max);
        }
        if queue.bytes() > self.bytes_max && state.phase == Phase::Open {
            // Only what is begun is still owed; the rest would only delay the news.
            state.queue().drop_all_unbegun();
            metrics::counter!("hotbay_slow_readers_closed_total").increment(1);
            self.close_locked(state, Close::SLOW.code, Close::SLOW.reason);
        }
        self.task.wake();
    }

    fn fail(&self, state: &mut State) {
        state.queue = None;
        let code = match state.phase {
            Phase::Open => None,
            Phase::Closing(code) => Some(code),
            Phase::Done(code) => code,
        };
        state.phase = Phase::Done(code);
        self.task.wake();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
