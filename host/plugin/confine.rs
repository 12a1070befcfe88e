//! What a worker gives up before it touches what a stranger made. Workers are processes of this very program that read, compile or run a
//! component; whatever that does to them, they have nothing to give away.

use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::plugin::lane::yield_to_everybody;

/// Begins a worker, before it has opened anything or started a thread: it lets go of what it inherited beside its standard streams, and
/// from now on only gets the time that nobody else wants.
///
/// # Errors
/// If the system keeps it from that. Without the latter it goes on: then it takes time from others.
pub fn begin() -> io::Result<()> {
    drop(yield_to_everybody());
    #[expect(unsafe_code, reason = "no safe crate closes descriptors that somebody else opened")]
    // SAFETY: nothing in this process has opened a descriptor yet, so nobody uses those that are closed.
    let failed = unsafe { libc::close_range(3, libc::c_uint::MAX, 0) } != 0;
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sets limits, for good. Soft and hard limit are the same.
///
/// # Errors
/// If one cannot be set.
pub fn limit(limits: &[(Resource, u64)]) -> io::Result<()> {
    for (resource, limit) in limits {
        setrlimit(*resource, Rlimit { current: Some(*limit), maximum: Some(*limit) })?;
    }
    Ok(())
}

/// Gives up the right to open anything: no file, no socket. Descriptors that are open stay.
///
/// # Errors
/// If the system keeps it from that.
pub fn open_nothing() -> io::Result<()> {
    limit(&[(Resource::Core, 0), (Resource::Nofile, 0)])
}

/// Processor time that a worker has had so far, in milliseconds (`proc_pid_stat(5)`); 0 if it is gone.
pub fn cpu_ms(pid: Option<u32>) -> u64 {
    /// Fields after the name: time in user mode and in the kernel, in ticks.
    const TIMES: std::ops::Range<usize> = 11..13;
    let stat = pid.and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()).unwrap_or_default();
    let fields: Vec<&str> =
        stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let ticks: u64 = fields.get(TIMES).into_iter().flatten().filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks * 1_000 / rustix::param::clock_ticks_per_second().max(1)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Goal: who gave up opening things can open neither a file nor a socket, and still uses what it has.
    #[test]
    fn a_confined_process_opens_nothing() {
        let this = std::env::current_exe().unwrap();
        let name = "plugin::confine::tests::confined";
        let output =
            Command::new(this).args(["--exact", name, "--ignored", "--nocapture"]).env_clear().output().unwrap();
        let words = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && words.contains("opened nothing"), "{words}");
    }

    #[test]
    fn what_a_process_had_of_the_processor_is_known() {
        let this = Some(std::process::id());
        let before = cpu_ms(this);
        let mut worked = 0_u64;
        while cpu_ms(this) < before + 50 {
            worked = std::hint::black_box(worked.wrapping_mul(31) + 1);
        }
        assert_eq!((cpu_ms(None), cpu_ms(Some(u32::MAX))), (0, 0));
    }

    #[test]
    #[ignore = "gives up what other tests need: the test above runs it in a process of its own"]
    fn confined() {
        let before = std::fs::File::open("/dev/zero").unwrap();
        open_nothing().unwrap();
        limit(&[(Resource::Fsize, 0)]).unwrap();

        let refused = |error: io::Error| error.raw_os_error() == Some(libc::EMFILE);
        assert!(refused(std::fs::File::open("/dev/null").map(drop).unwrap_err()));
        assert!(refused(std::net::TcpListener::bind("127.0.0.1:0").map(drop).unwrap_err()));
        assert!(refused(std::net::UdpSocket::bind("127.0.0.1:0").map(drop).unwrap_err()));
        assert!(refused(std::os::unix::net::UnixStream::pair().map(drop).unwrap_err()));
        assert!(limit(&[(Resource::Nofile, 100)]).is_err() || rustix::process::geteuid().is_root());
        let mut byte = [1];
        io::Read::read_exact(&mut &before, &mut byte).unwrap();
        println!("opened nothing");
    }
}
