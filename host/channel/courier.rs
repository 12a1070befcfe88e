//! Carries what a channel publishes to other channels of its tenant: in order, without making the channel wait, and never more
//! than so much at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::channel::directory::{Directory, LookupError};
use crate::channel::logic::Logic;
use crate::channel::mailbox::{Enclosure, Letter};
use crate::limits::PUBLISHES_WAITING_MAX;
use crate::protocol::event::Event;
use crate::protocol::name::ChannelName;

/// One channel's courier. Its task starts with the first publication and ends, when everything is delivered, after the channel's
/// actor.
#[derive(Default)]
pub(super) struct Courier {
    letters: Option<mpsc::Sender<(ChannelName, Letter)>>,
    under_way: Arc<UnderWay>,
}

/// What is not delivered yet.
#[derive(Default)]
struct UnderWay {
    letters: AtomicUsize,
    bytes: AtomicUsize,
}

impl UnderWay {
    fn add(&self, bytes: usize) {
        self.letters.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn remove(&self, bytes: usize) {
        self.letters.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Courier {
    /// Sends an event to another channel. What does not fit any more is dropped, counted and logged.
    pub(super) fn send(&mut self, directory: &Arc<Directory>, logic: &Arc<Logic>, to: ChannelName, event: Event) {
        let letters = self.letters.get_or_insert_with(|| {
            let (letters, waiting) = mpsc::channel(PUBLISHES_WAITING_MAX);
            directory.spawn_counted(
                "courier",
                run(Arc::clone(directory), Arc::clone(logic), waiting, Arc::clone(&self.under_way)),
            );
            letters
        });
        let (bytes, bytes_max) = (event.bytes(), logic.limits.mailbox_bytes_max);
        let waiting = self.under_way.bytes.load(Ordering::Relaxed);
        if waiting > 0 && waiting + bytes > bytes_max {
            return dropped(
                &to,
                &format!("{waiting} bytes of its sender wait already (mailbox_bytes_max is {bytes_max})"),
            );
        }
        self.under_way.add(bytes);
        if let Err(full) = letters.try_send((to, Letter { event, enclosure: Enclosure::None })) {
            self.under_way.remove(bytes);
            let (to, _) = full.into_inner();
            dropped(&to, &format!("{PUBLISHES_WAITING_MAX} publications of its sender wait already"));
        }
    }

    /// Whether something is not delivered yet.
    pub(super) fn is_busy(&self) -> bool {
        self.under_way.letters.load(Ordering::Relaxed) > 0
    }
}

async fn run(
    directory: Arc<Directory>,
    logic: Arc<Logic>,
    mut waiting: mpsc::Receiver<(ChannelName, Letter)>,
    under_way: Arc<UnderWay>,
) {
    let patience = Duration::from_millis(logic.limits.commit_ms_max);
    while let Some((to, letter)) = waiting.recv().await {
        let bytes = letter.event.bytes();
        // A channel that takes nothing for so long must not stop everything behind it.
        match tokio::time::timeout(patience, directory.carry(&to, &logic, letter)).await {
            Ok(Ok(())) => {}
            Ok(Err(LookupError::NotServed)) => dropped(&to, "the mount does not serve it"),
            Ok(Err(error)) => dropped(&to, &error.to_string()),
            Err(_) => dropped(&to, &format!("its mailbox was full for {patience:?} (commit_ms_max)")),
        }
        under_way.remove(bytes);
    }
}

fn dropped(to: &ChannelName, cause: &str) {
    tracing::warn!(%to, cause, "a publication from channel to channel was dropped");
    metrics::counter!("hotbay_publishes_dropped_total").increment(1);
}
