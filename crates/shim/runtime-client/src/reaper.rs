//! One loop waits for all children.
//!
//! Children come in two kinds: those we spawn, and those that fall to us as subreaper when their parent ends, a
//! container's init first of all. We learn the PID of such a one only from the runtime's PID file, when it may have
//! ended already: so while a [`Hold`] lives, exits of strangers are kept.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::process::Command;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exited {
    /// Exit code, or 128 + n after signal n.
    pub status: u32,
    /// Nanoseconds since 1970.
    pub at_ns: i64,
}

/// Waits for all children of this process. Clones are the same reaper; make one only.
#[derive(Clone, Debug)]
pub struct Reaper {
    inner: Rc<RefCell<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    watched: HashMap<u32, oneshot::Sender<Exited>>,
    strangers: HashMap<u32, Exited>,
    holds: usize,
}

/// Ends when a process has ended. Dropping it is allowed: the process is reaped all the same.
#[derive(Debug)]
pub struct Watch(oneshot::Receiver<Exited>);

impl Future for Watch {
    type Output = Exited;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Exited> {
        // The sender is only dropped unsent when the reaper is, or when the PID came round again: 255 is what
        // is left to say then.
        Pin::new(&mut self.0).poll(cx).map(|exit| exit.unwrap_or(Exited { status: 255, at_ns: now_ns() }))
    }
}

/// While it lives, exits of processes that nobody watches yet are kept.
#[derive(Debug)]
pub struct Hold(Rc<RefCell<Inner>>);

impl Drop for Hold {
    fn drop(&mut self) {
        let mut inner = self.0.borrow_mut();
        inner.holds -= 1;
        if inner.holds == 0 {
            inner.strangers = HashMap::new();
        }
    }
}

impl Reaper {
    /// Makes this process the subreaper of its descendants and listens for SIGCHLD. Within a tokio runtime; then
    /// [`Reaper::run`] must be polled.
    ///
    /// # Errors
    /// What prctl or sigaction say.
    pub fn new() -> io::Result<(Self, Signal)> {
        nix::sys::prctl::set_child_subreaper(true)?;
        let children = signal(SignalKind::child())?;
        Ok((Self { inner: Rc::default() }, children))
    }

    /// Reaps for ever.
    pub async fn run(self, mut children: Signal) {
        loop {
            self.reap();
            if children.recv().await.is_none() {
                return;
            }
        }
    }

    /// Reaps what has ended by now.
    pub fn reap(&self) {
        loop {
            let (pid, status) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, u32::try_from(code).unwrap_or(255)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as u32),
                Err(Errno::EINTR) => continue,
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(_) => continue, // stopped or traced: we don't ask for those
            };
            let exited = Exited { status, at_ns: now_ns() };
            let mut inner = self.inner.borrow_mut();
            let pid = pid.as_raw().cast_unsigned();
            if let Some(watcher) = inner.watched.remove(&pid) {
                let _ = watcher.send(exited); // a dropped Watch doesn't care
            } else if inner.holds > 0 {
                inner.strangers.insert(pid, exited);
            }
        }
    }

    /// Spawns a child. It is reaped even if the Watch is dropped.
    ///
    /// # Errors
    /// What spawning says.
    pub fn spawn(&self, command: &mut Command) -> io::Result<(u32, Watch)> {
        let pid = command.spawn()?.id();
        // Nobody reaps between these two lines: that's for this thread to do.
        Ok((pid, self.watch_new(pid)))
    }

    /// Watches a child that was made just now: since then [`Reaper::reap`] can't have run.
    #[must_use]
    pub fn watch_new(&self, pid: u32) -> Watch {
        // What is known of that PID is of one that had it before.
        self.inner.borrow_mut().strangers.remove(&pid);
        self.watch(pid)
    }

    /// Watches a process that is our child or is about to become it.
    #[must_use]
    pub fn watch(&self, pid: u32) -> Watch {
        let (sender, receiver) = oneshot::channel();
        let mut inner = self.inner.borrow_mut();
        match inner.strangers.remove(&pid) {
            Some(exited) => drop(sender.send(exited)),
            None => drop(inner.watched.insert(pid, sender)),
        }
        Watch(receiver)
    }

    /// Whether a process that nobody watches has been reaped, since there is a [`Hold`].
    #[must_use]
    pub fn is_over(&self, pid: u32) -> bool {
        self.inner.borrow().strangers.contains_key(&pid)
    }

    /// Keeps exits of processes that aren't watched yet.
    #[must_use]
    pub fn hold(&self) -> Hold {
        self.inner.borrow_mut().holds += 1;
        Hold(Rc::clone(&self.inner))
    }
}

fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_exit_is_not_taken_for_a_new_process() {
        let reaper = Reaper { inner: Rc::default() };
        let _hold = reaper.hold();
        let old = Exited { status: 7, at_ns: 1 };
        reaper.inner.borrow_mut().strangers.extend([(41, old), (42, old)]);
        let mut adopted = reaper.watch(41);
        assert_eq!(adopted.0.try_recv().ok(), Some(old));
        let mut new = reaper.watch_new(42);
        assert!(new.0.try_recv().is_err() && !reaper.is_over(42));
    }
}
