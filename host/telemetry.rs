//! Time, tasks, logs and metrics of the process.

use std::future::Future;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;
use tokio::task::JoinHandle;

/// Milliseconds since the Unix epoch.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as u64)
}

/// Spawns a task and counts it under its name while it runs.
pub fn spawn<T, F>(name: &'static str, task: F) -> JoinHandle<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let count = metrics::gauge!("hotbay_tasks", "name" => name);
    count.increment(1.0);
    #[expect(clippy::disallowed_methods, reason = "this is the one place that spawns")]
    // Not an async block around the task: it would hold the task's state twice.
    tokio::spawn(task.map(move |result| {
        count.decrement(1.0);
        result
    }))
}
