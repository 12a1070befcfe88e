//! Hotbay: a WebSocket message broker whose per-channel logic is hot-swappable, sandboxed WebAssembly.

pub mod auth;
pub mod broker;
pub mod channel;
pub mod cli;
pub mod config;
pub mod connection;
pub mod fanout;
pub mod limits;
pub mod outbox;
pub mod plugin;
pub mod protocol;
pub mod server;
pub mod store;
pub mod telemetry;
