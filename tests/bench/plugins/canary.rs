//! A canary that traps: how soon it is rolled back by its budget, what its channels lose, and what others notice. What all channels have
//! is the relay, which sends everything on as it is; the canary is the fixture, which traps at one message of twenty.

use std::time::{Duration, Instant};

use hotbay::channel::{CANARY_PARTS, canary_part};
use hotbay::protocol::name::ChannelName;
use serde_json::json;

use crate::bench::bars::{Bar, Line, percentile_ms};
use crate::crowd::Crowd;
use crate::diary::Window;
use crate::operator::Operator;
use crate::{Load, Outcome, lost};

const CHANNELS: u32 = 200;
const SIZE: u32 = 20;
const PER_SECOND: u32 = 2_000;
const PERCENT: u32 = 25;
const DEADLINE: Duration = Duration::from_secs(10);

/// One canary: from its deployment until a moment after it was rolled back.
struct Canary {
    id: i64,
    window: Window,
    rolled_back_s: f64,
    faults: f64,
    why: String,
}

/// One message of twenty makes the fixture trap; it says the others, and the relay sends on all of them.
fn trapping(channel: u32, number: u32) -> &'static str {
    if (channel + number).is_multiple_of(20) { "trap" } else { "say" }
}

pub(crate) async fn measure(load: &Load, lines: &mut Vec<Line>) -> Outcome<()> {
    let broker = load.start()?;
    let operator = Operator::of(&broker);
    operator.deploy(&load.versions.relay, &json!({ "kind": "all" })).await?;
    let crowd = Crowd::join(broker.address(), CHANNELS, SIZE).await?;
    let talk = crowd.talk(PER_SECOND, trapping);
    tokio::time::sleep(load.time(1_000)).await;
    let (mut still, mut canaries) = (Vec::new(), Vec::new());
    for _ in 0..load.canaries() {
        let from = Instant::now();
        tokio::time::sleep(load.time(2_000)).await;
        still.push(Window::since(from));
        let from = Instant::now();
        let id = operator.deploy(&load.versions.first, &json!({ "kind": "canary", "percent": PERCENT })).await?;
        let ended = operator.until_ended(id, DEADLINE).await?;
        let rolled_back_s = from.elapsed().as_secs_f64();
        tokio::time::sleep(load.time(1_500)).await;
        let why = format!("{}: {}", ended["state"].as_str().unwrap_or("?"), ended["reason"].as_str().unwrap_or("?"));
        let faults = broker.metric("hotbay_plugin_faults_total").await;
        canaries.push(Canary { id, window: Window::since(from), rolled_back_s, faults, why });
    }
    let heard = talk.finish().await?;
    lines.push(Line::title(format!(
        "canary that traps at one message of twenty: {PERCENT} % of {CHANNELS} channels x {SIZE} members, {PER_SECOND} messages/s"
    )));
    let times = canaries.iter().map(|canary| canary.rolled_back_s).collect();
    let note = canaries.first().map(|canary| canary.why.clone()).unwrap_or_default();
    lines.push(Line::new("  rolled back by its budget after", "s", times).bar(Bar::AtMost(5.0)).note(note));
    let faults = canaries.iter().scan(0.0, |before, canary| {
        let faults = canary.faults - *before;
        *before = canary.faults;
        Some(faults)
    });
    lines.push(Line::new("  traps until then", "", faults.collect()));
    lost(lines, &heard);
    let has_canary = |id: i64, channel: u32| {
        let name = ChannelName::new("default", &format!("fixture:{channel}"));
        name.is_ok_and(|name| canary_part(id, &name) < CANARY_PARTS * PERCENT / 100)
    };
    let p99 = |windows: &[Window], of: &dyn Fn(u32) -> bool| percentile_ms(&heard.delays(windows, of), 99.0);
    let before: Vec<f64> = still.iter().map(|window| p99(&[*window], &|_| true)).collect();
    let others: Vec<f64> =
        canaries.iter().map(|one| p99(&[one.window], &|channel| !has_canary(one.id, channel))).collect();
    let own: Vec<f64> = canaries.iter().map(|one| p99(&[one.window], &|channel| has_canary(one.id, channel))).collect();
    let ratio = others.iter().zip(&before).map(|(with, without)| with / without).collect();
    lines.push(Line::new("  message to all its members, p99, before", "ms", before));
    lines.push(Line::new("  of channels without the canary, p99, meanwhile", "ms", others));
    lines.push(Line::new("    ratio", "x", ratio));
    lines.push(Line::new("  of channels with it, p99, meanwhile", "ms", own));
    Ok(())
}
