//! Starts a server on core 0 and ends it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use tempfile::TempDir;

use crate::Outcome;
use crate::protocol::{DOCUMENT, Dialect};
use crate::support::server::{listening, on_core_0, script};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// On the disk of the build, because the folder for temporary files is in memory on many machines.
pub(crate) const FOLDER: &str = env!("CARGO_TARGET_TMPDIR");
/// Signs the members' token.
const SECRET: &str = "a-secret-that-protects-nothing-but-a-bench";

/// A server to be measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Peer {
    /// The broker as `examples/hotbay.toml` has it: what is delivered survives a power cut.
    Hotbay,
    /// The same, except that what is delivered survives the process only: what the disk costs.
    HotbayOs,
    /// The first one with another build of the broker.
    OtherHotbay(PathBuf),
    Hocuspocus,
    YWebsocket,
}

/// A running server. Killed when dropped.
pub(crate) struct Server {
    peer: Peer,
    child: Child,
    address: String,
    path: String,
    data: TempDir,
}

impl Peer {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Hotbay => "hotbay",
            Self::HotbayOs => "hotbay-os",
            Self::OtherHotbay(_) => "hotbay-other",
            Self::Hocuspocus => "hocuspocus",
            Self::YWebsocket => "y-websocket",
        }
    }

    /// Whether it promises that what was delivered outlives it.
    pub(crate) fn is_durable(&self) -> bool {
        self.program().is_some()
    }

    pub(crate) fn dialect(&self) -> Dialect {
        if *self == Self::Hocuspocus { Dialect::Hocuspocus } else { Dialect::YWebsocket }
    }

    fn program(&self) -> Option<&Path> {
        match self {
            Self::Hotbay | Self::HotbayOs => Some(Path::new(env!("CARGO_BIN_EXE_hotbay"))),
            Self::OtherHotbay(program) => Some(program),
            Self::Hocuspocus | Self::YWebsocket => None,
        }
    }

    fn command(&self, data: &Path) -> Outcome<Command> {
        let mut command = on_core_0();
        match (self.program(), self) {
            (Some(program), _) => {
                let durability = if *self == Self::HotbayOs { "os" } else { "fsync" };
                command.arg(program).arg("serve").args(config()).arg("--data-dir").arg(data);
                command.args(["--listen=127.0.0.1:0", "--set", &format!("mount.drafts.durability={durability}")]);
                command.env("JWT_SECRET", SECRET);
            }
            (None, Self::Hocuspocus) => drop(command.arg("node").arg(here("hocuspocus.mjs")?)),
            (None, _) => drop(command.arg("node").arg(here("y-websocket.mjs")?)),
        }
        Ok(command)
    }

    /// Where the document is.
    fn path(&self) -> Outcome<String> {
        let Some(program) = self.program() else { return Ok(format!("/{DOCUMENT}")) };
        let output = Command::new(program)
            .arg("token")
            .args(config())
            .args(["--user=somebody", "--claim=firmId=f1"])
            .env("JWT_SECRET", SECRET)
            .output()?;
        if !output.status.success() {
            return Err(format!("hotbay token: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        Ok(format!("/yjs/{DOCUMENT}?token={}", String::from_utf8(output.stdout)?.trim()))
    }
}

impl Server {
    /// Starts it, with nothing stored, and waits until it listens.
    pub(crate) fn start(peer: &Peer) -> Outcome<Self> {
        let data = TempDir::new_in(FOLDER)?;
        let path = peer.path()?;
        let (child, address) = spawn(peer, data.path())?;
        Ok(Self { peer: peer.clone(), child, address, path, data })
    }

    /// Kills it (`kill -9`), and starts it with what it stored.
    pub(crate) fn kill_and_restart(&mut self) -> Outcome<()> {
        self.child.kill()?;
        self.child.wait()?;
        (self.child, self.address) = spawn(&self.peer, self.data.path())?;
        Ok(())
    }

    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The path and query of the document.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn spawn(peer: &Peer, data: &Path) -> Outcome<(Child, String)> {
    let log = log_file(peer);
    let mut command = peer.command(data)?;
    command.stderr(File::create(&log)?);
    listening(&mut command, peer.name()).map_err(|error| format!("{error}; see {}", log.display()).into())
}

/// What a server says of itself, the last time it ran.
fn log_file(peer: &Peer) -> PathBuf {
    Path::new(FOLDER).join(format!("yjs-{}.log", peer.name()))
}

fn config() -> [PathBuf; 2] {
    ["--config".into(), Path::new(ROOT).join("examples/hotbay.toml")]
}

/// A script of this folder.
pub(crate) fn here(name: &str) -> Outcome<PathBuf> {
    script("tests/bench/yjs", name)
}
