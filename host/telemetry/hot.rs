//! Metrics that are counted for every message or batch: looked up once, then only added to.

use std::sync::LazyLock;

use metrics::{Counter, Histogram};

/// Bytes read from connections.
pub static BYTES_IN: LazyLock<Counter> = LazyLock::new(|| metrics::counter!("hotbay_bytes_in_total"));
/// Messages received.
pub static MESSAGES_IN: LazyLock<Counter> = LazyLock::new(|| metrics::counter!("hotbay_messages_in_total"));
/// Frames handed to members.
pub static FRAMES_OUT: LazyLock<Counter> = LazyLock::new(|| metrics::counter!("hotbay_frames_out_total"));
/// Bytes of those frames.
pub static BYTES_OUT: LazyLock<Counter> = LazyLock::new(|| metrics::counter!("hotbay_bytes_out_total"));
/// Batches that ran.
pub static BATCHES: LazyLock<Counter> = LazyLock::new(|| metrics::counter!("hotbay_batches_total"));
/// Events in a batch.
pub static BATCH_EVENTS: LazyLock<Histogram> = LazyLock::new(|| metrics::histogram!("hotbay_batch_events"));
/// Time plugins ran, in microseconds.
pub static PLUGIN_CPU: LazyLock<Counter> = LazyLock::new(|| metrics::counter!("hotbay_plugin_cpu_microseconds_total"));
/// From handing a batch's writes over to their being durable, in seconds.
pub static BATCH_COMMIT: LazyLock<Histogram> = LazyLock::new(|| metrics::histogram!("hotbay_batch_commit_seconds"));
