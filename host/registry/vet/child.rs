//! A worker as the broker sees it: a process that says one line for each step, and is not believed more than that.

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::Command;

use crate::limits::EVIDENCE_BYTES_MAX;
use crate::registry::vet::{Step, StepName, Verdict, VetError, ms};

/// Longest line of a worker: a step with its evidence, before it is cut.
const LINE_BYTES_MAX: u64 = 16 * EVIDENCE_BYTES_MAX as u64;
/// Bytes of a worker's words on standard error that are kept: the last ones.
const WORDS_BYTES_MAX: usize = 4 << 10;
/// The exit code of a worker that cannot work, for reasons that are not the component's.
pub(super) const CANNOT_WORK: u8 = 2;

/// What a worker said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// All steps that were expected; none failed.
    All,
    /// A step failed, or the worker was stopped in it.
    Failed,
}

/// Runs a worker to its end, for so long at most; it is gone when this returns, and when this is dropped.
pub(super) async fn run(
    mut command: Command,
    wall: Duration,
    expected: &[StepName],
    tell: &mut impl FnMut(Step),
) -> Result<Heard, VetError> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let cannot = |e: std::io::Error| VetError::Worker { words: format!("it cannot be started: {e}") };
    let mut child = command.spawn().map_err(cannot)?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(VetError::Worker { words: "it has no output".to_owned() });
    };
    let mut steps = Steps { expected, told: 0, failed: false, since: Instant::now() };
    let listen = async {
        let told = steps.hear(stdout, tell).await;
        // Whether it said nonsense or all there is to say: nothing more is wanted of it.
        if told.is_err() || steps.failed || steps.told == expected.len() {
            drop(child.start_kill());
        }
        (told, child.wait().await)
    };
    let ended = tokio::time::timeout(wall, async { tokio::join!(listen, tail(stderr)) }).await;
    let (told, status, words) = match ended {
        Ok(((told, status), words)) => (told, status.ok(), words),
        Err(_) => {
            // Kills it and takes its status, so that no zombie is left.
            drop(child.kill().await);
            (Ok(()), None, String::new())
        }
    };
    let Some(step) = expected.get(steps.told).copied().filter(|_| !steps.failed) else {
        return Ok(if steps.failed { Heard::Failed } else { Heard::All });
    };
    let cause = match (told, status) {
        (Err(nonsense), _) => nonsense,
        (Ok(()), Some(status)) if status.code() == Some(i32::from(CANNOT_WORK)) => {
            return Err(VetError::Worker { words });
        }
        (Ok(()), Some(status)) => how_it_ended(status),
        (Ok(()), None) => {
            format!("it took longer than {} s; vetting only gets the time that nobody else wants", wall.as_secs())
        }
    };
    let evidence = json!({ "error": format!("the worker was stopped in this step: {cause}"), "words": words });
    tell(Step { step, verdict: Verdict::Failed, ms: ms(steps.since), evidence });
    Ok(Heard::Failed)
}

struct Steps<'a> {
    expected: &'a [StepName],
    told: usize,
    failed: bool,
    /// When the step under way began.
    since: Instant,
}

impl Steps<'_> {
    /// Reads lines until the last step that is expected, or one that failed.
    async fn hear(&mut self, stdout: impl AsyncRead + Unpin, tell: &mut impl FnMut(Step)) -> Result<(), String> {
        let mut stdout = BufReader::new(stdout);
        while let (Some(expected), false) = (self.expected.get(self.told), self.failed) {
            let mut line = Vec::new();
            let read = (&mut stdout).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await;
            read.map_err(|e| format!("its output cannot be read: {e}"))?;
            if line.is_empty() {
                return Ok(());
            }
            let step: Step =
                serde_json::from_slice(&line).map_err(|e| format!("it said what nobody understands: {e}"))?;
            if step.step != *expected {
                return Err(format!("it said {:?} where {:?} was expected", step.step, expected));
            }
            self.failed = step.verdict == Verdict::Failed;
            self.told += 1;
            self.since = Instant::now();
            tell(step);
        }
        Ok(())
    }
}

fn how_it_ended(status: ExitStatus) -> String {
    match status.signal() {
        Some(libc::SIGXCPU) => "it used all of its processor time".to_owned(),
        Some(libc::SIGABRT | libc::SIGSEGV | libc::SIGBUS | libc::SIGKILL) => {
            format!("it reached a limit of memory, or crashed ({status})")
        }
        _ => format!("it ended with {status}"),
    }
}

/// The last words of a process, however much it says.
async fn tail(mut from: impl AsyncRead + Unpin) -> String {
    let mut kept = Vec::new();
    let mut piece = vec![0; WORDS_BYTES_MAX];
    while let Ok(read @ 1..) = from.read(&mut piece).await {
        kept.extend_from_slice(&piece[..read]);
        kept.drain(..kept.len().saturating_sub(WORDS_BYTES_MAX));
    }
    String::from_utf8_lossy(&kept).trim().to_owned()
}
