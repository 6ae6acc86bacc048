//! Who is in a cgroup, and killing all of them.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{Cgroup, Error, Result, file};

impl Cgroup {
    /// The processes in this cgroup and all below it, as the caller's PID namespace numbers them. Empty if the
    /// cgroup is gone.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn pids(&self) -> Result<Vec<i32>> {
        let mut pids = Vec::new();
        if self.is_none() {
            return Ok(pids);
        }
        // Processes may sit in a deeper cgroup of one hierarchy only, but then this one's is above it.
        collect(self.members(), &mut pids)?;
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Sends a signal to every process in the cgroup and below. SIGKILL can't be outrun by forking.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Write`]. That a process is gone already is none.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if signal == Signal::SIGKILL {
            return self.kill();
        }
        for pid in self.pids()? {
            send(pid, signal)?;
        }
        Ok(())
    }

    /// Kills every process in the cgroup and below, frozen ones too. Returns when each has been sent SIGKILL and
    /// can act on it; they may take a moment to go ([`Cgroup::remove`] waits for that).
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Write`].
    pub fn kill(&self) -> Result<()> {
        if self.is_none() {
            return Ok(());
        }
        let killed = match self.v2() {
            Some(dir) => match file::try_write(&dir.join("cgroup.kill"), "1") {
                Ok(()) => true,
                Err(error) if file::is_gone(&error) => !dir.exists() && self.is_unified(),
                Err(source) => {
                    return Err(Error::Write {
                        path: dir.join("cgroup.kill"),
                        value: "1".to_owned(),
                        source,
                    });
                }
            },
            None => false,
        };
        let each = if killed { Ok(()) } else { self.kill_each() };
        // What is frozen on v1 doesn't die before it is thawed. On v2 it does; but what couldn't be killed must not
        // stay frozen either.
        if self.is_unified() && (killed || !self.exists()) {
            return each;
        }
        each.and(self.thaw_all())
    }

    /// Kernels before 5.14 and v1: freeze so that nobody can fork away, kill, thaw.
    fn kill_each(&self) -> Result<()> {
        if !self.exists() {
            return Ok(());
        }
        self.freeze().ok(); // If it can't be, the second round below gets those who forked.
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut before = Vec::new();
        loop {
            let pids = self.pids()?;
            for pid in pids.iter().filter(|pid| !before.contains(*pid)) {
                send(*pid, Signal::SIGKILL)?;
            }
            if pids.iter().all(|pid| before.contains(pid)) || Instant::now() > deadline {
                break;
            }
            before = pids;
        }
        Ok(())
    }

    /// Thaws this cgroup and those below it, which the container may have frozen.
    fn thaw_all(&self) -> Result<()> {
        let dir = self.freezer()?;
        if !dir.v2 {
            return thaw_tree(&dir.path);
        }
        // What is frozen below stays so: on v2 it dies all the same.
        match file::try_write(&dir.path.join("cgroup.freeze"), "0") {
            Err(error) if !file::is_gone(&error) => Err(Error::io("thaw", &dir.path)(error)),
            _ => Ok(()),
        }
    }

    /// Waits until no process is left; false if some are still there at the deadline.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn wait_empty(&self, timeout: Duration) -> Result<bool> {
        let deadline = Instant::now() + timeout;
        let mut pause = Duration::from_micros(100);
        loop {
            if self.pids()?.is_empty() {
                return Ok(true);
            }
            if Instant::now() > deadline {
                return Ok(false);
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}

fn send(pid: i32, signal: Signal) -> Result<()> {
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(Error::io("signal a process of", format!("cgroup (pid {pid})"))(errno.into())),
    }
}

fn thaw_tree(path: &Path) -> Result<()> {
    let state = path.join("freezer.state");
    if file::read_if_there(&state)?.is_some_and(|state| state.trim() != "THAWED") {
        match file::try_write(&state, "THAWED") {
            Err(error) if !file::is_gone(&error) => {
                return Err(Error::Write { path: state, value: "THAWED".to_owned(), source: error });
            }
            _ => {}
        }
    }
    children(path)?.iter().try_for_each(|child| thaw_tree(child))
}

fn collect(path: &Path, pids: &mut Vec<i32>) -> Result<()> {
    match fs::read_to_string(path.join("cgroup.procs")) {
        // A process of another PID namespace is 0 to us; nothing can be done to it.
        Ok(text) => {
            pids.extend(text.lines().filter_map(|pid| pid.parse::<i32>().ok()).filter(|pid| *pid > 0))
        }
        Err(error) if file::is_gone(&error) => return Ok(()),
        Err(error) => return Err(Error::io("read", path.join("cgroup.procs"))(error)),
    }
    children(path)?.iter().try_for_each(|child| collect(child, pids))
}

/// The cgroups directly below.
pub(crate) fn children(path: &Path) -> Result<Vec<std::path::PathBuf>> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if file::is_gone(&error) => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("list", path)(error)),
    };
    let mut children = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io("list", path))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            children.push(entry.path());
        }
    }
    Ok(children)
}
