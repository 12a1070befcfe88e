//! What the five systems must speak (CONTRACTS), over real sockets.
#[path = "../support/mod.rs"]
mod support;
