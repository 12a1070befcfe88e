//! The admin API of a broker under test, asked as an operator by HTTP and by the command line.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use super::broker::Broker;
use super::component;
use super::http::{self, Answer};

/// What a manifest of the fixture plugin lists.
pub const FIXTURE_CAPABILITIES: [&str; 5] = ["kv", "log", "logging", "sql", "stats"];

/// Somebody with a key, or without one.
pub struct Admin {
    base: String,
    key: Option<String>,
}

/// How a subcommand ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ended {
    /// What it printed, as JSON.
    pub fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{self:?}");
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// What it printed, if it succeeded.
    pub fn words(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }
}

impl Admin {
    /// An operator, with a key made for it.
    pub fn operator(broker: &Broker) -> Self {
        let key = broker.run(&["key", "create", "--operator", "--name", "ops"]);
        Self::with(broker, Some(key.trim()))
    }

    /// A tenant's own key.
    pub fn tenant(broker: &Broker, tenant: &str) -> Self {
        let key = broker.run(&["key", "create", "--name", "own", "--tenant", tenant]);
        Self::with(broker, Some(key.trim()))
    }

    /// With any key or token.
    pub fn with(broker: &Broker, key: Option<&str>) -> Self {
        Self { base: broker.http(""), key: key.map(str::to_owned) }
    }

    /// The key.
    pub fn key(&self) -> &str {
        self.key.as_deref().expect("a key")
    }

    /// A request below `/v1/admin`.
    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: String) -> Answer {
        let authorization = self.key.as_ref().map(|key| format!("Bearer {key}"));
        let own = authorization.as_ref().map(|value| ("authorization", value.as_str()));
        let headers: Vec<(&str, &str)> = own.into_iter().chain(headers.iter().copied()).collect();
        http::send(method, &format!("{}/v1/admin{path}", self.base), &headers, body).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], String::new()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[("content-type", "application/json")], body.to_string()).await
    }

    /// An upload with these parts, in this order.
    pub async fn upload(&self, path: &str, parts: &[(&str, &[u8])]) -> Answer {
        let (kind, body) = form(parts);
        let authorization = format!("Bearer {}", self.key.as_deref().unwrap_or_default());
        let headers = [("authorization", authorization.as_str()), ("content-type", kind.as_str())];
        http::send_bytes("POST", &format!("{}/v1/admin{path}", self.base), &headers, body).await
    }

    /// A subcommand that asks the broker.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hotbay"));
        command.args(arguments).env_clear().env("HOTBAY_BROKER", &self.base);
        if let Some(key) = &self.key {
            command.env("HOTBAY_ADMIN_KEY", key);
        }
        command
    }

    /// Runs one to its end.
    pub fn cli(&self, arguments: &[&str]) -> Ended {
        ended(&self.command(arguments).output().expect("an end"))
    }

    /// Pushes a component with a manifest of this name and version, and follows its vetting; answers the command's end.
    pub fn push(&self, component: &Path, name: &str, version: &str, more: &[&str]) -> Ended {
        let folder = tempfile::TempDir::new().expect("a folder");
        let manifest = folder.path().join("plugin.toml");
        std::fs::write(&manifest, manifest_text(name, version)).expect("a manifest");
        let (component, manifest) = (component.display().to_string(), manifest.display().to_string());
        let arguments = [&["plugin", "push", &component, "--manifest", &manifest][..], more].concat();
        self.cli(&arguments)
    }
}

/// How a process ended.
pub fn ended(output: &Output) -> Ended {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    Ended { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

/// A manifest of the fixture plugin under any name.
pub fn manifest_text(name: &str, version: &str) -> String {
    format!("name = \"{name}\"\nversion = \"{version}\"\ncapabilities = {}\n", json!(FIXTURE_CAPABILITIES))
}

/// A body of `multipart/form-data` with its content type.
pub fn form(parts: &[(&str, &[u8])]) -> (String, Vec<u8>) {
    let boundary = "a-boundary-of-the-test";
    let mut body = Vec::new();
    for (name, content) in parts {
        body.extend(format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n").bytes());
        body.extend_from_slice(content);
        body.extend(b"\r\n");
    }
    body.extend(format!("--{boundary}--\r\n").bytes());
    (format!("multipart/form-data; boundary={boundary}"), body)
}

/// Until a version was vetted: vetting takes the time that nobody else wants, and on a loaded machine that is little.
pub const VETTED: std::time::Duration = std::time::Duration::from_mins(2);

/// The fixture plugin.
pub fn fixture() -> PathBuf {
    component("fixture")
}
