//! `kill`: a signal for init, or for all.

use std::os::fd::AsFd;

use corten_sys::process::pidfd_send_signal;
use nix::libc;

use crate::{Error, Result, Runtime, Status, cgroup::CgroupDoing, error::Doing, query::Now};

impl Runtime {
    /// Sends a signal to init, or with `all` to every process of the container.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Finished`] or [`Error::Status`] if the container is stopped.
    #[inline(never)]
    pub fn kill(&self, id: &str, signal: i32, all: bool) -> Result<()> {
        let now = self.now(id)?;
        // Without a cgroup init is all that we know of.
        if !now.record.cgroup.is_none() && (all || shares_pids(&now) && signal == libc::SIGKILL) {
            return kill_all(&now, signal);
        }
        let Some(init) = &now.init else {
            return Err(Error::Status { id: id.to_owned(), status: now.status, operation: "kill" });
        };
        match pidfd_send_signal(init.as_fd(), signal) {
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Err(Error::Finished { id: id.to_owned() }),
            other => other.doing(|| format!("send signal {signal} to container {id}")),
        }?;
        // A frozen process doesn't even die.
        if signal == libc::SIGKILL && now.status == Status::Paused {
            let cgroup = &now.record.cgroup;
            cgroup.thaw().cgroup("thaw", cgroup.path())?;
        }
        Ok(())
    }
}

/// Without a PID namespace of its own the death of init kills nobody else.
fn shares_pids(now: &Now) -> bool {
    now.record.namespaces & u64::from(libc::CLONE_NEWPID.unsigned_abs()) == 0
}

/// Signals everything in the cgroup. That there's nothing left to signal is success: that was the wish.
pub(crate) fn kill_all(now: &Now, signal: i32) -> Result<()> {
    let cgroup = &now.record.cgroup;
    if signal == libc::SIGKILL {
        return cgroup.kill().cgroup("kill the processes of", cgroup.path());
    }
    for pid in cgroup.pids().cgroup("list the processes of", cgroup.path())? {
        let sent = corten_sys::process::pidfd_open(pid).and_then(|fd| pidfd_send_signal(fd.as_fd(), signal));
        match sent {
            Err(e) if e.raw_os_error() != Some(libc::ESRCH) => {
                return Err(e).doing(|| format!("send signal {signal} to process {pid}"));
            }
            _ => {}
        }
    }
    Ok(())
}
