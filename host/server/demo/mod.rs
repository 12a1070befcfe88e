//! What development gets on top: the demo pages, and tokens for them. None of it is served otherwise.

mod pages;
mod tokens;

pub use tokens::DemoTokens;

pub(super) use pages::{asset, index, page};
pub(super) use tokens::token;
