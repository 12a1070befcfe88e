//! `hotbay plugin test`: plays the scenario files of a project on its component.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::project::Project;
use super::scenario;
use super::seen::indented;
use super::stage::{Failed, play, same};
use crate::cli::{Failure, output};
use crate::limits::{MountLimits, NodeLimits};
use crate::plugin::{Plugin, Runtime};
use crate::telemetry::start_plugin_logging;

/// Where scenario files are, in a project.
const FOLDER: &str = "scenarios";
/// Largest scenario file, in bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Builds a plugin and plays its scenario files on the component: events in, effects expected
#[derive(Debug, Args)]
pub(in crate::cli) struct Test {
    /// The plugin's folder
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Plays only scenarios whose file names contain this
    #[arg(long, value_name = "WORD")]
    only: Option<String>,
    /// Takes the component that is there
    #[arg(long)]
    no_build: bool,
}

impl Test {
    pub(in crate::cli) fn run(self) -> Result<(), Failure> {
        // What the plugin prints and logs; there is no broker whose log could have it.
        start_plugin_logging().map_err(Failure::other)?;
        let project = Project::open(&self.dir).map_err(|e| Failure::usage(e.to_string()))?;
        let files = self.files(project.folder())?;
        if !self.no_build {
            project.build().map_err(Failure::other)?;
        }
        let limits = Arc::new(project.manifest().limits(&MountLimits {
            // An author wants to see all of them.
            log_lines_per_second_max: 10_000,
            ..MountLimits::default()
        }));
        let plugin = load(&project, &limits)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::other)?;
        let mut failed = 0;
        for file in &files {
            match runtime.block_on(play_file(file, &plugin, &limits)) {
                Ok(line) => drop(output::line(format_args!("ok      {line}"))),
                Err(words) => {
                    failed += 1;
                    output::line(format_args!("FAILED  {words}"));
                }
            }
        }
        match failed {
            0 => Ok(()),
            _ => Err(Failure::other(format!("{failed} of {} scenarios failed", files.len()))),
        }
    }

    /// The scenario files, in the order of their names.
    fn files(&self, folder: &Path) -> Result<Vec<PathBuf>, Failure> {
        let folder = folder.join(FOLDER);
        let entries = std::fs::read_dir(&folder)
            .map_err(|e| Failure::usage(format!("{}: {e}; scenario files lie there", folder.display())))?;
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.retain(|file| {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            file.extension().is_some_and(|extension| extension == "toml")
                && self.only.as_ref().is_none_or(|word| name.contains(word))
        });
        files.sort();
        if files.is_empty() {
            let which = self.only.as_ref().map(|word| format!(" with {word:?} in their name")).unwrap_or_default();
            return Err(Failure::usage(format!("{}: there are no .toml files{which}", folder.display())));
        }
        Ok(files)
    }
}

/// Compiles the component, or takes what was compiled before.
fn load(project: &Project, limits: &MountLimits) -> Result<Arc<Plugin>, Failure> {
    let component = project.component().map_err(Failure::other)?;
    let artifacts = project.artifacts().map_err(Failure::other)?;
    let node = NodeLimits { channels_awake_max: 1, ..NodeLimits::default() };
    let manifest = project.manifest();
    let runtime = Runtime::new(&node, std::iter::once(limits), artifacts.clone());
    let plugin = runtime.and_then(|runtime| runtime.load(&manifest.name, &component, &manifest.capabilities));
    let plugin = plugin.map_err(|e| Failure::other(format!("the component is refused: {e}")))?;
    remove_others(&artifacts, &plugin.digest().to_string());
    Ok(Arc::new(plugin))
}

/// Removes the compiled code of earlier builds, which may be large. What stays does no harm.
fn remove_others(artifacts: &Path, digest: &str) {
    for entry in std::fs::read_dir(artifacts).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_code = path.extension().is_some_and(|extension| extension == "artifact");
        if is_code && !entry.file_name().to_string_lossy().starts_with(digest) {
            drop(std::fs::remove_file(path));
        }
    }
}

/// Plays one file twice, since a plugin must do the same again; returns the line that says how it went.
async fn play_file(file: &Path, plugin: &Arc<Plugin>, limits: &Arc<MountLimits>) -> Result<String, String> {
    let name = file.display().to_string();
    let bytes = std::fs::metadata(file).map_err(|e| format!("{name}: {e}"))?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(format!("{name}: has {bytes} bytes; the limit is {FILE_BYTES_MAX}"));
    }
    let text = std::fs::read_to_string(file).map_err(|e| format!("{name}: {e}"))?;
    let scenario = scenario::read(&name, &text)?;
    let failed = |failed: Failed| {
        let Failed { step, line, what, why } = failed;
        format!("{name}:{line}: step {step}, {what}\n{}", indented(&why))
    };
    let played = play(plugin, limits, &scenario).await.map_err(failed)?;
    let again = play(plugin, limits, &scenario).await.map_err(failed)?;
    same(&played, &again).map_err(|difference| {
        format!(
            "{name}: the plugin is not deterministic: played again, the same steps had other effects\n  {difference}"
        )
    })?;
    let steps = scenario.steps.len();
    let ms = played.slowest.max(again.slowest).as_secs_f64() * 1_000.0;
    Ok(format!("{name}: {steps} steps, longest call {ms:.1} ms, memory {} KiB", played.memory_bytes.div_ceil(1 << 10)))
}
