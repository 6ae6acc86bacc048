//! Copies a tree with everything that a layer can hold.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use corten_sys::xattr;
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, mknod, utimensat};
use nix::sys::time::TimeSpec;

use crate::{Error, Result};

/// Copies `from` to `to`, which doesn't exist. Sockets are left out. File contents are shared where the file system can.
pub(super) fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    Copier { links: HashMap::new() }.copy(from, to)
}

struct Copier {
    /// Where each inode with several names was copied to first.
    links: HashMap<(u64, u64), PathBuf>,
}

impl Copier {
    fn copy(&mut self, from: &Path, to: &Path) -> Result<()> {
        let metadata = fs::symlink_metadata(from).map_err(Error::io("look at", from))?;
        if metadata.is_dir() {
            fs::create_dir(to).map_err(Error::io("create the directory", to))?;
            for item in fs::read_dir(from).map_err(Error::io("read the directory", from))? {
                let item = item.map_err(Error::io("read the directory", from))?;
                self.copy(&item.path(), &to.join(item.file_name()))?;
            }
        } else {
            if metadata.file_type().is_socket() {
                return Ok(());
            }
            if metadata.nlink() > 1 {
                let inode = (metadata.dev(), metadata.ino());
                if let Some(first) = self.links.get(&inode) {
                    return fs::hard_link(first, to).map_err(Error::io("create the hard link", to));
                }
                self.links.insert(inode, to.to_owned());
            }
            copy_node(from, to, &metadata).map_err(Error::io("copy", from))?;
        }
        copy_attributes(from, to, &metadata).map_err(Error::io("set the attributes of", to))
    }
}

fn copy_node(from: &Path, to: &Path, metadata: &Metadata) -> io::Result<()> {
    let kind = metadata.file_type();
    if kind.is_symlink() {
        return symlink(fs::read_link(from)?, to);
    }
    if kind.is_file() {
        return fs::copy(from, to).map(drop);
    }
    let kind = SFlag::from_bits_truncate(metadata.mode() & SFlag::S_IFMT.bits());
    Ok(mknod(to, kind, Mode::S_IRUSR | Mode::S_IWUSR, metadata.rdev())?)
}

fn copy_attributes(from: &Path, to: &Path, metadata: &Metadata) -> io::Result<()> {
    let there = fs::symlink_metadata(to)?;
    if there.uid() != metadata.uid() || there.gid() != metadata.gid() {
        lchown(to, Some(metadata.uid()), Some(metadata.gid()))?;
    }
    if !metadata.is_symlink() {
        fs::set_permissions(to, fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
    }
    for name in xattr::llist(from)? {
        if let Some(value) = xattr::lget(from, &name)? {
            xattr::lset(to, &name, &value)?;
        }
    }
    let atime = TimeSpec::new(metadata.atime(), metadata.atime_nsec());
    let mtime = TimeSpec::new(metadata.mtime(), metadata.mtime_nsec());
    utimensat(nix::fcntl::AT_FDCWD, to, &atime, &mtime, UtimensatFlags::NoFollowSymlink)?;
    Ok(())
}
