//! Getting a process into a cgroup: the descriptors are opened before the clone, the child walks in itself.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Component, Path, PathBuf},
};

use nix::libc::EOPNOTSUPP;

use crate::{Cgroup, Error, Result, file};

/// Open descriptors through which a process can enter a cgroup.
///
/// On v2 the process is born there: give [`Entrance::birthplace`] to clone3. On v1 the child calls
/// [`Entrance::enter`], which writes "0" to `tasks`: a thread that moves only itself needs no lock against all
/// forks on the machine, taking which costs an RCU grace period (milliseconds) on many kernels. On 6.18 there is
/// no difference any more. The child must be single-threaded, as one fresh from clone is.
#[derive(Debug)]
pub struct Entrance {
    v1: Vec<(PathBuf, File)>,
    v2: Option<(PathBuf, File)>,
}

impl Cgroup {
    /// Opens what a process needs to enter.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn entrance(&self) -> Result<Entrance> {
        self.entrance_below("")
    }

    /// The same for a process that is to be where process `pid` is, if that is below (`exec`): a v2 cgroup that hands
    /// its controllers down, because the container divides it further, may have no processes of its own.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn entrance_beside(&self, pid: i32) -> Result<Entrance> {
        let Some(dir) = self.v2().filter(|_| self.is_unified()) else { return self.entrance() };
        if file::read(&dir.join("cgroup.subtree_control"))?.trim().is_empty() {
            return self.entrance();
        }
        let membership = file::read(Path::new(&format!("/proc/{pid}/cgroup")))?;
        let place = membership.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
        self.entrance_below(Path::new(place).strip_prefix(&self.path).unwrap_or(Path::new("")))
    }

    /// The same for a cgroup below this one, in every hierarchy (`exec --cgroup`).
    ///
    /// # Errors
    /// [`Error::Io`], if it doesn't exist for example; [`Error::SubPath`] if it climbs.
    pub fn entrance_below(&self, below: impl AsRef<Path>) -> Result<Entrance> {
        let below = below.as_ref();
        self.entrance_where(|_| below)
    }

    /// The same, but only the hierarchies of some v1 controllers go below (`exec --cgroup cpu,memory:path`).
    /// A controller is named as in the mount options; the v2 hierarchy is named "".
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Limit`] if a controller isn't there; [`Error::SubPath`] if a path climbs.
    pub fn entrance_by_controller(&self, below: &[(String, PathBuf)]) -> Result<Entrance> {
        for (name, _) in below {
            if !self.dirs.iter().any(|dir| is_named(dir, name)) {
                let limit = format!("the cgroup of controller {name:?}");
                return Err(Error::Limit { limit, reason: "there is no such hierarchy".to_owned() });
            }
        }
        self.entrance_where(|dir| {
            below.iter().find(|(name, _)| is_named(dir, name)).map_or(Path::new(""), |(_, path)| path)
        })
    }

    fn entrance_where<'a>(&self, below: impl Fn(&crate::Dir) -> &'a Path) -> Result<Entrance> {
        let mut entrance = Entrance { v1: Vec::with_capacity(self.dirs.len()), v2: None };
        for dir in &self.dirs {
            let below = below(dir);
            if below.components().any(|part| part == Component::ParentDir) {
                return Err(Error::SubPath { path: below.to_owned() });
            }
            // join() with "" would add a slash, and an absolute path would leave the container's cgroup.
            let below = below.strip_prefix("/").unwrap_or(below);
            let path = if below.as_os_str().is_empty() { dir.path.clone() } else { dir.path.join(below) };
            if dir.v2 {
                let options = nix::libc::O_DIRECTORY | nix::libc::O_PATH;
                let file = OpenOptions::new().read(true).custom_flags(options).open(&path);
                entrance.v2 = Some((path.clone(), file.map_err(Error::io("open", path))?));
            } else {
                let path = path.join("tasks");
                let file = OpenOptions::new().write(true).open(&path).map_err(Error::io("open", &path))?;
                entrance.v1.push((path, file));
            }
        }
        Ok(entrance)
    }

    /// Moves a process and its threads here, from outside.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn add_pid(&self, pid: i32) -> Result<()> {
        let pid = pid.to_string();
        self.dirs.iter().try_for_each(|dir| file::write(&dir.path.join("cgroup.procs"), &pid))
    }
}

fn is_named(dir: &crate::Dir, name: &str) -> bool {
    if dir.v2 { name.is_empty() } else { dir.controllers.names().split(',').any(|known| known == name) }
}

impl Entrance {
    /// The v2 directory, for CLONE_INTO_CGROUP.
    #[must_use]
    pub fn birthplace(&self) -> Option<BorrowedFd<'_>> {
        self.v2.as_ref().map(|(_, directory)| directory.as_fd())
    }

    /// Whether one who is born in the [birthplace](Self::birthplace) has nothing else to enter.
    #[must_use]
    pub fn only_by_birth(&self) -> bool {
        self.v2.is_some() && self.v1.is_empty()
    }

    /// Moves the calling (single-threaded) process here. `born_there`: clone3 was given the birthplace and so has
    /// done the v2 part.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn enter(&self, born_there: bool) -> Result<()> {
        for (path, tasks) in &self.v1 {
            let mut tasks = tasks;
            tasks.write_all(b"0").map_err(|source| Error::Write {
                path: path.clone(),
                value: "0".to_owned(),
                source,
            })?;
        }
        match &self.v2 {
            Some((path, _)) if !born_there => match file::write(&path.join("cgroup.procs"), "0") {
                // A threaded cgroup takes threads, of which we have one.
                Err(Error::Write { source, .. }) if source.raw_os_error() == Some(EOPNOTSUPP) => {
                    file::write(&path.join("cgroup.threads"), "0")
                }
                other => other,
            },
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{Controllers, Dir};

    #[test]
    fn no_entrance_outside() {
        let root = tempfile::tempdir().expect("a directory");
        let container = root.path().join("container");
        for directory in [root.path(), &container, &container.join("a")] {
            fs::create_dir_all(directory).expect("a directory");
            fs::write(directory.join("tasks"), "").expect("a file");
        }
        let dirs = vec![Dir { path: container, controllers: Controllers::CPU, v2: false }];
        let cgroup = Cgroup { path: "/container".into(), dirs, unit: None };
        for inside in ["", "a", "/a", "./a"] {
            cgroup.entrance_below(inside).expect(inside);
        }
        for climbing in ["..", "/..", "../container", "a/..", "a/../.."] {
            for refused in [
                cgroup.entrance_below(climbing),
                cgroup.entrance_by_controller(&[("cpu".to_owned(), climbing.into())]),
            ] {
                let error = refused.expect_err(climbing).to_string();
                assert!(error.starts_with("bad sub cgroup path"), "{error}");
            }
        }
    }
}
