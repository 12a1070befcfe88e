//! The words of the wire and of names: pure data and rules, no IO. Everything may import this.

pub mod close;
pub mod name;
pub mod path;
pub mod query;
pub mod refusal;
pub mod template;
