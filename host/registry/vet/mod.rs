//! Vetting: what is found out about a version before anybody may approve it, step by step, as evidence.
//!
//! A component is a stranger's. The broker hands its file to [workers](worker), processes of its own program that can open nothing and only
//! get the time that nobody else wants; it reads what they say about it, and nothing else. It never holds the component, nor its code:
//! whatever is uploaded costs it a few hundred kilobytes.

mod child;
mod evidence;
mod plan;
mod worker;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Seek};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::limits::{MountLimits, NodeLimits, VET_WALL_S_MAX};
use crate::plugin::compile::{self, Digest};
use crate::plugin::{PluginError, Runtime};
use crate::protocol::capability::Capability;
use crate::protocol::name::ChannelName;
use crate::registry::manifest::Manifest;
use crate::registry::vet::child::Heard;
use crate::registry::vet::plan::{Deployed, Plan};

pub use crate::registry::vet::worker::{COMMAND as WORKER_COMMAND, WorkerError, read, try_out};

/// What is done, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepName {
    /// Its size, and whether it is a component at all.
    Size,
    /// Whether it is a valid one of our contract, and what it amounts to.
    Validate,
    /// What it imports: no more than its manifest says, and that no more than was granted.
    Imports,
    /// The memory it begins with.
    Memory,
    /// Compiling it, within limits.
    Compile,
    /// The [conformance run](crate::registry::conformance).
    Conformance,
    /// Tapes of channels, played to it.
    Tapes,
}

impl StepName {
    /// All there are, in their order.
    pub const ALL: [Self; 7] =
        [Self::Size, Self::Validate, Self::Imports, Self::Memory, Self::Compile, Self::Conformance, Self::Tapes];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Validate => "validate",
            Self::Imports => "imports",
            Self::Memory => "memory",
            Self::Compile => "compile",
            Self::Conformance => "conformance",
            Self::Tapes => "tapes",
        }
    }
}

/// What came out of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing speaks against the component.
    Passed,
    /// It must not run.
    Failed,
    /// The step was not made: there was nothing to do, or an earlier one failed.
    Skipped,
}

/// One step that was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Which.
    pub step: StepName,
    /// What came out.
    pub verdict: Verdict,
    /// How long it took, in milliseconds.
    pub ms: u64,
    /// What shows it. Of a step that failed `error` says why, in a sentence. At most a few kilobytes.
    pub evidence: Value,
}

impl Step {
    /// Why it failed, if it did.
    pub fn error(&self) -> Option<&str> {
        match self.verdict {
            Verdict::Failed => Some(self.evidence.get("error").and_then(Value::as_str).unwrap_or("it did not pass")),
            Verdict::Passed | Verdict::Skipped => None,
        }
    }
}

/// Everything that was found out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Names the component: its SHA-256, in hexadecimal.
    pub digest: String,
    /// In their order; all of [`StepName::ALL`]. As JSON at most 64 KiB.
    pub steps: Vec<Step>,
}

impl Report {
    /// Whether nothing speaks against the component.
    pub fn passed(&self) -> bool {
        self.steps.iter().all(|step| step.verdict != Verdict::Failed)
    }

    /// Which step it did not pass, and why, in a sentence.
    pub fn failure(&self) -> Option<String> {
        self.steps.iter().find_map(|step| Some(format!("{}: {}", step.step.as_str(), step.error()?)))
    }

    /// A step.
    pub fn step(&self, name: StepName) -> Option<&Step> {
        self.steps.iter().find(|step| step.step == name)
    }
}

/// What is vetted, and for what.
pub struct Vetting<'a> {
    /// The component.
    pub file: &'a Path,
    /// What it says of itself.
    pub manifest: &'a Manifest,
    /// What its owner is granted.
    pub grants: BTreeSet<Capability>,
    /// The limits of the mount it is for.
    pub limits: MountLimits,
    /// The limits of the process: how large it may be, and what compiling may take.
    pub node: NodeLimits,
    /// Names of channels it is to be tried on: that of the first it opens is taken.
    pub channels: Vec<ChannelName>,
    /// The settings of the mount it is for, as the text of a JSON object.
    pub settings: String,
    /// Whether it is played its tapes with the settings they were recorded with; otherwise with these.
    pub settings_of_tapes: bool,
    /// Tapes it is played, at most [`TAPES_VETTED_MAX`](crate::limits::TAPES_VETTED_MAX).
    pub tapes: Vec<PathBuf>,
    /// The version that is deployed now: what it does with the tapes is what counts, if its code is kept.
    pub deployed: Option<Digest>,
    /// What the conformance run follows from.
    pub seed: u64,
    /// Where the files lie that one worker leaves for the next.
    pub folder: PathBuf,
    /// Who keeps its code if it passes. Nobody keeps it otherwise.
    pub keep: Option<Arc<Runtime>>,
}

impl<'a> Vetting<'a> {
    /// Vetting for any mount: default limits, no settings, channels by the usual names, another seed each time.
    pub fn new(file: &'a Path, manifest: &'a Manifest, grants: BTreeSet<Capability>) -> Self {
        /// The first part of channel names in the systems this broker was made for, and others that are usual.
        const KINDS: [&str; 9] = ["room", "tenant", "owner", "dashboard", "draft", "group", "user", "game", "poll"];
        let channels = KINDS.iter().map(|kind| format!("{kind}:conformance"));
        Self {
            file,
            manifest,
            grants,
            limits: MountLimits::default(),
            node: NodeLimits::default(),
            channels: channels.filter_map(|name| ChannelName::new("default", &name).ok()).collect(),
            settings: "{}".to_owned(),
            settings_of_tapes: true,
            tapes: Vec::new(),
            deployed: None,
            seed: rand::random(),
            folder: std::env::temp_dir(),
            keep: None,
        }
    }
}

/// Vets a component. `progress` is told of each step as it ends. Takes minutes at most; dropped on the way, it leaves neither a process nor
/// a file behind.
///
/// # Errors
/// If it cannot be vetted here and now, for reasons that are not the component's. A component that does not pass is no error.
pub async fn vet(vetting: &Vetting<'_>, mut progress: impl FnMut(&Step)) -> Result<Report, VetError> {
    let file = vetting.file.to_owned();
    let opened = tokio::task::spawn_blocking(move || open(&file)).await;
    let (component, digest) = opened.map_err(|e| VetError::Worker { words: e.to_string() })??;
    let work = Work::begin(&vetting.folder)?;
    let mut report = Report { digest: digest.to_string(), steps: Vec::new() };
    let mut tell = |step: Step| {
        let step = Step { evidence: evidence::bounded(step.evidence), ..step };
        progress(&step);
        report.steps.push(step);
    };
    let passed = run(vetting, &component, digest, &work, &mut tell).await?;
    if let (true, Some(runtime)) = (passed, &vetting.keep) {
        let (runtime, code) = (Arc::clone(runtime), work.code());
        let adopted = tokio::task::spawn_blocking(move || runtime.adopt(digest, &code)).await;
        adopted.map_err(|e| VetError::Worker { words: e.to_string() })??;
    }
    // What was not made.
    for step in StepName::ALL.into_iter().skip(report.steps.len()) {
        report.steps.push(Step { step, verdict: Verdict::Skipped, ms: 0, evidence: json!({}) });
    }
    Ok(report)
}

/// Makes all steps, until one fails.
async fn run(
    vetting: &Vetting<'_>,
    component: &File,
    digest: Digest,
    work: &Work,
    tell: &mut impl FnMut(Step),
) -> Result<bool, VetError> {
    let began = Instant::now();
    if let Some(named) = vetting.manifest.digest.filter(|named| *named != digest) {
        let error = format!(
            "plugin.toml names the component {named}, and this is {digest}; have `hotbay plugin push` write the digest of this build"
        );
        tell(failed(StepName::Size, began, &error));
        return Ok(false);
    }
    let mut plan = Plan::of(vetting, digest);
    plan.deployed = deployed(vetting, digest, work).await?;
    work.write_plan(&plan)?;
    let reads = [StepName::Size, StepName::Validate, StepName::Imports, StepName::Memory];
    if !listen(work, again(component)?, &[], &reads, tell).await? {
        return Ok(false);
    }
    let began = Instant::now();
    let compiled = compile::compile_file(again(component)?, &work.code(), &vetting.node).await;
    match compiled.and_then(|()| work.code_bytes()) {
        Ok(bytes) => tell(Step {
            step: StepName::Compile,
            verdict: Verdict::Passed,
            ms: ms(began),
            evidence: json!({ "code_bytes": bytes }),
        }),
        Err(PluginError::Starved { wall_s, cpu_ms }) => {
            return Err(VetError::Starved { step: StepName::Compile, wall_s, cpu_ms });
        }
        Err(error) => {
            tell(failed(StepName::Compile, began, &error.to_string()));
            return Ok(false);
        }
    }
    let code = File::open(work.code()).map_err(|e| work.failed(&e))?;
    listen(work, code, &["--conformance"], &[StepName::Conformance, StepName::Tapes], tell).await
}

/// The version that is deployed now, if there are tapes to compare it by, and it is another one.
async fn deployed(vetting: &Vetting<'_>, digest: Digest, work: &Work) -> Result<Option<Deployed>, VetError> {
    let (Some(runtime), Some(deployed)) = (&vetting.keep, vetting.deployed.filter(|deployed| *deployed != digest))
    else {
        return Ok(None);
    };
    if vetting.tapes.is_empty() {
        return Ok(None);
    }
    let (runtime, code) = (Arc::clone(runtime), work.deployed());
    let exported = tokio::task::spawn_blocking(move || runtime.export(deployed, &code).map(|()| code)).await;
    match exported.map_err(|e| VetError::Worker { words: e.to_string() })? {
        Ok(code) => Ok(Some(Deployed { digest: deployed.to_string(), code, limits: vetting.limits.clone() })),
        Err(error) => {
            tracing::warn!(%error, "the version that is deployed is not compared with; what was recorded is");
            Ok(None)
        }
    }
}

/// Runs a worker and tells what it says. Whether it said all of these steps, and none failed.
async fn listen(
    work: &Work,
    stdin: File,
    more: &[&str],
    steps: &[StepName],
    tell: &mut impl FnMut(Step),
) -> Result<bool, VetError> {
    let program = std::env::current_exe().map_err(|e| VetError::Worker { words: e.to_string() })?;
    let mut command = Command::new(program);
    command.arg(WORKER_COMMAND).arg("--plan").arg(work.plan()).args(more).env_clear().stdin(stdin);
    match child::run(command, Duration::from_secs(VET_WALL_S_MAX), steps, tell).await? {
        Heard::All => Ok(true),
        Heard::Failed => Ok(false),
    }
}

/// Opens a component, and reads it once for its name.
fn open(path: &Path) -> Result<(File, Digest), VetError> {
    let unreadable = |e: io::Error| VetError::File { path: path.to_owned(), cause: e.to_string() };
    let mut file = File::open(path).map_err(unreadable)?;
    let (digest, _) = Digest::of_reader(&mut file).map_err(unreadable)?;
    Ok((file, digest))
}

/// The same file for another process, from its beginning. They read it one after another.
fn again(file: &File) -> Result<File, VetError> {
    let from_its_beginning = || {
        let mut file = file.try_clone()?;
        file.rewind()?;
        Ok(file)
    };
    from_its_beginning()
        .map_err(|e: io::Error| VetError::Worker { words: format!("the component cannot be read again: {e}") })
}

fn ms(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn failed(step: StepName, began: Instant, error: &str) -> Step {
    Step { step, verdict: Verdict::Failed, ms: ms(began), evidence: json!({ "error": error }) }
}

/// A folder for one vetting. It goes with this.
struct Work(PathBuf);

impl Work {
    fn begin(folder: &Path) -> Result<Self, VetError> {
        let path = folder.join(format!("vetting-{:016x}", rand::random::<u64>()));
        let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
        let work = Self(path);
        made.map_err(|e| work.failed(&e))?;
        Ok(work)
    }

    fn plan(&self) -> PathBuf {
        self.0.join("plan.json")
    }

    fn code(&self) -> PathBuf {
        self.0.join("code")
    }

    fn deployed(&self) -> PathBuf {
        self.0.join("deployed")
    }

    fn write_plan(&self, plan: &Plan) -> Result<(), VetError> {
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.plan());
        let written =
            file.and_then(|file| serde_json::to_writer(io::BufWriter::new(file), plan).map_err(io::Error::from));
        written.map_err(|e| self.failed(&e))
    }

    fn code_bytes(&self) -> Result<u64, PluginError> {
        let metadata = std::fs::metadata(self.code());
        metadata.map(|code| code.len()).map_err(|e| PluginError::Compile { cause: e.to_string() })
    }

    fn failed(&self, error: &io::Error) -> VetError {
        VetError::Folder { path: self.0.clone(), cause: error.to_string() }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "files of a vetting stay behind; delete them");
        }
    }
}

/// Why a component could not be vetted. None of these is about the component.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VetError {
    /// The component cannot be read.
    #[error("{}: cannot be read: {cause}", path.display())]
    File {
        /// Where it is.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// Files between workers cannot be written.
    #[error("files of a vetting cannot be kept at {}: {cause}; make room there, or see to its permissions", path.display())]
    Folder {
        /// Where.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// The worker cannot work.
    #[error("the worker that vets components cannot work: {words}")]
    Worker {
        /// Its own words.
        words: String,
    },
    /// A worker got too little processor time.
    #[error(
        "it could not be judged: the step {} did not end within {wall_s} s, in which it got {cpu_ms} ms of processor time; vetting only gets \
         what nobody else wants", step.as_str()
    )]
    Starved {
        /// What it was about.
        step: StepName,
        /// How long it had.
        wall_s: u64,
        /// What it got of that.
        cpu_ms: u64,
    },
    /// The code cannot be kept.
    #[error(transparent)]
    Keep(#[from] PluginError),
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Goal: what lies between workers is nobody else's, and goes with the vetting.
    #[test]
    fn a_vetting_keeps_its_files_to_itself_and_leaves_none() {
        let folder = tempfile::TempDir::new().unwrap();
        let manifest = Manifest::synthesized("x", &BTreeSet::new());
        let work = Work::begin(folder.path()).unwrap();
        work.write_plan(&Plan::of(&Vetting::new(folder.path(), &manifest, BTreeSet::new()), Digest([7; 32]))).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;

        assert_eq!((mode(&work.0), mode(&work.plan())), (0o700, 0o600));
        drop(work);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(matches!(Work::begin(&folder.path().join("missing")), Err(VetError::Folder { .. })));
    }

    /// Law: a report is kept as one text, and what did not pass says why in a sentence.
    #[test]
    fn a_report_says_what_failed_and_has_a_bound() {
        let large = json!({ "error": "it is large", "given": vec!["x".repeat(1_000); 1_000] });
        let step = |step, verdict| Step { step, verdict, ms: u64::MAX, evidence: evidence::bounded(large.clone()) };
        let mut report = Report { digest: "ab".repeat(32), steps: Vec::new() };
        report.steps.extend(StepName::ALL.map(|name| step(name, Verdict::Passed)));
        assert_eq!((report.passed(), report.failure()), (true, None));

        report.steps[2].verdict = Verdict::Failed;

        assert_eq!((report.passed(), report.failure().as_deref()), (false, Some("imports: it is large")));
        let text = serde_json::to_string(&report).unwrap();
        assert!(text.len() <= 64 << 10, "{} bytes", text.len());
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }
}
