//! What the kernel knows of a process (`proc(5)`), and how fast the disk is.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::Outcome;

/// A process by its `/proc` name: a number, or `self`.
pub(crate) struct Process(pub String);

impl Process {
    /// CPU time so far, of all threads, in user and kernel.
    pub(crate) fn cpu(&self) -> Outcome<Duration> {
        /// `USER_HZ`: 100 on every Linux this runs on.
        const TICKS_PER_SECOND: f64 = 100.0;
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0))?;
        // The name may have spaces; it ends with the last parenthesis.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |field: usize| fields.get(field).and_then(|ticks| ticks.parse::<f64>().ok());
        let ticks = ticks(11).zip(ticks(12)).ok_or("/proc/PID/stat has another form")?;
        Ok(Duration::from_secs_f64((ticks.0 + ticks.1) / TICKS_PER_SECOND))
    }

    /// Resident memory, in bytes. Pages that are mapped more than once, as every instance of a plugin maps its unchanged ones,
    /// are counted once: this is the "proportional set size" (`proc_pid_smaps(5)`).
    pub(crate) fn memory_bytes(&self) -> Outcome<u64> {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.0))?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        Ok(kib.ok_or("/proc/PID/smaps_rollup has no Pss")? * 1024)
    }

    /// Resident memory once it stands still, or after five seconds.
    pub(crate) async fn settled_memory_bytes(&self) -> Outcome<u64> {
        const STILL_BYTES: u64 = 32 << 10;
        let mut last = self.memory_bytes()?;
        let mut still = 0;
        for _ in 0..50 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = self.memory_bytes()?;
            still = if now.abs_diff(last) <= STILL_BYTES { still + 1 } else { 0 };
            last = now;
            if still == 4 {
                break;
            }
        }
        Ok(last)
    }
}

/// The median time to append 4 KiB to a file in this folder and have it on disk.
pub(crate) fn sync_time(folder: &Path) -> Outcome<Duration> {
    let mut file = tempfile::tempfile_in(folder)?;
    let mut times = Vec::new();
    for _ in 0..51 {
        let started = Instant::now();
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        times.push(started.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}
