//! Starts a server on core 0 and ends it.

use std::path::{Path, PathBuf};
use std::process::Child;

use tempfile::TempDir;

use crate::support::server::{listening, on_core_0, script};
use crate::{Outcome, SERVE};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// On the disk of the build, because the folder for temporary files is in memory on many machines.
const FOLDER: &str = env!("CARGO_TARGET_TMPDIR");

/// A server to be measured.
pub(crate) enum Peer {
    Hotbay,
    OtherHotbay(PathBuf),
    Tungstenite,
    Ws,
    SocketIo,
}

/// A running server. Killed when dropped.
pub(crate) struct Server {
    child: Child,
    address: String,
    pub(crate) socket_io: bool,
    pub(crate) hotbay: bool,
    _data: TempDir,
}

impl Peer {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Hotbay => "hotbay",
            Self::OtherHotbay(_) => "hotbay-other",
            Self::Tungstenite => "tungstenite",
            Self::Ws => "ws",
            Self::SocketIo => "socket.io",
        }
    }

    fn command(&self, data: &Path) -> Outcome<Vec<String>> {
        let text = |path: &Path| path.display().to_string();
        let hotbay = |program: &Path| {
            let config = Path::new(ROOT).join("examples/bench.toml");
            let data = text(data);
            let flags = ["serve", "--config", &text(&config), "--listen", "127.0.0.1:0", "--data-dir", &data];
            std::iter::once(text(program)).chain(flags.map(str::to_owned)).collect()
        };
        let node = |name: &str| -> Outcome<Vec<String>> {
            Ok(vec!["node".to_owned(), text(&script("tests/bench/peers", name)?)])
        };
        Ok(match self {
            Self::Hotbay => hotbay(Path::new(env!("CARGO_BIN_EXE_hotbay"))),
            Self::OtherHotbay(program) => hotbay(program),
            Self::Tungstenite => vec![text(&std::env::current_exe()?), SERVE.to_owned()],
            Self::Ws => node("ws.mjs")?,
            Self::SocketIo => node("socketio.mjs")?,
        })
    }
}

impl Server {
    /// Starts it and waits until it listens.
    pub(crate) fn start(peer: &Peer) -> Outcome<Self> {
        let data = TempDir::new_in(FOLDER)?;
        let command = peer.command(data.path())?;
        let (child, address) = listening(on_core_0().args(command), peer.name())?;
        let socket_io = matches!(peer, Peer::SocketIo);
        let hotbay = matches!(peer, Peer::Hotbay | Peer::OtherHotbay(_));
        Ok(Self { child, address, socket_io, hotbay, _data: data })
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Its process: `taskset` became it.
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
