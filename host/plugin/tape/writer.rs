//! Records tapes. Channels hand over what happened and go on; one thread writes the files of all tapes. A channel never waits for it: where
//! the thread falls behind, the tape ends and says so.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use crate::limits::{
    TAPE_AGE_MS_MAX, TAPE_BYTES_MAX, TAPE_ENTRY_BYTES_MAX, TAPE_QUEUE_BYTES_MAX, TAPE_QUEUE_LINES_MAX,
};
use crate::plugin::account::{Entry, account};
use crate::plugin::compile::Digest;
use crate::plugin::content::Content;
use crate::plugin::effects::Effects;
use crate::plugin::fault::Fault;
use crate::plugin::instance::Opening;
use crate::plugin::record::Reads;
use crate::plugin::tape::event::Happened;
use crate::plugin::tape::redaction::Redaction;
use crate::plugin::tape::{End, Handled, Header, Line, Opened, Saved};
use crate::protocol::event::{Batch, Event};

/// Room that is kept for the last line, in bytes.
const END_BYTES: u64 = 1 << 10;
/// Characters of an error's words that the last line has.
const CAUSE_CHARS_MAX: usize = 200;

/// How much of a channel a tape may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Size of the file.
    pub bytes_max: u64,
    /// From the beginning of the recording to the last call, in milliseconds.
    pub age_ms_max: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { bytes_max: TAPE_BYTES_MAX, age_ms_max: TAPE_AGE_MS_MAX }
    }
}

/// Writes the tapes of a broker.
pub struct TapeWriter {
    queue: Queue,
    thread: JoinHandle<()>,
}

/// The way to the thread.
#[derive(Clone)]
struct Queue {
    jobs: SyncSender<Job>,
    /// Bytes of the lines that wait.
    bytes: Arc<AtomicUsize>,
}

enum Job {
    Begin(Box<Begin>),
    Line {
        tape: Arc<Shared>,
        line: Box<Raw>,
        bytes: usize,
    },
    /// Some tape is to end.
    Look,
    Quit,
}

struct Begin {
    path: PathBuf,
    header: Header,
    bounds: Bounds,
    redaction: Redaction,
    tape: Arc<Shared>,
}

/// A line before the work of making one.
enum Raw {
    Line(Line),
    Batch { batch: Arc<Batch>, reads: Reads, result: Result<Vec<Entry>, Fault> },
}

/// What a channel and the thread both know of a tape.
#[derive(Default)]
struct Shared {
    id: u64,
    /// Why it takes nothing more.
    end: OnceLock<End>,
    /// Lines that wait.
    waiting: AtomicUsize,
    /// Size of the file.
    bytes: AtomicU64,
    batches: AtomicU64,
}

impl TapeWriter {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start() -> io::Result<Self> {
        let (jobs, receiver) = sync_channel(TAPE_QUEUE_LINES_MAX);
        let queue = Queue { jobs, bytes: Arc::default() };
        let bytes = Arc::clone(&queue.bytes);
        let thread = std::thread::Builder::new().name("hotbay-tapes".to_owned()).spawn(move || {
            Thread { bytes, tapes: HashMap::new() }.run(&receiver);
        })?;
        Ok(Self { queue, thread })
    }

    /// Begins a tape in a file that does not exist yet. The next call into the channel's instance must be its opening. If the file cannot be
    /// made, the tape [ends](TapeHandle::ended) soon.
    pub fn begin(&self, path: &Path, header: Header, bounds: Bounds, redaction: Redaction) -> TapeHandle {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let id = LAST.fetch_add(1, Ordering::Relaxed);
        let tape = Arc::new(Shared { id, ..Shared::default() });
        let begin = Begin { path: path.to_owned(), header, bounds, redaction, tape: Arc::clone(&tape) };
        if self.queue.jobs.try_send(Job::Begin(Box::new(begin))).is_err() {
            tape.end(End::Overrun);
        }
        TapeHandle(Arc::new(Recording { tape, queue: self.queue.clone() }))
    }

    /// Writes what was handed over, ends all tapes and the thread. Blocks until that is done.
    pub fn finish(self) {
        drop(self.queue.jobs.send(Job::Quit));
        drop(self.thread.join());
    }
}

/// What a channel records to. Cheap to clone; the tape ends with its last one.
#[derive(Clone)]
pub struct TapeHandle(Arc<Recording>);

struct Recording {
    tape: Arc<Shared>,
    queue: Queue,
}

/// What a call was given, where it was not a batch.
pub struct Call<'a> {
    /// When, in milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// What it read.
    pub reads: Reads,
    /// Why it failed, if it did.
    pub fault: Option<&'a Fault>,
}

impl TapeHandle {
    /// An instance of a version was opened, or could not be.
    pub fn open(&self, digest: Digest, opening: &Opening<'_>, reads: Reads, fault: Option<&Fault>) {
        if !self.is_recording() {
            return;
        }
        self.line(Line::Open(Opened {
            digest: digest.to_string(),
            now_ms: opening.now_ms,
            seed: opening.seed,
            saved: opening.saved.map(|saved| Content::Binary(saved.to_vec().into())),
            reads,
            fault: fault.cloned(),
        }));
    }

    /// A batch was handled: what the instance made of it, whatever becomes of its effects afterwards. Returns the batch's number on this tape.
    pub fn batch(&self, batch: &Arc<Batch>, reads: Reads, result: Result<&Effects, &Fault>) -> u64 {
        self.batch_accounted(batch, reads, || result.map(account).map_err(Clone::clone))
    }

    /// The same for who has told the effects already.
    pub fn batch_accounted(
        &self,
        batch: &Arc<Batch>,
        reads: Reads,
        result: impl FnOnce() -> Result<Vec<Entry>, Fault>,
    ) -> u64 {
        let number = self.0.tape.batches.fetch_add(1, Ordering::Relaxed) + 1;
        if self.is_recording() {
            let result = result();
            let effects: u64 = result.iter().flatten().map(entry_bytes).sum();
            let events: usize = batch.events.iter().map(Event::bytes).sum();
            let bytes = events + reads.bytes() + effects as usize;
            self.0.send(Raw::Batch { batch: Arc::clone(batch), reads, result }, bytes);
        }
        number
    }

    /// The effects of a batch never took hold.
    pub fn discard(&self, batch: u64) {
        self.line(Line::Discard { batch });
    }

    /// The memory was asked for. `saved` is absent if that failed.
    pub fn save(&self, call: Call<'_>, saved: Option<&[u8]>) {
        if !self.is_recording() {
            return;
        }
        let saved = saved.map(|saved| Content::Binary(saved.to_vec().into()));
        self.line(Line::Save(Saved { now_ms: call.now_ms, reads: call.reads, saved, fault: call.fault.cloned() }));
    }

    /// The instance that was opened last is given up for the one before it.
    pub fn back(&self) {
        self.line(Line::Back);
    }

    /// Ends the tape.
    pub fn stop(&self) {
        self.0.stop();
    }

    /// Whether it takes anything more.
    pub fn is_recording(&self) -> bool {
        self.0.tape.end.get().is_none()
    }

    /// Why it does not, if it does not.
    pub fn ended(&self) -> Option<End> {
        self.0.tape.end.get().cloned()
    }

    /// Batches handed over so far.
    pub fn batches(&self) -> u64 {
        self.0.tape.batches.load(Ordering::Relaxed)
    }

    /// Size of the file so far.
    pub fn bytes(&self) -> u64 {
        self.0.tape.bytes.load(Ordering::Relaxed)
    }

    fn line(&self, line: Line) {
        const FIXED: usize = 64;
        let bytes = match &line {
            Line::Open(Opened { reads, saved, .. }) | Line::Save(Saved { reads, saved, .. }) => {
                reads.bytes() + saved.as_ref().map_or(0, |saved| saved.len() as usize)
            }
            _ => 0,
        };
        self.0.send(Raw::Line(line), FIXED + bytes);
    }
}

fn entry_bytes(entry: &Entry) -> u64 {
    const FIXED: u64 = 64;
    FIXED + entry.content().map_or(0, Content::len)
}

impl Recording {
    /// Hands a line over, or ends the tape.
    fn send(&self, line: Raw, bytes: usize) {
        let (tape, queued) = (&self.tape, &self.queue.bytes);
        if tape.end.get().is_some() {
            return;
        }
        // A single line goes through whatever its size: it is bounded by those of batch, effects and reads.
        let before = queued.fetch_add(bytes, Ordering::Relaxed);
        tape.waiting.fetch_add(1, Ordering::Relaxed);
        let job = Job::Line { tape: Arc::clone(tape), line: Box::new(line), bytes };
        if (before > 0 && before + bytes > TAPE_QUEUE_BYTES_MAX) || self.queue.jobs.try_send(job).is_err() {
            queued.fetch_sub(bytes, Ordering::Relaxed);
            tape.end(End::Overrun);
            tape.waiting.fetch_sub(1, Ordering::Relaxed);
            self.look();
        }
    }

    fn stop(&self) {
        self.tape.end(End::Stopped);
        self.look();
    }

    /// Has the thread find out which tapes are to end. If the queue is full, it does so anyway after the next line.
    fn look(&self) {
        drop(self.queue.jobs.try_send(Job::Look));
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    /// The first reason counts.
    fn end(&self, end: End) {
        drop(self.end.set(end));
    }
}

struct Thread {
    bytes: Arc<AtomicUsize>,
    tapes: HashMap<u64, Open>,
}

/// A tape that is being written.
struct Open {
    file: File,
    path: PathBuf,
    tape: Arc<Shared>,
    bounds: Bounds,
    started_ms: u64,
    redaction: Redaction,
    bytes: u64,
}

impl Thread {
    fn run(mut self, jobs: &Receiver<Job>) {
        // Ends by itself when nobody can hand over anything any more.
        while let Ok(job) = jobs.recv() {
            match job {
                Job::Begin(begin) => self.begin(*begin),
                Job::Line { tape, line, bytes } => {
                    if let Some(open) = self.tapes.get_mut(&tape.id) {
                        open.line(*line);
                    }
                    self.bytes.fetch_sub(bytes, Ordering::Relaxed);
                    tape.waiting.fetch_sub(1, Ordering::Relaxed);
                }
                Job::Look => {}
                Job::Quit => break,
            }
            // What was handed over before the end is still written.
            let ended = |open: &Open| open.tape.end.get().is_some() && open.tape.waiting.load(Ordering::Relaxed) == 0;
            for (_, open) in self.tapes.extract_if(|_, open| ended(open)) {
                open.finish();
            }
        }
        for (_, open) in self.tapes {
            open.tape.end(End::Stopped);
            open.finish();
        }
    }

    fn begin(&mut self, begin: Begin) {
        let Begin { path, header, bounds, redaction, tape } = begin;
        let failed = |error: io::Error| {
            tracing::warn!(tape = %path.display(), %error, "a tape cannot be begun");
            tape.end(End::Failed(error.to_string().chars().take(CAUSE_CHARS_MAX).collect()));
        };
        // What channels carry is for the broker's user alone.
        let file = match OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => file,
            Err(error) => return failed(error),
        };
        let started_ms = header.started_ms;
        let mut open =
            Open { file, path: path.clone(), tape: Arc::clone(&tape), bounds, started_ms, redaction, bytes: 0 };
        open.write(&header);
        self.tapes.insert(tape.id, open);
    }
}

impl Open {
    fn line(&mut self, line: Raw) {
        let line = match line {
            Raw::Line(line) => line,
            Raw::Batch { batch, reads, result } => {
                let (effects, fault) = match result {
                    Ok(effects) => (effects, None),
                    Err(fault) => (Vec::new(), Some(fault)),
                };
                let events = batch.events.iter().map(Happened::from).collect();
                Line::Batch(Handled { now_ms: batch.now_ms, seed: batch.seed, events, reads, effects, fault })
            }
        };
        if matches!(self.tape.end.get(), Some(End::Full | End::Age | End::Failed(_))) {
            return;
        }
        let age = line.now_ms().map(|now_ms| now_ms.saturating_sub(self.started_ms));
        if age.is_some_and(|age| age > self.bounds.age_ms_max) {
            return self.tape.end(End::Age);
        }
        self.write(&line.reduced(&self.redaction, TAPE_ENTRY_BYTES_MAX));
    }

    /// Writes one line, whole, or ends the tape.
    fn write(&mut self, line: &impl serde::Serialize) {
        let room = self.bounds.bytes_max.saturating_sub(self.bytes).saturating_sub(END_BYTES);
        let mut text = Text { bytes: Vec::new(), room: usize::try_from(room).unwrap_or(usize::MAX), is_full: false };
        let made = serde_json::to_writer(&mut text, line).map_err(io::Error::from).and_then(|()| text.write_all(b"\n"));
        match made.and_then(|()| self.file.write_all(&text.bytes)) {
            Ok(()) => {
                self.bytes += text.bytes.len() as u64;
                self.tape.bytes.store(self.bytes, Ordering::Relaxed);
            }
            Err(_) if text.is_full => self.tape.end(End::Full),
            Err(error) => {
                tracing::warn!(tape = %self.path.display(), %error, "a tape cannot be written");
                self.tape.end(End::Failed(error.to_string().chars().take(CAUSE_CHARS_MAX).collect()));
            }
        }
    }

    /// Writes the last line.
    fn finish(mut self) {
        let end = self.tape.end.get().cloned().unwrap_or(End::Stopped);
        if matches!(end, End::Full | End::Age | End::Overrun) {
            tracing::info!(tape = %self.path.display(), %end, "a tape ends");
        }
        self.bounds.bytes_max = self.bounds.bytes_max.saturating_add(END_BYTES);
        // After a line that was written in part, it would be damage in the middle; and what has no header is no tape.
        if !matches!(end, End::Failed(_)) && self.bytes > 0 {
            self.write(&Line::End(end));
        }
    }
}

/// A line in the making. Escapes can make it several times as long as what it has, so it ends where it would be too long.
struct Text {
    bytes: Vec<u8>,
    room: usize,
    is_full: bool,
}

impl Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.room {
            self.is_full = true;
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
