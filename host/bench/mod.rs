//! `hotbay bench`: puts a WebSocket server under load and reports what it did. For users who want to know what their broker
//! carries, and for comparing it with others.
//!
//! ```text
//! Options ─► plan (bounds, texts) ─► run (connect, settle, warm up, measure, drain) ─► Report ─► table, JSON, plot
//!                                     │ decides                        ▲ counts
//!                                     ▼                                │
//!                                 generator ─► link ═ socket ═ link ─► frames ─► tally (stamps, ledger, times)
//! ```
//!
//! Only `generator`, `link`, `run` and `procfs` do IO. Only [`crate::cli`] calls this module; it knows nothing of the broker,
//! for what it measures is another process. It must cost far less than a server: one thread, one epoll, no allocation
//! per message; see `generator`.
//!
//! *Closed loop*: each room keeps a window of publishes under way; one is finished when every member has it. *Open loop*
//! (`rate`): publishes are due at fixed times, whatever the server does, and latency counts from the due time.

mod error;
mod frames;
mod generator;
mod latency;
mod ledger;
mod link;
mod pace;
mod plan;
pub mod plot;
pub mod procfs;
mod report;
mod run;
mod scenario;
mod stamp;
mod tally;
mod target;
mod template;
mod wire;

pub use error::BenchError;
pub use latency::{Latency, Point};
pub use plan::{Options, TokenIn};
pub use report::{Conditions, Generator, Handshakes, Load, Losses, Report, Server};
pub use run::run;
pub use scenario::{Protocol, Scenario};
