//! `hotbay tape list|fetch|delete|record|recordings|stop`: tapes of a broker, and the recordings that make them.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::{Length, Remote};
use crate::cli::Failure;
use crate::cli::remote::show::{ago, bytes, number, table, text, utc};
use crate::config::Environment;

/// Bytes of a tape that are read at once.
const CHUNK: usize = 64 << 10;

/// Lists tapes of a broker, the latest first
#[derive(Debug, Args)]
pub(in crate::cli) struct List {
    #[command(flatten)]
    remote: Remote,
    /// Only of this tenant's channels
    #[arg(long)]
    tenant: Option<String>,
    /// Only of channels of this name
    #[arg(long)]
    channel: Option<String>,
    /// Only of this mount
    #[arg(long)]
    mount: Option<String>,
    #[command(flatten)]
    length: Length,
}

impl List {
    pub(in crate::cli) fn run(self, environment: &Environment) -> Result<(), Failure> {
        let Self { remote, tenant, channel, mount, length } = self;
        let query = [("tenant", tenant), ("channel", channel), ("mount", mount)];
        let answer = remote.api(environment)?.list("/tapes", &query, length.limit)?;
        remote.print(&answer, || {
            let heading = ["ID", "CHANNEL", "MOUNT", "BATCHES", "SIZE", "BEGAN", "ENDED"];
            table(heading, &answer, "there are none; `hotbay tape record --mount MOUNT` makes some", |row| {
                let ended = row["ended_ms"].as_u64().map_or_else(|| "goes on".to_owned(), ago);
                let channel = format!("{}/{}", text(row, "tenant"), text(row, "channel"));
                let size = bytes(number(row, "bytes"));
                [
                    text(row, "id"),
                    channel,
                    text(row, "mount"),
                    text(row, "batches"),
                    size,
                    ago(number(row, "started_ms")),
                    ended,
                ]
            })
        });
        Ok(())
    }
}

/// Downloads a tape, for `hotbay tape show` and `hotbay tape replay`
#[derive(Debug, Args)]
pub(in crate::cli) struct Fetch {
    /// Its number
    id: i64,
    #[command(flatten)]
    remote: Remote,
    /// Where to [default: tape-ID.jsonl]
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

impl Fetch {
    pub(in crate::cli) fn run(self, environment: &Environment) -> Result<(), Failure> {
        let Self { id, remote, to } = self;
        let path = to.unwrap_or_else(|| format!("tape-{id}.jsonl").into());
        let failed =
            |e: std::io::Error| Failure::other(format!("{}: {e}; name another file with --to", path.display()));
        let response = remote.api(environment)?.stream(&format!("/tapes/{id}/file"), &[])?;
        let mut file = File::create_new(&path).map_err(failed)?;
        let mut reader = response.into_body().into_reader();
        let (mut piece, mut total) = (vec![0; CHUNK], 0_u64);
        loop {
            let read =
                reader.read(&mut piece).map_err(|e| Failure::other(format!("the tape broke off: {e}; try again")))?;
            if read == 0 {
                break;
            }
            file.write_all(&piece[..read]).map_err(failed)?;
            total += read as u64;
        }
        let place = path.display().to_string();
        remote.print(&json!({ "file": place, "bytes": total }), || {
            format!("{place}: {}; `hotbay tape show {place}` shows it", bytes(total))
        });
        Ok(())
    }
}

/// Deletes a tape of a broker that has ended
#[derive(Debug, Args)]
pub(in crate::cli) struct Delete {
    /// Its number
    id: i64,
    #[command(flatten)]
    remote: Remote,
    /// Why, for the audit log
    #[arg(long)]
    reason: Option<String>,
}

impl Delete {
    pub(in crate::cli) fn run(self, environment: &Environment) -> Result<(), Failure> {
        let Self { id, remote, reason } = self;
        remote.api(environment)?.delete(&format!("/tapes/{id}"), &[("reason", reason)])?;
        remote.print(&json!({ "deleted": id }), || format!("tape {id} is deleted"));
        Ok(())
    }
}

/// Records channels of a broker while they are used; each gets a tape of its own
#[derive(Debug, Args)]
pub(in crate::cli) struct Record {
    #[command(flatten)]
    remote: Remote,
    /// The mount whose channels are recorded, by its name in the configuration
    #[arg(long)]
    mount: String,
    /// Only this tenant's channels
    #[arg(long)]
    tenant: Option<String>,
    /// Only channels with such names: a name, or one whose last part is *
    #[arg(long)]
    pattern: Option<String>,
    /// A JSON pointer to what is taken out of every message before it is written, such as /password; may be repeated
    #[arg(long, value_name = "POINTER")]
    redact: Vec<String>,
    /// Size of each tape, in bytes
    #[arg(long)]
    bytes_max: Option<u64>,
    /// How long, in seconds [default: 600]
    #[arg(long)]
    duration_s: Option<u64>,
    /// How many channels at most
    #[arg(long)]
    channels_max: Option<usize>,
    /// Why, for the audit log
    #[arg(long)]
    reason: Option<String>,
}

impl Record {
    pub(in crate::cli) fn run(self, environment: &Environment) -> Result<(), Failure> {
        let Self { remote, mount, tenant, pattern, redact, bytes_max, duration_s, channels_max, reason } = self;
        let body = json!({
            "mount": mount, "tenant": tenant, "pattern": pattern, "redact": redact, "bytes_max": bytes_max,
            "duration_s": duration_s, "channels_max": channels_max, "reason": reason,
        });
        let answer = remote.api(environment)?.post("/recordings", &body)?;
        remote.print(&answer, || {
            let (id, ends) = (text(&answer, "id"), utc(number(&answer, "ends_ms")));
            format!("recording {id} goes on until {ends}; `hotbay tape stop {id}` ends it, `hotbay tape list` shows what it made")
        });
        Ok(())
    }
}

/// Lists the recordings that go on
#[derive(Debug, Args)]
pub(in crate::cli) struct Recordings {
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    length: Length,
}

impl Recordings {
    pub(in crate::cli) fn run(self, environment: &Environment) -> Result<(), Failure> {
        let Self { remote, length } = self;
        let answer = remote.api(environment)?.list("/recordings", &[], length.limit)?;
        remote.print(&answer, || {
            let of = |row: &Value| [text(row, "tenant"), text(row, "pattern")].join(" ").trim().to_owned();
            table(["ID", "MOUNT", "OF", "TAPES", "ENDS"], &answer, "none goes on", |row| {
                [text(row, "id"), text(row, "mount"), of(row), text(row, "tapes"), utc(number(row, "ends_ms"))]
            })
        });
        Ok(())
    }
}

/// Ends a recording, and its tapes
#[derive(Debug, Args)]
pub(in crate::cli) struct Stop {
    /// The number of the recording
    id: u64,
    #[command(flatten)]
    remote: Remote,
    /// Why, for the audit log
    #[arg(long)]
    reason: Option<String>,
}

impl Stop {
    pub(in crate::cli) fn run(self, environment: &Environment) -> Result<(), Failure> {
        let Self { id, remote, reason } = self;
        remote.api(environment)?.post(&format!("/recordings/{id}/stop"), &json!({ "reason": reason }))?;
        remote.print(&json!({ "stopped": id }), || {
            format!("recording {id} has ended; `hotbay tape list` shows what it made")
        });
        Ok(())
    }
}
