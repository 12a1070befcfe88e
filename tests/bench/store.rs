//! How many log rows per second the SQLite store appends, durably, for many channels at once.
//!
//! Each channel is a task that sends its next commit when the one before it was answered, as the channel actor does.
//! Prints a table of medians; asserts nothing.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use hotbay::protocol::name::ChannelName;
use hotbay::store::sqlite::SqliteStore;
use hotbay::store::{Acquired, Commit, Durability, Fence, LogEntry, Store, StoreError, Writes};
use tokio::task::JoinSet;

const CHANNELS: usize = 100;
const ROW_BYTES: usize = 200;
const ROUND: Duration = Duration::from_secs(4);
const ROUNDS: usize = 3;

#[derive(Clone, Copy)]
struct Load {
    rows: u64,
    in_flight: usize,
    durability: Durability,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    println!("{CHANNELS} channels, {ROW_BYTES} B per row, medians of {ROUNDS} rounds of {ROUND:?}");
    println!(
        "{:>6} {:>9} {:>10} {:>10} {:>10} {:>9} {:>9}",
        "rows", "in flight", "durable", "rows/s", "commits/s", "p50", "p99"
    );
    for (rows, in_flight, durability) in [
        (1, 1, Durability::Fsync),
        (1, 2, Durability::Fsync),
        (10, 1, Durability::Fsync),
        (10, 2, Durability::Fsync),
        (1, 2, Durability::Os),
    ] {
        let load = Load { rows, in_flight, durability };
        let mut results = Vec::new();
        for _ in 0..ROUNDS {
            let folder = tempfile::tempdir()?;
            results.push(round(&folder.path().join("bench.sqlite"), load).await?);
        }
        results.sort_by_key(|(commits, _)| *commits);
        let (commits, latencies) = &results[ROUNDS / 2];
        let per_second = *commits as f64 / ROUND.as_secs_f64();
        let at = |percent| latencies[(latencies.len() - 1) * percent / 100];
        let durable = format!("{durability:?}").to_lowercase();
        println!(
            "{rows:>6} {in_flight:>9} {durable:>10} {:>10.0} {per_second:>10.0} {:>9.1?} {:>9.1?}",
            per_second * rows as f64,
            at(50),
            at(99),
        );
    }
    Ok(())
}

async fn round(path: &Path, load: Load) -> Result<(u64, Vec<Duration>), Box<dyn Error>> {
    let store = Arc::new(SqliteStore::open(path).await?);
    let mut channels = JoinSet::new();
    let mut acquired = Vec::new();
    for index in 0..CHANNELS {
        let name = ChannelName::new("default", &format!("room:{index}"))?;
        acquired.push(store.acquire(&name, "bench").await?);
    }
    let end = Instant::now() + ROUND;
    for acquired in acquired {
        channels.spawn(channel(Arc::clone(&store), acquired, load, end));
    }
    let mut latencies = Vec::new();
    while let Some(channel) = channels.join_next().await {
        latencies.append(&mut channel??);
    }
    store.close().await?;
    latencies.sort_unstable();
    Ok((latencies.len() as u64, latencies))
}

async fn channel(
    store: Arc<SqliteStore>,
    acquired: Acquired,
    load: Load,
    end: Instant,
) -> Result<Vec<Duration>, StoreError> {
    let data = Bytes::from(vec![b'x'; ROW_BYTES]);
    let mut latencies = Vec::new();
    // Polls first what was pushed first, so the commits are sent in order.
    let mut under_way = FuturesOrdered::new();
    let (mut seq, mut offset) = (0, acquired.log.1);
    loop {
        while under_way.len() < load.in_flight && Instant::now() < end {
            let entry = |offset| LogEntry { offset, at_ms: 1, data: data.clone() };
            let appends = (offset..offset + load.rows).map(entry).collect();
            let writes = Writes { appends, ..Writes::default() };
            let fence = Fence { seq, ..acquired.fence };
            let commit = store.commit(Arc::new(Commit { fence, durability: load.durability, writes }));
            under_way.push_back(async {
                let since = Instant::now();
                commit.await.map(|_| since.elapsed())
            });
            seq += 1;
            offset += load.rows;
        }
        match under_way.next().await {
            Some(latency) => latencies.push(latency?),
            None => break,
        }
    }
    Ok(latencies)
}
