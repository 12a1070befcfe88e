//! Vetting: what must not run is refused at the step that can tell, with evidence, and costs nobody else anything. Through `hotbay plugin
//! check`, which vets in the same workers as the broker; and what a machine without time is no reason to refuse.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::admin::Admin;
use crate::support::broker::Setup;
use crate::support::client::DEADLINE;
use crate::support::{component, hostile};

/// A file in a folder that goes with it.
struct Upload {
    folder: TempDir,
}

impl Upload {
    fn of(component: &[u8]) -> Self {
        let folder = TempDir::new().expect("a folder");
        std::fs::write(folder.path().join("plugin.wasm"), component).expect("a file");
        Self { folder }
    }

    fn named(name: &str) -> Self {
        Self::of(&std::fs::read(component(name)).expect("a component"))
    }

    fn with_manifest(self, lines: &str) -> Self {
        let text = format!("name = \"plugin\"\nversion = \"1.0.0\"\n{lines}");
        std::fs::write(self.manifest(), text).expect("a file");
        self
    }

    fn manifest(&self) -> PathBuf {
        self.folder.path().join("plugin.toml")
    }

    fn check(&self, more: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hotbay"));
        command.args(["plugin", "check", "--json"]).arg(self.folder.path().join("plugin.wasm"));
        if self.manifest().exists() {
            command.arg("--manifest").arg(self.manifest());
        }
        // Its files of work go where they can be counted.
        command.args(more).env_clear().env("TMPDIR", self.folder.path()).output().expect("an end")
    }

    fn report(&self, more: &[&str]) -> Value {
        let output = self.check(more);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {words}"));
        let steps: Vec<_> = report["steps"].as_array().expect("steps").iter().map(|step| &step["step"]).collect();
        assert_eq!(steps, ["size", "validate", "imports", "memory", "compile", "conformance", "tapes"]);
        assert!(report.to_string().len() <= 64 << 10, "{} bytes", report.to_string().len());
        let left: Vec<_> = std::fs::read_dir(self.folder.path()).expect("a folder").flatten().collect();
        assert!(left.iter().all(|entry| !entry.file_name().to_string_lossy().starts_with("vetting")), "{left:?}");
        report
    }

    /// The step that fails, and why; those before it passed, those after it were not made.
    fn refusal(&self, more: &[&str]) -> (String, String) {
        let report = self.report(more);
        let steps = report["steps"].as_array().expect("steps");
        let failed = steps.iter().position(|step| step["verdict"] == "failed");
        let failed = failed.unwrap_or_else(|| panic!("it was not refused: {report}"));
        assert!(steps[..failed].iter().all(|step| step["verdict"] == "passed"), "{report}");
        assert!(steps[failed + 1..].iter().all(|step| step["verdict"] == "skipped"), "{report}");
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        (text(&steps[failed]["step"]), text(&steps[failed]["evidence"]["error"]))
    }
}

#[track_caller]
fn asserts_refused(upload: &Upload, more: &[&str], step: &str, words: &str) {
    let (found, error) = upload.refusal(more);
    assert!(found == step && error.contains(words), "{found}: {error}");
}

/// FAULTS 34 and 36: nothing of what is no sound component is compiled.
#[test]
fn what_is_no_sound_component_is_refused_before_it_is_compiled() {
    let seed = crate::support::seed();
    let random: Vec<u8> =
        (0..100_000_u64).map(|at| (seed ^ at).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()[6]).collect();
    asserts_refused(&Upload::of(&random), &[], "size", "not WebAssembly");
    asserts_refused(&Upload::of(b""), &[], "size", "not WebAssembly");
    asserts_refused(&Upload::of(b"\x7FELF and so on"), &[], "size", "");
    let module = wat::parse_str("(module (func (export \"handle\")))").expect("WAT");
    asserts_refused(&Upload::of(&module), &[], "size", "core WebAssembly module");
    let good = std::fs::read(component("echo")).expect("a component");
    asserts_refused(&Upload::of(&good[..good.len() / 2]), &[], "validate", "not a valid component");
    let bomb = hostile::instances(7);
    assert!(bomb.len() < 1_000, "{} bytes", bomb.len());
    asserts_refused(&Upload::of(&bomb), &[], "validate", "instances; the limit is 256");
    // Twice 32 MiB and a page.
    asserts_refused(
        &Upload::of(&hostile::memory(513)),
        &[],
        "memory",
        "begins with 67239936 bytes of memory; the limit is 67108864",
    );
}

/// Law: everything has a bound: what is too large is not even read.
#[test]
fn a_file_of_a_gigabyte_is_refused_at_once() {
    let upload = Upload::of(b"");
    std::fs::File::create(upload.folder.path().join("plugin.wasm")).expect("a file").set_len(1 << 30).expect("a hole");

    asserts_refused(&upload, &[], "size", "plugin_bytes_max");
}

/// FAULTS 37: imports ⊆ manifest ⊆ grants; the offending one is named.
#[test]
fn imports_manifest_and_grants_must_fit() {
    let fixture = || Upload::named("fixture");
    asserts_refused(
        &fixture(),
        &["--grants", "kv,log"],
        "imports",
        "imports hotbay:channel/logging@0.1.0, which it was not granted",
    );
    let undeclared = fixture().with_manifest("capabilities = [\"kv\", \"log\", \"logging\", \"stats\"]");
    asserts_refused(
        &undeclared,
        &[],
        "imports",
        "imports hotbay:channel/sql@0.1.0, which plugin.toml does not name; add \"sql\"",
    );
    let greedy = Upload::named("echo").with_manifest("capabilities = [\"sql\"]");
    asserts_refused(
        &greedy,
        &["--grants", "kv,log"],
        "imports",
        "plugin.toml asks for the capability \"sql\", which was not granted",
    );
    let other = format!("digest = \"sha256:{}\"", "0".repeat(64));
    asserts_refused(&Upload::named("echo").with_manifest(&other), &[], "size", "plugin.toml names the component 0000");
}

/// FAULTS 35: what compiles without end is given up, and its process is gone.
#[test]
fn nested_loops_are_given_up_at_the_limit_of_processor_time() {
    let upload = Upload::of(&hostile::loops(46_000));
    let began = Instant::now();

    asserts_refused(&upload, &["--compile-cpu-s", "2"], "compile", "limits of memory or CPU time");

    assert!(began.elapsed() < Duration::from_mins(1), "{:?}", began.elapsed());
}

/// FAULTS 34, with the walk off: the worker dies at its limit, and not whoever waits for it.
#[test]
fn a_bomb_takes_its_worker_down_alone() {
    let folder = TempDir::new().expect("a folder");
    let mut worker = Command::new(env!("CARGO_BIN_EXE_hotbay"));
    worker
        .args(["compile-worker", "--memory-bytes", "1073741824", "--cpu-s", "30", "--out"])
        .arg(folder.path().join("code"));
    let mut worker = worker.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a worker");
    worker.stdin.take().expect("a pipe").write_all(&hostile::instances(7)).expect("the bomb");

    let output = worker.wait_with_output().expect("an end");

    assert!(!output.status.success(), "it compiled");
}

/// FAULTS 24, 38, 39: plugins that misbehave when they run are found in the conformance run, and say where.
#[test]
fn misbehaviour_is_found_before_anybody_meets_it() {
    let fixture = Upload::named("fixture");
    for (how, words) in [
        ("trap-on-open", "in `open`: the plugin trapped"),
        ("error-on-open", "told to fail"),
        ("loop-on-message", "cpu_ms_max"),
        ("trap-on-timer", "timer misbehave"),
        ("save-loses", "took over what `save` returned did something else"),
    ] {
        let settings = format!("{{\"misbehave\":\"{how}\"}}");
        asserts_refused(&fixture, &["--seed", "7", "--settings", &settings], "conformance", words);
    }
    let panicking = fixture.report(&["--settings", "{\"misbehave\":\"panic-on-message\"}"]);
    let log = panicking["steps"][5]["evidence"]["log"].as_str().unwrap_or_default();
    assert!(log.contains("told to panic") && log.contains("settings.rs"), "{panicking}");
    let echo = std::fs::read(component("echo")).expect("a component");
    let endless = hostile::with_start_code(&echo, &[0x03, 0x40, 0x0C, 0x00, 0x0B]);
    asserts_refused(&Upload::of(&endless), &[], "conformance", "longer than 100 ms");
    asserts_refused(&Upload::of(&hostile::with_start_code(&echo, &[0x00])), &[], "conformance", "unreachable");
    assert_eq!(Upload::of(&hostile::with_start_code(&echo, &[])).check(&[]).status.code(), Some(0));
}

/// Goal: a run can be repeated; the evidence says how, and what the plugin costs.
#[test]
fn evidence_has_the_seed_and_the_profile() {
    let echo = Upload::named("echo").with_manifest("[limits]\nmemory_bytes_max = 4194304");
    let [first, again] =
        [(); 2].map(|()| echo.report(&["--seed", "42", "--channel", "room:7"])["steps"][5]["evidence"].clone());

    assert_eq!((&first["seed"], &first["channel"], &first["messages"]), (&42.into(), &"room:7".into(), &1_000.into()));
    assert!(first["profile"]["cpu_us_per_event"].as_u64() < Some(10_000), "{first}");
    assert!(first["profile"]["effects"]["frames"].as_u64() > Some(500), "{first}");
    assert_eq!(first["profile"]["effects"], again["profile"]["effects"]);
    let memory = echo.report(&[])["steps"][3]["evidence"].clone();
    assert_eq!(memory["memory_bytes_max"], 4_194_304);
}

/// Law: whatever is uploaded, whoever has it vetted holds next to nothing of it: the workers do.
#[test]
fn a_large_component_costs_who_waits_for_it_no_memory() {
    let echo = std::fs::read(component("echo")).expect("a component");
    let peak = |upload: &Upload| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hotbay"));
        command.args(["plugin", "check"]).arg(upload.folder.path().join("plugin.wasm")).stdout(Stdio::null());
        let mut child = command.spawn().expect("a process");
        let status = format!("/proc/{}/status", child.id());
        let mut peak_kib = 0;
        while child.try_wait().expect("a process").is_none() {
            let status = std::fs::read_to_string(&status).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            peak_kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(peak_kib);
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(child.wait().expect("a process").success());
        peak_kib
    };

    let small = peak(&Upload::of(&echo));
    let large = peak(&Upload::of(&hostile::padded(&echo, 31 << 20)));

    assert!(small > 0 && large < small + (8 << 10), "{small} KiB for a small one, {large} KiB for a large one");
}

/// A worker that has given up what it must, while it waits for its component.
struct Confined {
    worker: std::process::Child,
    _folder: TempDir,
}

impl Drop for Confined {
    fn drop(&mut self) {
        drop(self.worker.kill());
        drop(self.worker.wait());
    }
}

impl Confined {
    fn start(args: impl Fn(&Path) -> Vec<String>) -> Self {
        let folder = TempDir::new().expect("a folder");
        let plan = r#"{"name":"x","digest":"","component_bytes_max":1000,"capabilities":[],"grants":[],"limits":{},"tenant":"default","channels":["room:1"],"settings":"{}","settings_of_tapes":true,"seed":1,"tapes":[]}"#;
        std::fs::write(folder.path().join("plan.json"), plan).expect("a plan");
        let mut command = Command::new(env!("CARGO_BIN_EXE_hotbay"));
        let worker = command.args(args(folder.path())).env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        Self { worker: worker.expect("a worker"), _folder: folder }
    }

    fn proc(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.worker.id()))
    }

    /// Soft and hard limit.
    fn limit(&self, name: &str) -> String {
        let limits = std::fs::read_to_string(self.proc("limits")).expect("/proc");
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).expect("a limit");
        line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    }

    /// Until it has given up opening things, which it does last.
    fn wait(&self) {
        let began = Instant::now();
        while self.limit("Max open files") != "0 0" {
            assert!(began.elapsed() < Duration::from_secs(20), "it never gives up its right to open files");
            std::thread::yield_now();
        }
    }
}

/// Goal: before it touches what a stranger made, a worker can open neither a file nor a socket, write no file, dump no memory, knows no
/// variable, and takes no time from others.
#[test]
fn workers_have_nothing_to_give_away() {
    let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let reading =
        Confined::start(|folder| text(&["vet-worker", "--plan", &folder.join("plan.json").display().to_string()]));
    let compiling = Confined::start(|folder| {
        let out = folder.join("code").display().to_string();
        text(&["compile-worker", "--memory-bytes", "2147483648", "--cpu-s", "60", "--out", &out])
    });
    for (worker, files, descriptors) in [(&reading, "0 0", 3), (&compiling, "268435456 268435456", 4)] {
        worker.wait();

        assert_eq!(
            (worker.limit("Max file size").as_str(), worker.limit("Max core file size").as_str()),
            (files, "0 0")
        );
        assert_ne!(worker.limit("Max address space"), "unlimited unlimited");
        assert_ne!(worker.limit("Max cpu time"), "unlimited unlimited");
        assert_eq!(std::fs::read(worker.proc("environ")).expect("/proc"), b"");
        // Its standard streams, and where a compilation goes; nothing that whoever started it had open.
        let open = std::fs::read_dir(worker.proc("fd")).expect("/proc").count();
        assert_eq!(open, descriptors);
        // The 41st field (proc_pid_stat(5)) is the policy; 5 is SCHED_IDLE.
        let stat = std::fs::read_to_string(worker.proc("stat")).expect("/proc");
        let after_name = stat.rsplit_once(')').expect("a name").1;
        assert_eq!(after_name.split_whitespace().nth(41 - 3), Some("5"));
    }
}

/// What is no component is refused as soon as it is its turn.
fn asserts_rejected(admin: &Admin, folder: &TempDir) {
    let file = folder.path().join("none.wasm");
    std::fs::write(&file, b"nonsense").expect("a file");
    let pushed = admin.push(&file, "none", "1.0.0", &["--wait"]);
    assert!(pushed.code == Some(1) && pushed.out.contains("not WebAssembly"), "{pushed:?}");
}

/// Goal: a machine that is too busy is not held against a version: it waits, is tried again, says why, and keeps nobody else waiting for
/// ever; what it is is found out when there is time.
#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_judged_is_not_refused() {
    let mut patient = Setup::fixture("").start();
    let operator = Admin::operator(&patient);
    assert_eq!(patient.terminate().await, Some(0));
    let folder = || TempDir::new().expect("a folder");
    let data = || patient.data().to_owned();
    // It compiles for a minute of processor time, and gets a second.
    let mut hurried = Setup::fixture("").set("limits.compile_wall_s_max", 1).start_in(folder(), data());
    let admin = Admin::with(&hurried, Some(operator.key()));
    let files = folder();
    let long = files.path().join("long.wasm");
    std::fs::write(&long, hostile::loops(46_000)).expect("a file");
    admin.push(&long, "long", "1.0.0", &[]).words();

    let log = hurried.until_log("a version could not be vetted; it waits for the next start").await;

    assert_eq!(log.matches("a version is vetted once more").count(), 2, "{log}");
    // Behind it the queue goes on.
    asserts_rejected(&admin, &files);
    let version = admin.get("/plugins/long@1.0.0").await.json();
    let last = version["vetting"]["steps"].as_array().and_then(|steps| steps.last()).expect("a step").clone();
    assert_eq!(
        (&version["status"], &last["step"], &last["verdict"]),
        (&"vetting".into(), &"compile".into(), &"skipped".into())
    );
    let shown = admin.cli(&["plugin", "show", "long@1.0.0"]).words();
    assert!(shown.contains("it could not be judged: the step compile did not end within 1 s"), "{shown}");
    assert_eq!(hurried.terminate().await, Some(0));

    // With time for it, it is the processor time that tells.
    let calm = Setup::fixture("").set("limits.compile_cpu_s_max", 2).start_in(folder(), data());
    let admin = Admin::with(&calm, Some(operator.key()));
    let judged = async {
        while admin.get("/plugins/long@1.0.0").await.json()["status"] == "vetting" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, judged).await.expect("a verdict");
    let shown = admin.cli(&["plugin", "show", "long@1.0.0"]).words();
    assert!(shown.contains("rejected") && shown.contains("limits of memory or CPU time"), "{shown}");
}
