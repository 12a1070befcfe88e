//! Putting a channel to sleep though it was not idle for long: its actor saves what the instance remembers and drops it, as for one
//! that was idle; the members stay, and the next event wakes it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::channel::directory::Directory;
use crate::protocol::name::ChannelName;

/// What keeps a channel awake, however long nothing happens in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Wakeful {
    /// Somebody waits for its answer.
    #[error("{count} HTTP requests wait for its plugin's answer")]
    Requests {
        /// How many.
        count: usize,
    },
    /// What it sent to other channels has not reached them.
    #[error("messages of it wait until other channels have room for them")]
    Deliveries,
    /// Nobody but the awake channel knows of a timer.
    #[error("its plugin has set the volatile timer {name:?}, which would be lost")]
    VolatileTimer {
        /// Its name.
        name: String,
    },
    /// A fresh start would make an end of its quarantine.
    #[error("its plugin faulted again and again, which is remembered for {left_ms} ms more")]
    Faults {
        /// How long that is still remembered.
        left_ms: u64,
    },
}

/// Why a channel does not go to sleep.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SleepError {
    /// It must stay awake.
    #[error("{0}")]
    Wakeful(#[from] Wakeful),
    /// Somebody else wants the same, and waits.
    #[error("somebody else is putting it to sleep")]
    Asked,
    /// It did not come to an end.
    #[error("the batch under way did not end within {0:?}")]
    TooLong(Duration),
    /// Its actor ended in another way.
    #[error("it was interrupted")]
    Interrupted,
}

/// Somebody wants a channel to sleep, and waits until it does.
pub(super) struct Bedtime(oneshot::Sender<Result<(), Wakeful>>);

impl Bedtime {
    /// Whether somebody still waits.
    pub(super) fn is_awaited(&self) -> bool {
        !self.0.is_closed()
    }

    /// It sleeps.
    pub(super) fn done(self) {
        self.tell(Ok(()));
    }

    /// It must stay awake.
    pub(super) fn refuse(self, why: Wakeful) {
        self.tell(Err(why));
    }

    fn tell(self, answer: Result<(), Wakeful>) {
        // Who gave up waits for nothing.
        drop(self.0.send(answer));
    }
}

impl Directory {
    /// Puts a channel to sleep when the batch under way has ended, and what it wrote is committed. One that sleeps, or is not here, is
    /// asleep already. What came in meanwhile may have woken it again.
    ///
    /// # Errors
    /// If it must stay awake, or its batch takes longer than this. Nothing has changed then.
    pub async fn put_to_sleep(self: &Arc<Self>, name: &ChannelName, limit: Duration) -> Result<(), SleepError> {
        let Some(channel) = self.find(name) else { return Ok(()) };
        let (bedtime, answer) = oneshot::channel();
        channel.mailbox.send_to_bed(Bedtime(bedtime)).map_err(|_| SleepError::Asked)?;
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(answer)) => Ok(answer?),
            Ok(Err(_)) => Err(SleepError::Interrupted),
            Err(_) => Err(SleepError::TooLong(limit)),
        }
    }
}
