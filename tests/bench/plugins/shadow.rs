//! What a shadow costs: the same load without and with a shadow of the same version, in turns, so that each pair is of the same moment.

use std::time::{Duration, Instant};

use hotbay::bench::procfs::Process;
use serde_json::json;

use crate::bench::bars::{Bar, Line, median};
use crate::crowd::Crowd;
use crate::diary::Window;
use crate::operator::{Counts, Operator};
use crate::{Load, Outcome, lost, plain};

const CHANNELS: u32 = 200;
const SIZE: u32 = 20;
const PER_SECOND: u32 = 2_000;
/// What the broker counts of the time plugins ran.
const CPU: &str = "hotbay_plugin_cpu_microseconds_total";
/// Until every channel had a batch since a shadow was deployed, and began it.
const SETTLE: Duration = Duration::from_millis(800);

/// What was counted in a window.
#[derive(Clone, Copy)]
struct Counted {
    window: Window,
    base: Counts,
    /// By `/metrics`.
    plugin_us: f64,
    broker_us: f64,
}

pub(crate) async fn measure(load: &Load, lines: &mut Vec<Line>) -> Outcome<()> {
    let broker = load.start()?;
    let operator = Operator::of(&broker);
    let crowd = Crowd::join(broker.address(), CHANNELS, SIZE).await?;
    let base = operator.deploy(&load.versions.second, &json!({ "kind": "all" })).await?;
    operator.until_swapped(base, CHANNELS, Duration::from_secs(20)).await?;
    let talk = crowd.talk(PER_SECOND, plain);
    tokio::time::sleep(load.time(2_000)).await;
    let process = Process(broker.pid());
    let count = async |time: Duration| {
        let (before, plugin_us) = (operator.counts(base).await?, broker.metric(CPU).await);
        let (cpu, from) = (process.cpu()?, Instant::now());
        tokio::time::sleep(time).await;
        let (window, cpu) = (Window::since(from), process.cpu()?.since(&cpu));
        let (after, plugin_us) = (operator.counts(base).await?, broker.metric(CPU).await - plugin_us);
        let base = Counts { events: after.events - before.events, cpu_us: after.cpu_us - before.cpu_us, ..after };
        Outcome::Ok(Counted { window, base, plugin_us, broker_us: cpu as f64 / 1e3 })
    };
    let (mut without, mut with, mut shadows) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..load.pairs() {
        without.push(count(load.time(3_000)).await?);
        let id = operator.deploy(&load.versions.second, &json!({ "kind": "shadow" })).await?;
        tokio::time::sleep(SETTLE).await;
        let before = operator.counts(id).await?;
        with.push(count(load.time(3_000)).await?);
        let after = operator.counts(id).await?;
        shadows.push(Counts {
            cpu_us: after.cpu_us - before.cpu_us,
            shadow_events: after.shadow_events - before.shadow_events,
            ..after
        });
        operator.stop(id).await?;
        tokio::time::sleep(SETTLE).await;
    }
    let heard = &talk.finish().await?;
    lines.push(Line::title(format!(
        "shadow of the same version: {CHANNELS} channels x {SIZE} members, {PER_SECOND} messages/s, {} pairs of windows without and with",
        with.len()
    )));
    let cpu = |counted: &Counted, shadow: Option<&Counts>| {
        (counted.base.cpu_us + shadow.map_or(0.0, |shadow| shadow.cpu_us)) / counted.base.events
    };
    let pairs = || without.iter().zip(&with).zip(&shadows);
    let ratio = pairs().map(|((without, with), shadow)| cpu(with, Some(shadow)) / cpu(without, None)).collect();
    let note = format!(
        "cpu_us of both deployments per event; {:.0} us without",
        median(&without.iter().map(|one| cpu(one, None)).collect::<Vec<_>>())
    );
    lines.push(Line::new("  CPU of plugins, ratio", "x", ratio).bar(Bar::AtMost(2.0)).note(note));
    let ratio = pairs().map(|((without, with), _)| with.plugin_us / without.plugin_us).collect();
    lines.push(Line::new("  the same by /metrics, ratio", "x", ratio).note(CPU));
    let ratio = pairs().map(|((without, with), _)| with.broker_us / without.broker_us).collect();
    lines.push(Line::new("  CPU of the broker, ratio", "x", ratio));
    let delays = |percent: f64| {
        let delay = move |one: &Counted| heard.delay_ms(&[one.window], percent);
        let all = |counted: &[Counted]| median(&counted.iter().map(delay).collect::<Vec<_>>());
        let ratio: Vec<f64> = pairs().map(|((without, with), _)| delay(with) / delay(without)).collect();
        (ratio, format!("{:.2} ms without, {:.2} ms with", all(&without), all(&with)))
    };
    let (ratio, note) = delays(99.0);
    lines.push(Line::new("  message to all its members, p99, ratio", "x", ratio).bar(Bar::Below(1.1)).note(note));
    let (ratio, note) = delays(50.0);
    lines.push(Line::new("  message to all its members, p50, ratio", "x", ratio).note(note));
    let share = pairs().map(|((_, with), shadow)| shadow.shadow_events / with.base.events * 100.0).collect();
    lines.push(Line::new("  events that ran beside", "%", share));
    let differences = shadows.iter().map(|shadow| shadow.shadow_differences).collect();
    lines.push(Line::new("  batches that differed", "", differences).bar(Bar::AtMost(0.0)));
    let skipped = shadows.iter().map(|shadow| shadow.shadow_skipped).collect();
    lines.push(Line::new("  batches the shadow could not keep up with", "", skipped));
    lost(lines, heard);
    Ok(())
}
