//! Where a container's cgroup is, and its end. The rest is `corten-cgroups`'.

use std::path::{Path, PathBuf};

use corten_cgroups::Cgroup;
use oci_spec::runtime::Linux;

use crate::{Error, Result, Runtime};

/// Says which cgroup it was about.
pub(crate) trait CgroupDoing<T> {
    /// `cannot <operation> cgroup <path>`, with the cause as source.
    fn cgroup(self, operation: &'static str, path: &Path) -> Result<T>;
}

impl<T> CgroupDoing<T> for corten_cgroups::Result<T> {
    fn cgroup(self, operation: &'static str, path: &Path) -> Result<T> {
        self.map_err(|e| match e {
            corten_cgroups::Error::Frozen { path } => Error::CgroupBusy { path, why: "frozen" },
            corten_cgroups::Error::NotEmpty { path, .. } => Error::CgroupBusy { path, why: "not empty" },
            other => Error::Cgroup { operation, path: path.to_owned(), source: other.into() },
        })
    }
}

/// `linux.cgroupsPath`, absolute; a relative one begins at the root of the hierarchies, none is /corten/<id>.
pub(crate) fn place(runtime: &Runtime, linux: Option<&Linux>, id: &str) -> Result<PathBuf> {
    let given = linux.and_then(|linux| linux.cgroups_path().clone()).filter(|p| !p.as_os_str().is_empty());
    if runtime.systemd_cgroup {
        return Err(Error::Cgroup {
            operation: "create",
            path: given.unwrap_or_default(),
            source: "systemd's cgroup driver is not supported yet: use cgroupfs".into(),
        });
    }
    Ok(match given {
        Some(path) if path.is_absolute() => path,
        given => {
            let name = given.unwrap_or_else(|| id.into());
            let base = if runtime.is_rootless() { crate::rootless::base() } else { None };
            match base {
                Some(base) => base.join(name),
                None if name == Path::new(id) => Path::new("/corten").join(id),
                None => Path::new("/").join(name),
            }
        }
    })
}

/// Kills what is in it, and removes it.
pub(crate) fn destroy(cgroup: &Cgroup) -> Result<()> {
    if cgroup.pids().is_ok_and(|pids| !pids.is_empty()) {
        cgroup.kill().cgroup("kill the processes of", cgroup.path())?;
    }
    cgroup.remove().cgroup("remove", cgroup.path())
}
