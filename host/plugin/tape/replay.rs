//! Runs a tape again, on the version that made it or on any other, and says where it does something else.
//!
//! Everything an instance sees comes from the tape: the same version does the same, bit for bit. Another version gets what it asks for as
//! far as it was recorded, and finds an empty channel beyond; how often is counted. Memory is its own: an instance gets what the one before
//! it saved in this very replay, if the tape says that memory was handed over.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::limits::{MountLimits, REPLAY_DIFFERENCES_MAX};
use crate::plugin::Plugin;
use crate::plugin::account::{Difference, Entry, account, cause, differences};
use crate::plugin::content::{Content, beside};
use crate::plugin::fault::Fault;
use crate::plugin::instance::{Instance, Opening};
use crate::plugin::record::{Answer, Playback, Reads};
use crate::plugin::tape::reader::{Tape, TapeError};
use crate::plugin::tape::{End, Handled, Line, Opened, Saved};
use crate::protocol::event::Batch;
use crate::protocol::name::ChannelName;

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Replay {
    /// The version that was run.
    pub digest: String,
    /// Versions the tape was recorded with.
    pub recorded: BTreeSet<String>,
    /// The version it was compared with, if that was run, too; otherwise it was compared with what was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beside: Option<String>,
    /// Batches that were run.
    pub batches: u64,
    /// Events in them.
    pub events: u64,
    /// Calls that could not be run: nothing of the plugin ran when they were recorded, or its version could not be opened now.
    pub skipped: u64,
    /// Calls that failed now, whether or not they failed then.
    pub faults: u64,
    /// Reads that no answer was recorded for.
    pub unrecorded_reads: u64,
    /// The first [`REPLAY_DIFFERENCES_MAX`] differences.
    pub differences: Vec<BatchDifference>,
    /// How many there are.
    pub differing: u64,
    /// Whether the end of the tape was cut off.
    pub cut: bool,
    /// Why the recording ended, if the tape says so.
    pub end: Option<End>,
}

/// One difference, and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BatchDifference {
    /// The line of the tape.
    pub line: u64,
    /// The batch, counted from 1; absent if the call was none.
    pub batch: Option<u64>,
    /// What the event was that it belongs to, where that is known.
    pub cause: Option<String>,
    /// Reads of this call that no answer was recorded for: perhaps that is why.
    pub unrecorded_reads: u32,
    /// What is different.
    pub what: Differs,
}

/// See [`BatchDifference`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Differs {
    /// An effect.
    Effect(Difference),
    /// Whether the call failed, or how.
    Fault {
        /// As it was recorded.
        old: Option<Fault>,
        /// As it is.
        new: Option<Fault>,
    },
    /// What `save` returned.
    Saved {
        /// As it was recorded.
        old: Content,
        /// As it is.
        new: Content,
    },
}

impl Replay {
    /// Whether everything that was recorded happened again.
    pub fn is_identical(&self) -> bool {
        self.differing == 0 && self.skipped == 0
    }
}

impl fmt::Display for BatchDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)?;
        if let Some(batch) = self.batch {
            write!(f, ", batch {batch}")?;
        }
        match (&self.what, &self.cause) {
            (Differs::Effect(difference), Some(cause)) => write!(f, ": {}", difference.told_with(cause)),
            (Differs::Effect(difference), None) => write!(f, ": {difference}"),
            (Differs::Fault { old, new }, cause) => {
                let told = |fault: &Option<Fault>| fault.as_ref().map_or("no fault".to_owned(), Fault::to_string);
                let cause = cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default();
                write!(f, "{cause}: old {}; new {}", told(old), told(new))
            }
            (Differs::Saved { old, new }, _) => {
                let (old, new) = beside(old, new);
                write!(f, ": save: old {old}, new {new}")
            }
        }?;
        match self.unrecorded_reads {
            0 => Ok(()),
            1 => f.write_str(" (1 read has no answer on the tape)"),
            count => write!(f, " ({count} reads have no answer on the tape)"),
        }
    }
}

/// Runs a tape again. `limits` are those of the instance, usually the [header's](super::Header::limits). Reads the tape where it runs.
///
/// # Errors
/// If the tape cannot be read to its end. What was found so far is lost.
pub async fn replay(plugin: &Plugin, tape: Tape, limits: Arc<MountLimits>) -> Result<Replay, TapeError> {
    replay_beside(plugin, None, tape, limits, None).await
}

/// The same, compared not with what was recorded but with what another version does with it, under limits of its own. `settings` is
/// what the plugin is told instead of the settings that were recorded.
///
/// # Errors
/// Like [`replay`].
pub async fn replay_beside(
    plugin: &Plugin,
    beside: Option<(&Plugin, Arc<MountLimits>)>,
    mut tape: Tape,
    limits: Arc<MountLimits>,
    settings: Option<&str>,
) -> Result<Replay, TapeError> {
    let mut player = Player::new(plugin, limits, &tape);
    if let Some(settings) = settings {
        settings.clone_into(&mut player.settings);
    }
    let mut beside = beside.map(|(plugin, limits)| Player::new(plugin, limits, &tape));
    player.result.beside = beside.as_ref().map(|beside| beside.result.digest.clone());
    while let Some(mut line) = tape.next_line()? {
        if let Some(beside) = &mut beside {
            beside.play(line.clone(), &tape).await?;
            match (&mut line, beside.did.take()) {
                (Line::Batch(handled), Some(did)) => {
                    (handled.effects, handled.fault) =
                        did.map_or_else(|fault| (Vec::new(), Some(fault)), |did| (did, None));
                }
                // What it saves is its own.
                (Line::Save(saved), _) => saved.saved = None,
                _ => {}
            }
        }
        player.play(line, &tape).await?;
    }
    player.result.cut = tape.is_cut();
    player.result.end = tape.end().cloned();
    Ok(player.result)
}

struct Player<'a> {
    plugin: &'a Plugin,
    limits: Arc<MountLimits>,
    name: ChannelName,
    settings: String,
    current: Option<Instance>,
    /// The one before, until the current one has handled a batch.
    previous: Option<Instance>,
    saved: Memory,
    /// The opening of the recorded instance.
    opened: Option<Opened>,
    batch: u64,
    line: u64,
    /// Reads of the call under way that no answer was recorded for.
    unrecorded: u32,
    /// What the last batch did, if it was run.
    did: Option<Result<Vec<Entry>, Fault>>,
    result: Replay,
}

/// What an instance gets where the recorded one got memory.
enum Memory {
    /// The same: nothing was saved since the tape began.
    Recorded,
    /// What the last `save` of this replay returned, if it did not fail.
    Own(Option<Vec<u8>>),
}

impl<'a> Player<'a> {
    fn new(plugin: &'a Plugin, limits: Arc<MountLimits>, tape: &Tape) -> Self {
        Self {
            plugin,
            limits,
            name: tape.name().clone(),
            settings: tape.header().settings.clone(),
            current: None,
            previous: None,
            saved: Memory::Recorded,
            opened: None,
            batch: 0,
            line: 0,
            unrecorded: 0,
            did: None,
            result: Replay { digest: plugin.digest().to_string(), ..Replay::default() },
        }
    }

    async fn play(&mut self, line: Line, tape: &Tape) -> Result<(), TapeError> {
        self.line = tape.line();
        match line {
            Line::Open(opened) => self.open(opened, tape).await?,
            Line::Batch(handled) => self.handle(handled, tape).await?,
            Line::Save(saved) => self.save(saved, tape).await,
            Line::Back => {
                if let Some(previous) = self.previous.take() {
                    self.current = Some(previous);
                }
            }
            Line::Discard { .. } | Line::End(_) => {}
        }
        Ok(())
    }

    async fn open(&mut self, opened: Opened, tape: &Tape) -> Result<(), TapeError> {
        let is_own = opened.digest == self.result.digest;
        if let Some(fault) = &opened.fault {
            // That another version could not be opened says nothing of this one; nor does a broker without room.
            if !is_own || !runs(fault, &opened.reads) {
                return Ok(());
            }
        }
        self.result.recorded.insert(opened.digest.clone());
        let saved = match &opened.saved {
            None => None,
            Some(recorded) => match &self.saved {
                Memory::Own(saved) => saved.clone(),
                Memory::Recorded => Some(recorded.bytes().ok_or_else(|| self.damaged("memory"))?.to_vec()),
            },
        };
        let (instance, fault) = match self.start(&opened, opened.now_ms, saved.as_deref(), tape).await {
            Ok(instance) => (Some(instance), None),
            Err(fault) => (None, Some(fault)),
        };
        self.result.faults += u64::from(fault.is_some());
        let failed_then = opened.fault.is_some();
        self.compare_faults(opened.fault.clone(), fault, None, None);
        if !failed_then {
            // What the recorded channel went on with.
            self.previous = self.current.take();
            self.current = instance;
            self.opened = Some(opened);
        }
        Ok(())
    }

    async fn start(
        &mut self,
        opened: &Opened,
        now_ms: u64,
        saved: Option<&[u8]>,
        tape: &Tape,
    ) -> Result<Instance, Fault> {
        let label = format!("replay of {}", self.name);
        let mut instance = Instance::start(self.plugin, Arc::clone(&self.limits), opened.seed, &label).await?;
        let opening = Opening { name: &self.name, now_ms, seed: opened.seed, settings: &self.settings, saved };
        let playback = Playback::redacted(opened.reads.clone(), tape.redaction().clone());
        let result = instance.open(Arc::clone(&playback) as _, opening).await;
        self.count(&playback);
        result.map(|()| instance)
    }

    async fn handle(&mut self, handled: Handled, tape: &Tape) -> Result<(), TapeError> {
        self.batch += 1;
        let number = self.batch;
        if handled.fault.as_ref().is_some_and(|fault| !runs(fault, &handled.reads)) {
            return Ok(());
        }
        if self.current.is_none()
            && let Some(opened) = self.opened.take()
        {
            // It failed where the recorded one did not: as a channel does, it begins anew without memory.
            self.current = self.start(&opened, handled.now_ms, None, tape).await.ok();
            self.opened = Some(opened);
        }
        let Some(instance) = self.current.take() else {
            self.result.skipped += 1;
            return Ok(());
        };
        let tenant = self.name.tenant();
        let events = handled.events.into_iter().map(|event| event.event(tenant));
        let events = events.collect::<Option<Vec<_>>>().ok_or_else(|| self.damaged("an event"))?;
        let batch = Arc::new(Batch { now_ms: handled.now_ms, seed: handled.seed, events });
        let playback = Playback::redacted(handled.reads, tape.redaction().clone());
        let (instance, result) = instance.handle(Arc::clone(&playback) as _, Arc::clone(&batch)).await;
        self.result.batches += 1;
        self.result.events += batch.events.len() as u64;
        self.count(&playback);
        let only = match &batch.events[..] {
            [event] => Some(cause(event)),
            _ => None,
        };
        match result {
            Ok(effects) => {
                self.current = instance;
                self.previous = None;
                let mut effects = account(&effects);
                for entry in &mut effects {
                    tape.redaction().entry(entry);
                }
                if handled.fault.is_some() {
                    self.compare_faults(handled.fault, None, Some(number), only);
                    self.did = Some(Ok(effects));
                    return Ok(());
                }
                for difference in differences(&handled.effects, &effects) {
                    let difference = difference.placed(&batch);
                    let event = difference.event.and_then(|index| batch.events.get(index as usize));
                    self.differs(Some(number), event.map(cause), Differs::Effect(difference));
                }
                self.did = Some(Ok(effects));
            }
            Err(fault) => {
                self.did = Some(Err(fault.clone()));
                self.result.faults += 1;
                self.compare_faults(handled.fault, Some(fault), Some(number), only);
            }
        }
        Ok(())
    }

    async fn save(&mut self, recorded: Saved, tape: &Tape) {
        if recorded.fault.as_ref().is_some_and(|fault| !runs(fault, &recorded.reads)) {
            return;
        }
        self.saved = Memory::Own(None);
        let Some(instance) = &mut self.current else {
            self.result.skipped += 1;
            return;
        };
        let playback = Playback::redacted(recorded.reads, tape.redaction().clone());
        let result = instance.save(Arc::clone(&playback) as _, recorded.now_ms).await;
        self.count(&playback);
        match result {
            Ok(memory) => {
                let is_own = self.opened.as_ref().is_some_and(|opened| opened.digest == self.result.digest);
                match recorded.saved {
                    Some(old) if is_own => {
                        let mut new = Content::Binary(memory.clone().into());
                        tape.redaction().content(&mut new);
                        if old != new {
                            self.differs(None, None, Differs::Saved { old, new });
                        }
                    }
                    _ => self.compare_faults(recorded.fault, None, None, None),
                }
                self.saved = Memory::Own(Some(memory));
            }
            Err(fault) => {
                self.result.faults += 1;
                if !matches!(fault, Fault::Refused { .. }) {
                    self.current = None;
                }
                self.compare_faults(recorded.fault, Some(fault), None, None);
            }
        }
    }

    fn count(&mut self, playback: &Playback) {
        self.unrecorded = playback.unrecorded();
        self.result.unrecorded_reads += u64::from(self.unrecorded);
    }

    fn compare_faults(&mut self, old: Option<Fault>, new: Option<Fault>, batch: Option<u64>, cause: Option<String>) {
        let alike = match (&old, &new) {
            (None, None) => true,
            (Some(old), Some(new)) => are_alike(old, new),
            _ => false,
        };
        if !alike {
            self.differs(batch, cause, Differs::Fault { old, new });
        }
    }

    fn differs(&mut self, batch: Option<u64>, cause: Option<String>, what: Differs) {
        self.result.differing += 1;
        let unrecorded_reads = self.unrecorded;
        if self.result.differences.len() < REPLAY_DIFFERENCES_MAX {
            self.result.differences.push(BatchDifference { line: self.line, batch, cause, unrecorded_reads, what });
        }
    }

    fn damaged(&self, what: &str) -> TapeError {
        TapeError::Damaged { line: self.line, cause: format!("{what} was left out for its length") }
    }
}

/// Whether a call that failed so can be run again. Where there was no room for an instance, or the store was away before anything was read,
/// there is nothing to run.
fn runs(fault: &Fault, reads: &Reads) -> bool {
    let mut answers = reads.0.iter().flat_map(|read| &read.given).filter_map(|given| given.answer.as_ref());
    fault.is_plugins() || answers.any(|answer| matches!(answer, Answer::Fault(read) if read == fault))
}

/// Whether two calls failed in the same way. The words of a trap and the bound of a deadline are no effects.
fn are_alike(old: &Fault, new: &Fault) -> bool {
    match (old, new) {
        (Fault::Trap { .. }, Fault::Trap { .. }) | (Fault::Deadline { .. }, Fault::Deadline { .. }) => true,
        _ => old == new,
    }
}
