//! `delete` (runtime-spec, "Lifecycle", steps 11 to 13).

use std::{
    fs,
    os::fd::AsFd,
    path::Path,
    time::{Duration, Instant},
};

use corten_cgroups::Cgroup;
use corten_sys::process::pidfd_send_signal;
use nix::{
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use crate::{
    Error, Result, Runtime, Status,
    cgroup::{self, CgroupDoing},
    error::chain,
    failpoint::Failpoint,
    hooks,
    query::Now,
    record::{Home, Lock},
};

/// How long a killed init may take to be gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a program that is about to end may take: whoever has just started a short one, or killed it, deletes next.
const GRACE: Duration = Duration::from_millis(100);

impl Runtime {
    /// Deletes a stopped container, and one that was never started. `force` kills what runs first, also takes away
    /// what a killed `create` left, and is no error for a container that doesn't exist.
    ///
    /// (runtime-spec has only stopped ones deleted. runc, crun and youki delete created ones too, and containerd's shim
    /// for runc counts on it.)
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Status`] if it runs; [`Error::Undying`] if it doesn't end although killed;
    /// [`Error::Record`], [`Error::Cgroup`], [`Error::Os`]: what is left can be deleted again.
    #[inline(never)]
    pub fn delete(&self, id: &str, force: bool) -> Result<()> {
        let home = Home::new(&self.root, id)?;
        let lock = match home.lock()? {
            Some(lock) => lock,
            None if force => return Ok(()),
            None => return Err(Error::NotFound { id: id.to_owned() }),
        };
        let now = match self.now(id) {
            // An id that is taken, but no record: its `create` was killed in the middle.
            Err(Error::NotFound { .. }) if force => return self.abandon(&home),
            Err(error @ Error::Record { .. }) if force => {
                tracing::warn!("{}; its cgroup and state directory are removed", chain(&error));
                return self.abandon(&home);
            }
            other => other?,
        };
        Failpoint::DeleteLoaded.pass()?;
        if now.status != Status::Stopped && (force || !ends_now(&now)) {
            if !force && now.status != Status::Created {
                return Err(Error::Status { id: id.to_owned(), status: now.status, operation: "delete" });
            }
            stop(&now)?;
            Failpoint::DeleteStopped.pass()?;
        }
        take_away(&now, lock)
    }

    /// Takes away what there is of a container without a record: its cgroup, with whoever is in it, and its directory.
    fn abandon(&self, home: &Home) -> Result<()> {
        if let Some(place) = home.noted_cgroup()
            && let Ok(cgroup) = Cgroup::locate(&place)
            && cgroup.exists()
        {
            // It's noted before it is made, which is refused where there are processes of others already.
            match self.other_in(home, &place) {
                Some(id) => tracing::warn!(
                    "cgroup {} stays: container {id} is in it, and {} may never have been",
                    place.display(),
                    home.id
                ),
                None => cgroup::destroy(&cgroup)?,
            }
        }
        home.remove()
    }

    /// Another container below our root in this cgroup, or one below it.
    fn other_in(&self, home: &Home, place: &Path) -> Option<String> {
        let ids =
            fs::read_dir(&self.root).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let others = ids.filter(|id| *id != home.id).filter_map(|id| Home::new(&self.root, &id).ok());
        let mut there = others.filter(|other| other.noted_cgroup().is_some_and(|at| at.starts_with(place)));
        there.next().map(|other| other.id)
    }

    /// Deletes a container whose end we have seen, unless somebody else does so.
    pub(crate) fn clear_up(&self, now: &Now) -> Result<()> {
        let Some(lock) = now.home.lock()? else { return Ok(()) };
        // The id may have been taken again meanwhile.
        match now.home.init() {
            Ok(init) if init != now.record.init => Ok(()),
            Err(Error::NotFound { .. }) => Ok(()),
            _ => take_away(now, lock),
        }
    }
}

/// Whether a running init ends within a moment.
fn ends_now(now: &Now) -> bool {
    let Some(init) = now.init.as_ref().filter(|_| now.status == Status::Running) else { return false };
    let timeout = PollTimeout::try_from(GRACE).unwrap_or(PollTimeout::ZERO);
    poll(&mut [PollFd::new(init.as_fd(), PollFlags::POLLIN)], timeout).is_ok_and(|n| n > 0)
}

/// Removes cgroup and state of a stopped container, and runs poststop hooks.
fn take_away(now: &Now, lock: Lock) -> Result<()> {
    let record = &now.record;
    cgroup::destroy(&record.cgroup)?;
    tracing::debug!("container {}: nothing runs any more, its cgroup is removed", record.id);
    Failpoint::DeleteCgroup.pass()?;
    if let Some(mounts) = &record.shared_mounts {
        mounts.unmount()?;
    }
    if let Some(groups) = &record.rdt {
        groups.remove()?;
    }
    now.home.remove()?;
    // It's gone: others needn't wait for the hooks to learn that.
    drop(lock);
    Failpoint::DeleteHome.pass()?;
    hooks::poststop(record);
    Failpoint::DeleteHooks.pass()
}

/// Kills everything and waits for init's end.
fn stop(now: &Now) -> Result<()> {
    let cgroup = &now.record.cgroup;
    // Nothing frozen dies.
    if now.status == Status::Paused {
        cgroup.thaw().cgroup("thaw", cgroup.path())?;
    }
    cgroup.kill().cgroup("kill the processes of", cgroup.path())?;
    let Some(init) = &now.init else { return Ok(()) };
    pidfd_send_signal(init.as_fd(), libc::SIGKILL).ok(); // because it may be gone by now
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        let mut fds = [PollFd::new(init.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(n) if n > 0 => return Ok(()),
            Ok(_) if left.is_zero() => {
                let pids = cgroup.pids().unwrap_or_default();
                let pids: Vec<_> = pids.into_iter().map(i32::cast_unsigned).collect();
                return Err(Error::Undying {
                    id: now.home.id.clone(),
                    seconds: PATIENCE.as_secs(),
                    why: corten_sys::stuck::why(&pids),
                });
            }
            _ => {}
        }
    }
}
