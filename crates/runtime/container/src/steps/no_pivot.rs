//! Leaving the old root by chroot(2), where pivot_root(2) isn't possible.

use std::{
    ffi::CString,
    fs::read_to_string,
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use corten_cgroups::unescape;
use corten_sys::mount::{self, Attributes, Filesystem, Propagation};
use nix::{
    fcntl::{OFlag, open},
    libc,
    sys::stat::Mode,
    unistd::chroot,
};

use crate::{Result, error::Doing, plan::RootfsPlan};

/// Moves the current directory, which is the container's root, onto / and changes the root to it.
///
/// The host's mounts stay in the mount namespace, out of reach but for the kernel, which lets a user namespace mount a
/// /proc or /sys of its own only if it sees one whole: without masks. So the host's are taken away first (runc does the
/// same, and so does a pivot, with everything else).
pub(super) fn enter(plan: &RootfsPlan) -> Result<()> {
    let table = read_to_string("/proc/self/mountinfo").doing(|| "read our mounts".to_owned())?;
    for place in whole(&table, &plan.path) {
        hide(&place).doing(|| format!("take {} away from the container", place.display()))?;
    }
    mount::move_here_to_root().doing(|| format!("move rootfs {} to /", plan.path.display()))?;
    chroot(".").doing(|| format!("chroot into rootfs {}", plan.path.display()))
}

/// The mount points of whole proc and sysfs file systems outside of the rootfs.
fn whole(mountinfo: &str, rootfs: &Path) -> Vec<PathBuf> {
    let place = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let mut fields = left.split(' ').skip(3);
        let (root, place) = (fields.next()?, unescape(fields.next()?));
        let kernel = matches!(right.split(' ').next(), Some("proc" | "sysfs"));
        (kernel && root == "/" && !place.starts_with(rootfs)).then_some(place)
    };
    mountinfo.lines().filter_map(place).collect()
}

fn hide(place: &Path) -> io::Result<()> {
    let path = crate::plan::c_path(place)?;
    match hide_at(&path) {
        // It went with what it was mounted in.
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

fn hide_at(path: &CString) -> io::Result<()> {
    // The host mustn't lose it with us.
    mount::set_propagation(path, Propagation::Slave, true)?;
    match mount::detach(path) {
        // It is locked, as we are in a user namespace: what is on top of it hides it as well.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::EPERM)) => {
            let cover = Filesystem::open(c"tmpfs")?.mount(Attributes::RDONLY)?;
            let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
            let target = open(path.as_c_str(), flags, Mode::empty())?;
            mount::move_mount(cover.as_fd(), target.as_fd())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_file_systems_outside_are_found() {
        let table = "\
21 1 0:5 / /proc rw shared:1 - proc proc rw
22 1 0:6 / /sys rw - sysfs sysfs rw
23 21 0:5 /sys /proc/sys ro - proc proc rw
24 1 8:1 / / rw - ext4 /dev/sda rw
25 24 0:5 / /b/rootfs/proc rw - proc proc rw
26 24 0:5 / /with\\040space rw - proc proc rw
";
        let found = whole(table, Path::new("/b/rootfs"));
        assert_eq!(found, ["/proc", "/sys", "/with space"].map(PathBuf::from));
    }
}
