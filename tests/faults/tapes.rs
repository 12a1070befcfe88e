//! Law: a recorded channel replays bit for bit. Channels are recorded while people use them, also when their instance faults, sleeps or is
//! swapped meanwhile.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use hotbay::channel::{Logic, Plan, Recording, Tapes, Version};
use hotbay::limits::MountLimits;
use hotbay::plugin::tape::{Bounds, Header, Redaction, Replay, Tape, TapeHandle, TapeWriter, replay};
use hotbay::protocol::name::ChannelName;
use tempfile::TempDir;

use crate::inside::{Inside, ask};
use crate::upgrade::until;

/// Records every channel into a folder.
struct Recorder {
    folder: TempDir,
    writer: TapeWriter,
    tapes: Mutex<Vec<(PathBuf, TapeHandle)>>,
}

impl Tapes for Recorder {
    fn begin(&self, channel: &ChannelName, logic: &Logic, version: &Version) -> Option<TapeHandle> {
        let mut tapes = self.tapes.lock().expect("no panic");
        let path = self.folder.path().join(format!("{}.tape", tapes.len()));
        let redaction = Redaction::new::<&str>(&[]).expect("no pointers");
        let header = Header::new(
            channel,
            &logic.mount,
            &logic.settings,
            &version.limits,
            hotbay::telemetry::now_ms(),
            &redaction,
        );
        let handle = self.writer.begin(&path, header, Bounds::default(), redaction);
        tapes.push((path, handle.clone()));
        Some(handle)
    }
}

fn record(inside: &Inside, id: u64) -> Arc<Recorder> {
    let writer = TapeWriter::start().expect("a thread");
    let recorder = Arc::new(Recorder { folder: TempDir::new().expect("a folder"), writer, tapes: Mutex::default() });
    let before = inside.logic().rollout.plan();
    let mut plan = Plan::all(Arc::clone(&before.base));
    plan.base_deployed = before.base_deployed.clone();
    plan.recordings.push(Recording { id, tenant: None, pattern: None, tapes: Arc::clone(&recorder) as _ });
    inside.logic().rollout.set(plan);
    inside.directory.tell_of_versions();
    recorder
}

/// Ends the recording, and runs all its tapes on a version.
async fn play(inside: &Inside, recorder: Arc<Recorder>, version: &Version) -> Vec<Replay> {
    let before = inside.logic().rollout.plan();
    inside.logic().rollout.set(Plan::all(Arc::clone(&before.base)));
    drop(before);
    inside.drain().await;
    let handles = std::mem::take(&mut *recorder.tapes.lock().expect("no panic"));
    let Ok(recorder) = Arc::try_unwrap(recorder).map_err(|_| ()) else { panic!("a channel still records") };
    let paths: Vec<PathBuf> = handles.into_iter().map(|(path, _)| path).collect();
    recorder.writer.finish();
    let mut replays = Vec::new();
    for path in paths {
        let tape = Tape::open(&path).expect("a tape");
        let limits = Arc::new(tape.header().limits());
        replays.push(replay(&version.plugin, tape, limits).await.expect("a whole tape"));
    }
    replays
}

async fn use_it(inside: &Inside) {
    let mut ann = inside.connect("ann", "a", None).await;
    for command in [
        "put k v",
        "get k",
        "get none",
        "append text",
        "read 1 10",
        "scan k",
        "random",
        "clock",
        "members",
        "count",
        "stats",
        "ballast 1000",
    ] {
        ask(&mut ann, command).await;
    }
    assert!(ask(&mut ann, "trap").await.starts_with("refused fault"));
    assert!(ask(&mut ann, "put-then-trap k w").await.starts_with("refused fault"));
    assert_eq!(ask(&mut ann, "get k").await, "value v");
    let mut bob = inside.connect("bob", "a", None).await;
    assert_eq!(ask(&mut bob, "timer-volatile tick 1").await, "ok");
    assert_eq!(bob.text().await, "timer tick");
    ask(&mut bob, "count").await;
}

/// Goal: channels that are awake are recorded from their next batch on, new ones from their first; faults, timers and sleep are on the
/// tape; the same version does the same again, and another one differs where it should.
#[tokio::test]
async fn a_channel_in_use_is_recorded_and_replays() {
    for other in [false, true] {
        let inside = Inside::with(MountLimits::default()).await;
        let mut carl = inside.connect("carl", "awake", None).await;
        assert_eq!(ask(&mut carl, "put before 1").await, "ok");
        let before = ask(&mut carl, "count").await;

        let recorder = record(&inside, 1);
        until("tapes", || recorder.tapes.lock().expect("no panic").len() as u64, 1).await;
        use_it(&inside).await;
        assert_eq!(ask(&mut carl, "get before").await, "value 1");
        assert_ne!(ask(&mut carl, "count").await, before, "it goes on with its memory");
        until("tapes", || recorder.tapes.lock().expect("no panic").len() as u64, 2).await;

        let version = if other { inside.version("relay", 1, &[]) } else { inside.version("fixture", 1, &[]) };
        let replays = play(&inside, recorder, &version).await;

        assert_eq!(replays.len(), 2);
        for replay in replays {
            assert_eq!(replay.is_identical(), !other, "{replay:#?}");
            assert_eq!((replay.unrecorded_reads, replay.cut), (0, false), "{replay:#?}");
            assert!(replay.batches >= 2, "{replay:#?}");
        }
    }
}

/// Goal: what happens while a channel is swapped is on its tape, whether or not the swap succeeds.
#[tokio::test]
async fn swaps_are_on_the_tape() {
    for fails in [false, true] {
        let inside = Inside::with(MountLimits::default()).await;
        let recorder = record(&inside, 1);
        let mut ann = inside.connect("ann", "a", None).await;
        assert_eq!(ask(&mut ann, "put k v").await, "ok");
        let version = if fails { inside.failing_version(1) } else { inside.version("second", 1, &[]) };

        let before = inside.logic().rollout.plan();
        let mut plan = Plan::all(Arc::clone(&version));
        plan.base_deployed.id = 5;
        plan.earlier.push(Arc::clone(&before.base));
        plan.schemas.extend(before.schemas.clone());
        plan.recordings.push(Recording { id: 1, tenant: None, pattern: None, tapes: Arc::clone(&recorder) as _ });
        let tally = Arc::clone(&plan.base_deployed.tally);
        inside.logic().rollout.set(plan);
        drop(before);
        inside.directory.tell_of_versions();
        let counter = if fails { &tally.swaps_failed } else { &tally.swaps };
        until("swaps", || counter.load(std::sync::atomic::Ordering::Relaxed), 1).await;
        assert_eq!(ask(&mut ann, "get k").await, "value v");
        ask(&mut ann, "count").await;

        let fixture = inside.version("fixture", 1, &[]);
        let replays = play(&inside, recorder, &fixture).await;

        assert_eq!(replays.len(), 1);
        assert_eq!(replays[0].recorded.len(), 2, "two versions: {:#?}", replays[0]);
        if !fails {
            assert!(replays[0].is_identical(), "{:#?}", replays[0]);
        }
    }
}
