//! Whether a connection is still a member: shared by the connection, which asks before it hands a frame over, and the
//! channel, which may refuse the join or close the member.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// One connection's membership in one channel.
#[derive(Clone)]
pub struct Membership(Arc<AtomicBool>);

impl Membership {
    /// A membership that is asked for, and counts until it is ended.
    pub fn begin() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    /// Whether it counts.
    pub fn is_active(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Ends it.
    pub fn end(&self) {
        self.0.store(false, Ordering::Release);
    }
}
