//! Reads of a batch, written down while it runs, and played back to whoever runs the batch again: the same version at another time, or
//! another one beside it. A plugin's other inputs, time and randomness, come with the batch.

mod playback;
mod recorder;

use serde::{Deserialize, Serialize};

use crate::plugin::content::{Cell, Content, Known, Table};
use crate::plugin::fault::Fault;
use crate::plugin::state::Stats;
use crate::protocol::event::MemberId;
use crate::protocol::sql::SqlError;

pub use crate::plugin::record::playback::Playback;
pub use crate::plugin::record::recorder::Recorder;

/// What a question, or an answer that was given again, counts beside what it carries.
const READ_BYTES: usize = 64;

/// A question to a channel.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Question {
    /// Where the log begins and ends.
    LogBounds,
    /// How large the state is.
    StateBytes,
    /// Numbers about the mount.
    Stats,
    /// All members.
    Members,
    /// One of them.
    Member(MemberId),
    /// One value of the state.
    Get(String),
    /// State entries.
    Scan {
        /// How their keys begin.
        prefix: String,
        /// The key they come after.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<String>,
        /// In which order.
        descending: bool,
        /// At most so many.
        limit: u32,
    },
    /// Log entries.
    ReadLog {
        /// Offset of the first.
        from: u64,
        /// They come before this one.
        before: u64,
        /// At most so many.
        limit: u32,
    },
    /// A statement on a database.
    Query {
        /// Its name.
        statement: String,
        /// What it was given.
        parameters: Vec<Cell>,
    },
}

/// An answer of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Answer {
    /// Where the log begins and ends.
    LogBounds(u64, u64),
    /// How large the state is, in bytes.
    StateBytes(u64),
    /// Numbers about the mount.
    Stats(Stats),
    /// All members.
    Members(Vec<(MemberId, Known)>),
    /// One of them.
    Member(Option<Known>),
    /// One value of the state.
    Value(Option<Content>),
    /// State entries.
    Entries(Vec<(String, Content)>),
    /// Log entries: offset, time in milliseconds, data.
    Log(Vec<(u64, u64, Content)>),
    /// What a database answered.
    Rows(Table),
    /// Why a database did not.
    Refused(SqlError),
    /// Why there was no answer at all.
    Fault(Fault),
}

/// An answer, as often as it was given in a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// Absent if it was not kept, for its size.
    pub answer: Option<Answer>,
    /// How often.
    pub times: u32,
}

/// A question with all answers to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    /// The question.
    pub ask: Question,
    /// In the order in which they were given.
    pub given: Vec<Given>,
}

/// The reads of one call into a plugin, each question once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Reads(pub Vec<Read>);

impl Question {
    fn bytes(&self) -> usize {
        READ_BYTES
            + match self {
                Self::Get(key) => key.len(),
                Self::Scan { prefix, after, .. } => prefix.len() + after.as_ref().map_or(0, String::len),
                Self::Query { statement, parameters } => {
                    statement.len() + parameters.iter().map(cell_bytes).sum::<usize>()
                }
                _ => 0,
            }
    }
}

impl Answer {
    fn bytes(&self) -> usize {
        let content = |content: &Content| content.len() as usize;
        let known = |Known(identity): &Known| READ_BYTES + identity.user().len() + identity.claims().len();
        READ_BYTES
            + match self {
                Self::LogBounds(..) | Self::StateBytes(_) | Self::Stats(_) | Self::Refused(_) | Self::Fault(_) => 0,
                Self::Members(members) => members.iter().map(|(_, member)| known(member)).sum(),
                Self::Member(member) => member.as_ref().map_or(0, known),
                Self::Value(value) => value.as_ref().map_or(0, content),
                Self::Entries(entries) => {
                    entries.iter().map(|(key, value)| READ_BYTES + key.len() + content(value)).sum()
                }
                Self::Log(entries) => entries.iter().map(|(_, _, data)| READ_BYTES + content(data)).sum(),
                Self::Rows(table) => {
                    let names = table.columns.iter().map(String::len).sum::<usize>();
                    names + table.rows.iter().flatten().map(cell_bytes).sum::<usize>()
                }
            }
    }
}

fn cell_bytes(cell: &Cell) -> usize {
    const FIXED: usize = 32;
    FIXED
        + match cell {
            Cell::Null | Cell::Boolean(_) | Cell::Integer(_) => 0,
            Cell::Real(text) | Cell::Text(text) | Cell::Bytes(text) => text.len(),
        }
}

impl Reads {
    /// Bytes they take, about.
    pub fn bytes(&self) -> usize {
        let given = |given: &Given| given.answer.as_ref().map_or(READ_BYTES, Answer::bytes);
        self.0.iter().map(|read| read.ask.bytes() + read.given.iter().map(given).sum::<usize>()).sum()
    }
}

#[cfg(test)]
mod tests;
