//! Answers reads as they were written down.

use std::collections::HashMap;
use std::future::ready;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::plugin::content::{Cell, Content, Known};
use crate::plugin::fault::Fault;
use crate::plugin::record::{Answer, Given, Question, Read, Reads};
use crate::plugin::state::{Channel, ReadFuture, Stats};
use crate::plugin::tape::Redaction;
use crate::protocol::event::MemberId;
use crate::protocol::identity::Identity;
use crate::protocol::sql::{Rows, SqlError, Value};

/// Offsets of logs are far below this.
const OFFSET_MAX: u64 = 1 << 62;

/// A channel that answers what was written down: the same question gets the same answers in the same order, and the last one again when
/// there are no more. Other questions go to the channel beyond, if there is one, else to an empty one; they are counted.
pub struct Playback {
    tape: Mutex<HashMap<Question, Position>>,
    beyond: Option<Arc<dyn Channel>>,
    /// What was taken out of the questions before they were written down.
    redaction: Redaction,
    unrecorded: AtomicU32,
}

/// The answers to a question, the next one first; the last one stays.
struct Position {
    given: std::iter::Peekable<std::vec::IntoIter<Given>>,
    last: Option<Answer>,
}

impl Position {
    fn next(&mut self) -> Option<Answer> {
        if let Some(next) = self.given.peek_mut() {
            self.last.clone_from(&next.answer);
            next.times = next.times.saturating_sub(1);
            if next.times == 0 {
                self.given.next();
            }
        }
        self.last.clone()
    }
}

impl Playback {
    /// Answers from the reads of one call.
    pub fn new(reads: Reads, beyond: Option<Arc<dyn Channel>>) -> Arc<Self> {
        Self::with(reads, beyond, Redaction::default())
    }

    /// The same for reads from which something was taken out.
    pub fn redacted(reads: Reads, redaction: Redaction) -> Arc<Self> {
        Self::with(reads, None, redaction)
    }

    fn with(reads: Reads, beyond: Option<Arc<dyn Channel>>, redaction: Redaction) -> Arc<Self> {
        let position = |read: Read| (read.ask, Position { given: read.given.into_iter().peekable(), last: None });
        let tape = reads.0.into_iter().map(position).collect();
        Arc::new(Self { tape: Mutex::new(tape), beyond, redaction, unrecorded: AtomicU32::new(0) })
    }

    /// How many questions had no answer written down.
    pub fn unrecorded(&self) -> u32 {
        self.unrecorded.load(Ordering::Relaxed)
    }

    fn next(&self, question: &Question) -> Option<Answer> {
        let mut tape = self.tape.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = tape.get_mut(question).and_then(Position::next);
        if answer.is_none() {
            self.unrecorded.fetch_add(1, Ordering::Relaxed);
        }
        answer
    }

    fn beyond(&self) -> Option<&dyn Channel> {
        self.beyond.as_deref()
    }
}

/// An answer of the wrong kind, or one whose bytes were left out: nobody writes such a tape.
fn unfit<T>(question: &Question) -> Result<T, Fault> {
    Err(Fault::Unavailable { cause: format!("the tape has no such answer to {question:?}") })
}

/// The bytes of values and entries.
fn whole(content: &Content, question: &Question) -> Result<Bytes, Fault> {
    content.bytes().cloned().map_or_else(|| unfit(question), Ok)
}

impl Channel for Playback {
    fn get<'a>(&'a self, key: &'a str) -> ReadFuture<'a, Option<Bytes>> {
        let question = Question::Get(key.to_owned());
        let result = match (self.next(&question), self.beyond()) {
            (Some(Answer::Value(value)), _) => value.map(|value| whole(&value, &question)).transpose(),
            (Some(Answer::Fault(fault)), _) => Err(fault),
            (Some(_), _) => unfit(&question),
            (None, Some(beyond)) => return beyond.get(key),
            (None, None) => Ok(None),
        };
        Box::pin(ready(result))
    }

    fn scan<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        descending: bool,
        limit: u32,
    ) -> ReadFuture<'a, Vec<(String, Bytes)>> {
        let question = Question::Scan { prefix: prefix.to_owned(), after: after.map(str::to_owned), descending, limit };
        let result = match (self.next(&question), self.beyond()) {
            (Some(Answer::Entries(entries)), _) => {
                entries.into_iter().map(|(key, value)| Ok((key, whole(&value, &question)?))).collect()
            }
            (Some(Answer::Fault(fault)), _) => Err(fault),
            (Some(_), _) => unfit(&question),
            (None, Some(beyond)) => return beyond.scan(prefix, after, descending, limit),
            (None, None) => Ok(Vec::new()),
        };
        Box::pin(ready(result))
    }

    fn read_log(&self, from: u64, before: u64, limit: u32) -> ReadFuture<'_, Vec<(u64, u64, Bytes)>> {
        let question = Question::ReadLog { from, before, limit };
        let result = match (self.next(&question), self.beyond()) {
            (Some(Answer::Log(entries)), _) => entries
                .into_iter()
                .filter(|(offset, _, _)| (from..before).contains(offset))
                .map(|(offset, at_ms, data)| Ok((offset, at_ms, whole(&data, &question)?)))
                .collect(),
            (Some(Answer::Fault(fault)), _) => Err(fault),
            (Some(_), _) => unfit(&question),
            (None, Some(beyond)) => return beyond.read_log(from, before, limit),
            (None, None) => Ok(Vec::new()),
        };
        Box::pin(ready(result))
    }

    fn log_bounds(&self) -> (u64, u64) {
        match self.next(&Question::LogBounds) {
            // A tape is outside input: what is counted on from here must not overflow.
            Some(Answer::LogBounds(first, next)) => (first.min(next).min(OFFSET_MAX), next.min(OFFSET_MAX)),
            _ => self.beyond().map_or((1, 1), Channel::log_bounds),
        }
    }

    fn state_bytes(&self) -> u64 {
        match self.next(&Question::StateBytes) {
            Some(Answer::StateBytes(bytes)) => bytes,
            _ => self.beyond().map_or(0, Channel::state_bytes),
        }
    }

    fn members(&self) -> Vec<(MemberId, Identity)> {
        match self.next(&Question::Members) {
            Some(Answer::Members(members)) => {
                members.into_iter().map(|(member, Known(identity))| (member, identity)).collect()
            }
            _ => self.beyond().map(Channel::members).unwrap_or_default(),
        }
    }

    fn member(&self, id: MemberId) -> Option<Identity> {
        match self.next(&Question::Member(id)) {
            Some(Answer::Member(member)) => member.map(|Known(identity)| identity),
            _ => self.beyond()?.member(id),
        }
    }

    fn query<'a>(&'a self, statement: &'a str, parameters: Vec<Value>) -> ReadFuture<'a, Result<Rows, SqlError>> {
        let mut question = Question::Query {
            statement: statement.to_owned(),
            parameters: parameters.iter().map(Cell::from).collect(),
        };
        self.redaction.question(&mut question);
        let result = match (self.next(&question), self.beyond()) {
            (Some(Answer::Rows(table)), _) => Ok(Ok(Rows::from(table))),
            (Some(Answer::Refused(error)), _) => Ok(Err(error)),
            (Some(Answer::Fault(fault)), _) => Err(fault),
            (Some(_), _) => unfit(&question),
            (None, Some(beyond)) => return beyond.query(statement, parameters),
            (None, None) => Ok(Err(SqlError::NotGranted)),
        };
        Box::pin(ready(result))
    }

    fn stats(&self) -> Stats {
        match self.next(&Question::Stats) {
            Some(Answer::Stats(stats)) => stats,
            _ => self.beyond().map(Channel::stats).unwrap_or_default(),
        }
    }
}
