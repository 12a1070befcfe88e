//! Writes reads down while a batch runs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::limits::RECORDED_READS_BYTES_MAX;
use crate::plugin::content::{Cell, Content, Known, Table};
use crate::plugin::fault::Fault;
use crate::plugin::record::{Answer, Given, Question, READ_BYTES, Read, Reads};
use crate::plugin::state::{Channel, ReadFuture, Stats};
use crate::protocol::event::MemberId;
use crate::protocol::identity::Identity;
use crate::protocol::sql::{Rows, SqlError, Value};

/// A channel that writes down what it is asked and what it answers, within [`RECORDED_READS_BYTES_MAX`].
pub struct Recorder {
    channel: Arc<dyn Channel>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    reads: BTreeMap<Question, Vec<Given>>,
    bytes: usize,
}

impl Kept {
    fn add(&mut self, question: Question, answer: Answer) {
        let bytes = answer.bytes();
        let Some(given) = self.reads.get_mut(&question) else {
            let bytes = bytes + question.bytes();
            // What there is no room for is as if it had not been asked.
            if self.bytes + bytes <= RECORDED_READS_BYTES_MAX {
                self.bytes += bytes;
                self.reads.insert(question, vec![Given { answer: Some(answer), times: 1 }]);
            }
            return;
        };
        // Most questions that are asked again get the same answer again: where the log ends, who is there.
        let fits = self.bytes + bytes <= RECORDED_READS_BYTES_MAX;
        match given.last_mut() {
            Some(last) if last.answer.as_ref() == Some(&answer) => last.times = last.times.saturating_add(1),
            Some(last) if !fits && last.answer.is_none() => last.times = last.times.saturating_add(1),
            _ => {
                self.bytes += if fits { bytes } else { READ_BYTES };
                given.push(Given { answer: fits.then_some(answer), times: 1 });
            }
        }
    }
}

impl Recorder {
    /// Stands before a channel.
    pub fn new(channel: Arc<dyn Channel>) -> Arc<Self> {
        Arc::new(Self { channel, kept: Mutex::default() })
    }

    /// What was read since the last time. Has the ends of the log and the size of the state in any case: they cost nothing, and another
    /// version may ask for them, be it only to write.
    pub fn take(&self) -> Reads {
        let (first, next) = self.channel.log_bounds();
        let bytes = self.channel.state_bytes();
        let mut kept = std::mem::take(&mut *self.lock());
        for (question, answer) in
            [(Question::LogBounds, Answer::LogBounds(first, next)), (Question::StateBytes, Answer::StateBytes(bytes))]
        {
            let given = || vec![Given { answer: Some(answer), times: 1 }];
            kept.reads.entry(question).or_insert_with(given);
        }
        Reads(kept.reads.into_iter().map(|(ask, given)| Read { ask, given }).collect())
    }

    fn add(&self, question: Question, answer: Answer) {
        self.lock().add(question, answer);
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down how a read ended.
    async fn record<T>(
        &self,
        question: Question,
        read: ReadFuture<'_, T>,
        answer: impl FnOnce(&T) -> Answer,
    ) -> Result<T, Fault> {
        let result = read.await;
        let answer = match &result {
            Ok(found) => answer(found),
            Err(fault) => Answer::Fault(fault.clone()),
        };
        self.add(question, answer);
        result
    }
}

/// A statement that was asked for. If nobody waits for its answer any more, its time was over: the plugin is told so.
struct Pending<'a> {
    recorder: &'a Recorder,
    question: Option<Question>,
}

impl Pending<'_> {
    fn answered(mut self, answer: Answer) {
        if let Some(question) = self.question.take() {
            self.recorder.add(question, answer);
        }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some(question) = self.question.take() {
            self.recorder.add(question, Answer::Refused(SqlError::Timeout));
        }
    }
}

impl Channel for Recorder {
    fn get<'a>(&'a self, key: &'a str) -> ReadFuture<'a, Option<Bytes>> {
        let answer = |value: &Option<Bytes>| Answer::Value(value.clone().map(Content::Binary));
        Box::pin(self.record(Question::Get(key.to_owned()), self.channel.get(key), answer))
    }

    fn scan<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        descending: bool,
        limit: u32,
    ) -> ReadFuture<'a, Vec<(String, Bytes)>> {
        let question = Question::Scan { prefix: prefix.to_owned(), after: after.map(str::to_owned), descending, limit };
        let answer = |entries: &Vec<(String, Bytes)>| {
            Answer::Entries(entries.iter().map(|(key, value)| (key.clone(), Content::Binary(value.clone()))).collect())
        };
        Box::pin(self.record(question, self.channel.scan(prefix, after, descending, limit), answer))
    }

    fn read_log(&self, from: u64, before: u64, limit: u32) -> ReadFuture<'_, Vec<(u64, u64, Bytes)>> {
        let answer = |entries: &Vec<(u64, u64, Bytes)>| {
            let entry = |(offset, at_ms, data): &(u64, u64, Bytes)| (*offset, *at_ms, Content::Binary(data.clone()));
            Answer::Log(entries.iter().map(entry).collect())
        };
        let question = Question::ReadLog { from, before, limit };
        Box::pin(self.record(question, self.channel.read_log(from, before, limit), answer))
    }

    fn log_bounds(&self) -> (u64, u64) {
        let (first, next) = self.channel.log_bounds();
        self.add(Question::LogBounds, Answer::LogBounds(first, next));
        (first, next)
    }

    fn state_bytes(&self) -> u64 {
        let bytes = self.channel.state_bytes();
        self.add(Question::StateBytes, Answer::StateBytes(bytes));
        bytes
    }

    fn members(&self) -> Vec<(MemberId, Identity)> {
        let members = self.channel.members();
        let known = members.iter().map(|(member, identity)| (*member, Known(identity.clone()))).collect();
        self.add(Question::Members, Answer::Members(known));
        members
    }

    fn member(&self, id: MemberId) -> Option<Identity> {
        let member = self.channel.member(id);
        self.add(Question::Member(id), Answer::Member(member.clone().map(Known)));
        member
    }

    fn query<'a>(&'a self, statement: &'a str, parameters: Vec<Value>) -> ReadFuture<'a, Result<Rows, SqlError>> {
        let question = Question::Query {
            statement: statement.to_owned(),
            parameters: parameters.iter().map(Cell::from).collect(),
        };
        let pending = Pending { recorder: self, question: Some(question) };
        let read = self.channel.query(statement, parameters);
        Box::pin(async move {
            let result = read.await;
            pending.answered(match &result {
                Ok(Ok(rows)) => Answer::Rows(Table::from(rows)),
                Ok(Err(error)) => Answer::Refused(error.clone()),
                Err(fault) => Answer::Fault(fault.clone()),
            });
            result
        })
    }

    fn stats(&self) -> Stats {
        let stats = self.channel.stats();
        self.add(Question::Stats, Answer::Stats(stats));
        stats
    }
}
