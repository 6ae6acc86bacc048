//! Staying with a process until it ends: signals are passed on, orphans reaped, a terminal relayed.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use corten_sys::{process::pidfd_send_signal, pty};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl::{get_child_subreaper, set_child_subreaper},
        signal::{SigSet, SigmaskHow},
        signalfd::{SfdFlags, SignalFd},
        termios::{OutputFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{isatty, read, write},
};

use crate::{Result, error::Doing};

/// For as long as it lives the container's orphans become our children. Afterwards that is as it was: it's an attribute of
/// the whole process, which may not be ours.
pub(crate) struct Subreaper {
    before: bool,
}

impl Subreaper {
    /// Becomes the subreaper, if `wanted`.
    pub(crate) fn begin(wanted: bool) -> Result<Option<Self>> {
        let become_it = || {
            let before = get_child_subreaper()?;
            set_child_subreaper(true).map(|()| Self { before })
        };
        wanted.then(become_it).transpose().doing(|| "become a subreaper".to_owned())
    }
}

impl Drop for Subreaper {
    fn drop(&mut self) {
        set_child_subreaper(self.before).ok(); // because there's nothing else to do about it
    }
}

/// All signals come through a descriptor instead of interrupting us.
pub(crate) struct Foreground {
    signals: SignalFd,
    before: SigSet,
    /// Whether children other than the process that we wait for are orphans, and so ours to reap.
    reaps: bool,
}

impl Foreground {
    /// Begins to catch signals. To be called before the process is born, so that none is lost.
    pub(crate) fn begin(reaps: bool) -> Result<Self> {
        let doing = || "catch signals".to_owned();
        let mut all = SigSet::all();
        // What says that we ourselves are at fault must not be held back.
        for fault in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT] {
            if let Ok(fault) = fault.try_into() {
                all.remove(fault);
            }
        }
        let before = all.thread_swap_mask(SigmaskHow::SIG_BLOCK).doing(doing)?;
        let signals =
            SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).doing(doing)?;
        Ok(Self { signals, before, reaps })
    }

    /// Waits for `pid`, a child of ours, and returns its exit code, or 128 + signal.
    pub(crate) fn wait(self, pid: i32, pidfd: &OwnedFd, terminal: Option<OwnedFd>) -> Result<i32> {
        let mut relay = terminal.map(Relay::begin).transpose()?;
        loop {
            let (signalled, ended) = self.next(pidfd.as_fd(), relay.as_mut())?;
            if signalled {
                self.pass_on(pid, pidfd.as_fd(), relay.as_ref())?;
            }
            if ended {
                let code = reap(pid)?;
                if let Some(relay) = &mut relay {
                    relay.drain();
                }
                return Ok(code);
            }
        }
    }

    /// Waits until something happens, and relays meanwhile; whether there are signals, whether the process ended.
    fn next(&self, pidfd: BorrowedFd<'_>, relay: Option<&mut Relay>) -> Result<(bool, bool)> {
        let mut fds =
            vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN), PollFd::new(pidfd, PollFlags::POLLIN)];
        // Only where it's needed: Rust makes a buffer for it.
        let stdin = relay.is_some().then(io::stdin);
        if let Some(relay) = &relay {
            let input = if relay.input { PollFlags::POLLIN } else { PollFlags::empty() };
            let output = if relay.output { PollFlags::POLLIN } else { PollFlags::empty() };
            fds.push(PollFd::new(relay.master.as_fd(), output));
            if let Some(stdin) = stdin.as_ref().filter(|_| relay.input) {
                fds.push(PollFd::new(stdin.as_fd(), input));
            }
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => return Ok((false, false)),
            other => other.doing(|| "wait for the process".to_owned())?,
        };
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        drop(fds);
        let ready = |i: usize| ready.get(i).copied().unwrap_or(false);
        if let Some(relay) = relay {
            if ready(2) {
                relay.output();
            }
            if ready(3) {
                relay.input();
            }
        }
        Ok((ready(0), ready(1)))
    }

    fn pass_on(&self, pid: i32, pidfd: BorrowedFd<'_>, relay: Option<&Relay>) -> Result<()> {
        while let Some(info) = self.signals.read_signal().doing(|| "read signals".to_owned())? {
            match info.ssi_signo.cast_signed() {
                libc::SIGCHLD if self.reaps => reap_orphans(pid),
                libc::SIGWINCH if relay.is_some() => relay.into_iter().for_each(Relay::resize),
                // Not meant for it: our own business with our children and our stdio, and job control of our terminal.
                libc::SIGCHLD | libc::SIGPIPE | libc::SIGTTIN | libc::SIGTTOU | libc::SIGURG => {}
                signal => pidfd_send_signal(pidfd, signal).ok().unwrap_or(()), // it may have ended just now
            }
        }
        Ok(())
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        self.before.thread_set_mask().ok(); // because there's nothing else to do about it
    }
}

fn reap(pid: i32) -> Result<i32> {
    corten_sys::process::wait(pid).doing(|| format!("wait for process {pid}"))
}

/// Reaps what has become our child by its parents' death, but leaves the process we wait for: whoever is next is
/// looked at before it is taken.
fn reap_orphans(main: i32) {
    use nix::sys::wait::{Id, waitid};
    loop {
        let peek = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        let Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _)) = waitid(Id::All, peek) else {
            return;
        };
        if pid.as_raw() == main {
            return;
        }
        waitpid(pid, Some(WaitPidFlag::WNOHANG)).ok(); // because somebody has to, and its status is nobody's
    }
}

/// Between our terminal and the container's.
struct Relay {
    master: OwnedFd,
    /// Our terminal's settings, to be restored; None if stdin isn't one.
    saved: Option<Termios>,
    input: bool,
    output: bool,
}

impl Relay {
    fn begin(master: OwnedFd) -> Result<Self> {
        let doing = || "relay the terminal".to_owned();
        let mut saved = None;
        if isatty(io::stdin()).unwrap_or(false) {
            let settings = tcgetattr(io::stdin()).doing(doing)?;
            let mut raw = settings.clone();
            cfmakeraw(&mut raw);
            // Lines end here, not on the container's terminal: see console.rs.
            raw.output_flags.insert(OutputFlags::OPOST);
            tcsetattr(io::stdin(), SetArg::TCSANOW, &raw).doing(doing)?;
            saved = Some(settings);
        }
        fcntl(&master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).doing(doing)?;
        let relay = Self { master, saved, input: true, output: true };
        relay.resize();
        Ok(relay)
    }

    /// Gives the container's terminal the size of ours.
    fn resize(&self) {
        if let Ok((rows, columns)) = pty::size(io::stdin().as_fd())
            && rows > 0
        {
            pty::set_size(self.master.as_fd(), rows, columns).ok(); // because a wrong size is not worth dying for
        }
    }

    fn input(&mut self) {
        let mut buffer = [0; 4096];
        match read(io::stdin(), &mut buffer) {
            Ok(n) if n > 0 => {
                // What a full terminal doesn't take is lost, as it would be on a real one.
                write(&self.master, buffer.get(..n).unwrap_or_default()).ok(); // because the program may be gone
            }
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            _ => {
                self.input = false;
                // The end of the input is a character on a terminal.
                write(&self.master, &[4]).ok(); // because the program may be gone
            }
        }
    }

    /// Passes on what there is; false at the end.
    fn output(&mut self) -> bool {
        let mut buffer = [0; 16384];
        match read(&self.master, &mut buffer) {
            Ok(n) if n > 0 => {
                let mut rest = buffer.get(..n).unwrap_or_default();
                while !rest.is_empty() {
                    match write(io::stdout(), rest) {
                        Ok(n) => rest = rest.get(n..).unwrap_or_default(),
                        Err(Errno::EINTR) => {}
                        Err(_) => return false,
                    }
                }
                true
            }
            Err(Errno::EINTR) => true,
            Err(Errno::EAGAIN) => false,
            // EIO: nobody has the slave open (any more).
            _ => {
                self.output = false;
                false
            }
        }
    }

    fn drain(&mut self) {
        while self.output() {}
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(saved) = &self.saved {
            tcsetattr(io::stdin(), SetArg::TCSANOW, saved).ok(); // because there's nothing else to do about it
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subreaper_is_one_only_meanwhile() {
        let subreaper = Subreaper::begin(true).expect("prctl");
        assert!(subreaper.is_some() && get_child_subreaper().expect("prctl"));
        drop(subreaper);
        assert!(!get_child_subreaper().expect("prctl"));
        assert!(Subreaper::begin(false).expect("nothing to do").is_none());
    }
}
