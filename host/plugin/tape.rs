//! Tapes: what happened in one channel, call by call, so that it can be run again on any version of a plugin, bit for bit.
//!
//! A tape is a file of JSON lines: a [`Header`], then a [`Line`] for each call into an instance, in their order, with everything the call saw
//! and did; at last why the tape ends. It is only ever appended to. What a process that died left of its last line is no line.
//!
//! [`writer`] records (`TapeWriter`, one thread for all tapes, and a `TapeHandle` for each channel), [`reader`] reads, [`replay`] runs a tape
//! again, [`redaction`] keeps what must not be known out of it.

mod event;
pub mod reader;
pub mod redaction;
pub mod replay;
pub mod writer;

use serde::{Deserialize, Serialize};

use crate::limits::MountLimits;
use crate::plugin::account::Entry;
use crate::plugin::content::Content;
use crate::plugin::fault::Fault;
use crate::plugin::inspect::{CONTRACT, CONTRACT_VERSION};
use crate::plugin::record::Reads;
use crate::protocol::name::ChannelName;

pub use crate::plugin::tape::event::Happened;
pub use crate::plugin::tape::reader::{Tape, TapeError};
pub use crate::plugin::tape::redaction::{Redaction, RedactionError};
pub use crate::plugin::tape::replay::{BatchDifference, Differs, Replay, replay, replay_beside};
pub use crate::plugin::tape::writer::{Bounds, Call, TapeHandle, TapeWriter};

/// The version of the format, as the first key of the first line has it. A reader refuses others.
pub const FORMAT: u32 = 1;

/// The first line: whose tape it is, and under which conditions it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`FORMAT`].
    pub hotbay_tape: u32,
    /// Owner of the channel.
    pub tenant: String,
    /// The channel's name within the tenant.
    pub channel: String,
    /// Path of the mount.
    pub mount: String,
    /// Settings of the mount, as the text of a JSON object.
    pub settings: String,
    /// The contract of the host that made it, with its version.
    pub contract: String,
    /// Bounds that plugins meet.
    pub limits: Conditions,
    /// When the recording began, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// JSON pointers to what was taken out of all documents, before anything was written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redacted: Vec<String>,
}

/// The limits of a mount that decide what a call does; see [`MountLimits`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "they are those of `MountLimits`")]
pub struct Conditions {
    pub effects_max: usize,
    pub effect_bytes_max: usize,
    pub cpu_ms_max: u64,
    pub memory_bytes_max: usize,
    pub state_bytes_max: u64,
    pub saved_bytes_max: usize,
}

/// One call into an instance, or what became of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Line {
    /// An instance was started and opened, and serves from now on if that succeeded. Its effects are among those of its first batch.
    Open(Opened),
    /// A batch was handled.
    Batch(Handled),
    /// The memory was asked for.
    Save(Saved),
    /// The instance that was opened last is given up, and the one before it serves again.
    Back,
    /// The effects of a batch never took hold, though its call succeeded: they broke a rule of the channel, or could not be committed.
    Discard {
        /// Which one, counted from 1 in this tape.
        batch: u64,
    },
    /// The last line.
    End(End),
}

/// See [`Line::Open`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opened {
    /// Names the version: SHA-256 of its component.
    pub digest: String,
    /// Milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// The random number it got, for its start and its opening.
    pub seed: u64,
    /// The memory it got.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saved: Option<Content>,
    /// What it read.
    pub reads: Reads,
    /// Why it could not be opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
}

/// See [`Line::Batch`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handled {
    /// Milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// The random number it got.
    pub seed: u64,
    /// What happened, in the order of arrival.
    pub events: Vec<Happened>,
    /// What it read.
    pub reads: Reads,
    /// What it did; nothing if it failed.
    pub effects: Vec<Entry>,
    /// Why it had no effects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
}

/// See [`Line::Save`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    /// Milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// What it read.
    pub reads: Reads,
    /// The memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saved: Option<Content>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
}

/// Why a tape ends. A tape without such a line ended with its process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// Nobody wants more.
    Stopped,
    /// The next line would have been beyond its size.
    Full,
    /// It is as old as it may become.
    Age,
    /// The channel was faster than the disk.
    Overrun,
    /// It cannot be written.
    Failed(String),
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stopped => f.write_str("stopped"),
            Self::Full => f.write_str("full: it is as large as it may become"),
            Self::Age => f.write_str("full: it is as old as it may become"),
            Self::Overrun => f.write_str("overrun: the channel was faster than the disk"),
            Self::Failed(cause) => write!(f, "failed: {cause}"),
        }
    }
}

impl Header {
    /// Of a tape that begins now.
    pub fn new(
        channel: &ChannelName,
        mount: &str,
        settings: &str,
        limits: &MountLimits,
        started_ms: u64,
        redaction: &Redaction,
    ) -> Self {
        Self {
            hotbay_tape: FORMAT,
            tenant: channel.tenant().to_owned(),
            channel: channel.name().to_owned(),
            mount: mount.to_owned(),
            settings: redaction.text(settings).into_owned(),
            contract: format!("{CONTRACT}@{CONTRACT_VERSION}"),
            limits: Conditions {
                effects_max: limits.effects_max,
                effect_bytes_max: limits.effect_bytes_max,
                cpu_ms_max: limits.cpu_ms_max,
                memory_bytes_max: limits.memory_bytes_max,
                state_bytes_max: limits.state_bytes_max,
                saved_bytes_max: limits.saved_bytes_max,
            },
            started_ms,
            redacted: redaction.pointers(),
        }
    }

    /// The limits it was recorded under. Whoever runs it must know whether it trusts who made the tape: they say how much memory and time a
    /// plugin may have.
    pub fn limits(&self) -> MountLimits {
        MountLimits {
            effects_max: self.limits.effects_max,
            effect_bytes_max: self.limits.effect_bytes_max,
            cpu_ms_max: self.limits.cpu_ms_max,
            memory_bytes_max: self.limits.memory_bytes_max,
            state_bytes_max: self.limits.state_bytes_max,
            saved_bytes_max: self.limits.saved_bytes_max,
            ..MountLimits::default()
        }
    }
}

impl Line {
    /// Takes out what the tape must not know, and leaves out what effects carry beyond this many bytes.
    fn reduced(mut self, redaction: &Redaction, entry_bytes_max: usize) -> Self {
        match &mut self {
            Self::Open(opened) => {
                opened.saved.iter_mut().for_each(|saved| redaction.content(saved));
                redaction.reads(&mut opened.reads);
            }
            Self::Batch(handled) => {
                if !redaction.is_empty() {
                    handled.events.iter_mut().for_each(|event| event.redact(redaction));
                    handled.effects.iter_mut().for_each(|entry| redaction.entry(entry));
                    redaction.reads(&mut handled.reads);
                }
                let effects = std::mem::take(&mut handled.effects);
                handled.effects = effects.into_iter().map(|entry| entry.shortened(entry_bytes_max)).collect();
            }
            Self::Save(saved) => {
                saved.saved.iter_mut().for_each(|memory| redaction.content(memory));
                redaction.reads(&mut saved.reads);
            }
            Self::Back | Self::Discard { .. } | Self::End(_) => {}
        }
        self
    }

    /// When it happened, in milliseconds since the Unix epoch, if it says so.
    pub fn now_ms(&self) -> Option<u64> {
        match self {
            Self::Open(Opened { now_ms, .. })
            | Self::Batch(Handled { now_ms, .. })
            | Self::Save(Saved { now_ms, .. }) => Some(*now_ms),
            Self::Back | Self::Discard { .. } | Self::End(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
