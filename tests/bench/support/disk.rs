//! How fast the disk is.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::Outcome;

/// The median time to append 4 KiB to a file in this folder and have it on disk.
pub(crate) fn sync_time(folder: &Path) -> Outcome<Duration> {
    let mut file = tempfile::tempfile_in(folder)?;
    let mut times = Vec::new();
    for _ in 0..101 {
        let started = Instant::now();
        file.write_all(&[0; 4_096])?;
        file.sync_data()?;
        times.push(started.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}
