//! The target directory. Every path is resolved here, by the kernel, inside the root.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat2, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::name::split;
use crate::{Error, Result};

/// As many symlinks as the kernel follows in one path.
const MAX_LINKS: usize = 40;

/// A directory that nothing here leads out of.
pub(crate) struct Tree {
    root: OwnedFd,
    /// The parent of the last entry: archives list a directory's files one after another.
    cached: Option<(Vec<u8>, OwnedFd)>,
    /// Directories that were created because an entry needed them; sorted, so parents come first.
    pub(crate) implied: BTreeSet<Vec<u8>>,
}

impl Tree {
    pub(crate) fn open(root: &Path) -> Result<Tree> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = open(root, flags, Mode::empty()).map_err(|errno| Error::Path {
            operation: "open the directory",
            path: root.to_owned(),
            source: errno.into(),
        })?;
        Ok(Tree { root, cached: None, implied: BTreeSet::new() })
    }

    /// Opens `path` beneath the root. Symlinks on the way lead to where they would with the root as `/`; the last component is
    /// followed only if `flags` don't hold `O_NOFOLLOW`.
    pub(crate) fn resolve(&self, path: &[u8], flags: OFlag) -> Result<OwnedFd, Errno> {
        let path: &[u8] = if path.is_empty() { b"." } else { path };
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        loop {
            match openat2(&self.root, OsStr::from_bytes(path), how) {
                // The kernel can't tell whether a rename elsewhere let a `..` out, and asks to try again.
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                result => return result,
            }
        }
    }

    /// Opens `path` as it is named: a symlink anywhere in it is an error (`ELOOP`).
    pub(crate) fn exact(&self, path: &[u8], flags: OFlag) -> Result<OwnedFd, Errno> {
        let path: &[u8] = if path.is_empty() { b"." } else { path };
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        openat2(&self.root, OsStr::from_bytes(path), how)
    }

    /// The directory in which an entry is created, made if it isn't there.
    pub(crate) fn parent(&mut self, path: &[u8]) -> io::Result<BorrowedFd<'_>> {
        if self.cached.as_ref().is_none_or(|(cached, _)| cached != path) {
            let fd = match self.resolve(path, OFlag::O_PATH | OFlag::O_DIRECTORY) {
                Ok(fd) => fd,
                Err(Errno::ENOENT) => {
                    self.imply(path, 0)?;
                    self.resolve(path, OFlag::O_PATH | OFlag::O_DIRECTORY)?
                }
                Err(errno) => return Err(errno.into()),
            };
            self.cached = Some((path.to_vec(), fd));
        }
        Ok(self.cached.as_ref().map_or(self.root.as_fd(), |(_, fd)| fd.as_fd()))
    }

    /// The directory of an entry that must be there already: `None` if it isn't.
    pub(crate) fn existing_parent(&self, path: &[u8]) -> io::Result<Option<OwnedFd>> {
        match self.resolve(path, OFlag::O_PATH | OFlag::O_DIRECTORY) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Creates the directories of `path` that are missing. A symlink on the way may dangle, as its target can be in a
    /// lower layer: then the target is created.
    fn imply(&mut self, path: &[u8], links: usize) -> io::Result<()> {
        if links > MAX_LINKS {
            return Err(Errno::ELOOP.into());
        }
        let ends = (1..=path.len()).filter(|end| *end == path.len() || path[*end] == b'/');
        for end in ends {
            let part = &path[..end];
            match self.resolve(part, OFlag::O_PATH | OFlag::O_DIRECTORY) {
                Ok(_) => continue,
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
            let (parent, base) = split(part);
            let parent_fd = self.resolve(parent, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
            match mkdirat(&parent_fd, OsStr::from_bytes(base), Mode::from_bits_truncate(0o755)) {
                Ok(()) => {
                    self.implied.insert(part.to_vec());
                }
                Err(Errno::EEXIST) => {
                    let link = readlinkat(&parent_fd, OsStr::from_bytes(base))?;
                    let target = inside(parent, link.as_bytes());
                    self.imply(&target, links + 1)?;
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Removes what is at `base`, a whole tree if it's a directory. Its absence is fine.
    pub(crate) fn remove(&mut self, parent: &[u8], base: &[u8]) -> io::Result<()> {
        let parent_fd = self.parent(parent)?;
        match unlinkat(parent_fd, OsStr::from_bytes(base), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(Errno::EISDIR) => {
                // The standard library removes trees by descriptors and follows no symlink.
                fs::remove_dir_all(proc_path(parent_fd, base))?;
            }
            Err(errno) => return Err(errno.into()),
        }
        // It may have been a directory or a symlink on the way to the cached one.
        self.cached = None;
        Ok(())
    }
}

/// Where a symlink in `parent` leads, lexically and clamped to the root.
fn inside(parent: &[u8], link: &[u8]) -> Vec<u8> {
    let mut components: Vec<&[u8]> = Vec::new();
    let base: &[u8] = if link.starts_with(b"/") { b"" } else { parent };
    for component in base.split(|byte| *byte == b'/').chain(link.split(|byte| *byte == b'/')) {
        match component {
            b"" | b"." => {}
            b".." => {
                components.pop();
            }
            _ => components.push(component),
        }
    }
    components.join(&b'/')
}

/// A path to `base` in an open directory, for functions that take paths only. `base` itself must not be followed by them.
pub(crate) fn proc_path(parent: impl AsFd, base: &[u8]) -> PathBuf {
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", parent.as_fd().as_raw_fd()));
    path.push(OsStr::from_bytes(base));
    path
}

/// What is at `base` in an open directory.
pub(crate) fn look(parent: impl AsFd, base: &[u8]) -> Result<FileStat, Errno> {
    fstatat(parent, OsStr::from_bytes(base), AtFlags::AT_SYMLINK_NOFOLLOW)
}

/// The file type bits of a mode.
pub(crate) fn file_type(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// Whether overlayfs takes it as a deletion: a character device 0/0.
pub(crate) fn is_whiteout(stat: &FileStat) -> bool {
    file_type(stat) == SFlag::S_IFCHR && stat.st_rdev == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dangling_link_stays_inside() {
        assert_eq!(inside(b"var", b"../run"), b"run");
        assert_eq!(inside(b"var", b"/run/x"), b"run/x");
        assert_eq!(inside(b"a/b", b"../../../../etc"), b"etc");
    }
}
