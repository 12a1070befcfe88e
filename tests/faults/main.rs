//! What the broker must survive: crashes, full disks, plugins and clients that misbehave.
#[path = "../support/mod.rs"]
mod support;
