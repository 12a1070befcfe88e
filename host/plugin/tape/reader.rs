//! Reads tapes, line by line, so that a large one takes no more memory than its largest line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::limits::TAPE_LINE_BYTES_MAX;
use crate::plugin::tape::redaction::{Redaction, RedactionError};
use crate::plugin::tape::{End, FORMAT, Header, Line};
use crate::protocol::name::{ChannelName, NameError};

/// A tape that is being read.
pub struct Tape {
    lines: Box<dyn BufRead + Send>,
    header: Header,
    name: ChannelName,
    redaction: Redaction,
    /// The line that was read last, counted from 1.
    line: u64,
    cut: bool,
    end: Option<End>,
}

/// Why a tape cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TapeError {
    /// The file cannot be opened or read.
    #[error("the tape {} cannot be read: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// It cannot be read on.
    #[error("line {line} of the tape cannot be read: {cause}")]
    Read {
        /// Which line.
        line: u64,
        /// Why.
        cause: std::io::Error,
    },
    /// Not a tape.
    #[error("this is no tape of Hotbay: {cause}")]
    NotATape {
        /// What is wrong with its first line.
        cause: String,
    },
    /// Of another version of the format.
    #[error(
        "the tape has format {found}; this program reads format {FORMAT}: use the version of Hotbay that made the tape, or record anew"
    )]
    Format {
        /// The tape's.
        found: Value,
    },
    /// It names a channel that cannot exist.
    #[error("the tape is of no channel that can exist: {0}")]
    Name(#[from] NameError),
    /// It says that something was taken out that cannot be named.
    #[error("the tape says that something was taken out: {0}")]
    Redaction(#[from] RedactionError),
    /// A line that is no line of a tape, with others behind it.
    #[error("line {line} of the tape is damaged: {cause}")]
    Damaged {
        /// Which line, counted from 1.
        line: u64,
        /// What is wrong.
        cause: String,
    },
    /// A line that is too long.
    #[error("line {line} of the tape has more than {TAPE_LINE_BYTES_MAX} bytes")]
    TooLong {
        /// Which line.
        line: u64,
    },
}

impl Tape {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// If it cannot be read, or is no tape that can be understood.
    pub fn open(path: &Path) -> Result<Self, TapeError> {
        let file = File::open(path).map_err(|cause| TapeError::File { path: path.to_owned(), cause })?;
        Self::read(Box::new(BufReader::new(file)))
    }

    /// Reads a tape from anywhere.
    ///
    /// # Errors
    /// Like [`Tape::open`].
    pub fn read(mut lines: Box<dyn BufRead + Send>) -> Result<Self, TapeError> {
        let text = match next_line(&mut lines, 1)? {
            Next::Line(text) => text,
            Next::Cut => return Err(TapeError::NotATape { cause: "its first line is cut off".to_owned() }),
            Next::None => return Err(TapeError::NotATape { cause: "it is empty".to_owned() }),
        };
        let not_a_tape = |error: serde_json::Error| TapeError::NotATape { cause: error.to_string() };
        // The format first: all else may be different in another one.
        let header: Value = serde_json::from_slice(&text).map_err(not_a_tape)?;
        match header.get("hotbay_tape") {
            Some(format) if *format == FORMAT => {}
            Some(format) => return Err(TapeError::Format { found: format.clone() }),
            None => return Err(TapeError::NotATape { cause: "its first line has no \"hotbay_tape\"".to_owned() }),
        }
        let header: Header = serde_json::from_value(header).map_err(not_a_tape)?;
        let name = ChannelName::new(&header.tenant, &header.channel)?;
        let redaction = Redaction::new(&header.redacted)?;
        Ok(Self { lines, header, name, redaction, line: 1, cut: false, end: None })
    }

    /// Its first line.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The channel it is of.
    pub fn name(&self) -> &ChannelName {
        &self.name
    }

    /// What was taken out of it.
    pub fn redaction(&self) -> &Redaction {
        &self.redaction
    }

    /// The line that was read last, counted from 1, as editors do.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// Whether its last line was cut off, as it is when a process dies.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// Why the recording ended; absent until all was read, and if its process died.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// The next line, but for the last one. `None` at the end.
    ///
    /// # Errors
    /// If it is damaged. What follows cannot be trusted.
    pub fn next_line(&mut self) -> Result<Option<Line>, TapeError> {
        let line = self.line + 1;
        let text = match next_line(&mut self.lines, line)? {
            Next::Line(text) => text,
            Next::Cut => {
                self.cut = true;
                return Ok(None);
            }
            Next::None => return Ok(None),
        };
        self.line = line;
        if self.end.is_some() {
            return Err(TapeError::Damaged { line, cause: "it comes after the last one".to_owned() });
        }
        match serde_json::from_slice(&text) {
            Ok(Line::End(end)) => {
                self.end = Some(end);
                self.next_line()
            }
            Ok(line) => Ok(Some(line)),
            Err(error) => Err(TapeError::Damaged { line, cause: error.to_string() }),
        }
    }
}

enum Next {
    Line(Vec<u8>),
    /// There is no end of line.
    Cut,
    None,
}

fn next_line(lines: &mut Box<dyn BufRead + Send>, line: u64) -> Result<Next, TapeError> {
    let mut text = Vec::new();
    let mut bounded = lines.take(TAPE_LINE_BYTES_MAX + 1);
    bounded.read_until(b'\n', &mut text).map_err(|cause| TapeError::Read { line, cause })?;
    match text.pop() {
        None => Ok(Next::None),
        Some(b'\n') => Ok(Next::Line(text)),
        Some(_) if text.len() as u64 >= TAPE_LINE_BYTES_MAX => Err(TapeError::TooLong { line }),
        Some(_) => Ok(Next::Cut),
    }
}
