//! What the benches share.
#![allow(dead_code, reason = "each bench uses its part")]

pub(crate) mod arguments;
pub(crate) mod bars;
pub(crate) mod busy;
pub(crate) mod disk;
pub(crate) mod server;
pub(crate) mod settled;
pub(crate) mod socket;
pub(crate) mod table;
pub(crate) mod wire;
