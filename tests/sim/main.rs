//! The channel's rules under a seeded simulator: a fake plugin and a fake store that fail in every way, millions of steps.
