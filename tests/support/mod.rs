//! What tests share: a real broker process on a free port with its own data folder, and a WebSocket client that waits for
//! what it expects, with a deadline and never by sleeping.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    clippy::unused_self,
    reason = "a test ends at the first surprise"
)]

pub mod admin;
pub mod author;
pub mod broker;
pub mod client;
pub mod hostile;
pub mod http;
pub mod postgres;

use std::path::{Path, PathBuf};

/// A component built by `make plugins`.
pub fn component(name: &str) -> PathBuf {
    let file = format!("target/plugins/wasm32-wasip2/release/{name}.wasm");
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file);
    assert!(path.exists(), "{} is missing: run `make plugins`", path.display());
    path
}

/// The same component as another version: with a custom section (component model, binary format) that nothing reads.
pub fn rebuilt(name: &str, mark: &str, folder: &Path) -> PathBuf {
    let mut bytes = std::fs::read(component(name)).expect("a component");
    let content = [&[4], b"mark".as_slice(), mark.as_bytes()].concat();
    bytes.push(0);
    bytes.push(u8::try_from(content.len()).expect("a short mark"));
    bytes.extend(content);
    let path = folder.join(format!("{name}-{mark}.wasm"));
    std::fs::write(&path, bytes).expect("a component");
    path
}

/// The end of a pipe that nobody reads, for what a command prints.
pub fn nobody() -> std::process::Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

/// The seed of a random test: `HOTBAY_TEST_SEED`, else fresh. It is printed, so that a failure can be run again.
pub fn seed() -> u64 {
    let seed = std::env::vars().find(|(name, _)| name == "HOTBAY_TEST_SEED").and_then(|(_, seed)| seed.parse().ok());
    let seed = seed.unwrap_or_else(rand::random);
    println!("HOTBAY_TEST_SEED={seed}");
    seed
}
