//! The end of a hook: awaited, hastened when its time is up, and explained.

use std::{
    io::{self, Read},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::ExitStatusExt,
    },
    process::Child,
    time::{Duration, Instant},
};

use corten_sys::{process::pidfd_open, signal};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
};

/// How much of a failed hook's stderr goes into the error.
const STDERR: u64 = 4096;

/// How the end of a hook is noticed.
pub(crate) enum Watch {
    /// By a pidfd: in any process.
    Pidfd,
    /// By SIGCHLD: where a seccomp filter may forbid to open a pidfd.
    Signals(SignalFd),
}

impl Watch {
    /// By SIGCHLD, which is blocked from here on: only for a process of one thread.
    pub(crate) fn signals() -> io::Result<Self> {
        // One that is ignored, as our caller may have handed it down, isn't sent, and takes the exit status away.
        signal::default(nix::libc::SIGCHLD)?;
        let mut child = SigSet::empty();
        child.add(Signal::SIGCHLD);
        child.thread_block()?;
        Ok(Self::Signals(SignalFd::with_flags(&child, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?))
    }
}

/// What is polled for the end of one child.
enum End<'a> {
    Pidfd(OwnedFd),
    Signals(&'a SignalFd),
}

impl<'a> End<'a> {
    fn of(child: &Child, watch: &'a Watch) -> io::Result<Self> {
        match watch {
            Watch::Pidfd => Ok(Self::Pidfd(pidfd_open(child.id().cast_signed())?)),
            Watch::Signals(signals) => Ok(Self::Signals(signals)),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Pidfd(fd) => fd.as_fd(),
            Self::Signals(fd) => fd.as_fd(),
        }
    }

    /// Whether the child has ended, now that there's something to read.
    fn has_come(&self, child: &mut Child) -> io::Result<bool> {
        match self {
            Self::Pidfd(_) => Ok(true),
            Self::Signals(signals) => {
                // First the signals, then the look: who ends in between is seen. It may be another's: orphans are ours in a
                // PID namespace.
                while signals.read_signal()?.is_some() {}
                Ok(child.try_wait()?.is_some())
            }
        }
    }
}

/// Waits for a hook, until `timeout` kills it; the error says how it failed.
pub(super) fn wait(mut child: Child, timeout: Option<Duration>, watch: &Watch) -> Result<(), String> {
    let fail = |e: io::Error| format!("can't be waited for: {e}");
    let end = End::of(&child, watch).map_err(fail)?;
    let mut stderr = Vec::new();
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let ended = drain(&mut child, &end, &mut stderr, deadline).map_err(fail)?;
    if !ended {
        child.kill().map_err(fail)?;
        child.wait().map_err(fail)?;
        return Err(format!("was killed after its timeout of {} s", timeout.unwrap_or_default().as_secs()));
    }
    let status = child.wait().map_err(fail)?;
    if status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&stderr).trim().to_owned();
    let said = if text.is_empty() { String::new() } else { format!(": {text}") };
    match (status.code(), status.signal()) {
        (Some(code), _) => Err(format!("exited with status {code}{said}")),
        (None, signal) => Err(format!("was killed by signal {}{said}", signal.unwrap_or_default())),
    }
}

/// Reads stderr until the process has ended (true) or time is up (false). A child of the hook may hold stderr open
/// for ever, so the end of the process counts, not the end of the stream.
fn drain(
    child: &mut Child,
    end: &End<'_>,
    stderr: &mut Vec<u8>,
    deadline: Option<Instant>,
) -> io::Result<bool> {
    let mut stream = child.stderr.take();
    let mut ended = false;
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = match left {
            _ if ended => PollTimeout::ZERO,
            None => PollTimeout::NONE,
            Some(left) => PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX),
        };
        let mut fds = vec![PollFd::new(end.fd(), PollFlags::POLLIN)];
        if let Some(stream) = &stream {
            fds.push(PollFd::new(stream.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, timeout) {
            Err(Errno::EINTR) => continue,
            Err(e) => return Err(e.into()),
            Ok(_) => {}
        }
        let woken = fds.first().and_then(PollFd::any).unwrap_or(false);
        let readable = fds.get(1).and_then(PollFd::any).unwrap_or(false);
        ended = ended || woken && end.has_come(child)?;
        let enough = stderr.len() as u64 >= STDERR;
        // There may always be something to read: neither the end nor the deadline can wait until there isn't.
        if ended && (enough || !readable) {
            return Ok(true);
        }
        if !ended && left.is_some_and(|left| left.is_zero()) {
            return Ok(false);
        }
        if readable && let Some(open) = &mut stream {
            let mut buffer = [0; 1024];
            match open.read(&mut buffer)? {
                0 => stream = None,
                n if !enough => stderr.extend_from_slice(buffer.get(..n).unwrap_or_default()),
                _ => {}
            }
        }
    }
}
