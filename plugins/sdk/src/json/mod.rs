//! JSON as plugins read and write it: parsing without copies, checks of what is passed on unread, and writing into one string.
//! Knows nothing of any protocol.

mod check;
mod read;
mod write;

pub use check::{DEPTH_MAX, Unreadable, check};
pub use read::{Text, object};
pub use write::{list, number, string, string_len};
