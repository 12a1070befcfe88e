//! What somebody may upload beside what the tests have (`tests/support/hostile.rs`): too much of something, and machine code.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::Outcome;
use crate::support::component;

/// Sections of a component (component model, binary format).
const CORE_MODULE: u8 = 1;
/// Sections of a core module (WebAssembly core, 5.5).
const TYPE: u8 = 1;
const FUNCTION: u8 = 3;
const CODE: u8 = 10;
const DATA: u8 = 11;

/// Bytes that are nothing (xorshift64, Marsaglia 2003).
pub(crate) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut noise: Vec<u8> = (0..bytes.div_ceil(8)).flat_map(|_| next()).collect();
    noise.truncate(bytes);
    noise
}

/// Machine code, as the worker of this program makes it.
pub(crate) fn precompiled(program: &Path) -> Outcome<Vec<u8>> {
    let folder = tempfile::TempDir::new()?;
    let out = folder.path().join("echo.cwasm");
    let worker = Command::new(program)
        .args(["compile-worker", "--memory-bytes", "2147483648", "--cpu-s", "60", "--out"])
        .arg(&out)
        .stdin(Stdio::from(std::fs::File::open(component("echo"))?))
        .output()?;
    if !worker.status.success() {
        return Err(format!("no compiled code: {}", String::from_utf8_lossy(&worker.stderr)).into());
    }
    Ok(std::fs::read(&out)?)
}

/// A good component, and in it so many functions that do nothing.
pub(crate) fn many_functions(count: usize) -> Outcome<Vec<u8>> {
    let functions = list(count, &vec![0; count]);
    let code = list(count, &[2, 0, 0x0B].repeat(count));
    with_module(&[(TYPE, list(1, &[0x60, 0, 0])), (FUNCTION, functions), (CODE, code)])
}

/// A good component of `bytes` bytes or a few less: the rest is data that does not compress.
pub(crate) fn large(bytes: usize) -> Outcome<Vec<u8>> {
    const AROUND_BYTES: usize = 64;
    let echo = std::fs::metadata(component("echo"))?.len() as usize;
    let content = noise(1, bytes - echo - AROUND_BYTES);
    let passive = [vec![1], leb(content.len()), content].concat();
    with_module(&[(DATA, list(1, &passive))])
}

/// The echo plugin with one more core module, which nothing instantiates.
fn with_module(sections: &[(u8, Vec<u8>)]) -> Outcome<Vec<u8>> {
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    for (id, content) in sections {
        module.extend(section(*id, content));
    }
    let mut bytes = std::fs::read(component("echo"))?;
    bytes.extend(section(CORE_MODULE, &module));
    Ok(bytes)
}

fn section(id: u8, content: &[u8]) -> Vec<u8> {
    [&[id], leb(content.len()).as_slice(), content].concat()
}

fn list(count: usize, items: &[u8]) -> Vec<u8> {
    [leb(count).as_slice(), items].concat()
}

/// A number (LEB128).
fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push((number & 0x7F) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}
