//! Hostile uploads while a few channels talk: what each costs the broker in memory, and what the channels notice of it, from the first
//! byte of the upload to the end of its vetting. Children of the broker do not count: they have bounds of their own.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use hotbay::bench::procfs::Process;
use hotbay::limits::NodeLimits;

use crate::bench::bars::{Bar, Line, percentile_ms};
use crate::bench::settled::settled_memory_bytes;
use crate::bench::socket::DEADLINE;
use crate::components::{large, many_functions, noise, precompiled};
use crate::crowd::Crowd;
use crate::diary::Window;
use crate::operator::Operator;
use crate::support::admin::{Admin, form};
use crate::support::{component, hostile};
use crate::{Load, Outcome, lost, plain, started};

const CHANNELS: u32 = 10;
const SIZE: u32 = 2;
const PER_SECOND: u32 = 200;
const MIB: f64 = 1_048_576.0;
const BODY_BYTES: usize = 100 << 20;
/// How often the broker's memory is looked at.
const SAMPLE: Duration = Duration::from_millis(25);
/// Until a version's vetting has ended.
const VETTED: Duration = Duration::from_secs(150);
/// CPU time of the compile worker in this run, in seconds: the default would be 60, and this run ends in time.
const COMPILE_CPU_S: u64 = 20;
/// A loop that goes on: `loop`, `br 0`, `end`.
const ENDLESS: [u8; 5] = [0x03, 0x40, 0x0C, 0x00, 0x0B];

/// What somebody uploads.
struct Upload {
    what: &'static str,
    body: Body,
}

enum Body {
    Component(Vec<u8>),
    /// So many bytes, whose number is not said before.
    Unannounced(usize),
}

/// What became of it.
struct Ended {
    what: &'static str,
    outcome: String,
    window: Window,
    /// Highest proportional set that was seen.
    pss: u64,
    /// Highest resident set there was.
    rss: u64,
}

fn uploads(load: &Load) -> Outcome<Vec<Upload>> {
    let program = load.program.clone().unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_hotbay")));
    let echo = std::fs::read(component("echo"))?;
    let size_max = NodeLimits::default().plugin_bytes_max;
    let component = |what, bytes| Upload { what, body: Body::Component(bytes) };
    let mut uploads = vec![
        component("random bytes, 1 MB", noise(7, 1 << 20)),
        component("a body of 100 MB", vec![0; BODY_BYTES]),
        Upload { what: "a body of 100 MB, its size not announced", body: Body::Unannounced(BODY_BYTES) },
        component("precompiled code", precompiled(&program)?),
        component("10^7 flattened instances in less than 1 KB", hostile::instances(7)),
        component("140 KB of nested loops", hostile::loops(46_000)),
        component("half a million functions", many_functions(500_000)?),
        component("start code that never ends", hostile::with_start_code(&echo, &ENDLESS)),
        component("random bytes of the greatest size", noise(9, size_max)),
        component("a good component of the greatest size", large(size_max)?),
    ];
    if load.quick {
        uploads.retain(|upload| !upload.what.contains("functions"));
    }
    Ok(uploads)
}

pub(crate) async fn measure(load: &Load, lines: &mut Vec<Line>) -> Outcome<()> {
    let cpu_s = if load.quick { 3 } else { COMPILE_CPU_S };
    let broker = started(load.setup().with_nothing_compiled().set("limits.compile_cpu_s_max", cpu_s))?;
    let operator = Operator::of(&broker);
    let uploads = uploads(load)?;
    let crowd = Crowd::join(broker.address(), CHANNELS, SIZE).await?;
    let talk = crowd.talk(PER_SECOND, plain);
    tokio::time::sleep(load.time(3_000)).await;
    let process = Process(broker.pid());
    let before = settled_memory_bytes(process).await?;
    let from = Instant::now();
    tokio::time::sleep(load.time(15_000)).await;
    let still = Window::since(from);
    let rss_before = resident_bytes(broker.pid(), "VmRSS:")?;
    let mut ended = Vec::new();
    for (upload, number) in uploads.into_iter().zip(1_u32..) {
        let Upload { what, body } = upload;
        eprintln!("  {what} …");
        let from = Instant::now();
        forget_peak(broker.pid())?;
        let sampler = Sampler::start(process);
        let outcome = match body {
            Body::Component(bytes) => follow(&operator.admin, number, &bytes).await,
            Body::Unannounced(bytes) => {
                let key = broker.run(&["key", "create", "--operator", "--name", "unannounced"]);
                let address = broker.address().to_owned();
                tokio::task::spawn_blocking(move || unannounced(&address, key.trim(), bytes)).await?
            }
        };
        let outcome = outcome.unwrap_or_else(|error| format!("no answer: {error}"));
        // What it may cost afterwards is its own, too.
        tokio::time::sleep(load.time(1_000)).await;
        let (pss, rss) = (sampler.end()?, resident_bytes(broker.pid(), "VmHWM:")?);
        ended.push(Ended { what, outcome, window: Window::since(from), pss, rss });
    }
    let heard = talk.finish().await?;
    lines.push(Line::title(format!(
        "hostile uploads: {CHANNELS} channels x {SIZE} members, {PER_SECOND} messages/s; the compile worker has {cpu_s} s of CPU time"
    )));
    lost(lines, &heard);
    let percentile = |windows: &[Window], percent: f64| percentile_ms(&heard.delays(windows, &|_| true), percent);
    let slowest = percentile(&[still], 100.0);
    lines.push(Line::new("  message to all its members, p99, before", "ms", vec![percentile(&[still], 99.0)]));
    lines.push(Line::new("  slowest message before", "ms", vec![slowest]));
    let rise = |now: u64, before: u64| (now as f64 - before as f64) / MIB;
    let beyond = |windows: &[Window]| (percentile(windows, 100.0) - slowest).max(0.0);
    for one in &ended {
        let line = Line::owned(format!("  {}", one.what), "ms", vec![beyond(&[one.window])]);
        let seconds = (one.window.until - one.window.from).as_secs_f64();
        lines.push(line.bar(Bar::AtMost(50.0)).note(format!(
            "slowest beyond that; p99 {:.1} ms; memory +{:.1} MB (peak of RSS +{:.1}); {seconds:.1} s: {}",
            percentile(&[one.window], 99.0),
            rise(one.pss, before),
            rise(one.rss, rss_before),
            one.outcome
        )));
    }
    let windows: Vec<Window> = ended.iter().map(|one| one.window).collect();
    lines.push(Line::new("  message to all its members, p99, meanwhile", "ms", vec![percentile(&windows, 99.0)]));
    lines.push(Line::new("  slowest message beyond that before", "ms", vec![beyond(&windows)]).bar(Bar::AtMost(50.0)));
    let pss = ended.iter().map(|one| rise(one.pss, before)).fold(0.0, f64::max);
    let note = format!("proportional set of the broker's process; {:.0} MB before", before as f64 / MIB);
    lines.push(Line::new("  memory of the broker, highest rise", "MB", vec![pss]).bar(Bar::AtMost(64.0)).note(note));
    let rss = ended.iter().map(|one| rise(one.rss, rss_before)).fold(0.0, f64::max);
    let note = format!("VmHWM; {:.0} MB before", rss_before as f64 / MIB);
    lines
        .push(Line::new("  peak of its resident set, highest rise", "MB", vec![rss]).bar(Bar::AtMost(64.0)).note(note));
    Ok(())
}

/// Uploads a component and waits for the end of its vetting; says how that was.
async fn follow(admin: &Admin, number: u32, bytes: &[u8]) -> Outcome<String> {
    let manifest = format!("name = \"hostile-{number}\"\nversion = \"1.0.0\"\ncapabilities = []\n");
    let parts = [("manifest", manifest.as_bytes()), ("component", bytes)];
    // A connection that the broker breaks off is an answer, too.
    let answer = AssertUnwindSafe(admin.upload("/plugins", &parts)).catch_unwind().await;
    let answer = answer.map_err(|_| "the upload was broken off")?;
    if answer.status != 202 {
        return Ok(format!("{}: {}", answer.status, answer.json()["error"]["message"]));
    }
    let place = answer.json()["vetting"].as_str().unwrap_or_default().to_owned();
    let place = place.strip_prefix("/v1/admin").ok_or("no place to follow its vetting")?.to_owned();
    let begun = Instant::now();
    loop {
        let version = admin.get(&place).await.json();
        let status = version["status"].as_str().unwrap_or_default();
        if !matches!(status, "uploaded" | "vetting") {
            let steps = version["vetting"]["steps"].as_array().map(Vec::as_slice).unwrap_or_default();
            let failed = steps.iter().find(|step| step["verdict"] == "failed");
            let why = failed.map_or_else(String::new, |step| {
                let evidence: String = step["evidence"].to_string().chars().take(160).collect();
                format!(" at {}: {evidence}", step["step"].as_str().unwrap_or_default())
            });
            return Ok(format!("{status}{why}"));
        }
        if begun.elapsed() > VETTED {
            return Ok(format!("still {status:?} after {VETTED:?}"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Uploads in chunks, until the broker has had enough; gives the first line of its answer.
fn unannounced(address: &str, key: &str, bytes: usize) -> Outcome<String> {
    let manifest = "name = \"unannounced\"\nversion = \"1.0.0\"\ncapabilities = []\n";
    let (kind, body) = form(&[("manifest", manifest.as_bytes()), ("component", &vec![0; bytes])]);
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    let head = format!(
        "POST /v1/admin/plugins HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {key}\r\ncontent-type: {kind}\r\n\
         transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    let mut sent = 0_usize;
    for chunk in body.chunks(64 << 10) {
        let written = [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat();
        if stream.write_all(&written).is_err() {
            break;
        }
        sent += chunk.len();
    }
    // It may have broken off before the end.
    stream.write_all(b"0\r\n\r\n").ok();
    let mut answer = vec![0; 1_024];
    let read = stream.read(&mut answer)?;
    let words = String::from_utf8_lossy(&answer[..read]).into_owned();
    Ok(format!("{} after {} MB", words.lines().next().unwrap_or("nothing"), sent >> 20))
}

/// A field of `/proc/PID/status` in bytes.
fn resident_bytes(pid: u32, field: &str) -> Outcome<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).ok_or("no such field")?;
    let kib: u64 = line.split_whitespace().next().ok_or("no number")?.parse()?;
    Ok(kib << 10)
}

/// Lets `VmHWM` begin anew (proc(5), `clear_refs`).
fn forget_peak(pid: u32) -> Outcome<()> {
    Ok(std::fs::write(format!("/proc/{pid}/clear_refs"), "5")?)
}

/// Looks at the memory of a process all the time, in a thread of its own.
struct Sampler {
    stop: Arc<AtomicBool>,
    highest: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<()>,
}

impl Sampler {
    fn start(process: Process) -> Self {
        let (stop, highest) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, seen) = (Arc::clone(&stop), Arc::clone(&highest));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let pss = process.memory().map_or(0, |memory| memory.pss);
                seen.fetch_max(pss, Ordering::Relaxed);
                std::thread::sleep(SAMPLE);
            }
        });
        Self { stop, highest, thread }
    }

    /// The most it saw, in bytes.
    fn end(self) -> Outcome<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the sampler failed")?;
        Ok(self.highest.load(Ordering::Relaxed))
    }
}
