//! From a request to an identity: where a token is found, whether it is genuine and current, and who it names.
//!
//! The rules here do no IO and read no clock; keys come from the configuration, the time from the caller. This is the
//! only door to `jsonwebtoken`. What an identity may do in a channel is the plugin's decision, not made here.

mod error;
mod gate;
mod identity;
mod key;
mod request;
mod stated;
mod token;

pub use error::AuthError;
pub use gate::{AuthMode, Gate, Keys, Policy};
pub use key::{Algorithm, Key, KeyError, KeyRules, PublicKey, Secret};
pub use request::{TokenSource, is_listed};
pub use stated::{Stated, StatedSource, Wish};
pub use token::sign;

#[cfg(test)]
mod tests;
