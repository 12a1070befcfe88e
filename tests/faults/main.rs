//! What the broker must survive: crashes, locked, full and broken disks, plugins that misbehave.
#[path = "../support/mod.rs"]
mod support;

mod crash;
mod history;
mod plugin;
mod store;
