//! `hotbay plugin push`: uploads a version, and follows its vetting.

use std::io::{Cursor, IsTerminal as _, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::decide::{approve_hint, deploy_hint, name_of};
use super::vetting::follow;
use super::{Remote, Whose};
use crate::cli::author::project::{Project, ProjectError};
use crate::cli::remote::show::{bytes, text};
use crate::cli::{Failure, output};
use crate::config::Environment;
use crate::plugin::compile::Digest;
use crate::registry::manifest::{FILE_NAME, Manifest, with_digest};

/// Uploads a version of a plugin; the broker vets it before anything of it runs
#[derive(Debug, Args)]
pub(in crate::cli) struct Push {
    /// The folder of a plugin, built, or a component
    what: PathBuf,
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    whose: Whose,
    /// The manifest [default: plugin.toml in the folder, or beside the component]
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Signs the manifest with this secret key; runs the program `minisign`, which asks for its password
    #[arg(long, value_name = "KEYFILE")]
    sign: Option<PathBuf>,
    /// A signature of the manifest, made by minisign; the manifest must have the digest of the component then
    #[arg(long, value_name = "FILE", conflicts_with = "sign")]
    signature: Option<PathBuf>,
    /// The number of a tape that it is played when it is vetted; may be repeated [default: the latest of its mount]
    #[arg(long = "tape", value_name = "NUMBER")]
    tapes: Vec<i64>,
    /// Builds the folder first
    #[arg(long)]
    build: bool,
    /// Follows the vetting to its end
    #[arg(long)]
    wait: bool,
    /// Follows the vetting, and approves the version if it passed
    #[arg(long)]
    approve: bool,
}

impl Push {
    pub(in crate::cli) fn run(self, environment: &Environment) -> Result<(), Failure> {
        let Self { what, remote, whose, manifest, sign, signature, tapes, build, wait, approve } = self;
        let (component, manifest) = read(&what, manifest.as_deref(), build)?;
        let api = remote.api(environment)?;
        let signature = match (sign, signature) {
            (Some(key), _) => Some(signed(&manifest, &key)?),
            (None, Some(file)) => Some(std::fs::read_to_string(&file).map_err(|e| unreadable(&file, &e))?),
            (None, None) => None,
        };
        let mut upload = Upload::new(&manifest, signature.as_deref(), component);
        let kind = format!("multipart/form-data; boundary={}", upload.boundary);
        let length = upload.total.to_string();
        // So that a broker that refuses it can say so before it is sent.
        let headers = [("content-type", kind.as_str()), ("content-length", &length), ("expect", "100-continue")];
        let tapes: Vec<String> = tapes.iter().map(i64::to_string).collect();
        let query = [("tapes", (!tapes.is_empty()).then(|| tapes.join(",")))];
        let sent = api.send(&whose.plugins(), &query, &headers, &mut upload);
        upload.end();
        let uploaded = sent?;
        let version = &uploaded["version"];
        let name = name_of(version);
        if !wait && !approve {
            remote.print(&uploaded, || {
                format!(
                    "{name} is uploaded ({}) and waits to be vetted; `hotbay plugin show {name}{}` says how that went",
                    text(version, "digest"),
                    whose.flag()
                )
            });
            return Ok(());
        }
        let place = whose.version(&text(version, "digest"));
        let tell = |line: &str| {
            if !remote.json {
                output::line(line);
            }
        };
        tell(&format!("{name} is uploaded ({})", text(version, "digest")));
        let mut vetted = follow(&api, &place, tell)?;
        if approve && vetted["status"] == "vetted" {
            vetted = api.post(&format!("{place}/approve"), &json!({ "reason": "approved when it was pushed" }))?;
        }
        let ending = ending(&vetted, &whose);
        remote.print(&vetted, || ending.clone());
        match vetted["status"].as_str() {
            Some("vetted" | "approved") => Ok(()),
            _ if remote.json => Err(Failure::other(ending)),
            _ => Err(Failure::other("mend that, raise `version` in plugin.toml, and push again")),
        }
    }
}

/// What became of it, and the command to type next.
fn ending(version: &Value, whose: &Whose) -> String {
    let name = name_of(version);
    match version["status"].as_str().unwrap_or_default() {
        "vetted" => approve_hint(version, whose),
        "approved" => format!("{name} may run: {}", deploy_hint(version, whose)),
        status => format!("{name} is {status}: {}", text(version, "reason")),
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::usage(format!("{}: cannot be read: {error}", path.display()))
}

/// The signature of a manifest. The key stays with minisign: it knows how to ask for its password.
fn signed(manifest: &str, key: &Path) -> Result<String, Failure> {
    let folder = std::env::temp_dir().join(format!("hotbay-push-{:016x}", rand::random::<u64>()));
    let failed = |e: std::io::Error| Failure::other(format!("{}: {e}", folder.display()));
    std::fs::create_dir(&folder).map_err(failed)?;
    let file = folder.join(FILE_NAME);
    let made = std::fs::write(&file, manifest).map_err(failed).and_then(|()| {
        let mut minisign = std::process::Command::new("minisign");
        let status = minisign.args(["-S", "-s"]).arg(key).arg("-m").arg(&file).stdout(std::io::stderr()).status();
        let status = status.map_err(|e| {
            let remedy = "install minisign, or sign elsewhere and name the signature with --signature";
            Failure::usage(format!("--sign: the program minisign cannot be run: {e}; {remedy}"))
        })?;
        if !status.success() {
            return Err(Failure::other(format!("minisign did not sign it: {status}")));
        }
        std::fs::read_to_string(folder.join(format!("{FILE_NAME}.minisig"))).map_err(failed)
    });
    drop(std::fs::remove_dir_all(&folder));
    made
}

/// The component, and its manifest with the digest of it.
fn read(what: &Path, manifest: Option<&Path>, build: bool) -> Result<(Vec<u8>, String), Failure> {
    let (component, beside) = if what.is_dir() {
        let project = Project::open(what).map_err(|e| Failure::usage(e.to_string()))?;
        if build {
            project.build().map_err(Failure::other)?;
        }
        let component = project.component().map_err(|e| match e {
            ProjectError::NoBuild { .. } => {
                let manifest = what.join(FILE_NAME);
                let manifest = manifest.display();
                Failure::usage(format!(
                    "{e}\nor name the component: `hotbay plugin push FILE.wasm --manifest {manifest}`"
                ))
            }
            e => Failure::usage(format!("{e}; --build builds it first")),
        })?;
        (component, what.join(FILE_NAME))
    } else {
        (std::fs::read(what).map_err(|e| unreadable(what, &e))?, what.with_file_name(FILE_NAME))
    };
    let path = manifest.unwrap_or(&beside);
    let text = std::fs::read_to_string(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound if manifest.is_none() => Failure::usage(format!(
            "there is no {}: a version needs a manifest; name it with --manifest FILE, or write for example:\nname = \
             \"community-chat\"\nversion = \"1.0.0\"\ncapabilities = [\"kv\"]",
            path.display()
        )),
        _ => unreadable(path, &e),
    })?;
    let digest = Digest(Sha256::digest(&component).into());
    let wrong = |e| Failure::usage(format!("{}: {e}", path.display()));
    let text = with_digest(&text, digest).map_err(wrong)?;
    Manifest::parse(&text).map_err(wrong)?;
    Ok((component, text))
}

/// The body of an upload, which tells how far it is read where somebody watches.
struct Upload {
    boundary: String,
    body: Box<dyn Read>,
    total: u64,
    sent: u64,
    /// Percents told last; none if nobody watches.
    told: Option<u64>,
}

impl Upload {
    fn new(manifest: &str, signature: Option<&str>, component: Vec<u8>) -> Self {
        let boundary = format!("hotbay-{:032x}", rand::random::<u128>());
        let text = |name: &str, content: &str| {
            format!("--{boundary}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{content}\r\n")
        };
        let head = format!(
            "{}{}--{boundary}\r\ncontent-disposition: form-data; name=\"component\"; filename=\"plugin.wasm\"\r\n\
             content-type: application/wasm\r\n\r\n",
            text("manifest", manifest),
            signature.map(|signature| text("signature", signature)).unwrap_or_default(),
        );
        let tail = format!("\r\n--{boundary}--\r\n");
        let total = (head.len() + component.len() + tail.len()) as u64;
        let body = Box::new(Cursor::new(head).chain(Cursor::new(component)).chain(Cursor::new(tail)));
        let told = std::io::stderr().is_terminal().then_some(0);
        Self { boundary, body, total, sent: 0, told }
    }

    /// Leaves no half line behind.
    fn end(&mut self) {
        if self.told.take().is_some() {
            output::progress("\r\u{1b}[K");
        }
    }
}

impl Read for Upload {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.body.read(buffer)?;
        self.sent += read as u64;
        let percent = self.sent * 100 / self.total.max(1);
        if let Some(told) = &mut self.told
            && percent > *told
        {
            *told = percent;
            let (sent, total) = (bytes(self.sent), bytes(self.total));
            output::progress(format_args!("\r\u{1b}[Kuploading {sent} of {total} ({percent} %)"));
        }
        Ok(read)
    }
}
