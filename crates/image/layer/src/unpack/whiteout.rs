//! Deletions (OCI image-spec, layer.md, "Whiteouts").
//!
//! `.wh.<name>` deletes `<name>` of the layers below, `.wh..wh..opq` all that they have in its directory. Neither touches what the same
//! layer holds, wherever it stands in the archive.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag, fstat, futimens, mknodat};
use nix::sys::time::TimeSpec;

use super::tree::{file_type, look};
use super::{Unpacker, at, refused};
use crate::archive::Entry;
use crate::options::Whiteouts;
use crate::{Error, Result};

pub(super) const PREFIX: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// AUFS kept its own files in layers under such names.
const METADATA: &[u8] = b".wh..wh.";

/// Whether a path leads into AUFS' own files, which mean nothing any more.
pub(super) fn is_metadata(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').any(|component| component.starts_with(METADATA) && component != OPAQUE)
}

impl Unpacker<'_> {
    pub(super) fn whiteout(&mut self, entry: &Entry, parent: &[u8], base: &[u8]) -> Result<()> {
        if base == OPAQUE {
            return self.opaque(entry, parent);
        }
        if base.starts_with(METADATA) {
            return Ok(());
        }
        let hidden = &base[PREFIX.len()..];
        // `.wh...` would delete the parent directory itself.
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(refused(entry, "a whiteout that names nothing"));
        }
        let path = join(parent, hidden);
        if self.merges() {
            return self.delete(entry, &path, parent, hidden);
        }
        let parent_fd = self.tree.parent(parent).map_err(at("open the parent directory", entry))?;
        match mknodat(parent_fd, OsStr::from_bytes(hidden), SFlag::S_IFCHR, Mode::empty(), 0) {
            Ok(()) => Ok(()),
            Err(Errno::EEXIST) => {
                let stat = look(parent_fd, hidden).map_err(at("look at what is there", entry))?;
                // This layer has one of the same name. A file hides what is below anyway.
                if file_type(&stat) == SFlag::S_IFDIR { self.make_opaque(entry, &path) } else { Ok(()) }
            }
            Err(errno) => Err(at("create the whiteout", entry)(errno)),
        }
    }

    fn opaque(&mut self, entry: &Entry, directory: &[u8]) -> Result<()> {
        // Its directory may not have been listed yet.
        self.tree.parent(directory).map_err(at("open the directory", entry))?;
        if self.merges() { self.empty(entry, directory) } else { self.make_opaque(entry, directory) }
    }

    /// Hides all that lower layers have in a directory.
    pub(super) fn make_opaque(&mut self, entry: &Entry, directory: &[u8]) -> Result<()> {
        let name: &[u8] = match self.options.whiteouts {
            Whiteouts::OverlayUser => b"user.overlay.opaque",
            _ => b"trusted.overlay.opaque",
        };
        let fd = self
            .tree
            .resolve(directory, OFlag::O_RDONLY | OFlag::O_DIRECTORY)
            .map_err(at("open the directory", entry))?;
        corten_sys::xattr::fset(&fd, name, b"y").map_err(at("make the directory opaque", entry))
    }

    /// Where layers are merged: removes a file or tree, but for what this layer has created.
    fn delete(&mut self, entry: &Entry, path: &[u8], parent: &[u8], base: &[u8]) -> Result<()> {
        let Some(parent_fd) =
            self.tree.existing_parent(parent).map_err(at("open the parent directory", entry))?
        else {
            return Ok(());
        };
        if !self.created.contains(path) {
            let before = fstat(&parent_fd).ok();
            self.tree.remove(parent, base).map_err(at("delete the file", entry))?;
            if let Some(stat) = before {
                self.restore_times(parent, stat.st_atime, stat.st_mtime, stat.st_mtime_nsec);
            }
            return Ok(());
        }
        match look(&parent_fd, base) {
            Ok(stat) if file_type(&stat) == SFlag::S_IFDIR => self.empty(entry, path),
            Ok(_) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(at("look at the file", entry)(errno)),
        }
    }

    /// A deletion isn't a change of the directory itself, unless the layer lists it, and then its times are set later.
    fn restore_times(&self, directory: &[u8], atime: i64, mtime: i64, mtime_nsec: i64) {
        if let Ok(fd) = self.tree.resolve(directory, OFlag::O_RDONLY | OFlag::O_DIRECTORY) {
            // Times of a directory are a courtesy: nothing is wrong without them.
            let _ = futimens(&fd, &TimeSpec::new(atime, 0), &TimeSpec::new(mtime, mtime_nsec));
        }
    }

    /// Deletes what is in a directory, but for what this layer has created.
    fn empty(&mut self, entry: &Entry, directory: &[u8]) -> Result<()> {
        let fd = self
            .tree
            .resolve(directory, OFlag::O_RDONLY | OFlag::O_DIRECTORY)
            .map_err(at("open the directory", entry))?;
        let mut names = Vec::new();
        let mut listing = Dir::from_fd(fd).map_err(at("read the directory", entry))?;
        for item in listing.iter() {
            let item = item.map_err(at::<Errno>("read the directory", entry))?;
            let name = item.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                names.push(name.to_vec());
            }
        }
        drop(listing);
        for name in names {
            self.delete(entry, &join(directory, &name), directory, &name)?;
        }
        Ok::<(), Error>(())
    }
}

fn join(directory: &[u8], base: &[u8]) -> Vec<u8> {
    if directory.is_empty() { base.to_vec() } else { [directory, b"/", base].concat() }
}
