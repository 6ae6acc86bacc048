//! The root filesystem: made a mount of its own, entered by pivot_root, and in the end perhaps read-only.

use std::{
    ffi::CString,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
};

use corten_sys::mount::{self, Attributes, Change, Propagation};
use nix::{
    fcntl::{OFlag, open},
    sys::stat::Mode,
    unistd::{chdir, chroot, fchdir},
};

use crate::{Result, error::Doing, plan::RootfsPlan};

/// Cuts our mounts off from the host's, if they're our `own`, and mounts the rootfs onto itself. Returns its root,
/// through which everything inside is looked up from now on.
pub(crate) fn prepare(plan: &RootfsPlan, own: bool) -> Result<OwnedFd> {
    if !own {
        let root = attach(plan)?;
        // What is mounted in it is for nobody else.
        let change = Change { propagation: Some(Propagation::Private), ..Change::default() };
        mount::set_attributes(root.as_fd(), true, &change)
            .doing(|| format!("make {} private", show(plan)))?;
        return Ok(root);
    }
    let (propagation, recursive) = match plan.propagation {
        // What is unbindable can't be mounted onto itself: that comes last, in `finish`.
        None | Some((Propagation::Unbindable, _)) => (Propagation::Slave, true),
        Some(given) => given,
    };
    mount::set_propagation(c"/", propagation, recursive)
        .doing(|| format!("make the propagation of all mounts {propagation:?}"))?;
    if propagation == Propagation::Shared {
        make_parent_private(plan)?;
    }
    attach(plan)
}

/// The mount that the rootfs is on must not be shared: pivot_root wants it so, and the host would get the rootfs mounted
/// once more, for good.
fn make_parent_private(plan: &RootfsPlan) -> Result<()> {
    let doing = || format!("make the mount below {} private", show(plan));
    for place in plan.path.ancestors() {
        let path = CString::new(place.as_os_str().as_bytes()).map_err(std::io::Error::from).doing(doing)?;
        match mount::set_propagation(&path, Propagation::Private, false) {
            // It isn't where something is mounted: further up.
            Err(e) if e.raw_os_error() == Some(nix::libc::EINVAL) => {}
            other => return other.doing(doing),
        }
    }
    Ok(())
}

fn attach(plan: &RootfsPlan) -> Result<OwnedFd> {
    let path = CString::new(plan.path.as_os_str().as_bytes())
        .map_err(std::io::Error::from)
        .doing(|| format!("open {}", show(plan)))?;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let place = open(path.as_c_str(), flags, Mode::empty()).doing(|| format!("open {}", show(plan)))?;
    let tree = mount::clone_tree(place.as_fd(), c"", true).doing(|| format!("bind mount {}", show(plan)))?;
    mount::move_mount(tree.as_fd(), place.as_fd()).doing(|| format!("mount {}", show(plan)))?;
    Ok(tree)
}

fn show(plan: &RootfsPlan) -> String {
    format!("rootfs {}", plan.path.display())
}

/// Makes `root` our root directory and lets go of everything that was mounted outside of it.
pub(crate) fn enter(root: BorrowedFd<'_>, plan: &RootfsPlan, no_pivot: bool, own: bool) -> Result<()> {
    if !own {
        // Others have their root in this namespace: it mustn't be pivoted away from under them.
        return enter_shared(root);
    }
    fchdir(root).doing(|| format!("change into {}", show(plan)))?;
    if no_pivot {
        super::no_pivot::enter(plan)?;
    } else {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let propagates = plan.propagation.is_some();
        let old = propagates.then(|| open("/", flags, Mode::empty())).transpose();
        let old = old.doing(|| "open the old root".to_owned())?;
        mount::pivot_root_here().doing(|| format!("pivot_root into {}", show(plan)))?;
        if let Some(old) = old {
            // Or else the host would lose its mounts with us.
            let doing = || "make the old root a slave".to_owned();
            fchdir(&old).doing(doing)?;
            mount::set_propagation(c".", Propagation::Slave, true).doing(doing)?;
        }
        // The old root: it's on top of the new one, or the current directory.
        mount::detach_here().doing(|| "unmount the old root".to_owned())?;
    }
    chdir("/").doing(|| "change into /".to_owned())
}

/// Makes `root` our root directory, and leaves everybody else theirs.
pub(crate) fn enter_shared(root: BorrowedFd<'_>) -> Result<()> {
    let doing = || "chroot into the container's root".to_owned();
    fchdir(root).doing(doing)?;
    chroot(".").doing(doing)?;
    chdir("/").doing(doing)
}

/// What could only be set once everything is in place.
pub(crate) fn finish(root: BorrowedFd<'_>, plan: &RootfsPlan) -> Result<()> {
    let propagation = plan.propagation.filter(|(kind, _)| *kind != Propagation::Slave);
    if let Some((propagation, recursive)) = propagation {
        let change = Change { propagation: Some(propagation), ..Change::default() };
        mount::set_attributes(root, recursive, &change)
            .doing(|| format!("make the propagation of the root {propagation:?}"))?;
    }
    if plan.readonly {
        let change = Change { set: Attributes::RDONLY, ..Change::default() };
        mount::set_attributes(root, false, &change).doing(|| "make the root read-only".to_owned())?;
    }
    Ok(())
}
