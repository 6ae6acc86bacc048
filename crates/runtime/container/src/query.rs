//! `state`, `list`, `ps`: looking without touching.

use std::{
    fs, io,
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
};

use oci_spec::runtime::Process;

use crate::{
    Error, Result, Runtime, State, Status,
    cgroup::CgroupDoing,
    error::{Doing, chain},
    record::{CREATING, FIFO, Home, Record},
};

/// A container with its status now.
pub(crate) struct Now {
    pub(crate) home: Home,
    pub(crate) record: Record,
    /// The seccomp filter's bytes.
    pub(crate) filter: Vec<u8>,
    pub(crate) status: Status,
    /// Init, unless it has ended.
    pub(crate) init: Option<OwnedFd>,
}

impl Runtime {
    /// Reads the record and asks the kernel.
    pub(crate) fn now(&self, id: &str) -> Result<Now> {
        let home = Home::new(&self.root, id)?;
        let (record, filter) = home.load_all()?;
        let init = record.init.open();
        let status = match &init {
            None => Status::Stopped,
            Some(_) if record.cgroup.is_frozen().unwrap_or(false) => Status::Paused,
            Some(_) if awaits_start(&home) => Status::Created,
            Some(_) if home.file(CREATING).symlink_metadata().is_ok() => Status::Creating,
            Some(_) => Status::Running,
        };
        Ok(Now { home, record, filter, status, init })
    }

    /// The container's state.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Record`].
    #[inline(never)]
    pub fn state(&self, id: &str) -> Result<State> {
        self.now(id).map(|now| now.record.state(now.status))
    }

    /// The states of all containers, by id; unreadable ones are left out and logged.
    ///
    /// # Errors
    /// If the root directory can't be read (that it doesn't exist is not an error).
    pub fn list(&self) -> Result<Vec<State>> {
        let doing = || format!("list {}", self.root.display());
        let entries = match fs::read_dir(&self.root) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.doing(doing)?,
        };
        let mut ids = Vec::new();
        for entry in entries {
            let entry = entry.doing(doing)?;
            if entry.file_type().is_ok_and(|kind| kind.is_dir())
                && let Ok(id) = entry.file_name().into_string()
            {
                ids.push(id);
            }
        }
        ids.sort();
        let mut states = Vec::new();
        for id in ids {
            match self.state(&id) {
                Ok(state) => states.push(state),
                // Being created or deleted just now.
                Err(Error::NotFound { .. } | Error::InvalidId { .. }) => {}
                Err(e) => tracing::warn!("{}", chain(&e)),
            }
        }
        Ok(states)
    }

    /// The container's own `process`, as a template for [`Self::exec`].
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Record`].
    pub fn process(&self, id: &str) -> Result<Process> {
        Ok(Home::new(&self.root, id)?.load()?.process)
    }

    /// The pids of all processes of the container, in the caller's PID namespace: none if it is stopped, unless some have
    /// outlived its init, which they can without a PID namespace.
    ///
    /// # Errors
    /// [`Error::Cgroup`].
    pub fn processes(&self, id: &str) -> Result<Vec<i32>> {
        let now = self.now(id)?;
        let record = &now.record;
        record.require_cgroup("list the processes of")?;
        record.cgroup.pids().cgroup("list the processes of", record.cgroup.path())
    }
}

/// Whether init waits at the exec fifo. That there's a fifo isn't enough: who has let init go may have been killed
/// before it removed it. Then nobody reads it any more.
fn awaits_start(home: &Home) -> bool {
    let mut options = fs::OpenOptions::new();
    options.write(true).custom_flags(nix::libc::O_NONBLOCK).open(home.file(FIFO)).is_ok()
}
