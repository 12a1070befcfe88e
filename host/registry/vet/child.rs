//! A worker as the broker sees it: a process that says one line for each step, and is not believed more than that.

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::Command;

use crate::limits::EVIDENCE_BYTES_MAX;
use crate::plugin::confine;
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
    let mut steps = Steps { expected, told: 0, failed: None, since: Instant::now() };
    let listen = async {
        let told = steps.hear(stdout, tell).await;
        // Whether it said nonsense or all there is to say: nothing more is wanted of it.
        if told.is_err() || steps.failed.is_some() || steps.told == expected.len() {
            drop(child.start_kill());
        }
        (told, child.wait().await)
    };
    let ended = tokio::time::timeout(wall, async { tokio::join!(listen, tail(stderr)) }).await;
    let ended = match ended {
        Ok(((told, status), words)) => Some((told, status.ok(), words)),
        Err(_) => None,
    };
    let cpu_ms = confine::cpu_ms(child.id());
    let (told, status, words) = ended.unwrap_or_else(|| (Ok(()), None, String::new()));
    if status.is_none() {
        // Kills it and takes its status, so that no zombie is left.
        drop(child.kill().await);
    }
    if let Some(mut step) = steps.failed {
        // What the plugin logged, as what it panicked with, tells its author more than the trap does.
        if let (Some(evidence), false) = (step.evidence.as_object_mut(), words.is_empty()) {
            evidence.insert("log".to_owned(), words.into());
        }
        tell(step);
        return Ok(Heard::Failed);
    }
    let Some(step) = expected.get(steps.told).copied() else { return Ok(Heard::All) };
    let cause = match (told, status) {
        (Err(nonsense), _) => nonsense,
        (Ok(()), Some(status)) if status.code() == Some(i32::from(CANNOT_WORK)) => {
            return Err(VetError::Worker { words });
        }
        (Ok(()), Some(status)) => how_it_ended(status),
        // A component is limited by its processor time. This is about the machine.
        (Ok(()), None) => return Err(VetError::Starved { step, wall_s: wall.as_secs(), cpu_ms }),
    };
    let evidence = json!({ "error": format!("the worker was stopped in this step: {cause}"), "words": words });
    tell(Step { step, verdict: Verdict::Failed, ms: ms(steps.since), evidence });
    Ok(Heard::Failed)
}

struct Steps<'a> {
    expected: &'a [StepName],
    told: usize,
    /// The step that failed, not told yet.
    failed: Option<Step>,
    /// When the step under way began.
    since: Instant,
}

impl Steps<'_> {
    /// Reads lines until the last step that is expected, or one that failed.
    async fn hear(&mut self, stdout: impl AsyncRead + Unpin, tell: &mut impl FnMut(Step)) -> Result<(), String> {
        let mut stdout = BufReader::new(stdout);
        while let (Some(expected), None) = (self.expected.get(self.told), &self.failed) {
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
            self.told += 1;
            self.since = Instant::now();
            if step.verdict == Verdict::Failed {
                self.failed = Some(step);
            } else {
                tell(step);
            }
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tempfile::TempDir;

    use super::*;

    const EXPECTED: [StepName; 2] = [StepName::Size, StepName::Validate];
    const SIZE: &str = r#"{"step":"size","verdict":"passed","ms":1,"evidence":{}}"#;
    const VALIDATE: &str = r#"{"step":"validate","verdict":"passed","ms":1,"evidence":{}}"#;

    /// A worker that is a shell script; it leaves its process id behind, to see whether it is gone.
    struct Script {
        folder: TempDir,
        told: Vec<Step>,
    }

    impl Script {
        fn new() -> Self {
            Self { folder: TempDir::new().unwrap(), told: Vec::new() }
        }

        fn pid_file(&self) -> PathBuf {
            self.folder.path().join("pid")
        }

        fn command(&self, script: &str) -> Command {
            let mut command = Command::new("/bin/sh");
            command.arg("-c").arg(format!("echo $$ > {}; {script}", self.pid_file().display()));
            command
        }

        async fn run(&mut self, script: &str, wall_ms: u64) -> Result<Heard, VetError> {
            let command = self.command(script);
            let heard = run(command, Duration::from_millis(wall_ms), &EXPECTED, &mut |step| self.told.push(step)).await;
            assert!(self.is_gone(), "{script}");
            heard
        }

        /// A zombie still has its folder in /proc.
        fn is_gone(&self) -> bool {
            let pid = std::fs::read_to_string(self.pid_file()).unwrap();
            !PathBuf::from("/proc").join(pid.trim()).exists()
        }
    }

    #[tokio::test]
    async fn steps_are_told_as_they_end_until_all_are_there() {
        let mut script = Script::new();
        let heard = script.run(&format!("echo '{SIZE}'; echo '{VALIDATE}'; echo more; exec sleep 1000"), 60_000).await;
        assert_eq!((heard, script.told.len()), (Ok(Heard::All), 2));
    }

    #[tokio::test]
    async fn a_step_that_failed_is_the_last() {
        let mut script = Script::new();
        let failed = SIZE.replace("passed", "failed");
        let says = format!("echo 'panicked at lib.rs:7' >&2; echo '{failed}'; echo '{VALIDATE}'; exec sleep 1000");
        let heard = script.run(&says, 60_000).await;
        assert_eq!((heard, script.told.len()), (Ok(Heard::Failed), 1));
        assert_eq!(script.told[0].evidence["log"], "panicked at lib.rs:7");
    }

    /// Law: a worker is a process that a stranger's component may have taken over: whatever it says or does, it ends, and the step it was in
    /// has failed, with a sentence.
    #[tokio::test]
    async fn whatever_a_worker_does_its_step_has_failed_and_it_is_gone() {
        for (script, wall_ms, words) in [
            ("exit 0", 60_000, "exit status: 0"),
            ("echo thread panicked >&2; exit 101", 60_000, "exit status: 101"),
            ("kill -9 $$", 60_000, "limit of memory, or crashed"),
            ("kill -ABRT $$", 60_000, "limit of memory, or crashed"),
            ("kill -XCPU $$", 60_000, "processor time"),
            ("echo nonsense", 60_000, "nobody understands"),
            (
                r#"echo '{"step":"tapes","verdict":"passed","ms":1,"evidence":{}}'; exec sleep 1000"#,
                60_000,
                "was expected",
            ),
            (r#"echo '{"step":"validate","verdict":"maybe","ms":1,"evidence":{}}'"#, 60_000, "nobody understands"),
            ("yes | tr -d '\\n' | head -c 100000000", 60_000, "nobody understands"),
        ] {
            let mut child = Script::new();
            let heard = child.run(&format!("echo '{SIZE}'; {script}"), wall_ms).await;

            assert_eq!((heard, child.told.len()), (Ok(Heard::Failed), 2), "{script}");
            let last = &child.told[1];
            assert_eq!((last.step, last.verdict), (StepName::Validate, Verdict::Failed), "{script}");
            assert!(last.error().is_some_and(|error| error.contains(words)), "{script}: {last:?}");
            assert!(last.evidence.to_string().len() < 6_000, "{script}");
        }
    }

    /// Goal: a machine that has no time left is not held against the component; its worker is gone all the same.
    #[tokio::test]
    async fn a_worker_that_does_not_end_in_time_was_starved() {
        for says in ["", "yes >&2 | head -c 1; "] {
            let mut script = Script::new();
            let heard = script.run(&format!("echo '{SIZE}'; {says}exec sleep 1000"), 300).await;
            assert!(matches!(heard, Err(VetError::Starved { step: StepName::Validate, .. })), "{heard:?}");
            assert_eq!(script.told.len(), 1, "{says}");
        }
    }

    #[tokio::test]
    async fn the_last_words_of_a_worker_are_evidence() {
        let mut script = Script::new();
        let flood = "yes nonsense | head -c 1000000 >&2; echo 'panicked at lib.rs:7' >&2; exit 101";
        assert_eq!(script.run(flood, 60_000).await, Ok(Heard::Failed));
        let words = script.told[0].evidence["words"].as_str().unwrap();
        assert!(words.ends_with("panicked at lib.rs:7") && words.len() <= WORDS_BYTES_MAX, "{words}");
    }

    /// Goal: what is not the component's doing is not held against it.
    #[tokio::test]
    async fn a_worker_that_cannot_work_says_so() {
        let mut script = Script::new();
        let heard = script.run("echo 'the plan cannot be read' >&2; exit 2", 60_000).await;
        assert_eq!(heard, Err(VetError::Worker { words: "the plan cannot be read".to_owned() }));
        let missing = run(Command::new("/nowhere/hotbay"), Duration::from_mins(1), &EXPECTED, &mut drop).await;
        assert!(matches!(missing, Err(VetError::Worker { .. })), "{missing:?}");
    }

    /// Goal: a vetting that is given up leaves no process behind.
    #[tokio::test]
    async fn a_worker_goes_with_who_waits_for_it() {
        let script = Script::new();
        let told = tokio::sync::Notify::new();
        let mut tell = |_| told.notify_one();
        let command = script.command(&format!("echo '{SIZE}'; exec sleep 1000"));
        tokio::select! {
            ended = run(command, Duration::from_mins(1), &EXPECTED, &mut tell) => panic!("{ended:?}"),
            () = told.notified() => assert!(!script.is_gone()),
        }

        let gone = async {
            while !script.is_gone() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), gone).await.expect("the process is still there");
    }
}
