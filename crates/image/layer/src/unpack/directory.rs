//! Directories, which get their attributes when everything is in them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};

use super::tree::{file_type, is_whiteout, look};
use super::{Unpacker, at, attributes};
use crate::Result;
use crate::archive::Entry;
use crate::name::split;

/// A directory whose attributes are still to be set.
pub(super) struct Deferred {
    path: Vec<u8>,
    /// Which directory it was: a later entry may have put another in its place.
    inode: u64,
    /// Without its names, which `path` replaces.
    entry: Entry,
}

impl Unpacker<'_> {
    /// Creates a directory, or takes the one that is there.
    pub(super) fn directory(&mut self, entry: &Entry, path: &[u8]) -> Result<()> {
        let inode = if path.is_empty() {
            let root = self.tree.resolve(path, OFlag::O_PATH).map_err(at("open the root", entry))?;
            fstat(root).map_err(at("look at the root", entry))?.st_ino
        } else {
            self.make_directory(entry, path)?
        };
        // It may have been created in passing before; now the layer says what it is like.
        self.tree.implied.remove(path);
        self.directories.push(Deferred { path: path.to_vec(), inode, entry: entry.clone() });
        Ok(())
    }

    fn make_directory(&mut self, entry: &Entry, path: &[u8]) -> Result<u64> {
        let (parent, base) = split(path);
        let name = OsStr::from_bytes(base);
        // Writable until all is in it, for those who aren't root. setgid and default ACLs would change what is created in it: later.
        let mode = Mode::from_bits_truncate(entry.mode & 0o777 | 0o700);
        let parent_fd = self.tree.parent(parent).map_err(at("open the parent directory", entry))?;
        if let Err(errno) = mkdirat(parent_fd, name, mode) {
            if errno != Errno::EEXIST {
                return Err(at("create the directory", entry)(errno));
            }
            let stat = look(parent_fd, base).map_err(at("look at what is there", entry))?;
            if file_type(&stat) == SFlag::S_IFDIR {
                return Ok(stat.st_ino);
            }
            self.tree.remove(parent, base).map_err(at("replace a file", entry))?;
            let parent_fd = self.tree.parent(parent).map_err(at("open the parent directory", entry))?;
            mkdirat(parent_fd, name, mode).map_err(at("create the directory", entry))?;
            if is_whiteout(&stat) && !self.merges() {
                // Deleted and created anew: what is below must not shine through.
                self.make_opaque(entry, path)?;
            }
        }
        let parent_fd = self.tree.parent(parent).map_err(at("open the parent directory", entry))?;
        Ok(look(parent_fd, base).map_err(at("look at the directory", entry))?.st_ino)
    }

    /// Sets the attributes of all directories, skipping those that were replaced.
    pub(super) fn finish_directories(&mut self) -> Result<()> {
        for directory in std::mem::take(&mut self.directories) {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
            let fd = match self.tree.resolve(&directory.path, flags) {
                Ok(fd) => fd,
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => continue,
                Err(errno) => return Err(at("open the directory", &directory.entry)(errno)),
            };
            let stat = fstat(&fd).map_err(at("look at the directory", &directory.entry))?;
            if stat.st_ino == directory.inode {
                attributes::apply(&fd, &directory.entry)?;
            }
        }
        Ok(())
    }
}
