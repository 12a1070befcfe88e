//! Plugins in production: which versions there are, what was found out about each before it ran, and which one runs where.
//!
//! A version comes in as a component and its [`manifest`], both from strangers. Nothing of it is parsed, compiled or run in the
//! broker before it passed vetting.

pub mod manifest;
pub mod scratch;
