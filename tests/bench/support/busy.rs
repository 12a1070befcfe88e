//! Whether others use the machine.

use std::time::Duration;

use crate::Outcome;

/// How long is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Cores that were busy for a moment in which this process did nothing (proc(5), `/proc/stat`): other processes, and what the hypervisor
/// gave to other machines.
pub(crate) async fn busy_cores() -> Outcome<f64> {
    let before = ticks()?;
    tokio::time::sleep(LOOK).await;
    let after = ticks()?;
    let [all, idle] = [after[0] - before[0], after[1] - before[1]].map(|ticks| ticks as f64);
    let cores = std::thread::available_parallelism()?.get() as f64;
    Ok(if all > 0.0 { (1.0 - idle / all) * cores } else { 0.0 })
}

/// All ticks of all cores so far, and those in which there was nothing to do or only the disk was waited for.
fn ticks() -> Outcome<[u64; 2]> {
    const IDLE: usize = 3;
    const WAITING: usize = 4;
    /// What comes behind it is part of the first two.
    const STOLEN: usize = 7;
    let stat = std::fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().ok_or("/proc/stat is empty")?;
    let ticks: Vec<u64> = line.split_whitespace().skip(1).map(str::parse).collect::<Result<_, _>>()?;
    let of = |at: usize| ticks.get(at).copied().unwrap_or_default();
    Ok([(0..=STOLEN).map(of).sum(), of(IDLE) + of(WAITING)])
}
