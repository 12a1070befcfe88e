//! CPU time and memory of processes, from /proc.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use super::BenchError;

/// A process on this machine.
#[derive(Debug, Clone, Copy)]
pub struct Process(pub u32);

/// CPU time of each thread so far, in nanoseconds.
#[derive(Debug, Default)]
pub struct CpuTimes(HashMap<u64, u64>);

/// Memory of a process, in bytes, without the kernel's share.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// The resident set: every page as often as it is mapped.
    pub rss: u64,
    /// The proportional set: a page that is mapped more than once, by this process or others, counts once in all.
    pub pss: u64,
}

impl Process {
    /// The CPU time of its threads.
    ///
    /// # Errors
    /// If there is no such process, or it is not ours to look at.
    pub fn cpu(self) -> Result<CpuTimes, BenchError> {
        let folder = self.folder().join("task");
        let mut times = HashMap::new();
        for thread in fs::read_dir(folder).map_err(|e| self.error(&e))? {
            let thread = thread.map_err(|e| self.error(&e))?;
            // A thread may have ended since the folder was read.
            let Ok(text) = fs::read_to_string(thread.path().join("schedstat")) else { continue };
            let id = thread.file_name().to_str().and_then(|name| name.parse().ok());
            let time = text.split(' ').next().and_then(|ns| ns.parse().ok());
            if let (Some(id), Some(time)) = (id, time) {
                times.insert(id, time);
            }
        }
        Ok(CpuTimes(times))
    }

    /// Its memory.
    ///
    /// # Errors
    /// Like [`Process::cpu`].
    pub fn memory(self) -> Result<Memory, BenchError> {
        let text = fs::read_to_string(self.folder().join("smaps_rollup")).map_err(|e| self.error(&e))?;
        Ok(memory(&text))
    }

    fn folder(self) -> PathBuf {
        PathBuf::from(format!("/proc/{}", self.0))
    }

    fn error(self, error: &std::io::Error) -> BenchError {
        BenchError::Process { pid: self.0, reason: error.to_string() }
    }
}

impl CpuTimes {
    /// CPU time since an earlier look, in nanoseconds. What a thread that ended in between used is not seen.
    pub fn since(&self, earlier: &Self) -> u64 {
        self.0.iter().map(|(id, time)| time.saturating_sub(earlier.0.get(id).copied().unwrap_or(0))).sum()
    }
}

fn memory(text: &str) -> Memory {
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).unwrap_or(0) * 1_024
    };
    Memory { rss: of("Rss:"), pss: of("Pss:") }
}

/// CPU time of this thread so far, in nanoseconds; 0 where it is not known.
pub(super) fn own_cpu_ns() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_by_their_names() {
        let text = "5500-7ff [rollup]\nRss:               12 kB\nPss:                7 kB\nPss_Dirty:          5 kB\n";
        assert_eq!(memory(text), Memory { rss: 12 << 10, pss: 7 << 10 });
        assert_eq!(memory("Rss: many kB"), Memory::default());
    }

    #[test]
    fn a_new_thread_counts_and_an_ended_one_takes_nothing_back() {
        let times = |pairs: &[(u64, u64)]| CpuTimes(pairs.iter().copied().collect());
        assert_eq!(times(&[(1, 50), (3, 7)]).since(&times(&[(1, 20), (2, 1_000)])), 37);
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        let error = Process(u32::MAX).cpu().unwrap_err();
        assert!(error.to_string().contains("--pid 4294967295"), "{error}");
        assert!(Process(std::process::id()).memory().unwrap().rss > 0);
    }
}
