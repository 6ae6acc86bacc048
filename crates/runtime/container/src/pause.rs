//! `pause`, `resume` and `update`: working on the cgroup of a living container.

use oci_spec::runtime::LinuxResources;

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
            Status::Running | Status::Created => cgroup.freeze().cgroup("freeze", cgroup.path()),
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

    /// Changes the limits given; what isn't given stays as it is.
    ///
    /// # Errors
    /// [`Error::Cgroup`]; [`Error::Status`] if it is stopped.
    pub fn update(&self, id: &str, resources: &LinuxResources) -> Result<()> {
        let now = self.now(id)?;
        let cgroup = &now.record.cgroup;
        match now.status {
            Status::Stopped | Status::Creating => {
                Err(Error::Status { id: id.to_owned(), status: now.status, operation: "update" })
            }
            _ => cgroup.update(resources).cgroup("change the limits of", cgroup.path()),
        }
    }
}
