//! Where calls go on that turn out to be long: a thread of its own that only gets what nobody else wants (`SCHED_IDLE`, `sched(7)`).
//! The kernel takes the processor from it as soon as any other thread wants it, so that a plugin in an endless loop costs the
//! channels beside it next to nothing. On a machine without any time left long calls wait, and their channels' senders with them.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::plugin::state::Stopwatch;

/// The thread. It ends with this.
pub(super) struct Lane {
    runtime: Handle,
    _open: oneshot::Sender<()>,
}

impl Lane {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(super) fn start() -> io::Result<Arc<Self>> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let lane = runtime.handle().clone();
        let (open, closed) = oneshot::channel();
        std::thread::Builder::new().name("hotbay-lane".to_owned()).spawn(move || {
            if let Err(error) = yield_to_everybody() {
                tracing::warn!(%error, "long calls into plugins run at the priority of the broker");
            }
            // The sender says nothing; it goes when the lane does.
            drop(runtime.block_on(closed));
        })?;
        Ok(Arc::new(Self { runtime: lane, _open: open }))
    }

    /// Runs a call: where the caller is as long as it is short, then in the lane. `None` if the lane was closed meanwhile.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        mut call: Pin<Box<dyn Future<Output = T> + Send>>,
        stopwatch: &Stopwatch,
    ) -> Option<T> {
        let here = std::future::poll_fn(|cx| match call.as_mut().poll(cx) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending if stopwatch.is_long() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        if let Some(result) = here.await {
            return Some(result);
        }
        stopwatch.enter_lane();
        match self.runtime.spawn(call).await {
            Ok(result) => Some(result),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => None,
            },
        }
    }
}

/// Gives the calling thread the policy `SCHED_IDLE`, which threads that it starts inherit. Everybody may do that; nothing else in the
/// tree can.
///
/// # Errors
/// If the system refuses it.
pub(super) fn yield_to_everybody() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    #[expect(unsafe_code, reason = "no safe crate sets a thread's scheduling policy")]
    // SAFETY: the call reads the structure, which lives longer than it does, and changes nothing but the policy of this thread.
    let failed = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) } != 0;
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}
