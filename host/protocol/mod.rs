//! The words of the wire, of names and of events: pure data and rules, no IO. Everything may import this.

pub mod burst;
pub mod capability;
pub mod close;
pub mod deflate;
pub mod event;
pub mod frame;
pub mod identity;
pub mod ids;
pub mod name;
pub mod overlay;
pub mod path;
pub mod query;
pub mod refusal;
pub mod sql;
pub mod template;
