//! Why a measurement could not be made. Every error names its cause and what to do.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a measurement could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// No scenario of this name.
    #[error("there is no scenario {name:?}; there are: {known}")]
    Scenario {
        /// What was asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// No protocol of this name.
    #[error("there is no protocol {name:?}; there are: {known}")]
    Protocol {
        /// What was asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// A number out of its bounds.
    #[error("{option} = {value} is out of bounds: {least} to {most}")]
    Bound {
        /// The option.
        option: &'static str,
        /// What was asked for.
        value: String,
        /// The least it may be.
        least: String,
        /// The most it may be.
        most: String,
    },
    /// Options that do not go together, or one that is missing.
    #[error("{reason}")]
    Options {
        /// Which, and what to do.
        reason: String,
    },
    /// A placeholder that does not exist.
    #[error("{option}: there is no placeholder {unknown}; there are: {known}")]
    Placeholder {
        /// The option it stands in.
        option: &'static str,
        /// What was written.
        unknown: String,
        /// The placeholders there are.
        known: String,
    },
    /// A URL that is not one of a WebSocket.
    #[error("--url {url}: {reason}")]
    Url {
        /// What was asked for.
        url: String,
        /// What is wrong and what to write.
        reason: String,
    },
    /// A host that others may be using.
    #[error(
        "--url: {address} is not on this machine; if it is yours and may be overloaded, add --remote (never load what others use)"
    )]
    Remote {
        /// Where the host is.
        address: SocketAddr,
    },
    /// A file cannot be read or written.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        reason: String,
    },
    /// Too few open files are allowed.
    #[error(
        "{needed} open files are needed, but this process may have {allowed}: use fewer --connections, or raise the limit \
         (`ulimit -n {needed}` before this command; beyond the hard limit in /etc/security/limits.conf or LimitNOFILE=)"
    )]
    OpenFiles {
        /// How many are needed.
        needed: u64,
        /// The hard limit.
        allowed: u64,
    },
    /// The core cannot be used.
    #[error("--cpu {cpu}: this process cannot run there ({reason}); it may use: {allowed}")]
    Cpu {
        /// The core.
        cpu: usize,
        /// The cause.
        reason: String,
        /// The cores it may use.
        allowed: String,
    },
    /// The server process cannot be looked at.
    #[error("--pid {pid}: {reason}; it must be a running process of yours on this machine")]
    Process {
        /// The process.
        pid: u32,
        /// The cause.
        reason: String,
    },
    /// The operating system refused something else.
    #[error("{what}: {reason}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The cause.
        reason: String,
    },
    /// Nobody answers.
    #[error("cannot connect to {address}: {reason} (after {before} connections){remedy}")]
    Connect {
        /// Where to.
        address: SocketAddr,
        /// The cause.
        reason: String,
        /// How many connections came about.
        before: usize,
        /// What to do.
        remedy: &'static str,
    },
    /// The server does not upgrade.
    #[error("{target}: the server refused the handshake: {answer} (after {before} connections){remedy}")]
    Refused {
        /// What was asked for.
        target: String,
        /// What it said.
        answer: String,
        /// How many connections came about.
        before: usize,
        /// What to do.
        remedy: &'static str,
    },
    /// A connection ended, or was refused by a message, before it had joined.
    #[error("a connection was lost before it had joined: {reason} (after {before} connections)")]
    Join {
        /// How.
        reason: String,
        /// How many connections came about.
        before: usize,
    },
    /// Not all connections came about in time.
    #[error("only {joined} of {wanted} connections were made within {seconds} s; {reason}")]
    Slow {
        /// How many.
        joined: usize,
        /// Of how many.
        wanted: usize,
        /// In which time.
        seconds: f64,
        /// What the others wait for.
        reason: String,
    },
    /// The picture cannot be drawn.
    #[error("the plot cannot be drawn: {reason}")]
    Plot {
        /// The cause.
        reason: String,
    },
}

impl BenchError {
    /// Whether the options are wrong, rather than that something failed.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Scenario { .. }
                | Self::Protocol { .. }
                | Self::Bound { .. }
                | Self::Options { .. }
                | Self::Placeholder { .. }
                | Self::Url { .. }
                | Self::Remote { .. }
                | Self::Cpu { .. }
                | Self::Process { .. }
        )
    }

    /// What helps against a failed connection.
    pub(super) fn connect_remedy(error: &std::io::Error) -> &'static str {
        match error.kind() {
            std::io::ErrorKind::ConnectionRefused => "; is the broker running, and on this port?",
            std::io::ErrorKind::AddrNotAvailable => {
                "; this address has no free ports left (about 28,000): use --source-addresses N, or wait a minute"
            }
            _ => "",
        }
    }

    /// What helps against a refused handshake.
    pub(super) fn refused_remedy(answer: &str) -> &'static str {
        let status = answer.strip_prefix("HTTP ").and_then(|rest| rest.get(..3)).unwrap_or_default();
        match status {
            "401" | "403" => "; give a token with --token or --tokens (`hotbay token` makes one)",
            "404" => "; check the path of --url, and --protocol",
            "429" => "; raise limits.connections_per_user_max of the mount, or use tokens of more users (--tokens)",
            "503" => "; raise the broker's limits for connections, see host/limits.rs",
            "400" | "426" => "; does this path speak WebSocket?",
            _ => "",
        }
    }
}
