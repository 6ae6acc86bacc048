//! The cgroup file systems as the container sees them: cgroup2, or on v1 a tmpfs with one mount per hierarchy.

use std::{
    ffi::{CStr, CString},
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use corten_sys::mount::{self, Attributes, Change, Filesystem};
use nix::{
    fcntl::{OFlag, openat},
    libc,
    sys::stat::{Mode, mkdirat},
    sys::statfs::{CGROUP2_SUPER_MAGIC, statfs},
    unistd::symlinkat,
};

use super::{
    mount::{configure, place, show},
    target::Make,
};
use crate::{
    Result,
    error::Doing,
    plan::{CgroupMount, Mount},
};

const ROOT: &str = "/sys/fs/cgroup";

/// Mounts it, as the host has it.
pub(crate) fn mount(
    root: BorrowedFd<'_>,
    mount: &Mount,
    cgroup: &CgroupMount,
    label: Option<&CStr>,
) -> Result<()> {
    let target = place(root, mount, Make::Directory)?;
    let unified = statfs(ROOT).is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC);
    let set = mount.set | mount.set_recursive;
    let doing = || format!("mount the cgroups on {}", show(&mount.destination));
    if unified || cgroup.v2 {
        // The v2 half of a hybrid layout has a place of its own.
        let host = if unified { ROOT.to_owned() } else { format!("{ROOT}/unified") };
        let tree = v2(&host, cgroup, set).doing(doing)?;
        return mount::move_mount(tree.as_fd(), target.as_fd()).doing(doing);
    }
    v1(target.as_fd(), cgroup.namespaced, set, label).doing(doing)
}

fn v2(host: &str, cgroup: &CgroupMount, set: Attributes) -> io::Result<OwnedFd> {
    if cgroup.namespaced {
        let fs = Filesystem::open(c"cgroup2")?;
        fs.string(c"source", c"cgroup")?;
        configure(&fs, &cgroup.options)?;
        match fs.mount(set) {
            // In a user namespace whose cgroup namespace isn't its own.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EPERM | libc::EBUSY)) => {}
            other => return other,
        }
    }
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    bind(&format!("{host}{path}"), set)
}

fn bind(path: &str, set: Attributes) -> io::Result<OwnedFd> {
    let tree = mount::clone_tree_path(&CString::new(path)?, true)?;
    mount::set_attributes(tree.as_fd(), true, &Change { set, ..Change::default() })?;
    Ok(tree)
}

/// One hierarchy that we're in: "cpu,cpuacct" or "name=systemd", and our path in it.
struct Hierarchy {
    options: String,
    path: String,
}

fn hierarchies() -> io::Result<Vec<Hierarchy>> {
    let text = fs::read_to_string("/proc/self/cgroup")?;
    let parse = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (options, path) = (parts.next()?, parts.next()?);
        // An empty name is the v2 half of a hybrid layout, which containers don't see (as with runc).
        (!options.is_empty()).then(|| Hierarchy { options: options.to_owned(), path: path.to_owned() })
    };
    Ok(text.lines().filter_map(parse).collect())
}

fn v1(target: BorrowedFd<'_>, namespaced: bool, set: Attributes, label: Option<&CStr>) -> io::Result<()> {
    let fs = Filesystem::open(c"tmpfs")?;
    fs.string(c"source", c"tmpfs")?;
    fs.string(c"mode", c"755")?;
    if let Some(label) = label {
        fs.string(c"context", label)?;
    }
    let tmpfs = fs.mount(set.difference(Attributes::RDONLY))?;
    mount::move_mount(tmpfs.as_fd(), target)?;
    for hierarchy in hierarchies()? {
        let name = hierarchy.options.strip_prefix("name=").unwrap_or(&hierarchy.options);
        let c_name = CString::new(name)?;
        mkdirat(&tmpfs, c_name.as_c_str(), Mode::from_bits_truncate(0o755))?;
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let place = openat(&tmpfs, c_name.as_c_str(), flags, Mode::empty())?;
        let tree = if namespaced {
            v1_hierarchy(&hierarchy, set)?
        } else {
            match bind(&format!("{ROOT}/{name}{}", hierarchy.path), set) {
                // Mounted elsewhere or not at all on the host.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            }
        };
        mount::move_mount(tree.as_fd(), place.as_fd())?;
        if name.contains(',') {
            for alias in name.split(',') {
                symlinkat(c_name.as_c_str(), &tmpfs, alias)?;
            }
        }
    }
    if set.contains(Attributes::RDONLY) {
        let change = Change { set: Attributes::RDONLY, ..Change::default() };
        mount::set_attributes(tmpfs.as_fd(), false, &change)?;
    }
    Ok(())
}

/// In a cgroup namespace the root of the mount is our cgroup.
fn v1_hierarchy(hierarchy: &Hierarchy, set: Attributes) -> io::Result<OwnedFd> {
    let fs = Filesystem::open(c"cgroup")?;
    fs.string(c"source", c"cgroup")?;
    match hierarchy.options.strip_prefix("name=") {
        Some(name) => {
            fs.flag(c"none")?;
            fs.string(c"name", &CString::new(name)?)?;
        }
        None => {
            for controller in hierarchy.options.split(',') {
                fs.flag(&CString::new(controller)?)?;
            }
        }
    }
    fs.mount(set)
}
