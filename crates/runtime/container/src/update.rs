//! `update`: other limits for a living container.

use oci_spec::runtime::LinuxResources;

use crate::{Error, Result, Runtime, Status, cgroup::CgroupDoing, query::Now};

impl Runtime {
    /// Changes the limits given; what isn't given stays as it is.
    ///
    /// # Errors
    /// [`Error::Cgroup`]; [`Error::Status`] if it is stopped.
    pub fn update(&self, id: &str, resources: &LinuxResources) -> Result<()> {
        let now = self.updatable(id)?;
        now.record.require_cgroup("change the limits of")?;
        let cgroup = &now.record.cgroup;
        cgroup.update(resources).cgroup("change the limits of", cgroup.path())
    }

    /// Changes lines of the schemata of the container's resource control group (Intel RDT): `L3:0=f`, `MB:0=50`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if it was created without `linux.intelRdt`; [`Error::Os`] if the kernel refuses the
    /// line; [`Error::Status`] if it is stopped.
    pub fn update_schemata(&self, id: &str, schemata: &[&str]) -> Result<()> {
        let now = self.updatable(id)?;
        let Some(groups) = &now.record.rdt else {
            return Err(Error::Unsupported {
                field: "linux.intelRdt",
                why: "updating a non-existent Intel RDT configuration is not supported".to_owned(),
            });
        };
        schemata.iter().try_for_each(|line| groups.change(line))
    }

    fn updatable(&self, id: &str) -> Result<Now> {
        let now = self.now(id)?;
        match now.status {
            status @ (Status::Stopped | Status::Creating) => {
                Err(Error::Status { id: id.to_owned(), status, operation: "update" })
            }
            _ => Ok(now),
        }
    }
}
