//! Recording: what a channel hands over is in the file, or the tape ends and says why; nobody ever waits.

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::limits::MountLimits;
use crate::plugin::tape::{Tape, TapeError};
use crate::protocol::event::MemberId;
use crate::protocol::frame::{Audience, Delivery, Payload};
use crate::protocol::identity::Identity;
use crate::protocol::name::ChannelName;

struct Fixture {
    folder: TempDir,
    name: ChannelName,
}

impl Fixture {
    fn new() -> Self {
        Self { folder: TempDir::new().unwrap(), name: ChannelName::new("acme", "room:1").unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("room.tape")
    }

    fn header(&self) -> Header {
        let limits = MountLimits::default();
        Header::new(&self.name, "/chat", "{}", &limits, 1_000, &Redaction::default())
    }

    fn begin(&self, writer: &TapeWriter, bounds: Bounds) -> TapeHandle {
        writer.begin(&self.path(), self.header(), bounds, Redaction::default())
    }

    /// All lines of the tape, and why it ended.
    fn read(&self) -> (Vec<Line>, Option<End>) {
        let mut tape = Tape::open(&self.path()).unwrap();
        let lines = std::iter::from_fn(|| tape.next_line().unwrap()).collect();
        (lines, tape.end().cloned())
    }
}

fn batch(now_ms: u64, text: &str) -> Arc<Batch> {
    let identity = Identity::anonymous("acme");
    let event = Event::Message { member: MemberId(1), identity, payload: Payload::text(text) };
    Arc::new(Batch { now_ms, seed: 1, events: vec![event] })
}

fn effects(text: &str) -> Effects {
    let mut effects = Effects::default();
    effects.frames.push(0, &Payload::text(text), Audience::All, Delivery::HIGH);
    effects
}

fn is_batch(line: &Line, text: &str) -> bool {
    let Line::Batch(handled) = line else { return false };
    let Some(Entry::Frame { payload, .. }) = handled.effects.first() else { return false };
    payload.bytes().is_some_and(|bytes| bytes == text)
}

/// Waits until a tape ended, without sleeping: the thread is asked to look until it did.
fn ended(handle: &TapeHandle) -> End {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        if let Some(end) = handle.ended() {
            return end;
        }
        assert!(std::time::Instant::now() < deadline, "the tape does not end");
        std::thread::yield_now();
    }
}

#[test]
fn what_is_handed_over_is_written_in_order() {
    let fixture = Fixture::new();
    let writer = TapeWriter::start().unwrap();
    let handle = fixture.begin(&writer, Bounds::default());
    let opening = Opening { name: &fixture.name, now_ms: 1, seed: 2, settings: "{}", saved: Some(b"\xFF") };
    let fault = Fault::refused("no");

    handle.open(Digest([7; 32]), &opening, Reads::default(), None);
    let numbers = [
        handle.batch(&batch(3, "a"), Reads::default(), Ok(&effects("b"))),
        handle.batch(&batch(4, "a"), Reads::default(), Err(&fault)),
    ];
    handle.discard(1);
    handle.back();
    handle.save(Call { now_ms: 5, reads: Reads::default(), fault: None }, Some(b"memory"));
    handle.save(Call { now_ms: 6, reads: Reads::default(), fault: Some(&fault) }, None);
    writer.finish();

    assert_eq!(numbers, [1, 2]);
    let (lines, end) = fixture.read();
    assert_eq!(end, Some(End::Stopped));
    let [open, first, second, discard, back, save, failed] = &lines[..] else { panic!("{lines:?}") };
    let Line::Open(opened) = open else { panic!("{open:?}") };
    assert_eq!((opened.digest.clone(), opened.now_ms, opened.seed), ("07".repeat(32), 1, 2));
    assert_eq!(opened.saved, Some(Content::Binary(Bytes::from_static(b"\xFF"))));
    assert!(is_batch(first, "b"));
    assert!(
        matches!(second, Line::Batch(handled) if handled.effects.is_empty() && handled.fault == Some(fault.clone()))
    );
    assert_eq!((discard, back), (&Line::Discard { batch: 1 }, &Line::Back));
    assert!(matches!(save, Line::Save(saved) if saved.saved == Some(Content::Binary("memory".into()))));
    assert!(matches!(failed, Line::Save(saved) if saved.saved.is_none() && saved.fault == Some(fault)));
    let mode = std::os::unix::fs::PermissionsExt::mode(&fixture.path().metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

/// Goal: the tape of a channel that is gone ends, also while the writer goes on.
#[test]
fn a_tape_ends_with_its_last_handle() {
    let fixture = Fixture::new();
    let writer = TapeWriter::start().unwrap();
    let handle = fixture.begin(&writer, Bounds::default());
    handle.batch(&batch(1, "a"), Reads::default(), Ok(&effects("b")));
    let other = handle.clone();
    drop(handle);
    assert!(other.is_recording());
    other.stop();
    other.batch(&batch(1, "a"), Reads::default(), Ok(&effects("late")));
    drop(other);
    writer.finish();
    let (lines, end) = fixture.read();
    assert!(lines.len() == 1 && is_batch(&lines[0], "b"));
    assert_eq!(end, Some(End::Stopped));
}

/// Law: everything has a bound. The file never becomes larger than it may, however much escapes grow a line, and it ends with whole lines.
#[test]
fn a_full_tape_says_so_within_its_size() {
    for text in ["x".repeat(1_000), "\u{1}".repeat(1_000), "é\"".repeat(500)] {
        let fixture = Fixture::new();
        let writer = TapeWriter::start().unwrap();
        let bytes_max = 20_000;
        let handle = fixture.begin(&writer, Bounds { bytes_max, ..Bounds::default() });
        for _ in 0..40 {
            handle.batch(&batch(1, &text), Reads::default(), Ok(&effects("b")));
        }
        assert_eq!(ended(&handle), End::Full);
        assert_eq!(handle.batch(&batch(1, "a"), Reads::default(), Ok(&effects("late"))), 41);
        writer.finish();

        let (lines, end) = fixture.read();
        let size = fixture.path().metadata().unwrap().len();
        assert_eq!(end, Some(End::Full));
        assert!(size <= bytes_max && size > bytes_max / 4, "{size}");
        assert!(!lines.is_empty() && lines.iter().all(|line| is_batch(line, "b")));
    }
}

#[test]
fn a_tape_becomes_no_older_than_it_may() {
    let fixture = Fixture::new();
    let writer = TapeWriter::start().unwrap();
    let handle = fixture.begin(&writer, Bounds { age_ms_max: 10, ..Bounds::default() });
    for now_ms in [1_000, 1_010, 1_011, 1_012] {
        handle.batch(&batch(now_ms, "a"), Reads::default(), Ok(&effects("b")));
    }
    writer.finish();
    let (lines, end) = fixture.read();
    assert_eq!((lines.len(), end), (2, Some(End::Age)));
}

/// Law: backpressure must not come from a tape. While nothing is written, a channel hands over as much as the queue may have, in lines or in
/// bytes; then the tape ends, with all that was handed over before, and without a gap.
#[test]
fn an_overrun_tape_has_everything_before() {
    for (text, queue_lines, before) in [("short".to_owned(), 4, 3), ("x".repeat(TAPE_QUEUE_BYTES_MAX / 4), 100, 4)] {
        let fixture = Fixture::new();
        let (jobs, receiver) = sync_channel(queue_lines);
        let bytes: Arc<AtomicUsize> = Arc::default();
        let queue = Queue { jobs, bytes: Arc::clone(&bytes) };
        let writer = TapeWriter { queue, thread: std::thread::spawn(|| {}) };
        let handle = fixture.begin(&writer, Bounds { bytes_max: u64::MAX, ..Bounds::default() });
        for _ in 0..20 {
            handle.batch(&batch(1, "a"), Reads::default(), Ok(&effects(&text)));
        }
        assert_eq!(handle.ended(), Some(End::Overrun));

        drop(writer);
        let thread = std::thread::spawn(move || Thread { bytes, tapes: HashMap::new() }.run(&receiver));
        drop(handle);
        thread.join().unwrap();

        let (lines, end) = fixture.read();
        assert_eq!(end, Some(End::Overrun), "not that it was dropped later");
        assert!((before - 1..=before).contains(&lines.len()), "{}", lines.len());
    }
}

/// Goal: what is long in an effect is left out, so that a tape is about what happened; what a plugin reads or is sent is never left out.
#[test]
fn long_effects_are_kept_by_their_digest() {
    let fixture = Fixture::new();
    let writer = TapeWriter::start().unwrap();
    let handle = fixture.begin(&writer, Bounds::default());
    let long = "x".repeat(TAPE_ENTRY_BYTES_MAX + 1);
    handle.batch(&batch(1, &long), Reads::default(), Ok(&effects(&long)));
    writer.finish();
    let (lines, _) = fixture.read();
    let [Line::Batch(handled)] = &lines[..] else { panic!("{lines:?}") };
    assert!(matches!(handled.effects[0].content(), Some(Content::Digest { .. })));
    assert_eq!(handled.effects, account(&effects(&long)));
    assert!(matches!(&handled.events[0], Happened::Message { payload, .. } if payload.bytes().is_some()));
}

#[test]
fn a_tape_that_cannot_be_written_ends_and_harms_nobody() {
    let fixture = Fixture::new();
    let writer = TapeWriter::start().unwrap();
    let handle = fixture.begin(&writer, Bounds::default());
    let second = fixture.begin(&writer, Bounds::default());
    let nowhere = fixture.folder.path().join("nowhere").join("a.tape");
    let third = writer.begin(&nowhere, fixture.header(), Bounds::default(), Redaction::default());
    for handle in [&second, &third] {
        assert!(matches!(ended(handle), End::Failed(_)));
        handle.batch(&batch(1, "a"), Reads::default(), Ok(&effects("b")));
    }
    handle.batch(&batch(1, "a"), Reads::default(), Ok(&effects("b")));
    writer.finish();
    let (lines, end) = fixture.read();
    assert_eq!((lines.len(), end), (1, Some(End::Stopped)), "the file of the first is only the first's");
    assert!(matches!(Tape::open(&nowhere), Err(TapeError::File { .. })));
}
