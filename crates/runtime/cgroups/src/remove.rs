//! Removing the directories, from the bottom up.

use std::{
    fs, io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::{Cgroup, Error, Result, file, kill::children};

/// How long a killed process may take to leave.
const DEADLINE: Duration = Duration::from_secs(10);

impl Cgroup {
    /// Removes the cgroup in every hierarchy if there's nothing in it: no process, no cgroup. Whether it is gone; if it
    /// isn't, nothing has changed where processes are counted.
    ///
    /// That's one system call a hierarchy, for what is most often the case. Not for what is systemd's: its unit has to be
    /// stopped.
    #[must_use]
    pub fn remove_if_empty(&self) -> bool {
        if self.unit.is_some() {
            return false;
        }
        if self.is_none() {
            return true;
        }
        let gone = |path: &Path| fs::remove_dir(path).map_or_else(|error| file::is_gone(&error), |()| true);
        let members = self.members();
        gone(members) && self.dirs.iter().filter(|dir| dir.path != members).all(|dir| gone(&dir.path))
    }

    /// Removes the cgroup and all below it, in every hierarchy, waiting for killed processes to leave. Parents
    /// stay. What is gone already is no error; a hierarchy that fails doesn't keep the others from being cleared.
    ///
    /// systemd's unit is stopped first.
    ///
    /// # Errors
    /// [`Error::Io`] (EBUSY if there are processes) of the first directory that can't be removed.
    pub fn remove(&self) -> Result<()> {
        // Without processes systemd ends the unit by itself, but it would remember one that failed. That it can't be
        // asked to forget must not keep a container from being deleted.
        let stopped = self.unit.as_ref().map_or(Ok(()), crate::systemd::Made::stop);
        // From now on: systemd may have taken longer than that.
        let deadline = Instant::now() + DEADLINE;
        let results: Vec<_> = self.dirs.iter().map(|dir| remove_tree(&dir.path, deadline)).collect();
        let removed = results.into_iter().collect();
        if self.exists() { stopped.and(removed) } else { removed }
    }
}

fn remove_tree(path: &Path, deadline: Instant) -> Result<()> {
    let mut pause = Duration::from_micros(200);
    loop {
        let error = match fs::remove_dir(path) {
            Ok(()) => return Ok(()),
            Err(error) if file::is_gone(&error) => return Ok(()),
            Err(error) => error,
        };
        if !matches!(error.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::DirectoryNotEmpty) {
            return Err(Error::io("remove", path)(error));
        }
        let below = children(path)?;
        for child in &below {
            remove_tree(child, deadline)?;
        }
        if below.is_empty() {
            if Instant::now() > deadline {
                return Err(Error::io("remove", path)(error));
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cgroup_is_gone_already() {
        let none = Cgroup::none("/a");
        assert!(none.remove_if_empty());
        none.remove().expect("nothing to remove");
    }
}
