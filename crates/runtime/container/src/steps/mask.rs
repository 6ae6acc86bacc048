//! `linux.readonlyPaths` and `linux.maskedPaths`.
//!
//! Directories are masked by one empty read-only tmpfs, cloned for each: Kubernetes masks a directory per CPU, and
//! a superblock each would cost. Files are masked by the host's /dev/null, which nobody in the container can have
//! replaced (CVE-2025-31133); that's why this happens before pivot_root.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use corten_sys::{
    mount::{self, Attributes, Change, Filesystem},
    path::open_in_root,
};
use nix::libc;

use super::{dev, mount::show, target::is_directory};
use crate::{Result, error::Doing, plan::Plan};

/// Makes the paths read-only; one that doesn't exist is fine.
pub(crate) fn readonly(root: BorrowedFd<'_>, plan: &Plan) -> Result<()> {
    let change = Change { set: Attributes::RDONLY, ..Change::default() };
    for path in &plan.readonly {
        let doing = || format!("make {} read-only", show(path));
        let Some(target) = find(root, path).doing(doing)? else { continue };
        let tree = mount::clone_tree(target.as_fd(), c"", true).doing(doing)?;
        mount::set_attributes(tree.as_fd(), true, &change).doing(doing)?;
        mount::move_mount(tree.as_fd(), target.as_fd()).doing(doing)?;
    }
    Ok(())
}

/// Masks the paths; one that doesn't exist is fine.
pub(crate) fn masked(root: BorrowedFd<'_>, plan: &Plan) -> Result<()> {
    let mut null: Option<OwnedFd> = None;
    let mut empty: Option<OwnedFd> = None;
    for path in &plan.masked {
        let doing = || format!("mask {}", show(path));
        let Some(target) = find(root, path).doing(doing)? else { continue };
        let directory = is_directory(target.as_fd()).doing(doing)?;
        let tree = match (directory, &empty) {
            (true, None) => empty_directory(plan.mount_label.as_deref()).doing(doing)?,
            // Cloned from where the first one is mounted: a detached mount can't be cloned before Linux 6.15.
            (true, Some(first)) => mount::clone_tree(first.as_fd(), c"", false).doing(doing)?,
            (false, _) => {
                if null.is_none() {
                    null = Some(dev::host_null().doing(|| "open /dev/null".to_owned())?);
                }
                let Some(null) = &null else { continue };
                mount::clone_tree(null.as_fd(), c"", false).doing(doing)?
            }
        };
        mount::move_mount(tree.as_fd(), target.as_fd()).doing(doing)?;
        if directory && empty.is_none() {
            empty = Some(tree);
        }
    }
    Ok(())
}

fn find(root: BorrowedFd<'_>, path: &std::ffi::CStr) -> std::io::Result<Option<OwnedFd>> {
    match open_in_root(root, path, libc::O_PATH, 0) {
        Ok(target) => Ok(Some(target)),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
        Err(e) => Err(e),
    }
}

fn empty_directory(label: Option<&std::ffi::CStr>) -> std::io::Result<OwnedFd> {
    let fs = Filesystem::open(c"tmpfs")?;
    fs.string(c"source", c"tmpfs")?;
    fs.string(c"nr_blocks", c"1")?;
    fs.string(c"nr_inodes", c"1")?;
    if let Some(label) = label {
        fs.string(c"context", label)?;
    }
    let set = Attributes::RDONLY | Attributes::NOSUID | Attributes::NODEV | Attributes::NOEXEC;
    fs.mount(set)
}
