//! The broker from outside: handshakes, frames, limits, slow readers, the command line, metrics and logs.
#![allow(clippy::expect_used, clippy::panic, reason = "a test ends at the first surprise")]
#![allow(clippy::disallowed_methods, reason = "the tests' tasks are not the broker's")]

mod admin_access;
mod admin_channels;
mod admin_life;
mod admin_rest;
mod admin_rollbacks;
mod admin_signed;
mod admin_tapes;
mod admin_tenants;
mod admin_uploads;
mod artifacts;
mod authors;
mod authors_readme;
mod bench;
mod command_line;
mod compression;
mod doors;
mod farewell;
mod frames;
mod handshake;
mod lifetime;
mod operation;
mod plugin_check;
mod quotas;
mod raw;
mod requests;
mod slow_readers;
mod statements;
#[path = "../support/mod.rs"]
mod support;
mod tape;
mod vetting;
