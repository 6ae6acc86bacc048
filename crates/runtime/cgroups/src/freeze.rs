//! Freezing and thawing.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{Cgroup, Controllers, Dir, Error, Result, file};

/// How long freezing may take: the kernel has to get every task out of its system call.
const DEADLINE: Duration = Duration::from_secs(10);

impl Cgroup {
    /// Stops all processes, also those in cgroups below; returns once they stand still.
    ///
    /// # Errors
    /// [`Error::Timeout`] if they don't (the cgroup is then thawed again); [`Error::Write`].
    pub fn freeze(&self) -> Result<()> {
        let dir = self.freezer()?;
        let deadline = Instant::now() + DEADLINE;
        let mut pause = Duration::from_micros(50);
        file::write(&dir.path.join(name(dir)), if dir.v2 { "1" } else { "FROZEN" })?;
        while !stands_still(dir)? {
            if Instant::now() > deadline {
                self.thaw().ok(); // That it never froze is what the caller must know.
                let path = dir.path.clone();
                return Err(Error::Timeout { path, state: "frozen", seconds: DEADLINE.as_secs() });
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
            if !dir.v2 {
                // A process that forked while v1 froze the cgroup can leave it half frozen: it takes another go.
                file::write(&dir.path.join(name(dir)), "FROZEN")?;
            }
        }
        Ok(())
    }

    /// Lets all processes run on.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn thaw(&self) -> Result<()> {
        let dir = self.freezer()?;
        file::write(&dir.path.join(name(dir)), if dir.v2 { "0" } else { "THAWED" })
    }

    /// Whether this cgroup is frozen or being frozen (on v1 also if one above it is).
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn is_frozen(&self) -> Result<bool> {
        is_frozen(self.freezer()?)
    }

    /// The directory where freezing is done: v1's freezer if there is one. On a hybrid machine without, v2.
    pub(crate) fn freezer(&self) -> Result<&Dir> {
        let v1 = self.dirs.iter().find(|dir| !dir.v2 && dir.controllers.contains(Controllers::FREEZER));
        let dir = v1.or_else(|| self.dirs.iter().find(|dir| dir.v2));
        dir.ok_or_else(|| Error::NoController { limit: "frozen state".to_owned(), controller: "freezer" })
    }
}

fn name(dir: &Dir) -> &'static str {
    if dir.v2 { "cgroup.freeze" } else { "freezer.state" }
}

/// Whether the directory says that it is frozen; one that has nothing to do with freezing isn't, nor one that is gone.
pub(crate) fn is_frozen(dir: &Dir) -> Result<bool> {
    if !dir.v2 && !dir.controllers.contains(Controllers::FREEZER) {
        return Ok(false);
    }
    let state = file::read_if_there(&dir.path.join(name(dir)))?;
    Ok(state.is_some_and(|state| !matches!(state.trim(), "0" | "THAWED" | "")))
}

fn stands_still(dir: &Dir) -> Result<bool> {
    if dir.v2 {
        let events = file::read(&dir.path.join("cgroup.events"))?;
        return Ok(file::keyed(&events, "frozen") == Some(1));
    }
    Ok(file::read(&dir.path.join("freezer.state"))?.trim() == "FROZEN")
}
