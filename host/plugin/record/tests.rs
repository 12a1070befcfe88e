//! Recorder and playback: what was read once is read again, and its size has a bound.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::FutureExt;

use super::*;
use crate::limits::RECORDED_READS_BYTES_MAX;
use crate::plugin::state::{Channel, ReadFuture};
use crate::protocol::identity::Identity;
use crate::protocol::sql::{Rows, Value};

/// A channel whose answers change each time it is asked.
#[derive(Default)]
struct Restless {
    asked: AtomicU64,
    /// Bytes of each value.
    bytes: usize,
    fails: bool,
}

impl Restless {
    fn turn(&self) -> u64 {
        self.asked.fetch_add(1, Ordering::Relaxed)
    }

    fn value(&self) -> Bytes {
        Bytes::from([self.turn().to_le_bytes().to_vec(), vec![0xFF; self.bytes]].concat())
    }

    fn answer<T: Send + 'static>(&self, answer: T) -> ReadFuture<'_, T> {
        let fault = Fault::Unavailable { cause: "gone".to_owned() };
        Box::pin(ready(if self.fails { Err(fault) } else { Ok(answer) }))
    }
}

fn ann(number: u64) -> Identity {
    Identity::new("acme", &format!("ann{number}"), "admin", "{}", None).by("/chat")
}

impl Channel for Restless {
    fn get<'a>(&'a self, key: &'a str) -> ReadFuture<'a, Option<Bytes>> {
        self.answer((key != "none").then(|| self.value()))
    }

    fn scan<'a>(
        &'a self,
        prefix: &'a str,
        _: Option<&'a str>,
        _: bool,
        limit: u32,
    ) -> ReadFuture<'a, Vec<(String, Bytes)>> {
        self.answer((0..limit.min(3)).map(|at| (format!("{prefix}{at}"), self.value())).collect())
    }

    fn read_log(&self, from: u64, before: u64, limit: u32) -> ReadFuture<'_, Vec<(u64, u64, Bytes)>> {
        self.answer((from..before).take(limit as usize).map(|offset| (offset, 7, self.value())).collect())
    }

    fn log_bounds(&self) -> (u64, u64) {
        (5, 10)
    }

    fn state_bytes(&self) -> u64 {
        self.turn()
    }

    fn members(&self) -> Vec<(MemberId, Identity)> {
        vec![(MemberId(1), ann(self.turn()))]
    }

    fn member(&self, id: MemberId) -> Option<Identity> {
        (id.0 < 9).then(|| ann(self.turn()))
    }

    fn query<'a>(&'a self, statement: &'a str, parameters: Vec<Value>) -> ReadFuture<'a, Result<Rows, SqlError>> {
        if statement == "slow" {
            return Box::pin(std::future::pending());
        }
        let row = [parameters, vec![Value::Integer(self.turn().cast_signed())]].concat();
        let rows = Rows { columns: vec!["a".into()], rows: vec![row] };
        self.answer(if statement == "none" { Err(SqlError::NotGranted) } else { Ok(rows) })
    }

    fn stats(&self) -> Stats {
        Stats { uptime_ms: self.turn(), ..Stats::default() }
    }
}

/// All that a channel can be asked, as one text.
fn ask(channel: &dyn Channel) -> String {
    let now = |text: String| text;
    let read = |key| channel.get(key).now_or_never().unwrap().map(|value| value.map(|value| value.to_vec()));
    let parameters = vec![Value::Real(0.1), Value::Null, Value::Bytes(vec![0xFF])];
    [
        now(format!("{:?}", read("a"))),
        now(format!("{:?}", read("b"))),
        now(format!("{:?}", read("none"))),
        format!("{:?}", channel.scan("p", Some("p0"), true, 3).now_or_never().unwrap()),
        format!("{:?}", channel.scan("p", None, true, 3).now_or_never().unwrap()),
        format!("{:?}", channel.read_log(5, 10, 2).now_or_never().unwrap()),
        format!("{:?}", channel.log_bounds()),
        format!("{:?}", channel.state_bytes()),
        format!("{:?}", channel.members()),
        format!("{:?}", channel.member(MemberId(1)).map(|member| (member.endpoint().to_owned(), member))),
        format!("{:?}", channel.member(MemberId(9))),
        format!("{:?}", channel.query("rows", parameters).now_or_never().unwrap()),
        format!("{:?}", channel.query("none", Vec::new()).now_or_never().unwrap()),
        format!("{:?}", channel.stats()),
    ]
    .join("\n")
}

fn written_and_read(reads: &Reads) -> Reads {
    let written = serde_json::to_string(reads).unwrap();
    let read = serde_json::from_str(&written).unwrap();
    assert_eq!(&read, reads, "{written}");
    read
}

/// Law: a recorded channel replays bit for bit: each question, asked as often as it was, gets the answers it got, in their order, also
/// from paper. What is asked once more gets the last answer again.
#[test]
fn what_was_read_is_read_again() {
    let recorder = Recorder::new(Arc::new(Restless::default()));
    let asked: Vec<_> = (0..3).map(|_| ask(&*recorder)).collect();
    let reads = recorder.take();

    let playback = Playback::new(written_and_read(&reads), None);
    let again: Vec<_> = (0..4).map(|_| ask(&*playback)).collect();

    assert_eq!(again[..3], asked);
    assert_eq!(again[3], asked[2]);
    assert_eq!(playback.unrecorded(), 0);
    assert!(asked[0] != asked[1]);
    let rest = recorder.take().0;
    assert_eq!(rest.len(), 2, "only what another version may need: {rest:?}");
}

/// A read that failed fails again.
#[test]
fn faults_are_recorded() {
    let recorder = Recorder::new(Arc::new(Restless { fails: true, ..Restless::default() }));
    let asked = ask(&*recorder);
    let playback = Playback::new(written_and_read(&recorder.take()), None);
    assert_eq!(ask(&*playback), asked);
    assert_eq!(asked.matches("gone").count(), 8, "{asked}");
}

/// A statement that took too long was answered `timeout` by the instance, and never by the channel: it must be so again, whether or not it
/// was begun.
#[test]
fn a_statement_nobody_waited_for_times_out_again() {
    let recorder = Recorder::new(Arc::new(Restless::default()));
    assert!(recorder.query("slow", Vec::new()).now_or_never().is_none());
    drop(recorder.query("slow", vec![Value::Null]));

    let playback = Playback::new(recorder.take(), None);

    for parameters in [Vec::new(), vec![Value::Null]] {
        let answer = playback.query("slow", parameters).now_or_never().unwrap();
        assert_eq!(answer, Ok(Err(SqlError::Timeout)));
    }
    assert_eq!(playback.unrecorded(), 0);
}

/// Another version asks other questions: they go to the channel, or find it empty, and are counted.
#[test]
fn what_was_not_recorded_is_asked_beyond_or_empty() {
    let empty = Playback::new(Reads::default(), None);
    let told = ask(&*empty);
    assert_eq!(empty.unrecorded(), 14);
    assert!(
        told.starts_with("Ok(None)\nOk(None)\nOk(None)\nOk([])\nOk([])\nOk([])\n(1, 1)\n0\n[]\nNone\nNone\n"),
        "{told}"
    );

    let fresh = || Arc::new(Restless::default()) as Arc<dyn Channel>;
    let with_beyond = Playback::new(Reads::default(), Some(fresh()));
    assert_eq!(ask(&*with_beyond), ask(&*fresh()));
    assert_eq!(with_beyond.unrecorded(), 14);
}

/// Law: everything has a bound. Whatever a plugin reads, what is kept has one, and what is missing is neither made up nor taken from a later
/// answer; the same answer again costs nothing.
#[test]
fn what_is_kept_has_a_bound() {
    const VALUE: usize = 1 << 20;
    let recorder = Recorder::new(Arc::new(Restless { bytes: VALUE, ..Restless::default() }));
    let read = |channel: &dyn Channel, key: &str| channel.get(key).now_or_never().unwrap().unwrap();
    let kept = RECORDED_READS_BYTES_MAX / VALUE - 1;
    let values: Vec<_> = (0..2 * kept).map(|_| read(&*recorder, "a")).collect();
    read(&*recorder, "b");
    for _ in 0..100_000 {
        read(&*recorder, "none");
        recorder.log_bounds();
    }

    let reads = recorder.take();

    assert!(reads.bytes() <= RECORDED_READS_BYTES_MAX, "{}", reads.bytes());
    let playback = Playback::new(reads, None);
    for value in &values[..kept] {
        assert!(read(&*playback, "a") == *value);
    }
    assert_eq!((read(&*playback, "a"), playback.unrecorded()), (None, 1));
    assert_eq!((read(&*playback, "b"), playback.unrecorded()), (None, 2));
    assert_eq!((read(&*playback, "none"), playback.unrecorded()), (None, 2));
}

/// What no recorder writes, because it makes no sense, ends a read and nothing else.
#[test]
fn a_tape_that_makes_no_sense_is_survived() {
    let given = |answer| vec![Given { answer: Some(answer), times: 0 }];
    let digest = Content::Binary(Bytes::from_static(b"abc")).shortened(0);
    let reads = Reads(vec![
        Read { ask: Question::Get("a".into()), given: given(Answer::StateBytes(1)) },
        Read { ask: Question::Get("b".into()), given: given(Answer::Value(Some(digest))) },
        Read { ask: Question::Get("none".into()), given: Vec::new() },
        Read { ask: Question::LogBounds, given: given(Answer::LogBounds(u64::MAX, u64::MAX - 1)) },
        Read {
            ask: Question::ReadLog { from: 5, before: 10, limit: 2 },
            given: given(Answer::Log(vec![(u64::MAX, 1, Content::Binary(Bytes::new()))])),
        },
    ]);
    let told = ask(&*Playback::new(reads, None));
    let lines: Vec<_> = told.lines().collect();
    assert!(lines[0].contains("Unavailable") && lines[1].contains("Unavailable"), "{told}");
    let offset = 1_u64 << 62;
    assert_eq!(lines[2], "Ok(None)");
    assert_eq!(lines[5..7], ["Ok([])", &format!("({offset}, {offset})")]);
}
