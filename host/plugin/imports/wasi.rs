//! An inert WASI 0.2 for components built with a standard library that imports it. The clock stands at the batch's time,
//! randomness follows the batch's seed, standard output goes to the plugin's log, and there are no files, arguments or
//! variables. Waiting ends at once. Sockets and HTTP are not linked at all.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rand::rand_core::TryRng;
use tokio::io::AsyncWrite;
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream, WasiCli, WasiCliView};
use wasmtime_wasi::clocks::{HostMonotonicClock, HostWallClock, WasiClocks, WasiClocksView};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::{cli, clocks, filesystem, random};
use wasmtime_wasi::p2::{DynPollable, OutputStream, Pollable, StreamResult, subscribe};
use wasmtime_wasi::random::WasiRandom;
use wasmtime_wasi::{WasiCtx, WasiView};
use wasmtime_wasi_io::bindings::wasi::io;

use crate::plugin::state::{PluginLog, State};

/// The time and the randomness of the batch under way, shared by all of WASI's ways to ask for them.
#[derive(Clone, Default)]
pub(in crate::plugin) struct SharedClock(Arc<Now>);

#[derive(Default)]
struct Now {
    now_ms: AtomicU64,
    random: AtomicU64,
}

impl SharedClock {
    /// Sets the time and the seed of the call that follows.
    pub(in crate::plugin) fn set(&self, now_ms: u64, seed: u64) {
        self.0.now_ms.store(now_ms, Ordering::Relaxed);
        self.0.random.store(seed, Ordering::Relaxed);
    }

    fn now(&self) -> Duration {
        Duration::from_millis(self.0.now_ms.load(Ordering::Relaxed))
    }

    /// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
    fn random(&self) -> u64 {
        const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut z = self.0.random.fetch_add(GAMMA, Ordering::Relaxed).wrapping_add(GAMMA);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

impl HostWallClock for SharedClock {
    fn resolution(&self) -> Duration {
        Duration::from_millis(1)
    }

    fn now(&self) -> Duration {
        SharedClock::now(self)
    }
}

impl HostMonotonicClock for SharedClock {
    fn resolution(&self) -> u64 {
        1_000_000
    }

    fn now(&self) -> u64 {
        SharedClock::now(self).as_nanos() as u64
    }
}

impl TryRng for SharedClock {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.random() as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.random())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.random().to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

/// A WASI context that reaches nothing outside.
pub(in crate::plugin) fn inert(clock: &SharedClock, seed: u64, log: &PluginLog) -> WasiCtx {
    const RANDOM_BYTES_MAX: u64 = 64 << 10;
    WasiCtx::builder()
        .wall_clock(clock.clone())
        .monotonic_clock(clock.clone())
        .secure_random(clock.clone())
        .insecure_random(clock.clone())
        .insecure_random_seed(u128::from(seed))
        .max_random_size(RANDOM_BYTES_MAX)
        .stdout(LogStream { log: log.clone(), level: tracing::Level::INFO })
        .stderr(LogStream { log: log.clone(), level: tracing::Level::WARN })
        .allow_tcp(false)
        .allow_udp(false)
        .build()
}

/// Links what the standard libraries of common languages import.
pub(in crate::plugin) fn link(l: &mut Linker<State>) -> wasmtime::Result<()> {
    io::error::add_to_linker::<State, HasTable>(l, |state| state.ctx().table)?;
    io::poll::add_to_linker::<State, HasTable>(l, |state| state.ctx().table)?;
    io::streams::add_to_linker::<State, HasTable>(l, |state| state.ctx().table)?;
    clocks::wall_clock::add_to_linker::<State, WasiClocks>(l, State::clocks)?;
    clocks::monotonic_clock::add_to_linker::<State, HasStoppedClock>(l, |state| StoppedClock {
        clock: state.clock.clone(),
        table: state.ctx().table,
    })?;
    random::random::add_to_linker::<State, WasiRandom>(l, |state| state.ctx().ctx.random())?;
    random::insecure::add_to_linker::<State, WasiRandom>(l, |state| state.ctx().ctx.random())?;
    random::insecure_seed::add_to_linker::<State, WasiRandom>(l, |state| state.ctx().ctx.random())?;
    cli::exit::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::environment::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::stdin::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::stdout::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::stderr::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_input::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_output::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_stdin::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_stdout::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_stderr::add_to_linker::<State, WasiCli>(l, State::cli)?;
    filesystem::types::add_to_linker::<State, WasiFilesystem>(l, State::filesystem)?;
    filesystem::preopens::add_to_linker::<State, WasiFilesystem>(l, State::filesystem)?;
    Ok(())
}

struct HasTable;

impl HasData for HasTable {
    type Data<'a> = &'a mut ResourceTable;
}

struct HasStoppedClock;

impl HasData for HasStoppedClock {
    type Data<'a> = StoppedClock<'a>;
}

/// A clock that stands still. To wait for it is to be ready at once, or a plugin could sleep through its deadline,
/// which counts CPU time.
struct StoppedClock<'a> {
    clock: SharedClock,
    table: &'a mut ResourceTable,
}

impl StoppedClock<'_> {
    fn ready(&mut self) -> wasmtime::Result<Resource<DynPollable>> {
        let always = self.table.push(Always)?;
        subscribe(self.table, always)
    }
}

impl clocks::monotonic_clock::Host for StoppedClock<'_> {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(HostMonotonicClock::now(&self.clock))
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(HostMonotonicClock::resolution(&self.clock))
    }

    fn subscribe_instant(&mut self, _when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.ready()
    }

    fn subscribe_duration(&mut self, _after: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.ready()
    }
}

struct Always;

#[wasmtime_wasi::async_trait]
impl Pollable for Always {
    async fn ready(&mut self) {}
}

/// Standard output or error, line by line into the plugin's log.
struct LogStream {
    log: PluginLog,
    level: tracing::Level,
}

impl IsTerminal for LogStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LogStream {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink()) // Only WASI 0.3 asks for it, which is not linked.
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(Lines { log: self.log.clone(), level: self.level, line: Vec::new() })
    }
}

struct Lines {
    log: PluginLog,
    level: tracing::Level,
    line: Vec<u8>,
}

impl Lines {
    const LINE_BYTES_MAX: usize = 4 << 10;

    fn end(&mut self) {
        if !self.line.is_empty() {
            self.log.line(self.level, &String::from_utf8_lossy(&self.line));
            self.line.clear();
        }
    }
}

impl OutputStream for Lines {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        for &byte in &bytes {
            if byte == b'\n' || self.line.len() >= Self::LINE_BYTES_MAX {
                self.end();
            }
            if byte != b'\n' {
                self.line.push(byte);
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.end();
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(Self::LINE_BYTES_MAX)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Lines {
    async fn ready(&mut self) {}
}
