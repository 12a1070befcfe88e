//! What the parts of a message's way cost, within one process (`make bench-inside`): a call into WebAssembly, the effects of
//! a batch, frames, the outbox, commits. For finding where time goes; what a broker carries is measured from outside, by
//! `hotbay bench`.
#![allow(clippy::expect_used, clippy::panic, reason = "a benchmark ends at the first surprise")]

use std::collections::BTreeSet;
use std::future::Future;
use std::io::Read;
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use clap::Parser;
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use futures_util::future::try_join_all;
use hotbay::cli::Cli;
use hotbay::config::Environment;
use hotbay::limits::{MountLimits, NodeLimits};
use hotbay::outbox::Outbox;
use hotbay::plugin::compile::WORKER_COMMAND;
use hotbay::plugin::{Channel, Effects, Instance, Opening, Plugin, ReadFuture, Runtime, Stats};
use hotbay::protocol::burst::BurstBuilder;
use hotbay::protocol::event::{Batch, Event, MemberId};
use hotbay::protocol::frame::{Audience, Delivery, Opcode, Payload, Priority, encode};
use hotbay::protocol::identity::Identity;
use hotbay::protocol::name::ChannelName;
use hotbay::protocol::sql::{Rows, SqlError, Value};
use hotbay::store::sqlite::SqliteStore;
use hotbay::store::{Commit, Durability, Fence, LogEntry, Store, Writes};
use tempfile::TempDir;

const MESSAGE_BYTES: usize = 128;
/// On the disk of the build, because the folder for temporary files is in memory on many machines.
const FOLDER: &str = env!("CARGO_TARGET_TMPDIR");

fn main() -> ExitCode {
    // Components are compiled by a child process, which is this very program.
    if std::env::args().nth(1).is_some_and(|argument| argument == WORKER_COMMAND) {
        return Cli::parse().run(&Environment::of_process());
    }
    divan::main();
    ExitCode::SUCCESS
}

static ASYNC: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
});

fn folder() -> TempDir {
    TempDir::new_in(FOLDER).expect("a folder")
}

fn message() -> Payload {
    Payload::text("x".repeat(MESSAGE_BYTES))
}

/// Polls until it is done. A runtime would cost as much as what is measured.
fn run<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
}

/// A channel without state.
struct Empty;

impl Channel for Empty {
    fn get<'a>(&'a self, _: &'a str) -> ReadFuture<'a, Option<Bytes>> {
        Box::pin(async { Ok(None) })
    }

    fn scan<'a>(&'a self, _: &'a str, _: Option<&'a str>, _: bool, _: u32) -> ReadFuture<'a, Vec<(String, Bytes)>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn read_log(&self, _: u64, _: u64, _: u32) -> ReadFuture<'_, Vec<(u64, u64, Bytes)>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn log_bounds(&self) -> (u64, u64) {
        (1, 1)
    }

    fn state_bytes(&self) -> u64 {
        0
    }

    fn members(&self) -> Vec<(MemberId, Identity)> {
        vec![(MemberId(1), Identity::anonymous("default"))]
    }

    fn member(&self, _: MemberId) -> Option<Identity> {
        Some(Identity::anonymous("default"))
    }

    fn query<'a>(&'a self, _: &'a str, _: Vec<Value>) -> ReadFuture<'a, Result<Rows, SqlError>> {
        Box::pin(async { Ok(Err(SqlError::NotGranted)) })
    }

    fn stats(&self) -> Stats {
        Stats::default()
    }
}

/// The plugin that sends every message on to all.
fn relay() -> (Plugin, TempDir) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/plugins/wasm32-wasip2/release/relay.wasm");
    let folder = folder();
    let limits = NodeLimits { channels_awake_max: 8, ..NodeLimits::default() };
    let mounts = MountLimits::default();
    let runtime = Runtime::new(&limits, std::iter::once(&mounts), folder.path().to_owned()).expect("an engine");
    (runtime.load_file("relay", &file, &BTreeSet::new()).expect("run `make plugins`"), folder)
}

fn opened(plugin: &Plugin) -> Instance {
    let name = ChannelName::new("default", "room:1").expect("a name");
    let mut instance = run(Instance::start(plugin, Arc::new(MountLimits::default()), 1, "bench")).expect("an instance");
    let opening = Opening { name: &name, now_ms: 1, seed: 1, settings: "{}", saved: None };
    run(instance.open(Arc::new(Empty), opening)).expect("an open instance");
    instance
}

/// One call into the relay with so many messages, each of which becomes a broadcast. The budget is 0.25 us per message in
/// batches of 64, 0.5 us alone.
#[divan::bench(args = [1, 8, 64, 256], min_time = 0.3)]
fn wasm_batch(bencher: Bencher<'_, '_>, events: usize) {
    let (plugin, _folder) = relay();
    let mut instance = Some(opened(&plugin));
    let channel: Arc<dyn Channel> = Arc::new(Empty);
    let identity = Identity::anonymous("default");
    let event = || Event::Message { member: MemberId(1), identity: identity.clone(), payload: message() };
    let batch = Arc::new(Batch { now_ms: 1, seed: 1, events: (0..events).map(|_| event()).collect() });
    bencher.counter(ItemsCount::new(events)).bench_local(|| {
        let ready = instance.take().expect("an instance");
        let (back, effects) = run(ready.handle(Arc::clone(&channel), Arc::clone(&batch)));
        instance = back;
        effects.expect("effects")
    });
}

/// A new instance, opened.
#[divan::bench(min_time = 0.3)]
fn wasm_instance(bencher: Bencher<'_, '_>) {
    let (plugin, _folder) = relay();
    bencher.bench_local(|| opened(&plugin));
}

/// The broadcasts of a batch, gathered into one burst.
#[divan::bench(args = [1, 64, 256], min_time = 0.2)]
fn effects(bencher: Bencher<'_, '_>, count: u32) {
    let (limits, payload) = (MountLimits::default(), message());
    bencher.counter(ItemsCount::new(count)).bench_local(|| {
        let mut effects = Effects::default();
        let delivery = || Delivery { priority: Priority::Normal, conflate: None };
        for event in 0..count {
            effects.send(event, &payload, Audience::All, delivery(), &limits).expect("within the limits");
        }
        effects.frames.finish()
    });
}

/// A frame appended to a burst.
#[divan::bench(args = [16, 128, 4_096, 65_536])]
fn frame_encoding(bencher: Bencher<'_, '_>, bytes: usize) {
    let payload = vec![b'x'; bytes];
    let mut wire = BytesMut::with_capacity(1 << 20);
    bencher.counter(BytesCount::new(bytes)).bench_local(|| {
        wire.clear();
        encode(Opcode::Text, divan::black_box(&payload), &mut wire);
    });
}

/// A burst of so many frames to one client on loopback: a lock and a system call, whatever their number.
#[divan::bench(args = [1, 32], min_time = 0.3)]
fn outbox(bencher: Bencher<'_, '_>, frames: usize) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let stream = std::net::TcpStream::connect(listener.local_addr().expect("its address")).expect("a connection");
    stream.set_nonblocking(true).expect("an option");
    let (mut reader, _) = listener.accept().expect("a connection");
    // Ends with the connection.
    let reading = std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 20];
        while reader.read(&mut buffer).is_ok_and(|count| count > 0) {}
    });
    let entered = ASYNC.enter();
    let outbox = Outbox::new(tokio::net::TcpStream::from_std(stream).expect("a socket"), 64 << 20);
    let mut burst = BurstBuilder::default();
    for _ in 0..frames {
        burst.push(0, &message(), Audience::All, Delivery { priority: Priority::Normal, conflate: None });
    }
    let burst = burst.finish().shared;
    bencher.counter(ItemsCount::new(frames)).bench_local(|| {
        outbox.send_frames(&burst);
        // Only if the socket is full.
        while outbox.bytes_waiting() > 0 {
            let _: hotbay::outbox::Progress = outbox.poll_progress(&mut Context::from_waker(Waker::noop()));
            std::thread::yield_now();
        }
    });
    drop((outbox, entered));
    reading.join().expect("a reader");
}

/// Commits of so many channels at once, one log entry each, synced to the disk: the store groups them.
#[divan::bench(args = [1, 16, 64], sample_count = 30)]
fn durable_commits(bencher: Bencher<'_, '_>, channels: usize) {
    let folder = folder();
    let (store, mut fences) = ASYNC.block_on(async {
        let store = SqliteStore::open(&folder.path().join("bench.db")).await.expect("a store");
        let mut fences = Vec::new();
        for index in 0..channels {
            let name = ChannelName::new("default", &format!("room:{index}")).expect("a name");
            let acquired = store.acquire(&name, "bench").await.expect("a channel");
            fences.push((acquired.fence, acquired.log.1));
        }
        (store, fences)
    });
    let data = Bytes::from(vec![b'x'; 200]);
    bencher.counter(ItemsCount::new(channels)).bench_local(|| {
        let commits = fences.iter_mut().map(|(fence, offset)| {
            let entry = LogEntry { offset: *offset, at_ms: 1, data: data.clone() };
            let writes = Writes { appends: vec![entry], ..Writes::default() };
            let commit = Commit { fence: *fence, durability: Durability::Fsync, writes };
            *fence = Fence { seq: fence.seq + 1, ..*fence };
            *offset += 1;
            store.commit(Arc::new(commit))
        });
        ASYNC.block_on(try_join_all(commits)).expect("committed");
    });
    ASYNC.block_on(store.close()).expect("an end");
}
