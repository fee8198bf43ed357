//! Every call that differs from system to system, with portable fallbacks.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::TryRng;
use rand::rngs::SysRng;
use socket2::SockRef;
use tokio::net::TcpStream;

use crate::raft::Time;
use crate::replica::Now;

/// Reads the clocks.
///
/// The monotonic one has to count the time the machine was suspended, or a
/// leader that wakes up believes in a lease that ended while it slept.
pub fn now() -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let wall_ms = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
    Now { time: boot_time(), wall_ms }
}

#[cfg(target_os = "linux")]
fn boot_time() -> Time {
    let reading = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let micros = i128::from(reading.tv_sec) * 1_000_000 + i128::from(reading.tv_nsec) / 1000;
    Time::from_micros(u64::try_from(micros).expect("time since boot is not negative"))
}

/// May stand still while the machine is suspended; the README says so.
#[cfg(not(target_os = "linux"))]
fn boot_time() -> Time {
    use std::sync::OnceLock;
    use std::time::Instant;
    static START: OnceLock<Instant> = OnceLock::new();
    let elapsed = START.get_or_init(Instant::now).elapsed();
    Time::from_micros(1 + u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX))
}

/// Whether the other side of a connection has closed it, however much of what it sent
/// is still to be read.
#[cfg(target_os = "linux")]
pub fn has_hung_up(stream: &TcpStream) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(stream, PollFlags::RDHUP)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&at_once)).is_ok_and(|ready| ready > 0)
}

/// Found out when something is to be read or written.
#[cfg(not(target_os = "linux"))]
pub fn has_hung_up(_stream: &TcpStream) -> bool {
    false
}

/// Random bits for identities and seeds.
pub fn random_u128() -> u128 {
    let word = || SysRng.try_next_u64().expect("the system has a source of randomness");
    u128::from(word()) << 64 | u128::from(word())
}

/// What this process holds in memory, in bytes, where that can be told.
pub fn resident_bytes() -> Option<u64> {
    // The second number is in pages, which are of 4 KiB wherever this file is.
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

/// Half of the machine's memory, or 1 GiB where that cannot be told.
pub fn half_of_memory_bytes() -> u64 {
    total_memory_bytes().map_or(1 << 30, |total| total / 2)
}

#[cfg(target_os = "linux")]
fn total_memory_bytes() -> Option<u64> {
    let info = rustix::system::sysinfo();
    u64::from(info.mem_unit).checked_mul(info.totalram)
}

#[cfg(not(target_os = "linux"))]
fn total_memory_bytes() -> Option<u64> {
    None
}

/// Lets the process open as many files as it may; how many that is, if it has a
/// limit.
#[cfg(target_os = "linux")]
pub fn raise_descriptor_limit() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if setrlimit(Resource::Nofile, raised).is_err() {
        log::warn!("cannot raise the limit of open files from {:?}", limit.current);
        return limit.current;
    }
    limit.maximum
}

/// Nothing to be done.
#[cfg(not(target_os = "linux"))]
pub fn raise_descriptor_limit() -> Option<u64> {
    None
}

/// How long the other side of a connection may leave unacknowledged what the
/// system has taken from us: it is no longer in our queue, and stalls there.
#[cfg(target_os = "linux")]
pub fn limit_unacknowledged(socket: &SockRef<'_>, patience: Duration) -> io::Result<()> {
    socket.set_tcp_user_timeout(Some(patience))
}

/// As long as the system likes.
#[cfg(not(target_os = "linux"))]
pub fn limit_unacknowledged(_: &SockRef<'_>, _: Duration) -> io::Result<()> {
    Ok(())
}

/// Until the process is asked to end.
#[cfg(unix)]
pub async fn stop_signal() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupt = tokio::signal::ctrl_c() => interrupt,
        _ = terminate.recv() => Ok(()),
    }
}

/// Until somebody presses Ctrl-C.
#[cfg(not(unix))]
pub async fn stop_signal() -> io::Result<()> {
    tokio::signal::ctrl_c().await
}
