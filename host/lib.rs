//! Hotbay: a WebSocket message broker whose per-channel logic is hot-swappable, sandboxed WebAssembly.

pub mod limits;
pub mod protocol;
pub mod store;
pub mod telemetry;
