//! What the broker must survive: crashes, locked, full and broken disks, plugins that misbehave.
#![allow(clippy::disallowed_methods, reason = "the tests' tasks are not the broker's")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::float_cmp,
    reason = "a test ends at the first surprise; metrics are whole numbers"
)]

#[path = "../support/mod.rs"]
mod support;

mod accounts;
mod admin;
mod bounds;
mod courier;
mod crash;
mod history;
mod inside;
mod membership;
mod neighbours;
mod plugin;
mod reads;
mod store;
mod tapes;
mod tenants;
mod timers;
mod upgrade;
