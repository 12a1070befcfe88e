//! The words of the wire and of names: pure data and rules, no IO. Everything may import this.

pub mod close;
pub mod name;
pub mod refusal;
