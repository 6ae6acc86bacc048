//! Links, devices and FIFOs.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmodat, makedev, mknodat, utimensat};
use nix::unistd::{Gid, Uid, fchownat, linkat, symlinkat};

use super::tree::{file_type, is_whiteout, look};
use super::{Unpacker, at, attributes, refused};
use crate::Result;
use crate::archive::{Entry, Kind};
use crate::name::{clean, split};
use crate::pending::Link;

impl Unpacker<'_> {
    /// A symlink holds whatever text it likes: it is only ever followed inside the root.
    pub(super) fn symlink(&mut self, entry: &Entry, path: &[u8]) -> Result<()> {
        if entry.link.is_empty() || entry.link.contains(&0) {
            return Err(refused(entry, "a symlink needs a target"));
        }
        self.node(entry, path, "create the symlink", |parent, base| {
            symlinkat(OsStr::from_bytes(&entry.link), parent, OsStr::from_bytes(base))
        })
    }

    pub(super) fn special(&mut self, entry: &Entry, path: &[u8]) -> Result<()> {
        let (kind, operation) = match entry.kind {
            Kind::CharDevice => (SFlag::S_IFCHR, "create the character device"),
            Kind::BlockDevice => (SFlag::S_IFBLK, "create the block device"),
            _ => (SFlag::S_IFIFO, "create the FIFO"),
        };
        let device = makedev(u64::from(entry.device.0), u64::from(entry.device.1));
        let mode = Mode::from_bits_truncate(entry.mode & 0o777);
        self.node(entry, path, operation, |parent, base| {
            mknodat(parent, OsStr::from_bytes(base), kind, mode, device)
        })
    }

    /// Creates something that has a name but no data, in place of whatever was there, and sets its attributes.
    fn node(
        &mut self,
        entry: &Entry,
        path: &[u8],
        operation: &'static str,
        create: impl Fn(BorrowedFd<'_>, &[u8]) -> Result<(), Errno>,
    ) -> Result<()> {
        let (parent, base) = split(path);
        let name = OsStr::from_bytes(base);
        let mut parent_fd = self.tree.parent(parent).map_err(at("open the parent directory", entry))?;
        match create(parent_fd, base) {
            Err(Errno::EEXIST) => {
                self.tree.remove(parent, base).map_err(at("replace what is there", entry))?;
                parent_fd = self.tree.parent(parent).map_err(at("open the parent directory", entry))?;
                create(parent_fd, base).map_err(at(operation, entry))?;
            }
            result => result.map_err(at(operation, entry))?,
        }
        let stat = look(parent_fd, base).map_err(at("look at the file", entry))?;
        if stat.st_uid != entry.uid || stat.st_gid != entry.gid {
            let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
            fchownat(parent_fd, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
                .map_err(at("set the owner", entry))?;
        }
        // Linux knows no mode of symlinks.
        if entry.kind != Kind::Symlink && stat.st_mode & 0o7777 != entry.mode {
            // It was created just now and isn't a symlink, so that following it is harmless.
            fchmodat(parent_fd, name, Mode::from_bits_truncate(entry.mode), FchmodatFlags::FollowSymlink)
                .map_err(at("set the mode", entry))?;
        }
        attributes::apply_xattrs_at(parent_fd, base, entry)?;
        let (atime, mtime) = attributes::times(entry);
        utimensat(parent_fd, name, &atime, &mtime, UtimensatFlags::NoFollowSymlink)
            .map_err(at("set the times", entry))
    }

    /// Another name for a file of this layer or, where the layers below aren't at hand, a note for later.
    pub(super) fn hard_link(&mut self, entry: &Entry, path: &[u8]) -> Result<()> {
        let target = clean(&entry.link, self.options.limits.depth)
            .map_err(|reason| refused(entry, &format!("target of the hard link: {reason}")))?;
        if target.is_empty() {
            return Err(refused(entry, "a hard link to the layer's root"));
        }
        if target == path {
            return Err(refused(entry, "a hard link to itself"));
        }
        let (parent, base) = split(path);
        let (target_parent, target_base) = split(&target);
        let existing = self
            .tree
            .existing_parent(target_parent)
            .map_err(at("open the directory of the hard link's target", entry))?;
        let found = match &existing {
            Some(directory) => match look(directory, target_base) {
                Ok(stat) => Some((directory, stat)),
                Err(Errno::ENOENT) => None,
                Err(errno) => return Err(at("look at the hard link's target", entry)(errno)),
            },
            None => None,
        };
        let Some((directory, stat)) = found else {
            if self.merges() {
                return Err(refused(entry, "the hard link's target doesn't exist"));
            }
            // Whatever had this name has it no longer.
            self.tree.remove(parent, base).map_err(at("replace what is there", entry))?;
            self.pending.links.push(Link { path: path.to_vec(), target });
            return Ok(());
        };
        if file_type(&stat) == SFlag::S_IFDIR || (is_whiteout(&stat) && !self.merges()) {
            return Err(refused(entry, "a hard link to a directory or to a deleted file"));
        }
        let link = |parent: BorrowedFd<'_>| {
            linkat(
                directory,
                OsStr::from_bytes(target_base),
                parent,
                OsStr::from_bytes(base),
                AtFlags::empty(),
            )
        };
        let parent_fd = self.tree.parent(parent).map_err(at("open the parent directory", entry))?;
        match link(parent_fd) {
            Err(Errno::EEXIST) => {
                let there = look(parent_fd, base).map_err(at("look at what is there", entry))?;
                if (there.st_dev, there.st_ino) == (stat.st_dev, stat.st_ino) {
                    return Ok(());
                }
                self.tree.remove(parent, base).map_err(at("replace what is there", entry))?;
                let parent_fd = self.tree.parent(parent).map_err(at("open the parent directory", entry))?;
                link(parent_fd).map_err(at("create the hard link", entry))
            }
            result => result.map_err(at("create the hard link", entry)),
        }
    }
}
