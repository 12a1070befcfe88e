//! `hotbay tape`: what happened in a channel, recorded by a broker: shown, and run again on any version of a plugin. On files, without a broker.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};

use super::remote::show::utc;
use super::remote::tape::{Delete, Fetch, List, Record, Recordings, Stop};
use super::{Failure, output};
use crate::config::Environment;
use crate::limits::NodeLimits;
use crate::plugin::tape::{self, Handled, Header, Line, Opened, Saved, TapeError};
use crate::plugin::{Fault, Reads, Runtime};
use crate::protocol::capability::Capability;

/// Works with tapes: what happened in a channel, recorded call by call
#[derive(Debug, Subcommand)]
pub(super) enum Tape {
    Show(Show),
    Replay(Box<Replay>),
    List(List),
    Fetch(Fetch),
    Delete(Delete),
    Record(Record),
    Recordings(Recordings),
    Stop(Stop),
}

/// Prints what happened, for people; the file itself has it whole, as JSON lines
#[derive(Debug, Args)]
pub(super) struct Show {
    /// The tape
    file: PathBuf,
}

/// Runs a tape again on a version of a plugin; ends with 1 if it does anything else than was recorded
#[derive(Debug, Args)]
pub(super) struct Replay {
    /// The tape
    file: PathBuf,
    /// The component to run it on
    #[arg(long, value_name = "FILE")]
    plugin: PathBuf,
    /// Prints every difference, with the event that caused it
    #[arg(long)]
    diff: bool,
    /// Prints everything as one JSON object
    #[arg(long)]
    json: bool,
    /// Processor time of one call, in milliseconds [default: as it was recorded]
    #[arg(long, value_name = "MS")]
    cpu_ms: Option<u64>,
}

impl Tape {
    pub(super) fn run(self, environment: &Environment) -> Result<(), Failure> {
        match self {
            Self::Show(command) => command.run(),
            Self::Replay(command) => command.run(),
            Self::List(command) => command.run(environment),
            Self::Fetch(command) => command.run(environment),
            Self::Delete(command) => command.run(environment),
            Self::Record(command) => command.run(environment),
            Self::Recordings(command) => command.run(environment),
            Self::Stop(command) => command.run(environment),
        }
    }
}

/// What is wrong with a tape, or with its name.
fn failure(path: &Path, error: &TapeError) -> Failure {
    match error {
        TapeError::File { .. } => Failure::usage(error.to_string()),
        error => Failure::other(format!("{}: {error}", path.display())),
    }
}

impl Show {
    fn run(self) -> Result<(), Failure> {
        let mut tape = tape::Tape::open(&self.file).map_err(|error| failure(&self.file, &error))?;
        let mut out = io::BufWriter::new(io::stdout().lock());
        let started_ms = tape.header().started_ms;
        if !output::is_read(&show_header(&mut out, tape.header())) {
            return Ok(());
        }
        let mut batches = 0;
        while let Some(line) = tape.next_line().map_err(|error| failure(&self.file, &error))? {
            if matches!(line, Line::Batch(_)) {
                batches += 1;
            }
            let at = line.now_ms().map(|now_ms| format!(" at {} ms", now_ms.saturating_sub(started_ms)));
            if !output::is_read(&show_line(&mut out, &line, &at.unwrap_or_default(), batches)) {
                return Ok(());
            }
        }
        let end = match (tape.end(), tape.is_cut()) {
            (Some(end), _) => end.to_string(),
            (None, true) => "its last line is cut off: the broker died".to_owned(),
            (None, false) => "goes on, or the broker died".to_owned(),
        };
        output::is_read(&writeln!(out, "end: {end}").and_then(|()| out.flush()));
        Ok(())
    }
}

fn show_header(out: &mut impl Write, header: &Header) -> io::Result<()> {
    writeln!(out, "channel   {}/{}", header.tenant, header.channel)?;
    writeln!(out, "mount     {}, settings {}", header.mount, header.settings)?;
    writeln!(out, "contract  {}", header.contract)?;
    writeln!(out, "recorded  since {}; times are from there", utc(header.started_ms))?;
    if !header.redacted.is_empty() {
        writeln!(out, "redacted  {}", header.redacted.join(", "))?;
    }
    Ok(())
}

fn show_line(out: &mut impl Write, line: &Line, at: &str, batches: u64) -> io::Result<()> {
    let failed = |fault: &Option<Fault>| fault.as_ref().map(|fault| format!(", failed: {fault}")).unwrap_or_default();
    let reads = |reads: &Reads| match reads.0.len() {
        1 => "1 read".to_owned(),
        count => format!("{count} reads"),
    };
    match line {
        Line::Open(Opened { digest, saved, reads: read, fault, .. }) => {
            let memory = match saved {
                Some(saved) => format!("with {} bytes of memory", saved.len()),
                None => "without memory".to_owned(),
            };
            writeln!(out, "open{at}: {digest} {memory}, {}{}", reads(read), failed(fault))
        }
        Line::Batch(Handled { events, reads: read, effects, fault, .. }) => {
            writeln!(out, "batch {batches}{at}: {}{}", reads(read), failed(fault))?;
            for (event, index) in events.iter().zip(0..) {
                writeln!(out, "  {index} {event}")?;
            }
            for effect in effects {
                match effect.event() {
                    Some(event) => writeln!(out, "    for {event}: {effect}")?,
                    None => writeln!(out, "    {effect}")?,
                }
            }
            Ok(())
        }
        Line::Save(Saved { saved, reads: read, fault, .. }) => {
            let saved = saved.as_ref().map(|saved| format!(" {saved},")).unwrap_or_default();
            writeln!(out, "save{at}:{saved} {}{}", reads(read), failed(fault))
        }
        Line::Back => writeln!(out, "back: the instance before the last one serves again"),
        Line::Discard { batch } => writeln!(out, "discard: batch {batch} never took hold"),
        Line::End(end) => writeln!(out, "end: {end}"),
    }
}

impl Replay {
    fn run(self) -> Result<(), Failure> {
        let tape = tape::Tape::open(&self.file).map_err(|error| failure(&self.file, &error))?;
        let plugin = self.plugin.display();
        let component =
            std::fs::read(&self.plugin).map_err(|e| Failure::usage(format!("{plugin}: cannot be read: {e}")))?;
        let mut limits = tape.header().limits();
        limits.cpu_ms_max = self.cpu_ms.unwrap_or(limits.cpu_ms_max);
        // One that serves, one before it, and one that is being opened.
        let node = NodeLimits { channels_awake_max: 3, ..NodeLimits::default() };
        let folder = std::env::temp_dir().join(format!("hotbay-replay-{}", std::process::id()));
        let runtime = Runtime::new(&node, std::iter::once(&limits), folder.clone());
        let grants = Capability::ALL.into_iter().collect();
        let loaded = runtime.and_then(|runtime| runtime.load("replay", &component, &grants));
        // Compiled code is of no use to anybody else.
        drop(std::fs::remove_dir_all(&folder));
        let loaded = loaded.map_err(|error| Failure::other(format!("{plugin}: refused: {error}")))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::other)?;
        let replayed = runtime.block_on(tape::replay(&loaded, tape, Arc::new(limits)));
        let replayed = replayed.map_err(|error| failure(&self.file, &error))?;
        self.tell(&replayed)
    }

    fn tell(&self, replayed: &tape::Replay) -> Result<(), Failure> {
        let (batches, events) = (replayed.batches, replayed.events);
        let outcome = match (replayed.is_identical(), replayed.differing) {
            (true, _) => "identical".to_owned(),
            (false, 1) => "1 difference".to_owned(),
            (false, count) => format!("{count} differences"),
        };
        if self.json {
            let mut told = serde_json::to_value(replayed).map_err(Failure::other)?;
            told["identical"] = replayed.is_identical().into();
            output::line(told);
        } else {
            output::line(format_args!("replayed {batches} batches, {events} events: {outcome}"));
            if self.diff {
                replayed.differences.iter().all(output::line);
                let more = replayed.differing - replayed.differences.len() as u64;
                if more > 0 {
                    output::line(format_args!("and {more} more"));
                }
            }
            for note in notes(replayed) {
                output::line(format_args!("note: {note}"));
            }
        }
        match replayed.is_identical() {
            true => Ok(()),
            false if self.diff || self.json => Err(Failure::other("the plugin does not do what was recorded")),
            false => Err(Failure::other("the plugin does not do what was recorded; --diff shows where")),
        }
    }
}

/// What people should know beside the differences.
fn notes(replayed: &tape::Replay) -> Vec<String> {
    let mut notes = Vec::new();
    if !replayed.recorded.contains(&replayed.digest) {
        let recorded: Vec<&str> = replayed.recorded.iter().map(String::as_str).collect();
        notes.push(format!("recorded with {}, run on {}", recorded.join(", "), replayed.digest));
    }
    if replayed.unrecorded_reads > 0 {
        let count = replayed.unrecorded_reads;
        notes.push(format!("{count} reads have no answer on the tape, and found an empty channel"));
    }
    if replayed.skipped > 0 {
        notes.push(format!("{} calls could not be run, since no instance could be opened", replayed.skipped));
    }
    if replayed.cut {
        notes.push("the last line of the tape is cut off".to_owned());
    }
    if let Some(end) = &replayed.end
        && *end != tape::End::Stopped
    {
        notes.push(format!("the recording ended: {end}"));
    }
    notes
}
