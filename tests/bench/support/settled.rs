//! When the memory of a process stands still.

use std::time::Duration;

use hotbay::bench::procfs::Process;

use crate::Outcome;

/// Memory of a process once it stands still, or after five seconds. The proportional set size: every instance of a plugin maps
/// the plugin's unchanged pages, and they are there once.
pub(crate) async fn settled_memory_bytes(process: Process) -> Outcome<u64> {
    const STILL_BYTES: u64 = 32 << 10;
    let mut last = process.memory()?.pss;
    let mut still = 0;
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = process.memory()?.pss;
        still = if now.abs_diff(last) <= STILL_BYTES { still + 1 } else { 0 };
        last = now;
        if still == 4 {
            break;
        }
    }
    Ok(last)
}
