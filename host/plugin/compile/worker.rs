//! Compiling in a process of its own with hard limits on memory and time, because a small component can take minutes and
//! gigabytes to compile. Both sides are here: the broker's, which starts the worker, feeds it, and outlives it whatever it
//! does; and the worker's own, a subcommand of the broker's program. It only gets the time that nobody else wants.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Resource;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use crate::limits::{COMPILED_BYTES_MAX, NodeLimits};
use crate::plugin::{PluginError, confine, engine};

/// The subcommand of the broker's own program that compiles.
pub const COMMAND: &str = "compile-worker";
/// Bytes of a worker's words that are passed on.
const WORDS_BYTES_MAX: u64 = 2_000;

/// Compiles a component with a worker: the component on its standard input, its words on standard error, the code in the
/// file `out`. Its environment is empty. Blocks until the worker is gone; not for threads that run tasks.
pub(super) fn compile(component: &[u8], out: &Path, limits: &NodeLimits) -> Result<(), PluginError> {
    let mut command = command(out, limits)?;
    command.stdin(Stdio::piped());
    // A runtime of its own: this is called on threads that have none, and once per component.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| failed(format!("the worker cannot be waited for: {e}")))?;
    runtime.block_on(run(command, component, limits.compile_wall_s_max))
}

/// The same for a component in a file, of which this process reads nothing. Dropped on the way, it leaves no worker behind.
///
/// # Errors
/// If the worker fails or is stopped at a limit; [`PluginError::Starved`] if it could not do its work in time.
pub async fn compile_file(component: File, out: &Path, limits: &NodeLimits) -> Result<(), PluginError> {
    let mut command = command(out, limits)?;
    command.stdin(component);
    run(command, &[], limits.compile_wall_s_max).await
}

fn command(out: &Path, limits: &NodeLimits) -> Result<Command, PluginError> {
    let program = std::env::current_exe().map_err(|e| failed(format!("the worker cannot be found: {e}")))?;
    let mut command = Command::new(program);
    command
        .arg(COMMAND)
        .arg("--out")
        .arg(out)
        .arg("--memory-bytes")
        .arg(limits.compile_memory_bytes_max.to_string())
        .arg("--cpu-s")
        .arg(limits.compile_cpu_s_max.to_string())
        .env_clear();
    Ok(command)
}

/// Runs a worker to its end, at most for so long; it is gone when this returns.
async fn run(mut command: Command, component: &[u8], wall_s_max: u64) -> Result<(), PluginError> {
    command.stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|e| failed(format!("the worker cannot be started: {e}")))?;
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    // A worker that ends before it has read everything says why on standard error: that counts, not the broken pipe.
    let feed = async {
        if let Some(mut stdin) = stdin {
            drop(stdin.write_all(component).await);
        }
    };
    // At the same time, for a worker that is not heard may wait for that and read nothing. Over the bound it is not heard.
    let listen = async {
        let mut words = Vec::new();
        if let Some(stderr) = stderr {
            let mut stderr = stderr.take(WORDS_BYTES_MAX);
            drop(stderr.read_to_end(&mut words).await);
            drop(tokio::io::copy(&mut stderr.into_inner(), &mut tokio::io::sink()).await);
        }
        String::from_utf8_lossy(&words).trim().to_owned()
    };
    let work = async { tokio::join!(feed, listen, child.wait()) };
    let Ok(((), words, status)) = tokio::time::timeout(Duration::from_secs(wall_s_max), work).await else {
        let cpu_ms = confine::cpu_ms(child.id());
        // Kills it and takes its status, so that no zombie is left.
        child.kill().await.map_err(|e| failed(format!("the worker cannot be stopped: {e}")))?;
        return Err(PluginError::Starved { wall_s: wall_s_max, cpu_ms });
    };
    let status = status.map_err(|e| failed(e.to_string()))?;
    if status.success() {
        Ok(())
    } else if words.is_empty() {
        Err(failed(format!("the worker was stopped at its limits of memory or CPU time ({status})")))
    } else {
        Err(failed(format!("{words} ({status})")))
    }
}

/// The worker's side: limits itself, reads a component from standard input, writes its compiled form.
///
/// # Errors
/// If the component does not compile, or to more than [`COMPILED_BYTES_MAX`]. Over a limit the process dies.
pub fn work(out: &Path, memory_bytes: u64, cpu_s: u64) -> Result<(), PluginError> {
    let limited = |e: io::Error| failed(format!("a limit cannot be set: {e}"));
    confine::begin().map_err(limited)?;
    confine::limit(&[(Resource::As, memory_bytes), (Resource::Cpu, cpu_s), (Resource::Fsize, COMPILED_BYTES_MAX)])
        .map_err(limited)?;
    let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(out);
    let unwritten = |e: io::Error| failed(format!("the code cannot be written: {e}"));
    let mut file = file.map_err(unwritten)?;
    confine::open_nothing().map_err(limited)?;
    let mut component = Vec::new();
    io::stdin().read_to_end(&mut component).map_err(|e| failed(e.to_string()))?;
    let code = engine::for_compiling()?.precompile_component(&component).map_err(|e| failed(format!("{e:#}")))?;
    if code.len() as u64 > COMPILED_BYTES_MAX {
        return Err(failed(format!("its code has {} bytes; the limit is {COMPILED_BYTES_MAX}", code.len())));
    }
    file.write_all(&code).map_err(unwritten)
}

fn failed(cause: String) -> PluginError {
    PluginError::Compile { cause }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tempfile::TempDir;

    use super::*;

    /// More than a pipe holds, so that whoever does not read it blocks whoever writes it.
    const LARGE: &[u8] = &[0; 1 << 20];

    /// A worker that is a shell script; it leaves its process id behind, to see whether it is gone.
    struct Script {
        folder: TempDir,
    }

    impl Script {
        fn new() -> Self {
            Self { folder: TempDir::new().unwrap() }
        }

        fn pid_file(&self) -> PathBuf {
            self.folder.path().join("pid")
        }

        async fn run(&self, script: &str, wall_s_max: u64) -> String {
            let mut command = Command::new("/bin/sh");
            command.arg("-c").arg(format!("echo $$ > {}; {script}", self.pid_file().display()));
            command.stdin(Stdio::piped());
            match run(command, LARGE, wall_s_max).await {
                Ok(()) => "success".to_owned(),
                Err(PluginError::Compile { cause }) => cause,
                Err(error) => error.to_string(),
            }
        }

        /// A zombie still has its folder in /proc.
        fn is_gone(&self) -> bool {
            let pid = std::fs::read_to_string(self.pid_file()).unwrap();
            !Path::new("/proc").join(pid.trim()).exists()
        }
    }

    #[tokio::test]
    async fn a_worker_that_reads_everything_and_succeeds_has_compiled() {
        let script = Script::new();
        assert_eq!(script.run("cat > /dev/null", 60).await, "success");
        assert!(script.is_gone());
    }

    /// Such a worker breaks the pipe that the component is written to.
    #[tokio::test]
    async fn a_worker_that_ends_without_reading_is_heard_and_leaves_no_zombie() {
        let script = Script::new();
        let cause = script.run("exec <&-; echo 'there is no memory' >&2; exit 3", 60).await;
        assert_eq!(cause, "there is no memory (exit status: 3)");
        assert!(script.is_gone());
    }

    /// It fills one pipe while the other waits to be read.
    #[tokio::test]
    async fn a_worker_that_talks_before_it_reads_does_not_block() {
        let script = Script::new();
        let cause = script.run("yes nonsense | head -c 1000000 >&2; cat > /dev/null; exit 1", 60).await;
        assert!(cause.starts_with("nonsense\nnonsense") && cause.ends_with("(exit status: 1)"), "{cause}");
        assert!(cause.len() < 2_100, "{} bytes of words", cause.len());
        assert!(script.is_gone());
    }

    #[tokio::test]
    async fn a_worker_that_does_not_end_is_killed_and_leaves_no_zombie() {
        let script = Script::new();
        let cause = script.run("exec sleep 1000", 1).await;
        assert!(cause.starts_with("compiling did not end within 1 s (compile_wall_s_max), in which it got"), "{cause}");
        assert!(script.is_gone());
    }

    #[tokio::test]
    async fn a_worker_that_is_killed_without_a_word_reached_a_limit() {
        let script = Script::new();
        let cause = script.run("kill -9 $$", 60).await;
        assert!(cause.contains("limits of memory or CPU time"), "{cause}");
        assert!(script.is_gone());
    }
}
