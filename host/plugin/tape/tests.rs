//! Tapes as files: what is written is read, what is damaged is found, what was taken out is nowhere.

use std::io::Cursor;

use bytes::Bytes;

use super::*;
use crate::plugin::content::{Cell, Known, Table};
use crate::plugin::record::{Answer, Given, Question, Read};
use crate::protocol::event::{LeaveReason, MemberId, RequestId, Source};
use crate::protocol::frame::{Audience, Priority};
use crate::protocol::identity::Identity;
use crate::protocol::refusal::RefusalCode;

/// The value that no tape may have.
const SECRET: &str = "s3cr3t";

fn secret() -> Bytes {
    Bytes::from(format!(r#"{{"token":"{SECRET}","room":1}}"#))
}

fn text() -> Content {
    Content::Text(secret())
}

fn binary() -> Content {
    Content::Binary(secret())
}

fn ann() -> Known {
    let claims = String::from_utf8(secret().to_vec()).unwrap();
    Known(Identity::new("acme", "ann", "admin", &claims, Some(9)).by("/chat"))
}

/// Reads with the secret in every answer that can have one.
fn reads() -> Reads {
    let cells = || vec![Cell::Text(String::from_utf8(secret().to_vec()).unwrap()), Cell::Integer(1)];
    let rows = Table { columns: vec!["a".into(), "b".into()], rows: vec![cells()] };
    let reads = [
        (Question::Get("k".into()), Answer::Value(Some(binary()))),
        (
            Question::Scan { prefix: "k".into(), after: None, descending: false, limit: 9 },
            Answer::Entries(vec![("k".into(), binary())]),
        ),
        (Question::ReadLog { from: 1, before: 2, limit: 9 }, Answer::Log(vec![(1, 2, binary())])),
        (Question::Members, Answer::Members(vec![(MemberId(1), ann())])),
        (Question::Member(MemberId(1)), Answer::Member(Some(ann()))),
        (Question::Query { statement: "s".into(), parameters: cells() }, Answer::Rows(rows)),
        (Question::LogBounds, Answer::LogBounds(1, 2)),
    ];
    let read = |(ask, answer)| Read { ask, given: vec![Given { answer: Some(answer), times: 2 }] };
    Reads(reads.into_iter().map(read).collect())
}

fn events() -> Vec<Happened> {
    let pair = |name: &str| (name.to_owned(), SECRET.to_owned());
    vec![
        Happened::Join { member: MemberId(1), identity: ann(), frame: Some(text()) },
        Happened::Leave { member: MemberId(1), user: "ann".into(), why: LeaveReason::Asked, frame: Some(text()) },
        Happened::Message { member: MemberId(1), user: "ann".into(), payload: text() },
        Happened::Timer { name: "t".into(), durable: true },
        Happened::Publish { source: Source::Api("key".into()), payload: binary(), request: Some(RequestId(3)) },
        Happened::Publish { source: Source::Channel("room:2".into()), payload: text(), request: None },
        Happened::Request {
            request: RequestId(4),
            method: "POST".into(),
            path: "/x".into(),
            query: vec![pair("key")],
            headers: vec![pair("x-key")],
            body: binary(),
            identity: Some(ann()),
        },
    ]
}

fn effects() -> Vec<Entry> {
    let (channel, headers) = ("room:2".to_owned(), Vec::new());
    vec![
        Entry::Frame { event: 0, to: Audience::All, priority: Priority::Low, conflate: None, payload: text() },
        Entry::Reject { event: 1, code: RefusalCode::Conflict, message: "no".into() },
        Entry::Respond { request: RequestId(4), status: 200, headers, body: binary() },
        Entry::Publish { channel, payload: text() },
        Entry::Put { key: "k".into(), value: binary() },
        Entry::Append { data: binary() },
        Entry::Replace { offset: 1, data: binary() },
    ]
}

/// One line of each kind, the last one apart.
fn lines() -> Vec<Line> {
    let fault = || Some(Fault::refused("no"));
    vec![
        Line::Open(Opened {
            digest: "d".into(),
            now_ms: 1,
            seed: 2,
            saved: Some(binary()),
            reads: reads(),
            fault: None,
        }),
        Line::Batch(Handled {
            now_ms: 1,
            seed: 2,
            events: events(),
            reads: reads(),
            effects: effects(),
            fault: fault(),
        }),
        Line::Save(Saved { now_ms: 1, reads: reads(), saved: Some(binary()), fault: fault() }),
        Line::Back,
        Line::Discard { batch: 1 },
    ]
}

fn header(redaction: &Redaction) -> Header {
    let name = ChannelName::new("acme", "room:1").unwrap();
    let settings = String::from_utf8(secret().to_vec()).unwrap();
    Header::new(&name, "/chat", &settings, &MountLimits::default(), 5, redaction)
}

fn written(redaction: &Redaction, lines: Vec<Line>) -> String {
    let mut text = serde_json::to_string(&header(redaction)).unwrap() + "\n";
    for line in lines {
        text += &serde_json::to_string(&line.reduced(redaction, 1_000)).unwrap();
        text += "\n";
    }
    text
}

fn tape(text: &str) -> Result<Tape, TapeError> {
    Tape::read(Box::new(Cursor::new(text.to_owned())))
}

fn read_all(tape: &mut Tape) -> Result<Vec<Line>, TapeError> {
    let mut lines = Vec::new();
    while let Some(line) = tape.next_line()? {
        lines.push(line);
    }
    Ok(lines)
}

/// Law: a recorded channel replays bit for bit, so what is written is what is read.
#[test]
fn what_is_written_is_read() {
    let none = Redaction::default();
    let ended = [lines(), vec![Line::End(End::Full)]].concat();
    let mut tape = tape(&written(&none, ended)).unwrap();
    assert_eq!(tape.header(), &header(&none));
    assert_eq!((tape.name().to_string(), tape.end()), ("acme/room:1".to_owned(), None));
    assert_eq!(read_all(&mut tape).unwrap(), lines());
    assert_eq!((tape.end(), tape.is_cut(), tape.line()), (Some(&End::Full), false, 7));
    let events = events().into_iter().map(|event| Happened::from(&event.event("acme").unwrap()));
    assert!(events.eq(self::events()), "events are what they were");
}

/// Goal: what is to be taken out of a tape is nowhere in it, wherever it came from.
#[test]
fn redaction_leaves_no_secret() {
    let redaction = Redaction::new(&["/token", "/query/key", "/headers/x-key"]).unwrap();
    assert!(written(&Redaction::default(), lines()).contains(SECRET));

    let text = written(&redaction, lines());

    assert!(!text.contains(SECRET), "{text}");
    assert!(text.contains(r#"\"room\":1"#), "nothing else is taken out: {text}");
    let mut tape = tape(&text).unwrap();
    assert_eq!(read_all(&mut tape).unwrap().len(), 5);
    assert_eq!(tape.redaction(), &redaction);
    assert_eq!(tape.header().redacted, ["/token", "/query/key", "/headers/x-key"]);
}

/// Goal: a tape whose process died is read up to its last whole line, wherever it was cut.
#[test]
fn a_tail_that_was_cut_off_is_no_damage() {
    let text = written(&Redaction::default(), vec![Line::Back, Line::Discard { batch: 1 }]);
    let first = text.find('\n').unwrap() + 1;
    for cut in 0..text.len() {
        let (whole, rest) = text.split_at(cut);
        let is_cut = !whole.ends_with('\n');
        match tape(whole) {
            Err(error) => assert!(cut < first && matches!(error, TapeError::NotATape { .. }), "{cut}: {error}"),
            Ok(mut tape) => {
                let lines = read_all(&mut tape).unwrap();
                assert_eq!(lines.len(), whole[first..].matches('\n').count(), "{rest}");
                assert_eq!((tape.is_cut(), tape.end()), (is_cut, None));
            }
        }
    }
}

/// Goal: damage in the middle is told with its line, and nothing behind it is trusted.
#[test]
fn damage_is_told_with_its_line() {
    let good = written(&Redaction::default(), lines());
    let mut all: Vec<&str> = good.lines().collect();
    for damage in
        ["", "{", r#"{"batch":{}}"#, r#"{"jump":{}}"#, "\"back\" \"back\"", "\0\0", r#"{"discard":{"batch":-1}}"#]
    {
        for at in 1..all.len() {
            let mut damaged = all.clone();
            damaged[at] = damage;
            let error = read_all(&mut tape(&(damaged.join("\n") + "\n")).unwrap()).unwrap_err();
            let TapeError::Damaged { line, .. } = error else { panic!("{error}") };
            assert_eq!(line, at as u64 + 1, "{error}");
        }
    }
    all.push(r#"{"end":"stopped"}"#);
    all.push("\"back\"");
    let error = read_all(&mut tape(&(all.join("\n") + "\n")).unwrap()).unwrap_err();
    assert!(error.to_string().starts_with("line 8 of the tape is damaged: it comes after the last one"), "{error}");
}

#[test]
fn what_is_no_tape_is_told_apart() {
    let wrong = |text: &str| tape(text).err().unwrap().to_string();
    let good = written(&Redaction::default(), Vec::new());
    assert!(wrong("").contains("empty"));
    assert!(wrong("hello\n").contains("no tape of Hotbay"));
    assert!(wrong("{}\n").contains("hotbay_tape"));
    assert!(wrong("{\"hotbay_tape\":1}\n").contains("tenant"));
    assert!(
        wrong(&good.replace("\"hotbay_tape\":1", "\"hotbay_tape\":2"))
            .contains("format 2; this program reads format 1")
    );
    assert!(wrong(&good.replace("room:1", "../1")).contains("no channel"));
    assert!(wrong(&good.replace("\"started_ms\":5", "\"started_ms\":5,\"redacted\":[\"token\"]")).contains("RFC 6901"));
}
