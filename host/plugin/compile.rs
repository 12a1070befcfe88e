//! Compiling, in a process of its own with hard limits on memory and time, because a small component can take minutes
//! and gigabytes to compile; and the store of compiled code.
//!
//! An artifact is named by the digest of its component and the compatibility hash of the engine, and is authenticated by a
//! MAC under a key only this data folder has: loading compiled code is running it.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use rustix::process::{Resource, Rlimit, setrlimit};
use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::limits::NodeLimits;
use crate::plugin::{PluginError, engine};

/// The subcommand of the broker's own program that compiles.
pub const WORKER_COMMAND: &str = "compile-worker";

/// Names a version of a plugin: the SHA-256 of its component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of a component.
    pub fn of(component: &[u8]) -> Self {
        Self(Sha256::digest(component).into())
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// Compiled code on disk.
pub struct Artifacts {
    folder: PathBuf,
    /// One block of SHA-256, so that HMAC uses it as it is.
    key: [u8; 64],
}

impl Artifacts {
    /// Opens the folder, and makes its key at the first time.
    ///
    /// # Errors
    /// If the folder cannot be read or written.
    pub fn open(folder: PathBuf) -> Result<Self, PluginError> {
        let io = |e: io::Error| PluginError::Artifacts { path: folder.clone(), cause: e.to_string() };
        fs::create_dir_all(&folder).map_err(io)?;
        let path = folder.join("key");
        let key = match fs::read(&path) {
            Ok(key) => key,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let key = rand::random::<[u8; 64]>();
                let mut file =
                    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(io)?;
                file.write_all(&key).map_err(io)?;
                key.to_vec()
            }
            Err(e) => return Err(io(e)),
        };
        let key = key.try_into().map_err(|_| PluginError::Artifacts {
            path: path.clone(),
            cause: "the key is damaged; delete the folder, it is made anew".into(),
        })?;
        Ok(Self { folder, key })
    }

    /// Loads a component's compiled code, compiling it first if there is none that fits. Blocks for as long as that takes.
    ///
    /// # Errors
    /// If the worker fails or is stopped at a limit, or the folder cannot be written.
    pub fn load(&self, engine: &Engine, component: &[u8], limits: &NodeLimits) -> Result<Component, PluginError> {
        let digest = Digest::of(component);
        let path = self.path(engine, digest);
        if !self.is_authentic(&path, digest) {
            let started = Instant::now();
            self.compile(component, digest, &path, limits)?;
            tracing::info!(plugin = %digest, ms = started.elapsed().as_millis() as u64, "compiled");
        }
        deserialize(engine, &path)
    }

    fn path(&self, engine: &Engine, digest: Digest) -> PathBuf {
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        self.folder.join(format!("{digest}-{:016x}.cwasm", hasher.finish()))
    }

    fn compile(&self, component: &[u8], digest: Digest, path: &Path, limits: &NodeLimits) -> Result<(), PluginError> {
        let io = |e: io::Error| PluginError::Artifacts { path: path.to_owned(), cause: e.to_string() };
        let partial = path.with_extension(format!("partial-{}", std::process::id()));
        let result = run_worker(component, &partial, limits).and_then(|()| {
            let code = fs::read(&partial).map_err(io)?;
            fs::write(path.with_extension("mac"), self.mac(digest, &code)).map_err(io)?;
            fs::rename(&partial, path).map_err(io)
        });
        if result.is_err() {
            drop(fs::remove_file(&partial));
        }
        result
    }

    fn mac(&self, digest: Digest, code: &[u8]) -> [u8; 32] {
        self.keyed(digest, code).finalize().into_bytes().into()
    }

    fn keyed(&self, digest: Digest, code: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new((&self.key).into());
        mac.update(&digest.0);
        mac.update(code);
        mac
    }

    fn is_authentic(&self, path: &Path, digest: Digest) -> bool {
        let (Ok(code), Ok(mac)) = (fs::read(path), fs::read(path.with_extension("mac"))) else { return false };
        self.keyed(digest, &code).verify_slice(&mac).is_ok()
    }
}

/// The one place where compiled code becomes runnable.
fn deserialize(engine: &Engine, path: &Path) -> Result<Component, PluginError> {
    #[expect(unsafe_code, reason = "the artifact was made by our worker and its MAC under our key was just checked")]
    // SAFETY: see the reason; nobody else writes to the folder, whose files are the broker's own.
    let component = unsafe { Component::deserialize_file(engine, path) };
    component.map_err(|e| PluginError::Artifacts { path: path.to_owned(), cause: format!("{e:#}") })
}

/// Runs the worker: the component on its standard input, its words on standard error, the artifact in a file. Its environment is empty.
fn run_worker(component: &[u8], out: &Path, limits: &NodeLimits) -> Result<(), PluginError> {
    let worker = |cause: String| PluginError::Compile { cause };
    let program = std::env::current_exe().map_err(|e| worker(format!("the worker cannot be found: {e}")))?;
    let mut child = Command::new(program)
        .arg(WORKER_COMMAND)
        .arg("--out")
        .arg(out)
        .arg("--memory-bytes")
        .arg(limits.compile_memory_bytes_max.to_string())
        .arg("--cpu-s")
        .arg(limits.compile_cpu_s_max.to_string())
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| worker(format!("the worker cannot be started: {e}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        // The worker reads everything before it does anything, so this cannot block for long.
        stdin.write_all(component).map_err(|e| worker(format!("the worker does not read: {e}")))?;
    }
    let deadline = Instant::now() + Duration::from_secs(limits.compile_wall_s_max);
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            Ok(None) => {
                drop(child.kill());
                drop(child.wait());
                return Err(worker(format!(
                    "it took longer than {} s (compile_wall_s_max)",
                    limits.compile_wall_s_max
                )));
            }
            Err(e) => return Err(worker(e.to_string())),
        }
    };
    if status.success() {
        return Ok(());
    }
    let mut words = String::new();
    if let Some(stderr) = child.stderr.take() {
        drop(stderr.take(2_000).read_to_string(&mut words));
    }
    let words = words.trim();
    Err(worker(if words.is_empty() {
        format!("the worker was stopped at its limits of memory or CPU time ({status})")
    } else {
        format!("{words} ({status})")
    }))
}

/// The worker's side: limits itself, reads a component from standard input, writes its compiled form.
///
/// # Errors
/// If the component does not compile. Over a limit the process dies.
pub fn work(out: &Path, memory_bytes: u64, cpu_s: u64) -> Result<(), PluginError> {
    let worker = |cause: String| PluginError::Compile { cause };
    let limit = |bytes| Rlimit { current: Some(bytes), maximum: Some(bytes) };
    for (resource, bytes) in [(Resource::As, memory_bytes), (Resource::Cpu, cpu_s), (Resource::Core, 0)] {
        setrlimit(resource, limit(bytes)).map_err(|e| worker(format!("a limit cannot be set: {e}")))?;
    }
    let mut component = Vec::new();
    io::stdin().read_to_end(&mut component).map_err(|e| worker(e.to_string()))?;
    let code = engine::for_compiling()?.precompile_component(&component).map_err(|e| worker(format!("{e:#}")))?;
    fs::write(out, code).map_err(|e| worker(format!("the artifact cannot be written: {e}")))
}
