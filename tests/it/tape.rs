//! Tapes: what real plugins did, recorded, and run again in this process and by `hotbay tape`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use hotbay::limits::{MountLimits, NodeLimits};
use hotbay::plugin::tape::{Bounds, Call, Header, Redaction, Replay, Tape, TapeHandle, TapeWriter, replay};
use hotbay::plugin::{Fault, Instance, Opening, Plugin, Recorder, Runtime};
use hotbay::protocol::capability::Capability;
use hotbay::protocol::event::{Event, HttpRequest, LeaveReason, MemberId, Source};
use hotbay::protocol::frame::Payload;
use hotbay::protocol::identity::Identity;
use hotbay::protocol::name::ChannelName;
use hotbay::protocol::sql::{Rows, SqlError, Value};
use hotbay::registry::scratch::Scratch;
use tempfile::TempDir;

use crate::support::broker::{Broker, Setup};
use crate::support::{component, nobody, rebuilt};

/// Plugins, loaded in this process.
struct Stage {
    runtime: Runtime,
    folder: TempDir,
    _broker: Broker,
}

fn grants() -> BTreeSet<Capability> {
    Capability::ALL.into_iter().collect()
}

/// A mount's limits. A plugin in an endless loop is not waited for long.
fn limits() -> Arc<MountLimits> {
    Arc::new(MountLimits { cpu_ms_max: 50, ..MountLimits::default() })
}

impl Stage {
    fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        let second = rebuilt("fixture", "second", folder.path()).display().to_string();
        let relay = component("relay").display().to_string();
        // Only the program itself can compile: it leaves the code in its folder.
        let setup = Setup::fixture("").and(&format!(
            "[plugin.second]\npath = {second:?}\ngrants = [\"kv\", \"log\", \"logging\", \"sql\", \"stats\"]\n\
             [plugin.relay]\npath = {relay:?}\n"
        ));
        let mut broker = setup.start();
        broker.kill();
        let node = NodeLimits { channels_awake_max: 8, ..NodeLimits::default() };
        let artifacts = broker.data().join("artifacts");
        let runtime = Runtime::new(&node, std::iter::once(&*limits()), artifacts).expect("a runtime");
        Self { runtime, folder, _broker: broker }
    }

    fn plugin(&self, name: &str) -> Plugin {
        let path = match name {
            "second" => self.second(),
            name => component(name),
        };
        self.runtime.load_file(name, &path, &grants()).expect("a plugin")
    }

    /// Another version of the fixture.
    fn second(&self) -> PathBuf {
        self.folder.path().join("fixture-second.wasm")
    }

    fn tape(&self) -> PathBuf {
        self.folder.path().join("room.tape")
    }
}

/// A channel that is recorded, run as the broker does.
struct Recording<'a> {
    plugin: &'a Plugin,
    channel: Scratch,
    instance: Option<Instance>,
    writer: TapeWriter,
    tape: TapeHandle,
    settings: String,
    /// Calls that failed.
    faults: u64,
    batches: u64,
}

impl<'a> Recording<'a> {
    async fn begin(stage: &Stage, plugin: &'a Plugin, redaction: Redaction, settings: &str) -> Self {
        let name = ChannelName::new("acme", "room:1").expect("a name");
        let database = |statement: &str, parameters: &[Value]| match statement {
            "double" => Ok(Rows {
                columns: vec!["real".to_owned(), "bytes".to_owned()],
                rows: vec![[parameters, &[Value::Real(0.1 + 0.2), Value::Bytes(vec![0xFF])]].concat()],
            }),
            "slow" => Err(SqlError::Timeout),
            _ => Err(SqlError::NotGranted),
        };
        let channel = Scratch::new(name, settings).with_limits(limits()).with_database(Arc::new(database));
        let writer = TapeWriter::start().expect("a thread");
        let header = Header::new(channel.name(), "/chat", settings, &limits(), channel.now_ms(), &redaction);
        let tape = writer.begin(&stage.tape(), header, Bounds::default(), redaction);
        let settings = settings.to_owned();
        let mut recording = Self { plugin, channel, instance: None, writer, tape, settings, faults: 0, batches: 0 };
        recording.open(None).await;
        recording
    }

    /// Opens an instance. The one before is returned.
    async fn open(&mut self, saved: Option<&[u8]>) -> Option<Instance> {
        let recorder = Recorder::new(self.channel.channel());
        let channel = Arc::clone(&recorder) as _;
        let Opening { now_ms, seed, .. } = self.channel.opening(saved);
        let name = self.channel.name().clone();
        let opening = || Opening { name: &name, now_ms, seed, settings: &self.settings, saved };
        let opened = async {
            let mut instance = Instance::start(self.plugin, limits(), seed, "test").await?;
            instance.open(channel, opening()).await?;
            Ok::<_, Fault>(instance)
        };
        let opened = opened.await;
        self.tape.open(self.plugin.digest(), &opening(), recorder.take(), opened.as_ref().err());
        self.faults += u64::from(opened.is_err());
        opened.ok().and_then(|instance| self.instance.replace(instance))
    }

    /// Runs a batch. What fails is opened anew, without memory.
    async fn batch(&mut self, events: Vec<Event>) {
        if let Some(instance) = self.batch_on(events).await {
            self.instance = Some(instance);
        } else {
            self.open(None).await;
        }
    }

    /// Runs a batch. `None` if it failed.
    async fn batch_on(&mut self, events: Vec<Event>) -> Option<Instance> {
        let instance = self.instance.take().expect("an instance");
        let recorder = Recorder::new(self.channel.channel());
        let batch = self.channel.batch(events);
        let (instance, result) = instance.handle(Arc::clone(&recorder) as _, Arc::clone(&batch)).await;
        self.batches += 1;
        assert_eq!(self.tape.batch(&batch, recorder.take(), result.as_ref()), self.batches);
        let Ok(effects) = result else {
            self.faults += 1;
            self.channel.fail();
            return None;
        };
        self.channel.apply(&batch, effects).expect("effects that are allowed");
        instance
    }

    async fn joins(&mut self, user: &str, claims: &str) -> MemberId {
        let identity = Identity::new("acme", user, "admin", claims, Some(9)).by("/chat");
        let member = self.channel.connect(identity);
        let event = self.channel.joins(member, Some(Payload::text("hello"))).expect("a connection");
        self.batch(vec![event]).await;
        member
    }

    async fn says(&mut self, member: MemberId, text: &str) {
        let event = self.channel.sends(member, Payload::text(text)).expect("a member");
        self.batch(vec![event]).await;
    }

    async fn save(&mut self) -> Option<Vec<u8>> {
        let recorder = Recorder::new(self.channel.channel());
        let now_ms = self.channel.now_ms();
        let instance = self.instance.as_mut().expect("an instance");
        let saved = instance.save(Arc::clone(&recorder) as _, now_ms).await;
        let call = Call { now_ms, reads: recorder.take(), fault: saved.as_ref().err() };
        self.tape.save(call, saved.as_ref().ok().map(Vec::as_slice));
        self.faults += u64::from(saved.is_err());
        saved.ok()
    }

    /// Ends the recording. Returns how many batches it has, and how many calls failed.
    fn finish(self) -> (u64, u64) {
        self.writer.finish();
        (self.batches, self.faults)
    }

    fn request(&mut self, path: &str, body: &str, headers: &[(&str, &str)]) -> Event {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        self.channel.requests(HttpRequest {
            method: "POST".to_owned(),
            path: path.to_owned(),
            query: vec![("a".to_owned(), "b".to_owned())],
            headers: headers.iter().map(pair).collect(),
            body: body.to_owned().into(),
            identity: Some(Identity::anonymous("acme")),
        })
    }
}

async fn replayed(path: &Path, plugin: &Plugin) -> Replay {
    let tape = Tape::open(path).expect("a tape");
    let limits = Arc::new(tape.header().limits());
    replay(plugin, tape, limits).await.expect("a whole tape")
}

fn hotbay(arguments: &[&str], files: &[&Path]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hotbay"));
    command.arg("tape").arg(arguments[0]).args(files).args(&arguments[1..]).env_clear().output().expect("an end")
}

fn replay_by_command(tape: &Path, plugin: &Path, more: &[&str]) -> (Option<i32>, String) {
    let plugin = plugin.display().to_string();
    let output = hotbay(&[&["replay", "--plugin", &plugin], more].concat(), &[tape]);
    let words = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), words)
}

/// Everything a plugin can read and do.
async fn live(recording: &mut Recording<'_>) {
    let (ann, bob) = (recording.joins("ann", "{}").await, recording.joins("bob", "{\"a\":1}").await);
    for command in [
        "verbose",
        "put k v",
        "put l w",
        "get k",
        "get none",
        "gets 5",
        "delete k",
        "scan ",
        "append one",
        "append two",
        "replace 1 other",
        "read 1 5",
        "trim 2",
        "random",
        "clock",
        "now",
        "nondeterminism",
        "members",
        "member 1",
        "member 77",
        "hostcalls 20",
        "stats",
        "channel",
        "endpoint",
        "env",
        "fs",
        "sql double 1 null x",
        "sql slow",
        "sql unknown",
        "echo hi",
        "to bob x",
        "except x",
        "conflate 3",
        "flood 30",
        "big 70000",
        "put-big big 70000",
        "get big",
        "reject conflict",
        "publish room:2 hi",
        "timer soon 5",
        "timer-volatile later 5000",
        "cancel later",
        "handles 3",
        "grow 1",
        "count",
    ] {
        recording.says(ann, command).await;
        recording.channel.advance_ms(3);
    }
    let due = recording.channel.due();
    recording.batch(due).await;
    let binary = Payload::Binary(vec![0xFF, 0, 1].into());
    let mixed = vec![
        recording.channel.sends(ann, binary).expect("a member"),
        recording.channel.sends(bob, Payload::text("batch")).expect("a member"),
        recording.channel.publishes(Source::Api("key".into()), Payload::text("echo all")),
        recording.channel.publishes(Source::Channel("room:2".into()), Payload::text("get l")),
        recording.request("/any", "body", &[("accept", "text/plain")]),
        recording.request("/put", "", &[]),
        recording.request("/late", "", &[]),
        recording.channel.sends(bob, Payload::text("random")).expect("a member"),
        recording.channel.leaves(bob, LeaveReason::Asked, Some(Payload::text("bye"))).expect("a connection"),
    ];
    recording.batch(mixed).await;
    recording.batch(Vec::new()).await;
}

/// Law: a recorded channel replays bit for bit, through reads, clocks, randomness, requests, timers, memory that is handed over, traps, loops,
/// and openings that fail; also by another program, and on another build of the same plugin.
#[tokio::test]
async fn what_was_recorded_happens_again() {
    let stage = Stage::new();
    let plugin = stage.plugin("fixture");
    let mut recording = Recording::begin(&stage, &plugin, Redaction::default(), "{\"a\": 1}").await;
    live(&mut recording).await;
    let ann = recording.channel.members()[0];
    // Asleep, and awake again.
    let saved = recording.save().await.expect("memory");
    recording.open(Some(&saved)).await;
    recording.says(ann, "count").await;
    for fault in ["trap", "panic words", "loop", "loop-hostcalls", "stack", "forward-other 5", "flood 20000"] {
        recording.says(ann, "count").await;
        recording.says(ann, fault).await;
        recording.says(ann, "count").await;
    }
    // A swap whose first batch fails: the instance before goes on.
    let saved = recording.save().await.expect("memory");
    let before = recording.open(Some(&saved)).await;
    let event = recording.channel.sends(ann, Payload::text("trap")).expect("a member");
    assert!(recording.batch_on(vec![event]).await.is_none());
    recording.tape.back();
    recording.instance = before;
    recording.says(ann, "count").await;
    // Memory that is lost.
    recording.says(ann, "trap-on-save").await;
    assert_eq!(recording.save().await, None);
    recording.open(None).await;
    recording.says(ann, "count").await;
    recording.says(ann, "save-corrupt").await;
    let saved = recording.save().await.expect("memory");
    recording.open(Some(&saved)).await;
    recording.says(ann, "error-on-open").await;
    recording.open(None).await;
    let (batches, faults) = recording.finish();

    let same = replayed(&stage.tape(), &plugin).await;
    let second = replayed(&stage.tape(), &stage.plugin("second")).await;

    assert!(same.is_identical(), "{:#?}", same.differences);
    assert_eq!((same.batches, same.faults, same.unrecorded_reads), (batches, faults, 0));
    assert_eq!(faults, 11);
    assert!(same.events > 60 && same.recorded.contains(&same.digest));
    assert!(second.differences.is_empty(), "{:#?}", second.differences);
    let (code, words) = replay_by_command(&stage.tape(), &component("fixture"), &[]);
    assert_eq!(code, Some(0), "{words}");
    assert_eq!(words, format!("replayed {batches} batches, {} events: identical\n", same.events));
}

/// Goal: where another version does something else, people read which effect, and on account of which event; where it does the same, nothing.
#[tokio::test]
async fn another_version_is_told_apart_with_the_event_at_fault() {
    let stage = Stage::new();
    let plugin = stage.plugin("fixture");
    let mut recording = Recording::begin(&stage, &plugin, Redaction::default(), "{}").await;
    let (ann, bob) = (recording.joins("ann", "{}").await, recording.joins("bob", "{}").await);
    recording.says(ann, "hello").await;
    let events = vec![
        recording.channel.sends(ann, Payload::text("same for both")).expect("a member"),
        recording.channel.sends(bob, Payload::text("echo hi")).expect("a member"),
        recording.request("/any", "body", &[]),
    ];
    recording.batch(events).await;
    recording.says(ann, "put k v").await;
    recording.finish();

    let other = replayed(&stage.tape(), &stage.plugin("relay")).await;

    let told: Vec<String> = other.differences.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 4, "{told:#?}");
    assert!(told[0].starts_with("line 6, batch 4: event 1 (message from bob): "), "{told:#?}");
    assert!(told[0].contains("old: broadcast to member 2: \"hi\"; new: broadcast to all: \"echo hi\""), "{told:#?}");
    assert!(told[1].starts_with("line 6, batch 4: event 2 (request POST /any): old: respond"), "{told:#?}");
    assert!(
        told[2..4].iter().all(|told| told.starts_with("line 7, batch 5: event 0 (message from ann): ")),
        "{told:#?}"
    );
    assert!(told.iter().any(|told| told.ends_with("missing: put \"k\": \"v\"")), "{told:#?}");
    let (code, words) = replay_by_command(&stage.tape(), &component("relay"), &["--diff"]);
    assert_eq!(code, Some(1), "{words}");
    assert!(words.starts_with("replayed 5 batches, 7 events: 4 differences\n"), "{words}");
    assert!(told.iter().all(|told| words.contains(told)), "{words}");
    let mut unread = Command::new(env!("CARGO_BIN_EXE_hotbay"));
    let unread = unread.args(["tape", "replay", "--diff", "--plugin"]).arg(component("relay")).arg(stage.tape());
    let unread = unread.env_clear().stdout(nobody()).output().expect("an end");
    assert_eq!(unread.status.code(), Some(1), "as for those who read it");
    assert_eq!(String::from_utf8_lossy(&unread.stderr), "the plugin does not do what was recorded\n");
    let (code, words) = replay_by_command(&stage.tape(), &component("relay"), &["--json"]);
    let json: serde_json::Value = serde_json::from_str(words.lines().next().expect("a line")).expect("JSON");
    assert_eq!((code, &json["identical"], &json["differing"]), (Some(1), &false.into(), &4.into()));
    assert_eq!(json["differences"][0]["cause"], "message from bob");
    assert_eq!(json["differences"][0]["what"]["effect"]["event"], 1);
}

/// Goal: a version that fails where the recorded one did not is told, begins anew as a channel does, and goes on.
#[tokio::test]
async fn a_version_that_traps_goes_on_without_memory() {
    let stage = Stage::new();
    let relay = stage.plugin("relay");
    let mut recording = Recording::begin(&stage, &relay, Redaction::default(), "{}").await;
    let ann = recording.joins("ann", "{}").await;
    for text in ["hello", "trap", "hello again", "gets 3"] {
        recording.says(ann, text).await;
    }
    recording.finish();

    let other = replayed(&stage.tape(), &stage.plugin("fixture")).await;

    let told: Vec<String> = other.differences.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(
        told[0].starts_with("line 5, batch 3: message from ann: old no fault; new the plugin trapped"),
        "{told:#?}"
    );
    assert!(told[1].starts_with("line 7, batch 5: event 0 (message from ann): old: broadcast to all: "), "{told:#?}");
    assert!(told[1].ends_with(" (3 reads have no answer on the tape)"), "{told:#?}");
    assert_eq!((other.batches, other.faults, other.skipped), (5, 1, 0));
    // It looks for its flag whenever it opens.
    assert_eq!(other.unrecorded_reads, 5);
}

/// Goal: secrets that a real plugin was sent, and sent on, are not in the file; and what is left still replays bit for bit.
#[tokio::test]
async fn a_redacted_tape_has_no_secret_and_replays() {
    const SECRET: &str = "s3cr3t-value";
    let stage = Stage::new();
    let plugin = stage.plugin("fixture");
    let secret = format!("{{\"token\": \"{SECRET}\", \"n\":[1]}}");
    for redacts in [false, true] {
        drop(std::fs::remove_file(stage.tape()));
        let pointers: &[&str] = if redacts { &["/token", "/headers/x-token"] } else { &[] };
        let redaction = Redaction::new(pointers).expect("pointers");
        let mut recording = Recording::begin(&stage, &plugin, redaction, &secret).await;
        let ann = recording.joins("ann", &secret).await;
        recording.says(ann, &secret).await;
        recording.says(ann, "members").await;
        let published = recording.channel.publishes(Source::Api("key".into()), Payload::text(&*secret));
        recording.batch(vec![published]).await;
        recording.finish();

        let text = std::fs::read_to_string(stage.tape()).expect("a tape");
        let same = replayed(&stage.tape(), &plugin).await;

        assert_eq!(text.contains(SECRET), !redacts);
        assert_eq!(text.contains("[redacted]"), redacts);
        assert!(same.is_identical() && same.batches == 4, "{:#?}", same.differences);
        let shown = hotbay(&["show"], &[&stage.tape()]);
        assert_eq!(String::from_utf8_lossy(&shown.stdout).contains(SECRET), !redacts);
    }
}

/// Goal: whoever operates a broker learns from the words what is wrong with a tape, and from the code whether it is the tape or the command.
#[tokio::test]
async fn what_is_wrong_with_a_tape_is_told() {
    let stage = Stage::new();
    let plugin = stage.plugin("relay");
    let mut recording = Recording::begin(&stage, &plugin, Redaction::default(), "{}").await;
    let ann = recording.joins("ann", "{}").await;
    recording.says(ann, "one").await;
    recording.says(ann, "two").await;
    recording.finish();
    let good = std::fs::read_to_string(stage.tape()).expect("a tape");
    let lines: Vec<&str> = good.lines().collect();
    let relay = component("relay");
    let with = |text: &str| {
        std::fs::write(stage.tape(), text).expect("a tape");
        replay_by_command(&stage.tape(), &relay, &[])
    };

    let (code, words) = with(&good[..good.len() - lines[4].len() - lines[5].len()]);
    assert_eq!(code, Some(0), "{words}");
    assert!(
        words.starts_with("replayed 2 batches, 2 events: identical\nnote: the last line of the tape is cut off"),
        "{words}"
    );
    let damaged = [&lines[..3], &["{\"batch\":"], &lines[4..]].concat().join("\n") + "\n";
    let (code, words) = with(&damaged);
    assert!(code == Some(1) && words.contains("line 4 of the tape is damaged"), "{words}");
    let (code, words) = with("{}\n");
    assert!(code == Some(1) && words.contains("no tape of Hotbay"), "{words}");
    let (code, words) = with(&good.replace("{\"hotbay_tape\":1", "{\"hotbay_tape\":9"));
    assert!(code == Some(1) && words.contains("has format 9"), "{words}");
    let (code, words) = replay_by_command(Path::new("nowhere.tape"), &relay, &[]);
    assert!(code == Some(2) && words.contains("nowhere.tape"), "{words}");
    let (code, _) = with(&good);
    assert_eq!(code, Some(0));
    let (code, words) = replay_by_command(&stage.tape(), Path::new("nowhere.wasm"), &[]);
    assert!(code == Some(2) && words.contains("nowhere.wasm"), "{words}");
    let (code, words) = replay_by_command(&stage.tape(), &stage.tape(), &[]);
    assert!(code == Some(1) && words.contains("refused"), "{words}");
}

#[tokio::test]
async fn a_tape_is_shown_for_people() {
    let stage = Stage::new();
    let plugin = stage.plugin("fixture");
    let mut recording = Recording::begin(&stage, &plugin, Redaction::default(), "{}").await;
    let ann = recording.joins("ann", "{}").await;
    recording.channel.advance_ms(12);
    recording.says(ann, "put k v").await;
    recording.says(ann, &format!("echo {}", "x".repeat(2_000))).await;
    recording.says(ann, "trap").await;
    recording.save().await;
    recording.finish();

    let shown = hotbay(&["show"], &[&stage.tape()]);

    let words = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.status.success(), "{words}");
    for expected in [
        "channel   acme/room:1\nmount     /chat, settings {}\n",
        &format!("open at 0 ms: {} without memory, 3 reads\n", plugin.digest()),
        "batch 2 at 12 ms: 2 reads\n  0 message from ann: \"put k v\"\n    for 0: broadcast to member 1: \"ok\"\n    put \"k\": \"v\"\n",
        "batch 4 at 12 ms: 2 reads, failed: the plugin trapped",
        "save at 12 ms: \"fixture 0\", ",
        "end: stopped\n",
    ] {
        assert!(words.contains(expected), "{expected}\n{words}");
    }
    assert!(words.lines().all(|line| line.len() < 400), "{words}");
}

/// Goal: vetting plays tapes. Other effects are for people to judge; a version that fails where the one before did not is refused.
#[tokio::test]
async fn vetting_plays_tapes_and_refuses_who_fails_on_them() {
    let stage = Stage::new();
    let plugin = stage.plugin("relay");
    let mut recording = Recording::begin(&stage, &plugin, Redaction::default(), "{}").await;
    let ann = recording.joins("ann", "{}").await;
    for words in ["hello", "trap", "goodbye"] {
        recording.says(ann, words).await;
    }
    recording.finish();
    let missing = stage.folder.path().join("missing.tape");
    let vet = |name: &str, tape: &Path| -> serde_json::Value {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hotbay"));
        command.args(["plugin", "check", "--json"]).arg(component(name)).arg("--tape").arg(tape);
        let report: serde_json::Value =
            serde_json::from_slice(&command.output().expect("an end").stdout).expect("JSON");
        report["steps"][6].clone()
    };

    let same = vet("relay", &stage.tape());
    let other = vet("echo", &stage.tape());
    let failing = vet("fixture", &stage.tape());
    let unplayed = vet("relay", &missing);

    assert_eq!((&same["verdict"], &same["evidence"]["tapes"][0]["differing"]), (&"passed".into(), &0.into()), "{same}");
    assert_eq!(other["verdict"], "passed", "{other}");
    assert!(other["evidence"]["tapes"][0]["differences"].to_string().contains("hello"), "{other}");
    assert_eq!(failing["verdict"], "failed", "{failing}");
    let error = failing["evidence"]["error"].as_str().expect("why");
    assert!(error.starts_with("it fails on tape room.tape") && error.contains("message from ann"), "{error}");
    assert_eq!(unplayed["verdict"], "passed", "a tape that is gone is not the component's doing: {unplayed}");
}
