//! `pause` and `resume`: freezing the cgroup of a living container.

use crate::{Error, Result, Runtime, Status, cgroup::CgroupDoing};

impl Runtime {
    /// Freezes all processes.
    ///
    /// # Errors
    /// [`Error::Status`] unless created or running.
    pub fn pause(&self, id: &str) -> Result<()> {
        let now = self.now(id)?;
        let cgroup = &now.record.cgroup;
        match now.status {
            Status::Running | Status::Created => {
                now.record.require_cgroup("freeze")?;
                cgroup.freeze().cgroup("freeze", cgroup.path())
            }
            status => Err(Error::Status { id: id.to_owned(), status, operation: "pause" }),
        }
    }

    /// Thaws all processes.
    ///
    /// # Errors
    /// [`Error::Status`] unless paused.
    pub fn resume(&self, id: &str) -> Result<()> {
        let now = self.now(id)?;
        let cgroup = &now.record.cgroup;
        match now.status {
            Status::Paused => cgroup.thaw().cgroup("thaw", cgroup.path()),
            status => Err(Error::Status { id: id.to_owned(), status, operation: "resume" }),
        }
    }
}
