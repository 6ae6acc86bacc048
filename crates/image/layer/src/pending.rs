//! What a layer borrows from the layers below it.
//!
//! Layers are unpacked side by side, each into its own directory, before the
//! ones below are there. Nearly every layer is complete in itself. Two things
//! aren't, and both are noted while the layer is applied and made good later:
//! a directory that holds entries but isn't listed itself takes its attributes
//! from below, and a hard link may point to a file that only exists below.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::linkat;

use crate::name::{show, split};
use crate::unpack::{Tree, copy_attributes, file_type, is_whiteout, look, proc_path};
use crate::{Error, Result};

/// What is left to do before a layer may be used above others. Nearly always empty.
#[derive(Debug, Default, Clone)]
#[must_use = "a layer that borrows from below is wrong until it is settled"]
pub struct Pending {
    /// Directories that were created because an entry needed them, parents first.
    pub(crate) directories: Vec<Vec<u8>>,
    /// Hard links to files that aren't in this layer, in the archive's order.
    pub(crate) links: Vec<Link>,
}

/// A hard link whose target wasn't found.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) path: Vec<u8>,
    pub(crate) target: Vec<u8>,
}

impl Pending {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.directories.is_empty() && self.links.is_empty()
    }

    /// Does what is pending: `target` is the layer's directory, `lowers` the directories of the layers below, the topmost first.
    ///
    /// Attributes of directories that no lower layer has stay as they are (root's, 0755).
    ///
    /// # Errors
    ///
    /// When a hard link's target is in none of the layers, or the file system refuses.
    pub fn settle(&self, target: &Path, lowers: &[impl AsRef<Path>]) -> Result<()> {
        if self.is_empty() || (lowers.is_empty() && self.links.is_empty()) {
            return Ok(());
        }
        let mut tree = Tree::open(target)?;
        let lowers = lowers.iter().map(|lower| Tree::open(lower.as_ref())).collect::<Result<Vec<_>>>()?;
        for link in &self.links {
            settle_link(&mut tree, &lowers, link)?;
        }
        // A file that was copied up may have brought directories with it.
        let implied = std::mem::take(&mut tree.implied);
        for directory in self.directories.iter().chain(&implied) {
            inherit(&tree, &lowers, directory).map_err(|source| Error::Entry {
                operation: "take over the attributes of the directory below",
                entry: show(directory),
                source,
            })?;
        }
        Ok(())
    }
}

/// Gives a directory the attributes of the topmost one below it.
fn inherit(tree: &Tree, lowers: &[Tree], path: &[u8]) -> io::Result<()> {
    let directory = match tree.exact(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY) {
        Ok(directory) => directory,
        // A later entry of the layer took its place.
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    for lower in lowers {
        match lower.exact(path, OFlag::O_PATH | OFlag::O_DIRECTORY) {
            Ok(below) => return copy_attributes(&proc_path(&below, b"."), &fstat(&below)?, &directory),
            Err(Errno::ENOENT) => {}
            // Something else has the name there, or deletes it: further below nothing can be seen.
            Err(Errno::ENOTDIR | Errno::ELOOP) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn settle_link(tree: &mut Tree, lowers: &[Tree], link: &Link) -> Result<()> {
    let at = |operation| move |source: io::Error| Error::Entry { operation, entry: show(&link.path), source };
    let (parent, base) = split(&link.path);
    let (target_parent, target_base) = split(&link.target);
    if tree
        .existing_parent(parent)
        .map_err(at("open the parent directory"))?
        .is_some_and(|fd| look(&fd, base).is_ok())
    {
        // A later entry of the layer took its place.
        return Ok(());
    }
    let copied = match tree.existing_parent(target_parent).map_err(at("open the target's directory"))? {
        Some(fd) => look(&fd, target_base).is_ok(),
        None => false,
    };
    if !copied && !copy_up(tree, lowers, link).map_err(at("copy the hard link's target from below"))? {
        return Err(Error::Refused {
            entry: show(&link.path),
            reason: format!("the hard link's target {:?} is in no layer", show(&link.target)),
        });
    }
    let source = tree.parent(target_parent).and_then(|fd| fd.try_clone_to_owned()).map_err(at("open"))?;
    keeping_times(tree, parent, |fd| {
        linkat(&source, OsStr::from_bytes(target_base), fd, OsStr::from_bytes(base), AtFlags::empty())?;
        Ok(())
    })
    .map_err(at("create the hard link"))
}

/// Copies a hard link's target into the layer, under its own name. Returns false if it's nowhere.
fn copy_up(tree: &mut Tree, lowers: &[Tree], link: &Link) -> io::Result<bool> {
    let (parent, base) = split(&link.target);
    let Some((directory, stat)) = find(lowers, parent, base)? else { return Ok(false) };
    if file_type(&stat) != SFlag::S_IFREG {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "it is not a regular file"));
    }
    let name = OsStr::from_bytes(base);
    let read = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut from = File::from(openat(&directory, name, read, Mode::empty())?);
    let create = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    keeping_times(tree, parent, |fd| {
        let mut to = File::from(openat(fd, name, create, Mode::S_IRUSR | Mode::S_IWUSR)?);
        io::copy(&mut from, &mut to)?;
        copy_attributes(&proc_path(&directory, base), &stat, &to)
    })?;
    Ok(true)
}

/// The topmost file of that name below.
fn find(lowers: &[Tree], parent: &[u8], base: &[u8]) -> io::Result<Option<(OwnedFd, FileStat)>> {
    for lower in lowers {
        let directory = match lower.exact(parent, OFlag::O_PATH | OFlag::O_DIRECTORY) {
            Ok(directory) => directory,
            Err(Errno::ENOENT) => continue,
            Err(Errno::ENOTDIR | Errno::ELOOP) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        match look(&directory, base) {
            Ok(stat) if is_whiteout(&stat) => return Ok(None),
            Ok(stat) => return Ok(Some((directory, stat))),
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(None)
}

/// Changes what is in a directory whose times are already what they should be.
fn keeping_times(
    tree: &mut Tree,
    directory: &[u8],
    change: impl FnOnce(&OwnedFd) -> io::Result<()>,
) -> io::Result<()> {
    // Made if it's missing, then opened in a way that allows to set times.
    tree.parent(directory)?;
    let fd = tree.resolve(directory, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
    let stat = fstat(&fd)?;
    change(&fd)?;
    let time = |seconds, nanoseconds| TimeSpec::new(seconds, nanoseconds);
    futimens(&fd, &time(stat.st_atime, stat.st_atime_nsec), &time(stat.st_mtime, stat.st_mtime_nsec))?;
    Ok(())
}
