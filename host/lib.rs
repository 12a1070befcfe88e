//! Hotbay: a WebSocket message broker whose per-channel logic is sandboxed WebAssembly.
//!
//! This page is the map. A message goes one way, without detours:
//!
//! ```text
//! socket ─► connection ─► channel::directory ─► channel::actor ──────► plugin::Instance
//!  (reads, rates, sizes)   (finds and wakes)     mailbox → batch         handle(batch)
//!                                                     │ effects              │
//!                                                     ▼                      │
//!                               store ◄─── commit (state, log, timers) ◄─────┘
//!                                                     │ durable
//! socket ◄─ outbox ◄─ fanout ◄─ burst ◄───────────────┘
//! ```
//!
//! - [`server`] speaks HTTP and turns requests on mounts into connections or events; [`auth`] says whose they are.
//! - [`connection`] reads one socket, holds it to its limits and hands its messages to channels.
//! - [`channel`] is the heart: [`channel::core`] has the rules as a pure state machine, the actor carries them out.
//! - [`plugin`] runs components: batches in, effects out, nothing else gets through.
//! - [`store`] makes a batch durable; nothing a batch did is seen before that.
//! - [`datasource`] has the operator's databases, of which plugins may read by statements with names.
//! - [`quota`] has what each tenant may use and does use: everybody above asks it before something is used.
//! - [`fanout`] and [`outbox`] bring frames to members: encoded once, one lock and one system call per member and batch.
//! - [`broker`] builds and stops all of this in order; [`config`] and [`cli`] say how; [`limits`] bounds everything.
//! - [`protocol`] has the words all of them share.
//! - [`bench`] puts a running broker under load, from outside: it knows nothing of the rest, and only [`cli`] knows it.
//!
//! Who may import whom is checked by `tests/tidy.rs`: `main → cli → broker → everything`;
//! `server → connection → channel → {plugin, fanout, store, datasource}`; `fanout, connection → outbox`; `server, connection → auth`;
//! `server, connection, channel, plugin → quota`;
//! everything → `protocol`, `limits`, `telemetry`. Each outside crate has one door: `axum` in [`server`], `wasmtime` in
//! [`plugin`], `sqlx` in [`store`] and [`datasource`], `jsonwebtoken` in [`auth`], `tungstenite` in [`connection`].

pub mod auth;
pub mod bench;
pub mod broker;
pub mod channel;
pub mod cli;
pub mod config;
pub mod connection;
pub mod datasource;
pub mod fanout;
pub mod limits;
pub mod outbox;
pub mod plugin;
pub mod protocol;
pub mod quota;
pub mod registry;
pub mod server;
pub mod store;
pub mod telemetry;

/// The system's allocator searches for every piece of more than a kilobyte, as the futures of a busy channel are, and keeps more
/// memory for small ones: with it a durable message costs a sixth more processor time and an idle connection 200 bytes more.
/// Here, so that tests and benches run on what the broker runs on; not prefixed, so that SQLite does, too.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
