//! Tasks with names. (Metrics and tracing follow here.)

use std::future::Future;

use tokio::task::JoinHandle;

/// Starts a task. The name says in traces what it is.
#[expect(clippy::disallowed_methods, reason = "the one place that spawns tasks")]
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tracing::trace!(task = name, "task started");
    tokio::spawn(future)
}
