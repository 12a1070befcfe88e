//! The worker's side of vetting, a subcommand of the broker's program that is not for people. It is given a component, or its code, as its
//! standard input, and says a line for each step. Before it touches what a stranger made, it gives up what it could do with it: it can open
//! no file and no socket, write nothing but its lines, and take no more memory and time than it was given.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rustix::process::Resource;
use serde_json::{Value, json};

use crate::limits::{
    CONFORMANCE_CPU_MS_MAX, MountLimits, REPLAY_CPU_S_MAX, SCRATCH_BYTES_MAX, VET_READ_CPU_S_MAX,
    VET_READ_MEMORY_BYTES_MAX,
};
use crate::plugin::compile::Digest;
use crate::plugin::inspect::{CONTRACT, Inspection, Outline, recognise};
use crate::plugin::tape::{BatchDifference, Differs, Replay, Tape, replay_beside};
use crate::plugin::{Plugin, PluginError, confine, trial};
use crate::protocol::capability::Capability;
use crate::registry::conformance;
use crate::registry::vet::plan::{Deployed, Plan};
use crate::registry::vet::{Step, StepName, Verdict, ms};

/// The subcommand of the broker's own program.
pub const COMMAND: &str = "vet-worker";
/// Most differences that are told of a tape.
const TOLD_MAX: usize = 10;

/// Why a worker cannot work. None of these is about the component.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// It does not know what to do.
    #[error("the plan cannot be read: {0}")]
    Plan(String),
    /// It cannot give up what it must.
    #[error("a limit cannot be set: {0}")]
    Limit(#[from] io::Error),
    /// Nobody listens.
    #[error("a step cannot be told: {0}")]
    Told(io::Error),
    /// It has no engine.
    #[error(transparent)]
    Engine(PluginError),
}

/// Reads the component on standard input, without running or compiling anything of it.
///
/// # Errors
/// See [`WorkerError`]. A component that does not pass is told as a step.
pub fn read(plan: &Path) -> Result<(), WorkerError> {
    confine::begin()?;
    let plan = Plan::read(plan)?;
    give_up(&[(Resource::As, VET_READ_MEMORY_BYTES_MAX), (Resource::Cpu, VET_READ_CPU_S_MAX)])?;
    let mut component = Vec::new();
    let size = Timed::begin(StepName::Size);
    if !size.tell(is_component(&plan, &mut component))? {
        return Ok(());
    }
    let validate = Timed::begin(StepName::Validate);
    let outline = Outline::of(&component);
    let told = outline.as_ref().map(|outline| {
        json!({ "contract": format!("{CONTRACT}@{}", outline.contract_version), "instances": outline.instances })
    });
    let passed = validate.tell(told.map_err(|error| json!({ "error": error.to_string() })))?;
    let (true, Ok(outline)) = (passed, outline) else { return Ok(()) };
    let imports = Timed::begin(StepName::Imports);
    if !imports.tell(may_import(&plan, &outline))? {
        return Ok(());
    }
    Timed::begin(StepName::Memory).tell(fits(&plan, &outline)).map(drop)
}

/// Runs the code on standard input: the conformance run, and tapes.
///
/// # Errors
/// See [`WorkerError`]. A component that does not pass is told as a step.
pub fn try_out(plan: &Path) -> Result<(), WorkerError> {
    confine::begin()?;
    let plan = Plan::read(plan)?;
    // What the plugin logs is part of what a failure is explained by; without it the failure is known all the same.
    drop(crate::telemetry::start_plugin_logging());
    let tapes: Vec<_> = plan.tapes.iter().map(|path| (path.as_path(), Tape::open(path))).collect();
    // Without it, what was recorded counts; the evidence says which.
    let deployed = plan.deployed.as_ref().and_then(|deployed| load_deployed(deployed).ok());
    // No IO: it needs no descriptor of its own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.map_err(|e| WorkerError::Plan(e.to_string()))?;
    let conformance = Timed::begin(StepName::Conformance);
    let plugin = match load(&plan) {
        Ok(plugin) => Arc::new(plugin),
        Err(error @ PluginError::Engine { .. }) => return Err(WorkerError::Engine(error)),
        Err(error) => return conformance.tell(Err(json!({ "error": error.to_string() }))).map(drop),
    };
    give_up(&[
        // Reserved address space does not count, only what can be written. A few instances run at once.
        (Resource::Data, (1 << 30) + SCRATCH_BYTES_MAX + 16 * plan.limits.memory_bytes_max as u64),
        (Resource::Cpu, 2 * CONFORMANCE_CPU_MS_MAX / 1_000 + 2 * REPLAY_CPU_S_MAX),
    ])?;
    let conditions = plan.conditions();
    let findings = runtime.block_on(conformance::run(&plugin, &conditions));
    let error = findings.failure.as_ref().map(ToString::to_string);
    let mut evidence = serde_json::to_value(&findings).unwrap_or_default();
    if let (Some(error), Value::Object(evidence)) = (&error, &mut evidence) {
        evidence.insert("error".to_owned(), json!(error));
    }
    let passed = conformance.tell(if error.is_some() { Err(evidence) } else { Ok(evidence) })?;
    if !passed {
        return Ok(());
    }
    let replays = Timed::begin(StepName::Tapes);
    if tapes.is_empty() {
        return replays.skip();
    }
    let mut played = Vec::new();
    for (path, tape) in tapes {
        let replayed = match tape {
            // The plan's limits: the tape's would be those of whoever made it.
            Ok(tape) => {
                let beside = deployed.as_ref().map(|(deployed, limits)| (deployed, Arc::clone(limits)));
                runtime.block_on(replay_beside(
                    &plugin,
                    beside,
                    tape,
                    Arc::clone(&conditions.limits),
                    plan.settings_for_tapes(),
                ))
            }
            Err(error) => Err(error),
        };
        played.push((path, replayed.map_err(|error| error.to_string())));
    }
    replays.tell(told_of(&played)).map(drop)
}

/// Gives up everything that is not needed from here on, and what is over these limits.
fn give_up(limits: &[(Resource, u64)]) -> Result<(), WorkerError> {
    confine::limit(&[limits, &[(Resource::Fsize, 0)]].concat())?;
    confine::open_nothing()?;
    Ok(())
}

impl Plan {
    fn read(path: &Path) -> Result<Self, WorkerError> {
        let file = File::open(path).map_err(|e| WorkerError::Plan(e.to_string()))?;
        serde_json::from_reader(io::BufReader::new(file)).map_err(|e| WorkerError::Plan(e.to_string()))
    }
}

/// A step under way.
struct Timed {
    step: StepName,
    began: Instant,
}

impl Timed {
    fn begin(step: StepName) -> Self {
        Self { step, began: Instant::now() }
    }

    /// Says what came out, with its evidence. Whether it passed.
    fn tell(self, evidence: Result<Value, Value>) -> Result<bool, WorkerError> {
        let passed = evidence.is_ok();
        let verdict = if passed { Verdict::Passed } else { Verdict::Failed };
        self.say(verdict, evidence.unwrap_or_else(|evidence| evidence)).map(|()| passed)
    }

    fn skip(self) -> Result<(), WorkerError> {
        self.say(Verdict::Skipped, json!({}))
    }

    fn say(self, verdict: Verdict, evidence: Value) -> Result<(), WorkerError> {
        let step = Step { step: self.step, verdict, ms: ms(self.began), evidence };
        let mut line = serde_json::to_vec(&step).map_err(|e| WorkerError::Told(e.into()))?;
        line.push(b'\n');
        let mut stdout = io::stdout().lock();
        stdout.write_all(&line).and_then(|()| stdout.flush()).map_err(WorkerError::Told)
    }
}

/// Whether standard input is a component, and small enough to be read.
fn is_component(plan: &Plan, component: &mut Vec<u8>) -> Result<Value, Value> {
    let bytes_max = plan.component_bytes_max;
    let read = io::stdin().lock().take(bytes_max + 1).read_to_end(component);
    read.map_err(|e| json!({ "error": format!("the component cannot be read: {e}") }))?;
    if component.len() as u64 > bytes_max {
        let error = format!("the component has more than {bytes_max} bytes (limits.plugin_bytes_max)");
        return Err(json!({ "error": error }));
    }
    let evidence = json!({ "bytes": component.len() });
    recognise(component)
        .map(|()| evidence)
        .map_err(|error| json!({ "error": error.to_string(), "bytes": component.len() }))
}

/// Whether it imports no more than its manifest says, and that no more than was granted.
fn may_import(plan: &Plan, outline: &Outline) -> Result<Value, Value> {
    let names = |capabilities: &std::collections::BTreeSet<crate::protocol::capability::Capability>| {
        capabilities.iter().map(|capability| capability.as_str()).collect::<Vec<_>>()
    };
    let (declared, granted) = (names(&plan.capabilities), names(&plan.grants));
    let refused =
        |error: String| json!({ "error": error, "imports": outline.imports, "declared": declared, "granted": granted });
    let needs = outline.needs().map_err(|error| refused(error.to_string()))?;
    let inspection = Inspection {
        contract_version: outline.contract_version.clone(),
        imports: outline.imports.clone(),
        needs: needs.clone(),
        instances: outline.instances,
        memory_bytes: outline.memory_bytes,
    };
    inspection.check_grants(&plan.grants).map_err(|error| refused(error.to_string()))?;
    if let Some(extra) = needs.difference(&plan.capabilities).next() {
        let import = outline.import_of(*extra);
        return Err(refused(format!(
            "the component imports {import}, which plugin.toml does not name; add {:?} to `capabilities` there, or do without it",
            extra.as_str()
        )));
    }
    if let Some(extra) = plan.capabilities.difference(&plan.grants).next() {
        return Err(refused(format!(
            "plugin.toml asks for the capability {:?}, which was not granted (granted: {}); have it granted, or leave it out",
            extra.as_str(),
            granted.join(", ")
        )));
    }
    Ok(json!({ "imports": outline.imports, "needs": names(&needs), "declared": declared, "granted": granted }))
}

/// Whether it begins with no more memory than it may have.
fn fits(plan: &Plan, outline: &Outline) -> Result<Value, Value> {
    let (bytes, bytes_max) = (outline.memory_bytes, plan.limits.memory_bytes_max);
    if bytes > bytes_max as u64 {
        let error = format!(
            "the component begins with {bytes} bytes of memory; the limit is {bytes_max} (memory_bytes_max of the mount or of plugin.toml)"
        );
        return Err(json!({ "error": error, "memory_bytes": bytes, "memory_bytes_max": bytes_max }));
    }
    Ok(json!({ "memory_bytes": bytes, "memory_bytes_max": bytes_max }))
}

/// Loads the code on standard input. Afterwards starting instances opens nothing.
fn load(plan: &Plan) -> Result<Plugin, PluginError> {
    let mut code = Vec::new();
    io::stdin().lock().read_to_end(&mut code).map_err(|e| PluginError::Compile { cause: e.to_string() })?;
    trial::load(&plan.name, digest(&plan.digest)?, &code, &plan.grants, &plan.limits)
}

/// Loads the version that is deployed now, which was granted what it imports.
fn load_deployed(deployed: &Deployed) -> Result<(Plugin, Arc<MountLimits>), PluginError> {
    let unreadable = |e: io::Error| PluginError::File { path: deployed.code.clone(), cause: e.to_string() };
    let code = std::fs::read(&deployed.code).map_err(unreadable)?;
    let grants = Capability::ALL.into_iter().collect();
    let plugin = trial::load("deployed", digest(&deployed.digest)?, &code, &grants, &deployed.limits)?;
    Ok((plugin, Arc::new(deployed.limits.clone())))
}

fn digest(named: &str) -> Result<Digest, PluginError> {
    let mut digest = Digest([0; 32]);
    let read = hex::decode_to_slice(named, &mut digest.0);
    read.map_err(|e| PluginError::Engine { cause: format!("the plan names no component: {e}") })?;
    Ok(digest)
}

/// What came of the tapes: a version may do something else than the one before, that is for people to judge; it must not fail where that
/// one did not.
fn told_of(played: &[(&Path, Result<Replay, String>)]) -> Result<Value, Value> {
    let is_new_fault =
        |difference: &&BatchDifference| matches!(&difference.what, Differs::Fault { old: None, new: Some(_) });
    let mut error = None;
    let mut tapes = Vec::new();
    for (path, replayed) in played {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        tapes.push(match replayed {
            Ok(replayed) => {
                if let Some(fault) = replayed.differences.iter().find(is_new_fault) {
                    error.get_or_insert_with(|| format!("it fails on tape {name}, where the version before did not: {fault}"));
                }
                let differences: Vec<String> = replayed.differences.iter().take(TOLD_MAX).map(ToString::to_string).collect();
                json!({
                    "tape": name, "recorded": replayed.recorded, "beside": replayed.beside, "batches": replayed.batches, "events": replayed.events, "faults": replayed.faults,
                    "differing": replayed.differing, "unrecorded_reads": replayed.unrecorded_reads, "differences": differences,
                })
            }
            // That is not the component's doing.
            Err(why) => json!({ "tape": name, "unplayed": why }),
        });
    }
    match error {
        Some(error) => Err(json!({ "error": error, "tapes": tapes })),
        None => Ok(json!({ "tapes": tapes })),
    }
}
