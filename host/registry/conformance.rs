//! The conformance run: a plugin lives through the life of a channel that was made up from a seed, before it gets a real one. It is to
//! survive whatever clients send within its limits, and to be the deterministic state machine that swaps and tapes count on.
//!
//! Four instances live the same life, batch by batch, each on a channel of its own, and must do the same at every step: the *first*; its
//! *twin*; one that *saves* now and then and goes on; and one that is *replaced* then by a new instance that takes over what it saved.

mod garbage;
mod profile;
mod pure;
mod runner;
mod script;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::limits::{CONFORMANCE_CPU_MS_MAX, CONFORMANCE_MESSAGES, MountLimits};
use crate::plugin::account::cause;
use crate::plugin::content::Content;
use crate::plugin::{Entry, Fault, Plugin, differences};
use crate::protocol::event::{Batch, Event};
use crate::protocol::name::ChannelName;
use crate::protocol::sql::SqlError;
use crate::registry::conformance::profile::Profile;
use crate::registry::conformance::runner::Runner;
use crate::registry::conformance::script::{Frames, Script};
use crate::registry::scratch::Scratch;

/// How often the instances save, and one of them is replaced.
const TURNS: u32 = 8;
/// Batches after a crash.
const BATCHES_AFTER_CRASH: usize = 8;
/// Most differences, and most events, that are told.
const TOLD_MAX: usize = 5;

/// Under which conditions a plugin is tried.
#[derive(Debug, Clone)]
pub struct Conditions {
    /// Names its channel may have: that of the first it opens is taken.
    pub channels: Vec<ChannelName>,
    /// The settings of its mount, as the text of a JSON object.
    pub settings: String,
    /// The limits of its mount, and its own.
    pub limits: Arc<MountLimits>,
    /// What everything follows from.
    pub seed: u64,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// What everything followed from: the same seed gives the same run.
    pub seed: u64,
    /// The channel's name.
    pub channel: String,
    /// Messages that were sent.
    pub messages: u32,
    /// How often an instance took over from another one.
    pub takeovers: u32,
    /// What it cost.
    pub profile: Profile,
    /// Why the plugin did not pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// Why a plugin did not pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Failure {
    /// It failed in a call.
    Fault {
        /// Which call.
        call: &'static str,
        /// The kind of fault.
        fault: &'static str,
        /// The fault in words.
        words: String,
        /// What it was given; of many events those that came last.
        given: Vec<String>,
    },
    /// It did not do the same at the same.
    NotDeterministic {
        /// Where the two differ.
        differences: Vec<String>,
    },
    /// Saving changed what it did afterwards.
    SaveChanges {
        /// Where the two differ: old is the one that did not save.
        differences: Vec<String>,
    },
    /// An instance that took over what another one saved did something else.
    SaveLoses {
        /// Where the two differ: old is the one that was not replaced.
        differences: Vec<String>,
        /// Batches since it took over.
        batches_since: u32,
    },
    /// It took too long over everything.
    TooSlow {
        /// Messages that were sent until then.
        messages: u32,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = |told: &[String]| told.first().cloned().unwrap_or_default();
        match self {
            Self::Fault { call, words, given, .. } if given.is_empty() => write!(f, "in `{call}`: {words}"),
            Self::Fault { call, words, given, .. } => write!(f, "in `{call}`: {words}; given: {}", given.join(", ")),
            Self::NotDeterministic { differences } => write!(
                f,
                "the same calls gave other effects the second time ({}); time and randomness must come with the batch, and nothing may \
                 hang on the order of a hash map",
                first(differences)
            ),
            Self::SaveChanges { differences } => write!(
                f,
                "after `save` the instance did something else than without it ({}); it must change nothing",
                first(differences)
            ),
            Self::SaveLoses { differences, batches_since } => write!(
                f,
                "an instance that took over what `save` returned did something else than the one before, {batches_since} batches later \
                 ({}); `save` must hand over what is not in kv, log or `members`, and nothing may hang on the order of a hash map",
                first(differences)
            ),
            Self::TooSlow { messages } => write!(
                f,
                "{messages} of {CONFORMANCE_MESSAGES} messages took {CONFORMANCE_CPU_MS_MAX} ms of processor time, all runs together"
            ),
        }
    }
}

/// Runs it. Takes no more than [`CONFORMANCE_CPU_MS_MAX`] of processor time, and a last call.
pub async fn run(plugin: &Arc<Plugin>, conditions: &Conditions) -> Findings {
    let mut run = Run { findings: Findings::begin(conditions), since_turn: 0, began: cpu_time() };
    if let Err(failure) = run.live(plugin, conditions).await {
        run.findings.failure = Some(failure);
    }
    run.findings
}

impl Conditions {
    fn scratch(&self, name: &ChannelName) -> Scratch {
        // Databases are the operator's: not for plugins that are only tried.
        Scratch::new(name.clone(), &self.settings)
            .with_limits(Arc::clone(&self.limits))
            .with_seed(self.seed)
            .with_database(Arc::new(|_, _| Err(SqlError::Unavailable)))
    }

    fn script(&self, name: &ChannelName, frames: Frames) -> Script {
        Script::new(self.seed, CONFORMANCE_MESSAGES, name, &self.limits, frames)
    }
}

/// The first name with which a plugin opens its channel and lets somebody in; if it lets nobody in, the first with which it opens.
async fn welcoming<'a>(plugin: &Arc<Plugin>, conditions: &'a Conditions) -> Result<&'a ChannelName, Failure> {
    let (mut opened, mut refused) = (None, None);
    for name in &conditions.channels {
        let mut runner = match Runner::open(plugin, conditions.scratch(name), None).await {
            Ok((runner, _)) => runner,
            Err(fault) if matches!(fault, Fault::Open { .. }) => {
                refused.get_or_insert_with(|| unopened(&fault, name));
                continue;
            }
            Err(fault) => return Err(unopened(&fault, name)),
        };
        let mut script = conditions.script(name, Frames::default());
        let events = script.next(&mut runner.scratch).unwrap_or_default();
        let batch = runner.scratch.batch(events);
        // What goes wrong here goes wrong again when it counts.
        let Ok(handled) = runner.handle(&batch).await else { return Ok(name) };
        if runner.scratch.members().len() > handled.released.leaves.len() {
            return Ok(name);
        }
        opened = opened.or(Some(name));
    }
    let nowhere = || Failure::Fault {
        call: "open",
        fault: "open",
        words: "there is no channel to open".into(),
        given: Vec::new(),
    };
    opened.ok_or_else(|| refused.unwrap_or_else(nowhere))
}

fn unopened(fault: &Fault, name: &ChannelName) -> Failure {
    failed("open", fault, vec![format!("the channel {} and the settings of its mount", name.name())])
}

impl Findings {
    fn begin(conditions: &Conditions) -> Self {
        Self {
            seed: conditions.seed,
            channel: String::new(),
            messages: 0,
            takeovers: 0,
            profile: Profile::default(),
            failure: None,
        }
    }
}

struct Run {
    findings: Findings,
    since_turn: u32,
    /// In processor time of this process.
    began: Duration,
}

/// The instances that live the same life. See the module.
struct Crew {
    first: Runner,
    twin: Runner,
    saving: Runner,
    replaced: Runner,
}

impl Run {
    async fn live(&mut self, plugin: &Arc<Plugin>, conditions: &Conditions) -> Result<(), Failure> {
        let name = welcoming(plugin, conditions).await?;
        name.name().clone_into(&mut self.findings.channel);
        let frames = pure::run(plugin, name, conditions).await?;
        let mut crew = open(plugin, name, conditions).await?;
        let mut script = conditions.script(name, frames.clone());
        let mut turn_at = CONFORMANCE_MESSAGES;
        while let Some(events) = script.next(&mut crew.first.scratch) {
            let batch = crew.first.scratch.batch(events);
            let handled = match crew.first.handle(&batch).await {
                Ok(handled) => handled,
                Err(fault) => return Err(blame(plugin, &crew.first.scratch, &batch, &fault).await),
            };
            self.findings.messages = CONFORMANCE_MESSAGES - script.messages_left();
            let profile = &mut self.findings.profile;
            profile.count(batch.events.len(), handled.ran, handled.memory_bytes, &handled.account);
            self.compare(&mut crew, &batch, &handled.account).await?;
            script.released(&mut crew.first.scratch, handled.released);
            if script.messages_left() <= turn_at {
                turn_at = script.messages_left().saturating_sub(CONFORMANCE_MESSAGES / TURNS);
                self.turn(plugin, &mut crew).await?;
                script.turned();
                if self.findings.takeovers == TURNS / 2 {
                    let script = conditions.script(name, frames.clone());
                    crash(plugin, crew.first.scratch.fork(), script).await?;
                }
            }
            if cpu_time().saturating_sub(self.began) > Duration::from_millis(CONFORMANCE_CPU_MS_MAX) {
                return Err(Failure::TooSlow { messages: self.findings.messages });
            }
        }
        Ok(())
    }

    /// Has the others handle the same batch.
    async fn compare(&mut self, crew: &mut Crew, batch: &Arc<Batch>, first: &[Entry]) -> Result<(), Failure> {
        self.since_turn += 1;
        let twin = follow(&mut crew.twin, batch).await?.and_then(|account| same(first, &account, Some(batch)));
        twin.map_err(|differences| Failure::NotDeterministic { differences })?;
        let saving = follow(&mut crew.saving, batch).await?.and_then(|account| same(first, &account, Some(batch)));
        saving.map_err(|differences| Failure::SaveChanges { differences })?;
        let first = without_timers(first);
        let replaced = follow(&mut crew.replaced, batch).await?;
        let replaced = replaced.and_then(|account| same(&first, &without_timers(&account), Some(batch)));
        let batches_since = self.since_turn;
        replaced.map_err(|differences| Failure::SaveLoses { differences, batches_since })
    }

    /// One saves and goes on, another one is replaced.
    async fn turn(&mut self, plugin: &Arc<Plugin>, crew: &mut Crew) -> Result<(), Failure> {
        let save = |fault: Fault| failed("save", &fault, Vec::new());
        let saved = crew.saving.save().await.map_err(save)?;
        self.findings.profile.count_saved(saved.len());
        let saved = crew.replaced.save().await.map_err(save)?;
        let opened = Runner::open(plugin, crew.replaced.scratch.fork(), Some(&saved)).await;
        let given = || vec![format!("what `save` had returned ({} bytes)", saved.len())];
        let (runner, _) = opened.map_err(|fault| failed("open", &fault, given()))?;
        crew.replaced = runner;
        self.findings.takeovers += 1;
        self.since_turn = 0;
        Ok(())
    }
}

/// Opens all of them.
async fn open(plugin: &Arc<Plugin>, name: &ChannelName, conditions: &Conditions) -> Result<Crew, Failure> {
    let opened = async || {
        let opened = Runner::open(plugin, conditions.scratch(name), None).await;
        opened.map_err(|fault| unopened(&fault, name))
    };
    let (first, effects) = opened().await?;
    let again = async || {
        let (runner, again) = opened().await?;
        same(&effects, &again, None).map_err(|differences| Failure::NotDeterministic { differences })?;
        Ok(runner)
    };
    Ok(Crew { first, twin: again().await?, saving: again().await?, replaced: again().await? })
}

/// Has an instance handle a batch of another one. Within: its effects, or that it failed at what the other one could do.
async fn follow(runner: &mut Runner, batch: &Arc<Batch>) -> Result<Result<Vec<Entry>, Vec<String>>, Failure> {
    runner.scratch.follow(batch);
    match runner.handle(batch).await {
        Ok(handled) => Ok(Ok(handled.account)),
        // The first one was lucky.
        Err(fault @ Fault::Deadline { .. }) => Err(failed("handle", &fault, tell(&batch.events))),
        Err(fault) => Ok(Err(vec![format!("the other one failed: {fault}")])),
    }
}

/// An instance that took over may set its timers once more: it cannot know whether they are set.
fn without_timers(account: &[Entry]) -> Vec<Entry> {
    let is_timer = |entry: &&Entry| matches!(entry, Entry::SetTimer { .. } | Entry::CancelTimer { .. });
    account.iter().filter(|entry| !is_timer(entry)).cloned().collect()
}

fn same(old: &[Entry], new: &[Entry], batch: Option<&Batch>) -> Result<(), Vec<String>> {
    let found = differences(old, new);
    if found.is_empty() {
        return Ok(());
    }
    let more = found.len().saturating_sub(TOLD_MAX);
    let mut told: Vec<String> = found.into_iter().take(TOLD_MAX).map(|one| cut(one.told(batch))).collect();
    told.extend((more > 0).then(|| format!("and {more} more")));
    Err(told)
}

/// The instance is lost, as after a trap: another one finds the channel as it was committed, and goes on.
async fn crash(plugin: &Arc<Plugin>, scratch: Scratch, mut script: Script) -> Result<(), Failure> {
    let opened = Runner::open(plugin, scratch, None).await;
    let given = vec!["a channel whose instance was lost: nothing saved, but members, kv, log and timers".to_owned()];
    let (mut runner, _) = opened.map_err(|fault| failed("open", &fault, given))?;
    for _ in 0..BATCHES_AFTER_CRASH {
        let Some(events) = script.next(&mut runner.scratch) else { break };
        let batch = runner.scratch.batch(events);
        match runner.handle(&batch).await {
            Ok(handled) => script.released(&mut runner.scratch, handled.released),
            Err(fault) => return Err(blame(plugin, &runner.scratch, &batch, &fault).await),
        }
    }
    Ok(())
}

/// Finds the event of a batch at which a plugin fails, if it does so at one alone, as the broker would: on the channel, on which the batch
/// left no trace.
async fn blame(plugin: &Arc<Plugin>, channel: &Scratch, batch: &Arc<Batch>, fault: &Fault) -> Failure {
    for event in &batch.events {
        let Ok((mut runner, _)) = Runner::open(plugin, channel.fork(), None).await else { break };
        let alone = Arc::new(Batch { now_ms: batch.now_ms, seed: batch.seed, events: vec![event.clone()] });
        runner.scratch.follow(&alone);
        if let Err(fault) = runner.handle(&alone).await {
            return failed("handle", &fault, tell(&alone.events));
        }
    }
    failed("handle", fault, tell(&batch.events))
}

fn failed(call: &'static str, fault: &Fault, given: Vec<String>) -> Failure {
    Failure::Fault { call, fault: fault.kind(), words: cut(fault.to_string()), given }
}

/// Events in words; of many the last ones.
fn tell(events: &[Event]) -> Vec<String> {
    let more = events.len().saturating_sub(TOLD_MAX);
    let before = (more > 0).then(|| format!("{more} events before"));
    before.into_iter().chain(events[more..].iter().map(tell_one)).collect()
}

fn tell_one(event: &Event) -> String {
    let content = match event {
        Event::Message { payload, .. } | Event::Publish { payload, .. } => Some(payload.clone().into()),
        Event::Join { frame, .. } | Event::Leave { frame, .. } => frame.clone().map(Content::from),
        Event::Request { http, .. } => (!http.body.is_empty()).then(|| Content::Binary(http.body.clone())),
        Event::Timer { .. } => None,
    };
    match content {
        Some(content) => cut(format!("{}: {content}", cause(event))),
        None => cut(cause(event)),
    }
}

/// No longer than evidence should be.
fn cut(text: String) -> String {
    const CHARS_MAX: usize = 800;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Processor time of this process.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
