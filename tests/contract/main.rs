//! What the five systems must speak (CONTRACTS), over real sockets. A test is named by the item it proves.
#![allow(
    clippy::expect_used,
    clippy::needless_pass_by_value,
    clippy::panic,
    reason = "a test ends at the first surprise"
)]
#![allow(clippy::disallowed_methods, reason = "the tests' tasks are not the broker's")]

mod clients;
mod community_chat;
mod community_chat_auth;
mod community_chat_channels;
mod community_chat_lifecycle;
mod community_chat_messages;
mod community_chat_publish;
mod garbage;
mod hangarshare_metrics;
mod isolation;
#[path = "../support/mod.rs"]
mod support;
mod tenant_events;
mod widget_sync;
mod yjs_relay;
