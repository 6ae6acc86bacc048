//! A container without a mount namespace of its own: its mounts are below its rootfs in a namespace of others, and are
//! taken away with it.

use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::PathBuf,
};

use corten_sys::{
    mount,
    process::{self, Forked, Namespaces},
};
use nix::libc;
use serde::{Deserialize, Serialize};

use crate::{Error, Result, error::Doing, plan::Plan, spawn::parent::Child, undo::Undo};

/// Where the mounts are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SharedMounts {
    rootfs: PathBuf,
    /// The namespace that was joined; None is the runtime's.
    namespace: Option<PathBuf>,
}

impl SharedMounts {
    /// Waits until init has made the first of them, and registers how to take them away; None if the container has a
    /// mount namespace of its own.
    pub(crate) fn made(plan: &Plan, init: &Child, undo: &mut Undo<'static>) -> Result<Option<Self>> {
        if plan.namespaces.own_mounts() {
            return Ok(None);
        }
        // The only message, Rooted, that it has by then.
        init.hear("mounting the rootfs")?;
        let mounts = Self::of(plan);
        undo.push("unmount the rootfs", {
            let mounts = mounts.clone();
            move || mounts.unmount()
        });
        Ok(Some(mounts))
    }

    fn of(plan: &Plan) -> Self {
        let namespace = plan.namespaces.joins(Namespaces::MOUNT).map(|join| join.path.clone());
        let rootfs = plan.rootfs.path.clone();
        // By its real name, as a link isn't followed when it's unmounted.
        let real = if namespace.is_none() { fs::canonicalize(&rootfs).ok() } else { None };
        Self { rootfs: real.unwrap_or(rootfs), namespace }
    }

    /// Unmounts the rootfs with all that is mounted in it. That it's gone already is fine.
    pub(crate) fn unmount(&self) -> Result<()> {
        let doing = || format!("unmount the rootfs {}", self.rootfs.display());
        let path = CString::new(self.rootfs.as_os_str().as_bytes()).map_err(io::Error::from).doing(doing)?;
        let detach = || match mount::detach(&path) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => Ok(()),
            other => other,
        };
        let Some(namespace) = &self.namespace else { return detach().doing(doing) };
        let namespace: OwnedFd = match fs::File::open(namespace) {
            // Nobody keeps it any more, so it's gone, and its mounts with it.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.doing(|| format!("open {}", namespace.display()))?.into(),
        };
        // Another process, because there's no way back to our own root directory.
        match process::clone(Namespaces::empty(), None, false).doing(doing)? {
            Forked::Child => {
                let done = process::setns(namespace.as_fd(), Namespaces::MOUNT).and_then(|()| detach());
                process::exit(done.err().map_or(0, |e| e.raw_os_error().unwrap_or(libc::EIO)))
            }
            Forked::Parent { pid, .. } => match process::wait(pid).doing(doing)? {
                0 => Ok(()),
                errno => Err(Error::Os { operation: doing(), source: io::Error::from_raw_os_error(errno) }),
            },
        }
    }
}
