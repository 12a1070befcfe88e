//! What waits to be written to one client. Whoever has a frame for the client pushes it here, from any task: if nothing
//! waits, it is written to the socket at once; only when the socket is full does it queue, for the connection's own task to
//! write when there is room. So a burst costs each member one lock and one system call, and a slow reader delays nobody.
//!
//! The queue is bounded in bytes. Over the bound, frames that were replaced by newer ones of the same conflation key are
//! already gone; low priority is shed first, then normal; then the client is closed as a slow reader.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use futures_util::task::AtomicWaker;
use tokio::net::TcpStream;

use crate::protocol::close::Close;
use crate::protocol::frame::{Delivery, Priority, encode_close};

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
    queue: VecDeque<Entry>,
    bytes: usize,
    shed: u64,
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

struct Entry {
    wire: Bytes,
    delivery: Delivery,
    /// Part of it is on the wire: it can no longer be dropped.
    begun: bool,
}

/// Frames one after another, with what may happen to each when the reader is slow.
#[derive(Debug, Clone, Default)]
pub struct Frames {
    /// The bytes of all frames.
    pub wire: Bytes,
    /// End of each frame in `wire` and its delivery; empty if all are treated alike, by `alike`.
    pub marks: Vec<(u32, Delivery)>,
    /// How many frames.
    pub count: u64,
    /// The delivery of all frames, where it is the same and has no conflation key.
    pub alike: Option<Priority>,
}

/// One frame of a burst, as a range of its bytes.
#[derive(Debug, Clone)]
pub struct Part {
    /// Where it begins.
    pub start: u32,
    /// Where it ends.
    pub end: u32,
    /// What may happen to it when the reader is slow.
    pub delivery: Delivery,
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
        let rest = if state.queue.is_empty() { self.write_now(&mut state, wire) } else { Some((wire, false)) };
        if let Some((wire, begun)) = rest {
            state.push(Entry { wire, delivery, begun });
            self.settle(&mut state);
        }
    }

    /// Sends the frames of a burst.
    pub fn send_frames(&self, frames: &Frames) {
        let mut state = self.lock();
        if state.phase != Phase::Open || frames.wire.is_empty() {
            return;
        }
        if !state.queue.is_empty() {
            state.push_frames(frames, 0);
            return self.settle(&mut state);
        }
        let len = frames.wire.len();
        match self.try_write(&frames.wire) {
            Ok(written) if written == len => {}
            Ok(written) => {
                state.push_frames(frames, written);
                self.settle(&mut state);
            }
            Err(_) => self.fail(&mut state),
        }
    }

    /// Sends some frames of a burst, each a range of `wire`, in order.
    pub fn send_parts(&self, wire: &Bytes, parts: &[Part]) {
        const SLICES: usize = 64;
        let mut state = self.lock();
        if state.phase != Phase::Open {
            return;
        }
        let mut parts = parts.iter();
        while state.queue.is_empty() && !parts.as_slice().is_empty() {
            let chunk = &parts.as_slice()[..parts.len().min(SLICES)];
            let mut slices = [IoSlice::new(&[]); SLICES];
            for (slice, part) in slices.iter_mut().zip(chunk) {
                *slice = IoSlice::new(&wire[part.start as usize..part.end as usize]);
            }
            let mut written = match self.stream.try_write_vectored(&slices[..chunk.len()]) {
                Ok(written) => written,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
                Err(_) => return self.fail(&mut state),
            };
            for Part { start, end, delivery } in parts.by_ref().take(chunk.len()) {
                let len = (end - start) as usize;
                if written >= len {
                    written -= len;
                } else {
                    let rest = own(wire, *start as usize + written, *end as usize);
                    state.push(Entry { wire: rest, delivery: delivery.clone(), begun: written > 0 });
                    written = 0;
                }
            }
        }
        for Part { start, end, delivery } in parts {
            state.push(Entry {
                wire: own(wire, *start as usize, *end as usize),
                delivery: delivery.clone(),
                begun: false,
            });
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
        let rest = if state.queue.is_empty() { self.write_now(state, wire) } else { Some((wire, false)) };
        if let Some((wire, begun)) = rest {
            state.push(Entry { wire, delivery: Delivery::HIGH, begun });
        } else if let Phase::Closing(code) = state.phase {
            state.phase = Phase::Done(Some(code));
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
        self.lock().bytes
    }

    /// Frames dropped for this reader since the last question.
    pub fn take_shed(&self) -> u64 {
        let mut state = self.lock();
        // Asked while frames still wait, the answer would come before they do.
        if state.queue.is_empty() { std::mem::take(&mut state.shed) } else { 0 }
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
                    _ if state.queue.is_empty() && state.shed > 0 => return Progress::Shed,
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
        const SLICES: usize = 64;
        while !state.queue.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut count = 0;
            for (slice, entry) in slices.iter_mut().zip(&state.queue) {
                *slice = IoSlice::new(&entry.wire);
                count += 1;
            }
            match self.stream.try_write_vectored(&slices[..count]) {
                Ok(written) => state.written(written),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.fail(state),
            }
        }
        state.queue = VecDeque::new(); // Gives the memory of a burst back.
        if let Phase::Closing(code) = state.phase {
            state.phase = Phase::Done(Some(code));
        }
    }

    /// Writes what it can; the rest comes back, with whether part of it is on the wire.
    fn write_now(&self, state: &mut State, mut wire: Bytes) -> Option<(Bytes, bool)> {
        match self.try_write(&wire) {
            Ok(written) if written == wire.len() => None,
            Ok(written) => {
                wire.advance(written);
                Some((wire, written > 0))
            }
            Err(_) => {
                self.fail(state);
                None
            }
        }
    }

    fn try_write(&self, wire: &[u8]) -> io::Result<usize> {
        match self.stream.try_write(wire) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(0),
            result => result,
        }
    }

    /// Holds the bound, and wakes the task that waits for the socket.
    fn settle(&self, state: &mut State) {
        if state.bytes > self.bytes_max {
            state.shed_down_to(self.bytes_max);
        }
        if state.bytes > self.bytes_max && state.phase == Phase::Open {
            // Only what is begun is still owed; the rest would only delay the news.
            state.drop_unbegun();
            metrics::counter!("hotbay_slow_readers_closed_total").increment(1);
            self.close_locked(state, Close::SLOW.code, Close::SLOW.reason);
        }
        self.task.wake();
    }

    fn fail(&self, state: &mut State) {
        state.queue = VecDeque::new();
        state.bytes = 0;
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

/// A range of a burst for the queue: shared, unless it is a small part, which would keep the whole burst in memory.
fn own(wire: &Bytes, start: usize, end: usize) -> Bytes {
    let part = &wire[start..end];
    if part.len() * 4 < wire.len() { Bytes::copy_from_slice(part) } else { wire.slice_ref(part) }
}

impl State {
    fn push(&mut self, entry: Entry) {
        if let Some(key) = &entry.delivery.conflate {
            let stale = |old: &Entry| !old.begun && old.delivery.conflate.as_ref() == Some(key);
            if let Some(at) = self.queue.iter().position(stale)
                && let Some(old) = self.queue.remove(at)
            {
                self.bytes -= old.wire.len();
                metrics::counter!("hotbay_outbox_conflated_total").increment(1);
            }
        }
        self.bytes += entry.wire.len();
        self.queue.push_back(entry);
    }

    /// Queues frames, of which the first `written` bytes are on the wire.
    fn push_frames(&mut self, frames: &Frames, written: usize) {
        if let Some(priority) = frames.alike {
            let delivery = Delivery { priority, conflate: None };
            return self.push(Entry { wire: frames.wire.slice(written..), delivery, begun: written > 0 });
        }
        let mut start = 0;
        for (end, delivery) in &frames.marks {
            let end = *end as usize;
            if end > written {
                let from = start.max(written);
                let entry =
                    Entry { wire: frames.wire.slice(from..end), delivery: delivery.clone(), begun: from > start };
                self.push(entry);
            }
            start = end;
        }
    }

    fn written(&mut self, mut count: usize) {
        self.bytes -= count;
        while count > 0 {
            let Some(entry) = self.queue.front_mut() else { return };
            if entry.wire.len() > count {
                entry.wire.advance(count);
                entry.begun = true;
                return;
            }
            count -= entry.wire.len();
            self.queue.pop_front();
        }
    }

    /// Drops the oldest low, then normal, frames until the bound holds or none are left.
    fn shed_down_to(&mut self, bytes_max: usize) {
        for priority in [Priority::Low, Priority::Normal] {
            let mut excess = self.bytes.saturating_sub(bytes_max);
            let mut dropped = 0_u64;
            self.queue.retain(|entry| {
                let keep = excess == 0 || entry.begun || entry.delivery.priority != priority;
                if !keep {
                    excess = excess.saturating_sub(entry.wire.len());
                    self.bytes -= entry.wire.len();
                    dropped += 1;
                }
                keep
            });
            if dropped > 0 {
                self.shed += dropped;
                metrics::counter!("hotbay_outbox_shed_total").increment(dropped);
            }
        }
    }

    fn drop_unbegun(&mut self) {
        self.queue.retain(|entry| entry.begun);
        self.bytes = self.queue.iter().map(|entry| entry.wire.len()).sum();
    }
}

#[cfg(test)]
mod tests;
