//! What is measured, and how each server is spoken to.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::Outcome;
use crate::server::Server;

/// A scenario of `hotbay bench` with its numbers.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    bench: &'static str,
    numbers: &'static [&'static str],
}

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "fan-out",
        what: "1 room × 1,000, 8 publishers, 32 under way",
        bench: "fan-out",
        numbers: &["--members=1000", "--publishers=8", "--window=32"],
    },
    Scenario {
        name: "fan-out-1",
        what: "1 room × 1,000, 1 under way: nothing can be gathered",
        bench: "fan-out",
        numbers: &["--members=1000", "--publishers=1", "--window=1"],
    },
    Scenario {
        name: "latency",
        what: "1 room × 1,000, 50 messages/s, open loop",
        bench: "fan-out",
        numbers: &["--members=1000", "--publishers=5", "--rate=50"],
    },
    Scenario {
        name: "rooms",
        what: "1,000 rooms × 10, 1 under way in each",
        bench: "rooms",
        numbers: &["--rooms=1000", "--members=10"],
    },
    Scenario {
        name: "echo",
        what: "100 connections, request and reply",
        bench: "echo",
        numbers: &["--connections=100"],
    },
    Scenario {
        name: "idle",
        what: "10,000 members in 100 rooms",
        bench: "idle",
        numbers: &["--connections=10000", "--rooms=100", "--settle-seconds=1.5"],
    },
];

impl Scenario {
    /// Measures a server; returns the JSON of `hotbay bench`.
    pub(crate) fn measure(&self, server: &Server, quick: bool) -> Outcome<Value> {
        let json = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("peers-{}.json", std::process::id()));
        let (pid, file) = (server.pid().to_string(), json.display().to_string());
        let seconds = if quick { "1" } else { "3" };
        let output = Command::new(env!("CARGO_BIN_EXE_hotbay"))
            .args(["bench", self.bench, "--url", &self.url(server)])
            .args(["--cpu=1", "--warm-up-seconds=0.8", "--seconds", seconds, "--pid", &pid, "--json", &file])
            .args(self.numbers)
            .args(self.words(server))
            .stdin(Stdio::null())
            .output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned().into());
        }
        let text = std::fs::read_to_string(&json)?;
        std::fs::remove_file(&json)?;
        Ok(serde_json::from_str(&text)?)
    }

    fn url(&self, server: &Server) -> String {
        let address = server.address();
        let path = match (server.socket_io, server.hotbay, self.bench) {
            (true, _, _) => "/socket.io/?EIO=4&transport=websocket",
            (_, true, "echo") => "/echo",
            (_, true, _) => "/",
            _ => "",
        };
        format!("ws://{address}{path}")
    }

    fn words(&self, server: &Server) -> Vec<&'static str> {
        if !server.socket_io {
            return Vec::new();
        }
        let mut words = vec!["--protocol=custom", "--hello=40", "--await=40{"];
        if self.bench == "echo" {
            words.push(r#"--publish=42["echo","{ts}{pad}"]"#);
        } else {
            words.extend([
                r#"--hello=42["join","{room}"]"#,
                "--await=joined",
                r#"--publish=42["publish","{ts}{pad}"]"#,
            ]);
        }
        words
    }
}
