//! `hotbay connection`: who is connected, and closing a connection.

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Length, Remote};
use crate::cli::Failure;
use crate::cli::remote::show::{ago, bytes, number, table, text};
use crate::config::Environment;

/// Works with connections to a broker
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Connection {
    List(List),
    Close(Close),
}

/// Lists the open connections, the oldest first
#[derive(Debug, Args)]
pub(in crate::cli) struct List {
    #[command(flatten)]
    remote: Remote,
    /// Only of this tenant
    #[arg(long)]
    tenant: Option<String>,
    #[command(flatten)]
    length: Length,
}

/// Closes a connection with a close frame
#[derive(Debug, Args)]
pub(in crate::cli) struct Close {
    /// Its id
    id: u64,
    #[command(flatten)]
    remote: Remote,
    /// The code of the close frame [default: 4502, removed by an operator]
    #[arg(long)]
    code: Option<u16>,
    /// The words of the close frame, which go into the audit log, too
    #[arg(long)]
    reason: Option<String>,
}

impl Connection {
    pub(in crate::cli) fn run(self, environment: &Environment) -> Result<(), Failure> {
        match self {
            Self::List(List { remote, tenant, length }) => {
                let answer = remote.api(environment)?.list("/connections", &[("tenant", tenant)], length.limit)?;
                let heading = ["ID", "TENANT", "USER", "MOUNT", "SINCE", "SILENT", "WAITING"];
                remote.print(&answer, || {
                    table(heading, &answer, "nobody is connected", |row| {
                        let silent = format!("{}s", number(row, "silent_ms") / 1_000);
                        let waiting = bytes(number(row, "bytes_waiting"));
                        let since = ago(number(row, "since_ms"));
                        [
                            text(row, "id"),
                            text(row, "tenant"),
                            text(row, "user"),
                            text(row, "mount"),
                            since,
                            silent,
                            waiting,
                        ]
                    })
                });
            }
            Self::Close(Close { id, remote, code, reason }) => {
                let body = json!({ "code": code, "reason": reason });
                let answer = remote.api(environment)?.post(&format!("/connections/{id}/close"), &body)?;
                remote.print(&answer, || {
                    format!("connection {id} of {}/{} is closed", text(&answer, "tenant"), text(&answer, "user"))
                });
            }
        }
        Ok(())
    }
}
