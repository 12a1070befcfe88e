//! Following what a channel does: each batch that took hold, told to whoever follows the channel. While nobody follows any, a batch costs
//! one look at a counter. Who is slow misses lines, and is told how many; nobody waits for them.

mod told;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::channel::directory::Directory;
use crate::limits::{TAIL_BYTES_MAX, TAIL_LINES_MAX};
use crate::protocol::name::ChannelName;

pub(super) use crate::channel::tail::told::{Position, Told};

/// What there is for somebody who follows a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tailed {
    /// A batch that took hold, as a JSON object.
    Batch(Arc<str>),
    /// So many batches came faster than they were taken.
    Missed(u64),
    /// This node has forgotten the channel: it sleeps, and has no members here. It may come back.
    Forgotten,
}

/// Who follows which channel.
#[derive(Default)]
pub(super) struct Tails {
    /// How many follow any. Only a hint without the lock: who has just come may miss a batch that ran meanwhile.
    count: AtomicUsize,
    channels: Mutex<HashMap<ChannelName, Vec<Arc<Queue>>>>,
}

/// What waits for one of them.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    news: Notify,
}

#[derive(Default)]
struct Waiting {
    all: VecDeque<Tailed>,
    bytes: usize,
}

impl Tails {
    /// Whether somebody follows this channel.
    pub(super) fn is_followed(&self, channel: &ChannelName) -> bool {
        self.count.load(Ordering::Relaxed) > 0 && self.lock().contains_key(channel)
    }

    /// Tells those who follow a channel.
    pub(super) fn tell(&self, channel: &ChannelName, line: &Arc<str>) {
        self.put(channel, &Tailed::Batch(Arc::clone(line)));
    }

    /// The channel is not known here any more.
    pub(super) fn forgotten(&self, channel: &ChannelName) {
        if self.count.load(Ordering::Relaxed) > 0 {
            self.put(channel, &Tailed::Forgotten);
        }
    }

    fn put(&self, channel: &ChannelName, what: &Tailed) {
        self.lock().get(channel).into_iter().flatten().for_each(|queue| queue.put(what.clone()));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ChannelName, Vec<Arc<Queue>>>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn put(&self, what: Tailed) {
        let mut waiting = self.lock();
        let bytes = what.bytes();
        let is_full =
            waiting.all.len() >= TAIL_LINES_MAX || (!waiting.all.is_empty() && waiting.bytes + bytes > TAIL_BYTES_MAX);
        match (is_full, waiting.all.back_mut(), &what) {
            (_, Some(Tailed::Forgotten), Tailed::Forgotten) => {}
            (true, Some(Tailed::Missed(count)), Tailed::Batch(_)) => *count += 1,
            (true, _, Tailed::Batch(_)) => waiting.all.push_back(Tailed::Missed(1)),
            _ => {
                waiting.bytes += bytes;
                waiting.all.push_back(what);
            }
        }
        drop(waiting);
        self.news.notify_one();
    }

    fn take(&self) -> Option<Tailed> {
        let mut waiting = self.lock();
        let first = waiting.all.pop_front()?;
        waiting.bytes -= first.bytes();
        Some(first)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tailed {
    fn bytes(&self) -> usize {
        match self {
            Self::Batch(line) => line.len(),
            Self::Missed(_) | Self::Forgotten => 0,
        }
    }
}

/// Somebody who follows a channel, until this is dropped.
pub struct Tail {
    directory: Arc<Directory>,
    channel: ChannelName,
    queue: Arc<Queue>,
}

impl Tail {
    /// What comes next. Nothing is lost if this is dropped before it is ready.
    pub async fn next(&self) -> Tailed {
        loop {
            if let Some(next) = self.queue.take() {
                return next;
            }
            self.queue.news.notified().await;
        }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let tails = &self.directory.tails;
        let mut channels = tails.lock();
        if let Some(queues) = channels.get_mut(&self.channel) {
            queues.retain(|queue| !Arc::ptr_eq(queue, &self.queue));
            if queues.is_empty() {
                channels.remove(&self.channel);
            }
        }
        tails.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Directory {
    /// Follows a channel from now on, awake or not, whether or not it is there. How many may is for the caller to say.
    pub fn follow(self: &Arc<Self>, channel: &ChannelName) -> Tail {
        let queue = Arc::<Queue>::default();
        self.tails.lock().entry(channel.clone()).or_default().push(Arc::clone(&queue));
        self.tails.count.fetch_add(1, Ordering::Relaxed);
        Tail { directory: Arc::clone(self), channel: channel.clone(), queue }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(text: &str) -> Tailed {
        Tailed::Batch(text.into())
    }

    fn all(queue: &Queue) -> Vec<Tailed> {
        std::iter::from_fn(|| queue.take()).collect()
    }

    /// Law: everything has a bound, and nothing is lost silently: what does not fit is counted, where it is missing.
    #[test]
    fn who_is_slow_is_told_what_is_missing_and_where() {
        let queue = Queue::default();
        for number in 0..TAIL_LINES_MAX + 3 {
            queue.put(batch(&number.to_string()));
        }
        for number in 0..2 {
            assert_eq!(queue.take(), Some(batch(&number.to_string())));
        }
        queue.put(batch("later"));
        queue.put(batch("too late"));

        let rest = all(&queue);

        assert_eq!(rest.len(), TAIL_LINES_MAX + 1);
        assert_eq!(
            rest[rest.len() - 4..],
            [batch(&(TAIL_LINES_MAX - 1).to_string()), Tailed::Missed(3), batch("later"), Tailed::Missed(1)]
        );
        assert_eq!(queue.lock().bytes, 0);
    }

    #[test]
    fn bytes_are_bounded_but_for_one_line() {
        let queue = Queue::default();
        let large = batch(&"x".repeat(TAIL_BYTES_MAX));
        queue.put(large.clone());
        queue.put(batch("x"));
        queue.put(Tailed::Forgotten);
        queue.put(Tailed::Forgotten);
        assert_eq!(all(&queue), [large, Tailed::Missed(1), Tailed::Forgotten]);
    }
}
