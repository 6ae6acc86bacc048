//! The fd-based mount API: fsopen(2), fsconfig(2), fsmount(2), open_tree(2), move_mount(2), mount_setattr(2),
//! and pivot_root(2).
//!
//! A mount is first a descriptor, and only gets a place by [`move_mount`] onto another descriptor: no path is
//! looked up twice, so nobody can swap it in between.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use bitflags::bitflags;

use crate::check;

const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;
const FSCONFIG_CMD_RECONFIGURE: u32 = 7;
const FSOPEN_CLOEXEC: u32 = 1;
const FSPICK_CLOEXEC: u32 = 1;
const FSPICK_EMPTY_PATH: u32 = 8;
const FSMOUNT_CLOEXEC: u32 = 1;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 0x04;
const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;

bitflags! {
    /// A mount's own attributes, as fsmount(2) and mount_setattr(2) number them.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
    pub struct Attributes: u64 {
        /// Read-only.
        const RDONLY = 0x1;
        /// Set-user-id bits are ignored.
        const NOSUID = 0x2;
        /// Device nodes can't be opened.
        const NODEV = 0x4;
        /// Nothing can be executed.
        const NOEXEC = 0x8;
        /// All bits of the access time policy; the policy "relatime" is that none is set.
        const ATIME = 0x70;
        /// Access times are never updated.
        const NOATIME = 0x10;
        /// Access times are always updated.
        const STRICTATIME = 0x20;
        /// Access times of directories are not updated.
        const NODIRATIME = 0x80;
        /// Ids are mapped.
        const IDMAP = 0x10_0000;
        /// Symbolic links aren't followed.
        const NOSYMFOLLOW = 0x20_0000;
    }
}

/// Where mount events of a mount go, and come from (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Propagation {
    /// Both ways between peers.
    Shared,
    /// Received only.
    Slave,
    /// None.
    Private,
    /// None, and it can't be bind mounted.
    Unbindable,
}

impl Propagation {
    fn bits(self) -> u64 {
        match self {
            Self::Shared => libc::MS_SHARED,
            Self::Slave => libc::MS_SLAVE,
            Self::Private => libc::MS_PRIVATE,
            Self::Unbindable => libc::MS_UNBINDABLE,
        }
    }
}

/// What [`set_attributes`] changes; the default changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Change<'a> {
    /// To set.
    pub set: Attributes,
    /// To clear, before setting.
    pub clear: Attributes,
    /// The new propagation.
    pub propagation: Option<Propagation>,
    /// The user namespace whose mappings the mount gets ([`Attributes::IDMAP`] is set for you).
    pub idmap: Option<BorrowedFdEq<'a>>,
}

/// A borrowed descriptor that can be compared by number (for [`Change`]).
#[derive(Debug, Clone, Copy)]
pub struct BorrowedFdEq<'a>(pub BorrowedFd<'a>);

impl PartialEq for BorrowedFdEq<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_raw_fd() == other.0.as_raw_fd()
    }
}
impl Eq for BorrowedFdEq<'_> {}

#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// A file system being configured: fsopen(2).
#[derive(Debug)]
pub struct Filesystem(OwnedFd);

impl Filesystem {
    /// Begins a file system of type `name`.
    ///
    /// # Errors
    /// ENODEV if the kernel doesn't have it.
    pub fn open(name: &CStr) -> io::Result<Self> {
        // SAFETY: name is a NUL-terminated string.
        let fd = check(unsafe { libc::syscall(libc::SYS_fsopen, name.as_ptr(), FSOPEN_CLOEXEC) })?;
        Ok(Self(own(fd)))
    }

    /// Picks the file system that is mounted at `mount` (its root), to change its options: fspick(2).
    ///
    /// # Errors
    /// EINVAL if it isn't the root of a mount; EPERM without privilege over the file system.
    pub fn pick(mount: BorrowedFd<'_>) -> io::Result<Self> {
        let flags = FSPICK_CLOEXEC | FSPICK_EMPTY_PATH;
        // SAFETY: the path is a NUL-terminated string.
        let fd = check(unsafe { libc::syscall(libc::SYS_fspick, mount.as_raw_fd(), c"".as_ptr(), flags) })?;
        Ok(Self(own(fd)))
    }

    fn config(&self, command: u32, key: Option<&CStr>, value: Option<&CStr>) -> io::Result<()> {
        let key = key.map_or(std::ptr::null(), CStr::as_ptr);
        let value = value.map_or(std::ptr::null(), CStr::as_ptr);
        // SAFETY: key and value are NUL-terminated or null, as the command wants them.
        let ret = unsafe { libc::syscall(libc::SYS_fsconfig, self.0.as_raw_fd(), command, key, value, 0) };
        check(ret).map(drop)
    }

    /// Sets an option without a value.
    ///
    /// # Errors
    /// EINVAL if the file system doesn't know it; [`Self::message`] may say more.
    pub fn flag(&self, key: &CStr) -> io::Result<()> {
        self.config(FSCONFIG_SET_FLAG, Some(key), None)
    }

    /// Sets an option with a value.
    ///
    /// # Errors
    /// EINVAL if the file system doesn't know it, or not the value; [`Self::message`] may say more.
    pub fn string(&self, key: &CStr, value: &CStr) -> io::Result<()> {
        self.config(FSCONFIG_SET_STRING, Some(key), Some(value))
    }

    /// Makes the superblock (or finds an existing one) and a detached mount of it.
    ///
    /// # Errors
    /// Whatever the file system says; [`Self::message`] may say more.
    pub fn mount(&self, attributes: Attributes) -> io::Result<OwnedFd> {
        self.config(FSCONFIG_CMD_CREATE, None, None)?;
        let fd = self.0.as_raw_fd();
        // SAFETY: fsmount takes no pointers.
        let fd = check(unsafe { libc::syscall(libc::SYS_fsmount, fd, FSMOUNT_CLOEXEC, attributes.bits()) })?;
        Ok(own(fd))
    }

    /// Gives what [`Self::pick`] has picked its new options.
    ///
    /// # Errors
    /// Whatever the file system says; [`Self::message`] may say more.
    pub fn reconfigure(&self) -> io::Result<()> {
        self.config(FSCONFIG_CMD_RECONFIGURE, None, None)
    }

    /// What the kernel has to say about the last error, if anything.
    #[must_use]
    pub fn message(&self) -> Option<String> {
        let mut all = Vec::new();
        let mut buffer = [0; 512];
        // One message a read, as "e text", "w text" or "i text".
        while let Ok(n @ 3..) = nix::unistd::read(&self.0, &mut buffer) {
            all.push(String::from_utf8_lossy(buffer.get(2..n).unwrap_or_default()).trim_end().to_owned());
        }
        (!all.is_empty()).then(|| all.join("; "))
    }
}

fn own(fd: libc::c_long) -> OwnedFd {
    // SAFETY: called only with what a system call has just returned as a new descriptor.
    unsafe { OwnedFd::from_raw_fd(fd as RawFd) }
}

/// open_tree(2) with OPEN_TREE_CLONE: a detached copy of the mount at `at` (+ `path` if not empty), with all below
/// it if `recursive`. This is a bind mount before it has a place.
///
/// # Errors
/// EINVAL if the mount is unbindable or belongs to another mount namespace; path errors.
pub fn clone_tree(at: BorrowedFd<'_>, path: &CStr, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH as u32;
    if recursive {
        flags |= libc::AT_RECURSIVE as u32;
    }
    // SAFETY: path is a NUL-terminated string.
    check(unsafe { libc::syscall(libc::SYS_open_tree, at.as_raw_fd(), path.as_ptr(), flags) }).map(own)
}

/// [`clone_tree`] of a path in the current directory's view.
///
/// # Errors
/// As [`clone_tree`].
pub fn clone_tree_path(path: &CStr, recursive: bool) -> io::Result<OwnedFd> {
    clone_tree(nix::fcntl::AT_FDCWD, path, recursive)
}

/// [`clone_tree_path`], of the link itself if `path` is a symbolic link.
///
/// # Errors
/// As [`clone_tree`].
pub fn clone_tree_path_nofollow(path: &CStr, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_SYMLINK_NOFOLLOW as u32;
    if recursive {
        flags |= libc::AT_RECURSIVE as u32;
    }
    let cwd = libc::AT_FDCWD;
    // SAFETY: path is a NUL-terminated string.
    check(unsafe { libc::syscall(libc::SYS_open_tree, cwd, path.as_ptr(), flags) }).map(own)
}

/// move_mount(2): puts the mount `from` on top of what `to` refers to.
///
/// # Errors
/// The kernel's; ENOTDIR if one is a directory and the other isn't.
pub fn move_mount(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    move_mount_at(from, to, c"")
}

/// [`move_mount`] onto `path` below `to`, the last component of which isn't followed if it's a symbolic link.
///
/// # Errors
/// As [`move_mount`].
pub fn move_mount_at(from: BorrowedFd<'_>, to: BorrowedFd<'_>, path: &CStr) -> io::Result<()> {
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    let (from, to) = (from.as_raw_fd(), to.as_raw_fd());
    // SAFETY: both paths are NUL-terminated strings.
    let ret = unsafe { libc::syscall(libc::SYS_move_mount, from, c"".as_ptr(), to, path.as_ptr(), flags) };
    check(ret).map(drop)
}

/// mount_setattr(2) on the mount `fd`, and all below it if `recursive`.
///
/// # Errors
/// The kernel's; EPERM if an attribute is locked (user namespaces).
pub fn set_attributes(fd: BorrowedFd<'_>, recursive: bool, change: &Change<'_>) -> io::Result<()> {
    let mut attr = MountAttr {
        attr_set: change.set.bits(),
        attr_clr: change.clear.bits(),
        propagation: change.propagation.map_or(0, Propagation::bits),
        userns_fd: 0,
    };
    if let Some(userns) = change.idmap {
        attr.attr_set |= Attributes::IDMAP.bits();
        attr.userns_fd = userns.0.as_raw_fd() as u64;
    }
    // The access time policy is an enumeration: to set one, all its bits are cleared.
    if change.set.intersects(Attributes::ATIME) {
        attr.attr_clr |= Attributes::ATIME.bits();
    }
    let mut flags = libc::AT_EMPTY_PATH;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    let (attr, size) = (&raw const attr, std::mem::size_of::<MountAttr>());
    // SAFETY: the path is a NUL-terminated string; attr is valid and of the size told.
    check(unsafe { libc::syscall(libc::SYS_mount_setattr, fd.as_raw_fd(), c"".as_ptr(), flags, attr, size) })
        .map(drop)
}

/// mount(2) with MS_REC and a propagation on `path`: what mount_setattr can't reach, having no descriptor for it.
///
/// # Errors
/// The kernel's.
pub fn set_propagation(path: &CStr, propagation: Propagation, recursive: bool) -> io::Result<()> {
    let flags = propagation.bits() | if recursive { libc::MS_REC } else { 0 };
    let none = std::ptr::null();
    // SAFETY: path is a NUL-terminated string; for a propagation change source, type and data may be null.
    let ret = unsafe { libc::mount(none, path.as_ptr(), none, flags as libc::c_ulong, none.cast()) };
    check(ret.into()).map(drop)
}

/// pivot_root(2) of the current directory onto itself: the old root is then mounted on top of the new one, and
/// "." is the old root.
///
/// # Errors
/// EINVAL if the current directory isn't a mount, or propagation is shared.
pub fn pivot_root_here() -> io::Result<()> {
    // SAFETY: both are NUL-terminated strings.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) }).map(drop)
}

/// umount2(".", MNT_DETACH).
///
/// # Errors
/// The kernel's.
pub fn detach_here() -> io::Result<()> {
    // SAFETY: the path is a NUL-terminated string.
    check(unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) }.into()).map(drop)
}

/// umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW).
///
/// # Errors
/// The kernel's.
pub fn detach(path: &CStr) -> io::Result<()> {
    const UMOUNT_NOFOLLOW: libc::c_int = 8;
    // SAFETY: the path is a NUL-terminated string.
    check(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH | UMOUNT_NOFOLLOW) }.into()).map(drop)
}

/// mount(2) with MS_MOVE of "." onto "/": the last resort where pivot_root isn't possible.
///
/// # Errors
/// The kernel's.
pub fn move_here_to_root() -> io::Result<()> {
    let none = std::ptr::null();
    // SAFETY: the paths are NUL-terminated strings; type and data may be null for MS_MOVE.
    let ret = unsafe { libc::mount(c".".as_ptr(), c"/".as_ptr(), none, libc::MS_MOVE, none.cast()) };
    check(ret.into()).map(drop)
}
