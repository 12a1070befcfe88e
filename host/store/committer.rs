//! The group committer: takes what waits of all channels, has it written in one transaction, and answers each caller.
//!
//! While one group is on its way to the disk the next one gathers in the queue, so groups grow with the load by
//! themselves and an idle store commits at once. One task runs this; it owns the writer. What a group means in SQL is
//! the writer's business ([`GroupWriter`]); retries are the caller's.
//!
//! A write that hangs in the operating system has no time-out here: nobody could say whether it took hold, and its thread
//! cannot be stopped. Who waits for it decides for how long; the committer stays bounded meanwhile, and can be closed.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::catalog::{Changed, Changes};
use super::{Acquired, Commit, Committed, Durability, StoreError};
use crate::protocol::name::ChannelName;
use crate::telemetry;

/// Requests that may wait for the committer; further callers wait for a place.
const QUEUE_MAX: usize = 1_024;
/// Requests of one group.
const GROUP_REQUESTS_MAX: usize = 1_024;
/// Bytes of commits and changes of the registry that may wait or be under way. Only a store that does not come back gets there, and callers that gave up
/// leave what they sent here.
const QUEUE_BYTES_MAX: usize = 256 << 20;
/// How long closing waits for writes under way. A thread that hangs in the operating system cannot be stopped, only left.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(10);
/// Bytes of one group's requests; a larger one makes a group of its own.
const GROUP_BYTES_MAX: usize = 8 << 20;
/// Acquires of one group. Their answers carry saved memory, so that this bounds memory, too.
const GROUP_ACQUIRES_MAX: usize = 64;
/// Waiting requests that get the same answer when the database was locked, so that they do not wait for it one
/// group after the other.
const BUSY_ANSWERS_MAX: usize = 16 * QUEUE_MAX;

/// Writes groups. Implemented once per kind of database.
pub(super) trait GroupWriter: Send + 'static {
    /// Writes a group in one transaction, commits first, then acquires, then changes of the registry.
    ///
    /// # Errors
    /// Nothing of the group was written, or, if the database failed during its `COMMIT`, nobody knows.
    /// [`StoreError::Constraint`] means that some request is at fault; the committer then repeats them one by one.
    fn write(&mut self, group: &Group) -> impl Future<Output = Result<Written, StoreError>> + Send;

    /// Closes the database.
    fn close(self) -> impl Future<Output = ()> + Send;
}

/// What one transaction is to write. Each channel is acquired at most once; commits are in the order of their arrival.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) commits: Vec<Arc<Commit>>,
    pub(super) acquires: Vec<Acquire>,
    pub(super) changes: Vec<Changes>,
    /// Write something even if there is nothing else.
    pub(super) check: bool,
}

impl Group {
    /// Whether the group must be on disk before it is answered.
    pub(super) fn fsync(&self) -> bool {
        !(self.acquires.is_empty() && self.changes.is_empty() && !self.check)
            || self.commits.iter().any(|commit| commit.durability == Durability::Fsync)
    }
}

/// Who takes which channel.
#[derive(Debug)]
pub(super) struct Acquire {
    pub(super) channel: ChannelName,
    pub(super) owner: String,
}

/// The answers to a [`Group`], in its order.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) commits: Vec<Result<Committed, StoreError>>,
    pub(super) acquires: Vec<Acquired>,
    /// None where a condition did not hold.
    pub(super) changes: Vec<Option<Changed>>,
}

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

enum Request {
    Commit(Arc<Commit>, Waiting, Reply<Committed>),
    Acquire(Acquire, Reply<Acquired>),
    Change(Box<Changes>, Waiting, Reply<Option<Changed>>),
    Check(Reply<()>),
    Close(Reply<()>),
}

impl Request {
    fn bytes(&self) -> usize {
        match self {
            Self::Commit(_, waiting, _) | Self::Change(_, waiting, _) => waiting.bytes,
            _ => 0,
        }
    }

    fn refuse(self, error: StoreError) {
        // A caller that went away needs no answer.
        let _gone = match self {
            Self::Commit(.., reply) => reply.send(Err(error)).is_err(),
            Self::Acquire(_, reply) => reply.send(Err(error)).is_err(),
            Self::Change(.., reply) => reply.send(Err(error)).is_err(),
            Self::Check(reply) | Self::Close(reply) => reply.send(Err(error)).is_err(),
        };
    }
}

/// A commit or a change on its way: since when, and its bytes, counted until it is answered.
struct Waiting {
    since: Instant,
    bytes: usize,
    total: Arc<AtomicUsize>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The way to the committer. Cheap to clone; when the last one is dropped the committer finishes and closes.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    requests: mpsc::Sender<Request>,
    /// Bytes of the commits and changes on their way.
    bytes: Arc<AtomicUsize>,
    closing: Arc<AtomicBool>,
}

impl Queue {
    pub(super) async fn commit(&self, commit: Arc<Commit>) -> Result<Committed, StoreError> {
        let waiting = self.count(commit.writes.bytes())?;
        self.ask(|reply| Request::Commit(commit, waiting, reply)).await
    }

    pub(super) async fn acquire(&self, acquire: Acquire) -> Result<Acquired, StoreError> {
        self.ask(|reply| Request::Acquire(acquire, reply)).await
    }

    pub(super) async fn change(&self, changes: Changes) -> Result<Option<Changed>, StoreError> {
        changes.check()?;
        let waiting = self.count(changes.bytes())?;
        self.ask(|reply| Request::Change(Box::new(changes), waiting, reply)).await
    }

    pub(super) async fn check(&self) -> Result<(), StoreError> {
        self.ask(Request::Check).await
    }

    pub(super) async fn close(&self) -> Result<(), StoreError> {
        self.closing.store(true, Ordering::Relaxed);
        match tokio::time::timeout(CLOSE_WAIT_MAX, self.send(Request::Close)).await {
            Ok(Ok(()) | Err(StoreError::Closed)) => Ok(()),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                let detail = format!("a write is under way for more than {CLOSE_WAIT_MAX:?}; it was left to itself");
                Err(StoreError::Io { detail })
            }
        }
    }

    /// Counts bytes as waiting, if they may.
    fn count(&self, bytes: usize) -> Result<Waiting, StoreError> {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let waiting = Waiting { since: Instant::now(), bytes, total: Arc::clone(&self.bytes) };
        if before + bytes > QUEUE_BYTES_MAX && before > 0 {
            let detail = format!("{before} bytes wait to be written; the disk does not answer, or not fast enough");
            return Err(StoreError::Io { detail });
        }
        Ok(waiting)
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, StoreError> {
        // Not left to the queue, which a write that hangs keeps from being closed.
        if self.closing.load(Ordering::Relaxed) { Err(StoreError::Closed) } else { self.send(request).await }
    }

    async fn send<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        // Unconstrained: tokio would put the send off when the calling task has done much, and a later one could overtake
        // it. So requests are queued in the order in which their futures are first polled.
        let sent = tokio::task::unconstrained(self.requests.send(request(reply))).await;
        sent.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

/// Starts the committer's task.
pub(super) fn start(writer: impl GroupWriter) -> Queue {
    let (requests, waiting) = mpsc::channel(QUEUE_MAX);
    let committer = Committer { waiting, put_back: None, closing: Vec::new(), writer };
    telemetry::spawn("store-committer", committer.run());
    Queue { requests, bytes: Arc::default(), closing: Arc::default() }
}

struct Committer<W> {
    waiting: mpsc::Receiver<Request>,
    /// Taken from the queue, but did not fit into the group.
    put_back: Option<Request>,
    closing: Vec<Reply<()>>,
    writer: W,
}

impl<W: GroupWriter> Committer<W> {
    async fn run(mut self) {
        while let Some((group, callers)) = self.gather().await {
            self.write(group, callers).await;
        }
        self.writer.close().await;
        for reply in self.closing {
            let _gone = reply.send(Ok(())).is_err();
        }
    }

    /// Waits for a request and takes what else waits. None when the store is to be closed and the queue is empty.
    async fn gather(&mut self) -> Option<(Group, Callers)> {
        let mut gathered = Gathered::default();
        loop {
            let request = match self.put_back.take() {
                Some(request) => request,
                None if gathered.requests == 0 => self.waiting.recv().await?,
                None => match self.waiting.try_recv() {
                    Ok(request) => request,
                    Err(_) => break,
                },
            };
            if let Request::Close(reply) = request {
                // What waits already is still written; `recv` answers None after it.
                self.waiting.close();
                self.closing.push(reply);
            } else if let Err(request) = gathered.add(request) {
                self.put_back = Some(request);
                break;
            }
        }
        Some((gathered.group, gathered.callers))
    }

    async fn write(&mut self, group: Group, mut callers: Callers) {
        if !group.commits.is_empty() {
            metrics::histogram!("hotbay_commit_group_batches").record(group.commits.len() as f64);
        }
        match self.writer.write(&group).await {
            Ok(written) => callers.answer(written),
            Err(StoreError::Constraint { .. }) if callers.len() > 1 => self.write_singly(group, callers).await,
            Err(error) => {
                count_error(&error);
                tracing::warn!(%error, requests = callers.len(), "the store did not write a group");
                callers.refuse(&error);
                if matches!(error, StoreError::Busy { .. }) {
                    self.refuse_waiting(&error);
                }
            }
        }
    }

    /// After one request of a group was refused by the database: only that one is at fault. Not expected to happen,
    /// since the writer checks values first, so it need not be fast.
    async fn write_singly(&mut self, group: Group, mut callers: Callers) {
        for (single, mut caller) in callers.split(group) {
            match self.writer.write(&single).await {
                Ok(written) => caller.answer(written),
                Err(error) => {
                    count_error(&error);
                    tracing::warn!(%error, "the store did not write a request");
                    caller.refuse(&error);
                }
            }
        }
    }

    fn refuse_waiting(&mut self, error: &StoreError) {
        for _ in 0..BUSY_ANSWERS_MAX {
            match self.put_back.take().map_or_else(|| self.waiting.try_recv(), Ok) {
                Ok(Request::Close(reply)) => {
                    self.waiting.close();
                    self.closing.push(reply);
                }
                Ok(request) => request.refuse(error.clone()),
                Err(_) => break,
            }
        }
    }
}

#[derive(Default)]
struct Gathered {
    group: Group,
    callers: Callers,
    requests: usize,
    bytes: usize,
}

impl Gathered {
    fn add(&mut self, request: Request) -> Result<(), Request> {
        let bytes = request.bytes();
        let full = self.requests >= GROUP_REQUESTS_MAX || self.bytes + bytes > GROUP_BYTES_MAX;
        if full && self.requests > 0 {
            return Err(request);
        }
        match request {
            Request::Commit(commit, waiting, reply) => {
                self.group.commits.push(commit);
                self.callers.commits.push_back((waiting, reply));
            }
            Request::Acquire(acquire, reply) => {
                let others = &self.group.acquires;
                if others.len() >= GROUP_ACQUIRES_MAX || others.iter().any(|other| other.channel == acquire.channel) {
                    return Err(Request::Acquire(acquire, reply));
                }
                self.group.acquires.push(acquire);
                self.callers.acquires.push_back(reply);
            }
            Request::Change(changes, waiting, reply) => {
                self.group.changes.push(*changes);
                self.callers.changes.push_back((waiting, reply));
            }
            Request::Check(reply) | Request::Close(reply) => {
                self.group.check = true;
                self.callers.checks.push(reply);
            }
        }
        self.requests += 1;
        self.bytes += bytes;
        Ok(())
    }
}

/// Who waits for a group's answers, in its order.
#[derive(Default)]
struct Callers {
    commits: VecDeque<(Waiting, Reply<Committed>)>,
    acquires: VecDeque<Reply<Acquired>>,
    changes: VecDeque<(Waiting, Reply<Option<Changed>>)>,
    checks: Vec<Reply<()>>,
}

impl Callers {
    fn len(&self) -> usize {
        self.commits.len() + self.acquires.len() + self.changes.len() + self.checks.len()
    }

    fn answer(&mut self, written: Written) {
        let seconds = metrics::histogram!("hotbay_commit_seconds");
        for ((waiting, reply), result) in self.commits.drain(..).zip(written.commits) {
            match &result {
                Ok(_) => seconds.record(waiting.since.elapsed().as_secs_f64()),
                Err(error) => count_error(error),
            }
            let _gone = reply.send(result).is_err();
        }
        for (reply, acquired) in self.acquires.drain(..).zip(written.acquires) {
            let _gone = reply.send(Ok(acquired)).is_err();
        }
        for ((_, reply), changed) in self.changes.drain(..).zip(written.changes) {
            let _gone = reply.send(Ok(changed)).is_err();
        }
        for reply in self.checks.drain(..) {
            let _gone = reply.send(Ok(())).is_err();
        }
    }

    fn refuse(&mut self, error: &StoreError) {
        for (_, reply) in self.commits.drain(..) {
            let _gone = reply.send(Err(error.clone())).is_err();
        }
        for reply in self.acquires.drain(..) {
            let _gone = reply.send(Err(error.clone())).is_err();
        }
        for (_, reply) in self.changes.drain(..) {
            let _gone = reply.send(Err(error.clone())).is_err();
        }
        for reply in self.checks.drain(..) {
            let _gone = reply.send(Err(error.clone())).is_err();
        }
    }

    /// A group for each request, in the order in which a group is written.
    fn split(&mut self, group: Group) -> Vec<(Group, Self)> {
        let commits = group.commits.into_iter().zip(self.commits.drain(..)).map(|(commit, caller)| {
            (Group { commits: vec![commit], ..Group::default() }, Self { commits: [caller].into(), ..Self::default() })
        });
        let acquires = group.acquires.into_iter().zip(self.acquires.drain(..)).map(|(acquire, caller)| {
            let callers = Self { acquires: [caller].into(), ..Self::default() };
            (Group { acquires: vec![acquire], ..Group::default() }, callers)
        });
        let changes = group.changes.into_iter().zip(self.changes.drain(..)).map(|(changes, caller)| {
            (Group { changes: vec![changes], ..Group::default() }, Self { changes: [caller].into(), ..Self::default() })
        });
        let checks = self.checks.drain(..).map(|caller| {
            (Group { check: true, ..Group::default() }, Self { checks: vec![caller], ..Self::default() })
        });
        commits.chain(acquires).chain(changes).chain(checks).collect()
    }
}

fn count_error(error: &StoreError) {
    metrics::counter!("hotbay_store_errors_total", "kind" => error.kind()).increment(1);
}

#[cfg(test)]
mod tests;
