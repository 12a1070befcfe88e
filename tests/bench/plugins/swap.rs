//! Swap under load: a version is swapped for another one and back, again and again, while everybody talks. What the broker measures of it
//! (`save`, `open` and the first batch, per channel), and what members notice: the longest silence in their channel beyond the interval at
//! which it talks.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::bench::bars::{Bar, Line, percentile_ms};
use crate::crowd::Crowd;
use crate::diary::{Heard, Window};
use crate::operator::Operator;
use crate::{Load, Outcome, lost, plain};

/// How long a swap of all channels may take.
const DEADLINE: Duration = Duration::from_secs(20);
/// From one deployment to the next, unless that takes longer.
const ROUND: Duration = Duration::from_millis(700);
/// Rounds without a swap, to compare.
const STILL: u32 = 8;

/// How many people, how much they say, and how much each channel saves.
pub(crate) struct Scene {
    pub(crate) channels: u32,
    pub(crate) size: u32,
    pub(crate) per_second: u32,
    pub(crate) saved_bytes: usize,
    pub(crate) swaps: u32,
}

struct Run {
    heard: Heard,
    swaps: f64,
    swaps_failed: f64,
    pause_ms_max: f64,
    pause_ms_p99: f64,
    /// From deploying until all channels were swapped; in milliseconds.
    all_ms: Vec<f64>,
    /// Without a swap, and with one.
    still: Vec<Window>,
    rounds: Vec<Window>,
}

pub(crate) async fn measure(load: &Load, scene: &Scene, lines: &mut Vec<Line>) -> Outcome<()> {
    let run = run(load, scene).await?;
    let Scene { channels, size, per_second, saved_bytes, swaps } = scene;
    let with = match saved_bytes {
        0 => "little saved state".to_owned(),
        bytes => format!("{} KiB of saved state in each", bytes >> 10),
    };
    lines.push(Line::title(format!(
        "swap under load: {channels} channels x {size} members, {per_second} messages/s, {with}, {swaps} swaps of all"
    )));
    lost(lines, &run.heard);
    lines.push(Line::new("  channels swapped", "", vec![run.swaps]));
    lines.push(Line::new("  channels that could not be", "", vec![run.swaps_failed]).bar(Bar::AtMost(0.0)));
    let note = "save, open and first batch, as the broker counts (`swap_us_max`)";
    lines.push(Line::new("  pause, longest", "ms", vec![run.pause_ms_max]).bar(Bar::Below(10.0)).note(note));
    let note = "at most: the bucket of hotbay_swap_pause_seconds";
    lines.push(Line::new("  pause, p99", "ms", vec![run.pause_ms_p99]).bar(Bar::AtMost(10.0)).note(note));
    let gaps = |windows: &[Window]| {
        let gaps = run.heard.gaps(windows);
        [99.0, 100.0].map(|percent| percentile_ms(&gaps, percent))
    };
    let ([gap, longest], still) = (gaps(&run.rounds), gaps(&run.still));
    let without = |value: f64| format!("{value:.1} ms in rounds without a swap");
    let note = format!("the longest of a round beyond the interval, over members and rounds; {}", without(still[0]));
    lines.push(Line::new("  silence that members saw, p99", "ms", vec![gap]).bar(Bar::Below(10.0)).note(note));
    let line = Line::new("  silence that members saw, longest", "ms", vec![longest]);
    lines.push(line.bar(Bar::Below(10.0)).note(without(still[1])));
    let line = Line::new("  message to all its members, p99", "ms", vec![run.heard.delay_ms(&run.rounds, 99.0)]);
    lines.push(line.note(without(run.heard.delay_ms(&run.still, 99.0))));
    lines.push(Line::new("  from deploying until all are swapped", "ms", run.all_ms));
    Ok(())
}

async fn run(load: &Load, scene: &Scene) -> Outcome<Run> {
    let broker = load.start()?;
    let operator = Operator::of(&broker);
    let mut crowd = Crowd::join(broker.address(), scene.channels, scene.size).await?;
    if scene.saved_bytes > 0 {
        crowd.tell_all(&format!("ballast {}", scene.saved_bytes)).await?;
    }
    let talk = crowd.talk(scene.per_second, plain);
    tokio::time::sleep(load.time(1_000)).await;
    let mut still = Vec::new();
    for _ in 0..STILL {
        let from = Instant::now();
        tokio::time::sleep(ROUND).await;
        still.push(Window::since(from));
    }
    let (mut swaps, mut swaps_failed, mut pause_ms_max) = (0.0, 0.0, 0.0_f64);
    let (mut rounds, mut all_ms) = (Vec::new(), Vec::new());
    for turn in 0..scene.swaps {
        let component = if turn.is_multiple_of(2) { &load.versions.second } else { &load.versions.first };
        let from = Instant::now();
        let id = operator.deploy(component, &json!({ "kind": "all" })).await?;
        let counts = operator.until_swapped(id, scene.channels, DEADLINE).await?;
        all_ms.push(from.elapsed().as_secs_f64() * 1e3);
        swaps += counts.swaps;
        swaps_failed += counts.swaps_failed;
        pause_ms_max = pause_ms_max.max(counts.swap_us_max / 1e3);
        tokio::time::sleep(ROUND.saturating_sub(from.elapsed())).await;
        rounds.push(Window::since(from));
    }
    let pause_ms_p99 = operator.pause_ms(99.0).await;
    let heard = talk.finish().await?;
    Ok(Run { heard, swaps, swaps_failed, pause_ms_max, pause_ms_p99, all_ms, still, rounds })
}
