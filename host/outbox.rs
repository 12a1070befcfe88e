//! What waits to be written to one client. Whoever has a frame for the client pushes it here, from any task: if nothing
//! waits, it is written to the socket at once; only when the socket is full does it queue, for the connection's own task to
//! write when there is room. So a burst costs each member one lock and one system call, and a slow reader delays nobody.
//!
//! The queue is bounded in bytes. Over the bound, frames that were replaced by newer ones of the same conflation key are
//! already gone; low priority is shed first, then normal; then the client is closed as a slow reader.

mod queue;

use std::io::{self, IoSlice};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use tokio::net::TcpStream;

use crate::outbox::queue::Queue;
use crate::protocol::burst::{Burst, Frames, Slice};
use crate::protocol::close::Close;
use crate::protocol::frame::{Delivery, encode_close};

/// Pieces handed to one system call; more take several.
const SLICES_MAX: usize = 64;

/// The way out to one client.
pub struct Outbox {
    stream: TcpStream,
    state: Mutex<State>,
    /// The connection's own task.
    task: AtomicWaker,
    bytes_max: usize,
}

#[derive(Default)]
struct State {
    queue: Queue,
    phase: Phase,
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
    /// The close frame was written, or the socket failed: nothing will be written any more.
    Done,
}

impl Outbox {
    /// An outbox for a connected, upgraded socket.
    pub fn new(stream: TcpStream, bytes_max: usize) -> Self {
        Self { stream, state: Mutex::default(), task: AtomicWaker::new(), bytes_max }
    }

    /// The socket, for reading.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends one frame.
    pub fn send(&self, wire: Bytes, delivery: Delivery) {
        let mut state = self.lock();
        if state.phase != Phase::Open {
            return;
        }
        let written = if state.queue.is_empty() { self.write_now(&mut state, &wire) } else { Some(0) };
        if let Some(written) = written.filter(|written| *written < wire.len()) {
            state.queue.push(&Frames::one(wire, delivery), 0..1, written);
            self.settle(&mut state);
        }
    }

    /// Sends frames, all of them.
    pub fn send_frames(&self, frames: &Frames) {
        let mut state = self.lock();
        if state.phase != Phase::Open || frames.is_empty() {
            return;
        }
        let written = if state.queue.is_empty() { self.write_now(&mut state, &frames.wire) } else { Some(0) };
        if let Some(written) = written.filter(|written| *written < frames.wire.len()) {
            state.queue.push(frames, 0..frames.len(), written);
            self.settle(&mut state);
        }
    }

    /// Sends some frames of a burst.
    pub fn send_slices(&self, burst: &Burst, slices: &[Slice]) {
        let mut state = self.lock();
        if state.phase != Phase::Open {
            return;
        }
        let mut slices = slices.iter().map(|slice| burst.frames(slice)).peekable();
        while state.queue.is_empty() && slices.peek().is_some() {
            let now: Vec<_> = slices.by_ref().take(SLICES_MAX).collect();
            let mut wires = [IoSlice::new(&[]); SLICES_MAX];
            for (wire, (frames, range)) in wires.iter_mut().zip(&now) {
                *wire = IoSlice::new(&frames.wire[frames.bytes(range)]);
            }
            let Some(mut written) = self.write_vectored_now(&mut state, &wires[..now.len()]) else { return };
            for (frames, range) in now {
                let len = frames.bytes(&range).len();
                if written < len {
                    state.queue.push(frames, range, written);
                }
                written = written.saturating_sub(len);
            }
        }
        for (frames, range) in slices {
            state.queue.push(frames, range, 0);
        }
        if !state.queue.is_empty() {
            self.settle(&mut state);
        }
    }

    /// Closes: what waits is still written, then a close frame, then nothing. The first close counts.
    pub fn close(&self, close: Close) {
        self.close_with(close.code, close.reason);
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
        let written = if state.queue.is_empty() { self.write_now(state, &wire) } else { Some(0) };
        match written {
            Some(written) if written < wire.len() => {
                state.queue.push(&Frames::one(wire, Delivery::HIGH), 0..1, written);
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
        match self.lock().phase {
            Phase::Open => None,
            Phase::Closing(code) => Some(code),
            Phase::Done(code) => code,
        }
    }

    /// Bytes that wait.
    pub fn bytes_waiting(&self) -> usize {
        self.lock().queue.bytes()
    }

    /// Frames dropped for this reader since the last question.
    pub fn take_shed(&self) -> u64 {
        self.lock().queue.take_shed()
    }

    /// Writes what waits. Called by the connection's task only; it is woken when there is more to do.
    pub fn poll_progress(&self, cx: &mut Context<'_>) -> Progress {
        self.task.register(cx.waker());
        loop {
            let blocked = {
                let mut state = self.lock();
                self.flush(&mut state);
                match state.phase {
                    Phase::Done(_) => return Progress::Done,
                    _ if state.queue.is_empty() && state.queue.shed() > 0 => return Progress::Shed,
                    _ if state.queue.is_empty() => return Progress::Idle,
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
        while !state.queue.is_empty() {
            let mut wires = [IoSlice::new(&[]); SLICES_MAX];
            let mut count = 0;
            for (slice, wire) in wires.iter_mut().zip(state.queue.wires()) {
                *slice = IoSlice::new(wire);
                count += 1;
            }
            match self.stream.try_write_vectored(&wires[..count]) {
                Ok(written) => state.queue.written(written),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.fail(state),
            }
        }
        if let Phase::Closing(code) = state.phase {
            state.phase = Phase::Done(Some(code));
        }
    }

    /// Writes what it can and says how much that was; `None` if the socket failed.
    fn write_now(&self, state: &mut State, wire: &[u8]) -> Option<usize> {
        let result = self.stream.try_write(wire);
        self.settle_write(state, result)
    }

    fn write_vectored_now(&self, state: &mut State, wires: &[IoSlice<'_>]) -> Option<usize> {
        let result = self.stream.try_write_vectored(wires);
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
        if state.queue.bytes() > self.bytes_max {
            state.queue.shed_down_to(self.bytes_max);
        }
        if state.queue.bytes() > self.bytes_max && state.phase == Phase::Open {
            // Only what is begun is still owed; the rest would only delay the news.
            state.queue.drop_all_unbegun();
            metrics::counter!("hotbay_slow_readers_closed_total").increment(1);
            self.close_locked(state, Close::SLOW.code, Close::SLOW.reason);
        }
        self.task.wake();
    }

    fn fail(&self, state: &mut State) {
        state.queue.clear();
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
