//! What the broker must survive: crashes, locked, full and broken disks, plugins that misbehave.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::float_cmp,
    reason = "a test ends at the first surprise; metrics are whole numbers"
)]

#[path = "../support/mod.rs"]
mod support;

mod crash;
mod history;
mod membership;
mod plugin;
mod reads;
mod store;
mod timers;
