//! What the five systems must speak (CONTRACTS), over real sockets. A test is named by the item it proves.
#![allow(clippy::expect_used, clippy::panic, reason = "a test ends at the first surprise")]

mod community_chat;
mod community_chat_auth;
mod community_chat_channels;
mod community_chat_lifecycle;
mod community_chat_messages;
mod community_chat_publish;
#[path = "../support/mod.rs"]
mod support;
