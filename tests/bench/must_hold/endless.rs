//! What others notice of a plugin in an endless loop in one channel.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::watch;

use crate::bench::bars::percentile_ms;
use crate::bench::socket;
use crate::chat::{self, Member};
use crate::support::broker::{Setup, token};
use crate::{Load, Outcome};

/// CPU time a call may take on the mount with the loop: the default.
pub(crate) const BUDGET_MS: f64 = 100.0;
/// What the broker counts of the time plugins ran.
const CPU: &str = "hotbay_plugin_cpu_microseconds_total";
const PER_SECOND: u32 = 200;

/// One run.
pub(crate) struct Endless {
    pub(crate) p99_without_ms: f64,
    pub(crate) p99_with_ms: f64,
    /// Times from sending the message that loops to being told, in milliseconds; sorted.
    pub(crate) told: Vec<Duration>,
    /// How much of the time a loop was running.
    pub(crate) busy: f64,
}

/// Chat in 10 rooms of 2 without the loop, then with it.
pub(crate) async fn run(load: &Load) -> Outcome<Endless> {
    let time = load.time(6);
    let broker = load.start(setup())?;
    let members = chat::join_rooms(broker.address(), 10, 2).await?;
    let (members, _) = chat::open_loop(members, PER_SECOND, Duration::from_secs(1)).await?;
    let (members, without) = chat::open_loop(members, PER_SECOND, time).await?;
    let (stop, stopped) = watch::channel(false);
    let before = broker.metric(CPU).await;
    let looping = tokio::spawn(loop_on(broker.address().to_owned(), stopped));
    let started = Instant::now();
    let (_members, with): (Vec<Member>, _) = chat::open_loop(members, PER_SECOND, time).await?;
    let elapsed = started.elapsed();
    let cpu = broker.metric(CPU).await - before;
    stop.send_replace(true);
    let mut told = looping.await??;
    told.sort_unstable();
    Ok(Endless {
        p99_without_ms: percentile_ms(&without, 99.0),
        p99_with_ms: percentile_ms(&with, 99.0),
        told,
        busy: cpu / 1e6 / elapsed.as_secs_f64(),
    })
}

/// The configuration of `make run`, and beside it the fixture plugin, which loops when told to.
fn setup() -> Setup {
    chat::unlimited(Setup::example().and_fixture("/fixture", "channel = \"fixture:{query.channel}\""))
}

/// Sends `loop` again as soon as the one before was stopped and told. The broker closes a member and quarantines a channel
/// after a few faults in a row; then the next channel has its turn.
async fn loop_on(address: String, mut stop: watch::Receiver<bool>) -> Outcome<Vec<Duration>> {
    let mut told = Vec::new();
    for channel in 0.. {
        let token = token("looper", json!({}), 3_600);
        let (sender, mut reader) =
            socket::connect(&address, &format!("/fixture?channel={channel}&token={token}")).await?;
        let mut open = true;
        while open {
            let sent = Instant::now();
            if sender.send("loop").is_err() {
                break;
            }
            let mut refused = false;
            let look = |message: &[u8]| refused |= message.starts_with(b"refused fault");
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return Ok(told),
                read = reader.messages(look) => open = read.is_ok(),
            }
            if refused {
                told.push(sent.elapsed());
            }
        }
    }
    Ok(told)
}
