//! /dev: nodes and the links that every program expects (runtime-spec, config-linux "Default Devices").

use std::{
    ffi::{CStr, CString, OsStr},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use corten_sys::{
    mount::{self, Attributes, Change, Filesystem},
    path::open_in_root,
};
use nix::{
    errno::Errno,
    fcntl::AtFlags,
    libc,
    sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, fstat, fstatat, makedev, mknodat},
    unistd::{Gid, Uid, UnlinkatFlags, fchownat, symlinkat, unlinkat},
};

use super::{
    mount::show,
    target::{Make, open_or_make, open_or_make_no_links},
};
use crate::{
    Result,
    error::Doing,
    plan::{Device, DeviceKind, Devices, Plan},
};

/// What devices are bind mounted from, where they can't be made: one per device of the plan.
pub(crate) fn open_sources(plan: &Plan) -> Result<Vec<Option<OwnedFd>>> {
    if !plan.in_user_namespace {
        return Ok(Vec::new());
    }
    let mut nodes = Nodes::default();
    plan.devices.make.iter().map(|device| source(plan, device, &mut nodes)).collect()
}

/// A node of our own, which has the mode and the owner that the config wants; what isn't possible (we are in a user namespace
/// ourselves, the kernel is older than 6.15, the owner has no id on the host) is done with the host's device of the same path.
/// None for a fifo, which anybody may make.
fn source(plan: &Plan, device: &Device, nodes: &mut Nodes) -> Result<Option<OwnedFd>> {
    if device.kind == DeviceKind::Fifo {
        return Ok(None);
    }
    let why = if device.is_default() {
        None
    } else {
        match nodes.make(plan, device) {
            Ok(tree) => return Ok(Some(tree)),
            Err(e) => Some(e),
        }
    };
    let open = || {
        let tree = mount::clone_tree_path(&device.path, false)?;
        // Not noexec: nobody could map /dev/zero, or SGX's enclaves, executable.
        let change = Change { set: Attributes::NOSUID, ..Change::default() };
        mount::set_attributes(tree.as_fd(), false, &change)?;
        let stat = fstat(&tree)?;
        let (kind, number) = kind_and_number(device);
        if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == kind && stat.st_rdev == number {
            return Ok(tree);
        }
        let text = format!("it isn't {}:{} there", device.major, device.minor);
        Err(io::Error::new(io::ErrorKind::InvalidInput, text))
    };
    let doing = || {
        let why = why.map_or("in a user namespace".to_owned(), |e| format!("for a user namespace: {e}"));
        format!("bind mount the host's device {} (no node can be made {why})", show(&device.path))
    };
    open().map(Some).doing(doing)
}

/// Device nodes made outside of the user namespace, on a tmpfs that has no place anywhere.
#[derive(Default)]
struct Nodes {
    tmpfs: Option<OwnedFd>,
    made: u32,
}

impl Nodes {
    fn make(&mut self, plan: &Plan, device: &Device) -> io::Result<OwnedFd> {
        let (uid, gid) = plan
            .namespaces
            .on_the_host(device.uid, device.gid)
            .ok_or_else(|| io::Error::other("its owner has no id on the host"))?;
        let tmpfs = match self.tmpfs.take() {
            Some(tmpfs) => tmpfs,
            None => Self::tmpfs(plan.mount_label.as_deref())?,
        };
        let tmpfs = self.tmpfs.insert(tmpfs);
        let name = CString::new(self.made.to_string())?;
        self.made += 1;
        let (kind, number) = kind_and_number(device);
        // Nobody else can come here, so the owner first: to change it takes bits away from the mode.
        mknodat(&*tmpfs, name.as_c_str(), kind, Mode::empty(), number)?;
        fchownat(&*tmpfs, name.as_c_str(), Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_bits_truncate(device.mode);
        fchmodat(&*tmpfs, name.as_c_str(), mode, FchmodatFlags::FollowSymlink)?;
        mount::clone_tree(tmpfs.as_fd(), &name, false)
    }

    fn tmpfs(label: Option<&CStr>) -> io::Result<OwnedFd> {
        let fs = Filesystem::open(c"tmpfs")?;
        fs.string(c"mode", c"0700")?;
        if let Some(label) = label {
            fs.string(c"context", label)?;
        }
        fs.mount(Attributes::NOSUID)
    }
}

/// Makes all of it.
pub(crate) fn populate(root: BorrowedFd<'_>, devices: &Devices, sources: &[Option<OwnedFd>]) -> Result<()> {
    if devices.host_dev {
        // Nothing in it is ours to make; elsewhere it is.
        return nodes(root, root, &devices.make, sources);
    }
    // Not through a link of the image's (CVE-2026-41579).
    let dev = open_or_make_no_links(root, c"/dev", Make::Directory)
        .doing(|| "open /dev of the container: it must be a directory, not a link".to_owned())?;
    nodes(root, dev.as_fd(), &devices.make, sources)?;
    links(dev.as_fd())
}

fn nodes(
    root: BorrowedFd<'_>,
    dev: BorrowedFd<'_>,
    devices: &[Device],
    sources: &[Option<OwnedFd>],
) -> Result<()> {
    for (i, device) in devices.iter().enumerate() {
        let doing = || format!("make device {}", show(&device.path));
        match sources.get(i).and_then(Option::as_ref) {
            Some(source) => {
                let target = open_or_make(root, &device.path, Make::File).doing(doing)?;
                mount::move_mount(source.as_fd(), target.as_fd()).doing(doing)?;
            }
            None => node(root, dev, device).doing(doing)?,
        }
    }
    Ok(())
}

fn node(root: BorrowedFd<'_>, dev: BorrowedFd<'_>, device: &Device) -> io::Result<()> {
    let path = Path::new(OsStr::from_bytes(device.path.to_bytes()));
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let name = CString::new(name.as_bytes())?;
    if path.parent() == Some(Path::new("/dev")) {
        return node_in(dev, &name, device);
    }
    let parent = path.parent().unwrap_or(Path::new("/"));
    let parent = open_or_make(root, &CString::new(parent.as_os_str().as_bytes())?, Make::Directory)?;
    node_in(parent.as_fd(), &name, device)
}

fn node_in(directory: BorrowedFd<'_>, name: &CStr, device: &Device) -> io::Result<()> {
    let (kind, number) = kind_and_number(device);
    // Our umask is 0, so the mode is right at once.
    let mode = Mode::from_bits_truncate(device.mode);
    match mknodat(directory, name, kind, mode, number) {
        Ok(()) => {}
        Err(Errno::EEXIST) => {
            let stat = fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
            if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != kind || stat.st_rdev != number {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, "another file is there"));
            }
            // Who shares the directory could have put a link to a file of the host there meanwhile.
            fchmodat(directory, name, mode, FchmodatFlags::NoFollowSymlink)?;
        }
        Err(e) => return Err(e.into()),
    }
    if device.uid != 0 || device.gid != 0 {
        let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
        fchownat(directory, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

fn kind_and_number(device: &Device) -> (SFlag, u64) {
    let kind = match device.kind {
        DeviceKind::Char => SFlag::S_IFCHR,
        DeviceKind::Block => SFlag::S_IFBLK,
        DeviceKind::Fifo => return (SFlag::S_IFIFO, 0),
    };
    (kind, makedev(device.major, device.minor))
}

fn links(dev: BorrowedFd<'_>) -> Result<()> {
    const LINKS: [(&str, &CStr); 5] = [
        ("/proc/self/fd", c"fd"),
        ("/proc/self/fd/0", c"stdin"),
        ("/proc/self/fd/1", c"stdout"),
        ("/proc/self/fd/2", c"stderr"),
        ("/proc/kcore", c"core"),
    ];
    for (to, name) in LINKS {
        match symlinkat(to, dev, name) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(e) => return Err(e).doing(|| format!("make the link /dev/{}", show(name))),
        }
    }
    // Whatever the image has there, it isn't the container's.
    let doing = || "make the link /dev/ptmx".to_owned();
    match symlinkat("pts/ptmx", dev, c"ptmx") {
        Err(Errno::EEXIST) => {
            unlinkat(dev, c"ptmx", UnlinkatFlags::NoRemoveDir).doing(doing)?;
            symlinkat("pts/ptmx", dev, c"ptmx").doing(doing)
        }
        other => other.doing(doing),
    }
}

/// Opens the host's /dev/null and makes sure that it's the real one.
pub(crate) fn host_null() -> io::Result<OwnedFd> {
    let root =
        nix::fcntl::open("/", nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_CLOEXEC, Mode::empty())?;
    let null = open_in_root(root.as_fd(), c"/dev/null", libc::O_PATH, 0)?;
    is_null(null.as_fd())?;
    Ok(null)
}

/// Stdio that is the host's /dev/null becomes the container's: whose mode can't be changed through it, and which criu can
/// find again. To be called in the container's root.
pub(crate) fn own_null() -> Result<()> {
    use nix::fcntl::{OFlag, open};
    let mut null = None;
    for (number, fd) in [(0, io::stdin().as_fd()), (1, io::stdout().as_fd()), (2, io::stderr().as_fd())] {
        if is_null(fd).is_err() {
            continue;
        }
        if null.is_none() {
            // A container may go without one.
            let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
            let opened = open("/dev/null", flags, Mode::empty()).ok();
            null = opened.filter(|null| is_null(null.as_fd()).is_ok());
        }
        let Some(null) = &null else { return Ok(()) };
        corten_sys::fds::duplicate_to(null.as_fd(), number).doing(|| "make /dev/null stdio".to_owned())?;
    }
    Ok(())
}

fn is_null(fd: BorrowedFd<'_>) -> io::Result<()> {
    let stat = fstat(fd)?;
    if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR
        && stat.st_rdev == makedev(1, 3)
    {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "is not the null device"))
}
