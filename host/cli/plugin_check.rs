//! `hotbay plugin check`: would this component be accepted? It is vetted as the broker would, in the same workers.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;

use super::{Failure, output};
use crate::protocol::capability::Capability;
use crate::protocol::name::ChannelName;
use crate::registry::manifest::Manifest;
use crate::registry::vet::{self, Report, Step, StepName, Verdict, Vetting};

/// Vets a component as the broker would, and says what it needs to be granted
#[derive(Debug, Args)]
pub(super) struct Check {
    /// The component
    file: PathBuf,
    /// Its manifest, plugin.toml [default: none: it may import all it is granted]
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// What it would be granted: kv, log, logging, sql, stats [default: all]
    #[arg(long, value_delimiter = ',')]
    grants: Option<Vec<String>>,
    /// The channel it is tried on, for example room:42 [default: names that are usual]
    #[arg(long, value_name = "NAME")]
    channel: Option<String>,
    /// The settings of the mount it is tried for, as a JSON object [default: {}]
    #[arg(long, value_name = "JSON")]
    settings: Option<String>,
    /// What the conformance run follows from, to repeat one [default: another one each time]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// A tape that is played to it; may be repeated
    #[arg(long = "tape", value_name = "FILE")]
    tapes: Vec<PathBuf>,
    /// Processor time for compiling it, in seconds [default: as a broker's]
    #[arg(long, value_name = "SECONDS")]
    compile_cpu_s: Option<u64>,
    /// Prints the whole report as JSON
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn run(self) -> Result<(), Failure> {
        let file = self.file.display().to_string();
        let report = self.vet()?;
        if self.json {
            output::line(serde_json::to_string_pretty(&report).map_err(Failure::other)?);
        }
        if let Some(why) = report.failure() {
            return Err(Failure::other(format!("{file}: refused: {why}")));
        }
        if !self.json {
            output::text(told(&file, &report));
        }
        Ok(())
    }

    fn vet(&self) -> Result<Report, Failure> {
        let grants = match &self.grants {
            None => Capability::ALL.into_iter().collect(),
            Some(names) => names.iter().map(|name| grant(name)).collect::<Result<BTreeSet<_>, _>>()?,
        };
        let manifest = match &self.manifest {
            None => Manifest::synthesized(&name_of(&self.file), &grants),
            Some(path) => {
                let unreadable = |e: std::io::Error| Failure::usage(format!("{}: cannot be read: {e}", path.display()));
                let text = std::fs::read(path).map_err(unreadable)?;
                Manifest::from_bytes(&text).map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?
            }
        };
        let mut vetting = Vetting::new(&self.file, &manifest, grants);
        vetting.tapes.clone_from(&self.tapes);
        if let Some(name) = &self.channel {
            let name = ChannelName::new("default", name).map_err(|e| Failure::usage(format!("--channel: {e}")))?;
            vetting.channels = vec![name];
        }
        if let Some(settings) = &self.settings {
            if !matches!(serde_json::from_str(settings), Ok(Value::Object(_))) {
                return Err(Failure::usage("--settings: this is no JSON object; give one like {\"history_max\": 10}"));
            }
            vetting.settings.clone_from(settings);
        }
        if let Some(seed) = self.seed {
            vetting.seed = seed;
        }
        if let Some(seconds) = self.compile_cpu_s {
            vetting.node.compile_cpu_s_max = seconds;
        }
        let progress = |step: &Step| {
            if !self.json {
                output::line(line(step));
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::other)?;
        runtime.block_on(vet::vet(&vetting, progress)).map_err(|error| match error {
            vet::VetError::File { .. } => Failure::usage(error.to_string()),
            error => Failure::other(error),
        })
    }
}

/// What a plugin without a manifest is called: as its file, as far as that is a name.
fn name_of(file: &Path) -> String {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let name: String = stem.chars().filter(|c| c.is_ascii_alphanumeric() || "._-".contains(*c)).take(64).collect();
    if name.bytes().all(|byte| byte == b'.') { "plugin".to_owned() } else { name }
}

fn grant(name: &str) -> Result<Capability, Failure> {
    let known = || Capability::ALL.map(Capability::as_str).join(", ");
    let found = Capability::ALL.into_iter().find(|capability| capability.as_str() == name);
    found.ok_or_else(|| Failure::usage(format!("--grants: there is no capability {name:?}; there are: {}", known())))
}

/// A step, for people: `✓ imports      3 ms  kv, log`.
fn line(step: &Step) -> String {
    let (mark, colour) = match step.verdict {
        Verdict::Passed => ("✓", "32"),
        Verdict::Failed => ("✗", "31"),
        Verdict::Skipped => ("–", "2"),
    };
    let mark =
        if std::io::stdout().is_terminal() { format!("\u{1b}[{colour}m{mark}\u{1b}[0m") } else { mark.to_owned() };
    let told = step.error().map_or_else(|| shown(step), str::to_owned);
    format!("{mark} {:<11} {:>6} ms  {told}", step.step.as_str(), step.ms).trim_end().to_owned()
}

/// What shows that a step was passed, in a few words.
fn shown(step: &Step) -> String {
    let evidence = &step.evidence;
    let number = |key: &str| evidence[key].as_u64().unwrap_or_default();
    match step.step {
        _ if step.verdict == Verdict::Skipped => String::new(),
        StepName::Size => format!("{} bytes", number("bytes")),
        StepName::Validate => {
            format!("{}, {} instances", evidence["contract"].as_str().unwrap_or_default(), number("instances"))
        }
        StepName::Imports => format!("needs {}", needs(evidence)),
        StepName::Memory => format!("begins with {} bytes of {}", number("memory_bytes"), number("memory_bytes_max")),
        StepName::Compile => format!("{} bytes of code", number("code_bytes")),
        StepName::Conformance => {
            let profile = &evidence["profile"];
            let of = |key: &str| profile[key].as_u64().unwrap_or_default();
            format!(
                "{} messages on {}, {} µs for an event, {} bytes of memory, seed {}",
                number("messages"),
                evidence["channel"].as_str().unwrap_or_default(),
                of("cpu_us_per_event"),
                of("memory_bytes_max"),
                number("seed")
            )
        }
        StepName::Tapes => {
            let tapes = evidence["tapes"].as_array().map(Vec::as_slice).unwrap_or_default();
            let sum = |key: &str| tapes.iter().filter_map(|tape| tape[key].as_u64()).sum::<u64>();
            format!("{} tapes with {} batches, {} differences", tapes.len(), sum("batches"), sum("differing"))
        }
    }
}

fn needs(evidence: &Value) -> String {
    let needs = evidence["needs"].as_array().map(Vec::as_slice).unwrap_or_default();
    let needs: Vec<&str> = needs.iter().filter_map(Value::as_str).collect();
    if needs.is_empty() { "nothing".to_owned() } else { needs.join(", ") }
}

/// What it all comes to.
fn told(file: &str, report: &Report) -> String {
    let evidence = |name| report.step(name).map_or(&Value::Null, |step| &step.evidence);
    let (size, validate) = (evidence(StepName::Size), evidence(StepName::Validate));
    format!(
        "{file}: ok\ndigest    {}\ncontract  {}\nsize      {} bytes, {} instances\nneeds     {}\n",
        report.digest,
        validate["contract"].as_str().unwrap_or_default(),
        size["bytes"],
        validate["instances"],
        needs(evidence(StepName::Imports))
    )
}
