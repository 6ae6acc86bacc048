//! Owner, mode, extended attributes and times.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::{FileStat, Mode, fchmod, fstat, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown};

use super::at;
use super::tree::proc_path;
use crate::Result;
use crate::archive::{Entry, Time};

/// Attributes by which overlayfs steers itself. A layer that brought them could redirect a directory to anywhere in the
/// layers below or make a file's content come from another.
const OVERLAY: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

/// Sets what differs on an open file that was just created or, for a directory, filled.
pub(super) fn apply(fd: impl AsFd, entry: &Entry) -> Result<()> {
    let stat = fstat(&fd).map_err(at("look at the file", entry))?;
    let chowned = own(&fd, &stat, entry.uid, entry.gid).map_err(at("set the owner", entry))?;
    // A change of owner takes setuid and setgid away.
    if stat.st_mode & 0o7777 != entry.mode || (chowned && entry.mode & 0o6000 != 0) {
        fchmod(&fd, Mode::from_bits_truncate(entry.mode)).map_err(at("set the mode", entry))?;
    }
    // After the owner, whose change takes capabilities away.
    for (name, value) in wanted(entry) {
        optional(corten_sys::xattr::fset(&fd, name, value), name)
            .map_err(at("set an extended attribute", entry))?;
    }
    let (atime, mtime) = times(entry);
    futimens(&fd, &atime, &mtime).map_err(at("set the times", entry))
}

/// Gives an open file to another owner if it isn't theirs. Returns whether that was needed.
pub(super) fn own(fd: impl AsFd, stat: &FileStat, uid: u32, gid: u32) -> Result<bool, Errno> {
    let differs = stat.st_uid != uid || stat.st_gid != gid;
    if differs {
        fchown(&fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    Ok(differs)
}

/// Sets the extended attributes of something that can't be opened (a link, a device).
pub(super) fn apply_xattrs_at(parent: impl AsFd, base: &[u8], entry: &Entry) -> Result<()> {
    if entry.xattrs.is_empty() {
        return Ok(());
    }
    let path = proc_path(parent, base);
    for (name, value) in wanted(entry) {
        optional(corten_sys::xattr::lset(&path, name, value), name)
            .map_err(at("set an extended attribute", entry))?;
    }
    Ok(())
}

pub(super) fn times(entry: &Entry) -> (TimeSpec, TimeSpec) {
    let spec = |time: Time| TimeSpec::new(time.seconds, i64::from(time.nanoseconds));
    (spec(entry.atime.unwrap_or(entry.mtime)), spec(entry.mtime))
}

fn wanted(entry: &Entry) -> impl Iterator<Item = (&[u8], &[u8])> {
    entry.xattrs.iter().filter(|(name, _)| !steers_overlay(name)).map(|(name, value)| (&name[..], &value[..]))
}

fn steers_overlay(name: &[u8]) -> bool {
    OVERLAY.iter().any(|prefix| name.starts_with(prefix))
}

/// An attribute that the file system doesn't have is left out, as all engines do: the file is usable without it.
fn optional(result: io::Result<()>, name: &[u8]) -> io::Result<()> {
    match result {
        Err(error) if Errno::from_raw(error.raw_os_error().unwrap_or(0)) == Errno::EOPNOTSUPP => {
            tracing::debug!(attribute = %String::from_utf8_lossy(name), "the file system can't hold an attribute");
            Ok(())
        }
        result => result,
    }
}

/// Makes `to` like `from` in owner, mode, extended attributes and times. `to` must not be an `O_PATH` descriptor.
pub(crate) fn copy_attributes(from: &Path, from_stat: &FileStat, to: impl AsFd) -> io::Result<()> {
    let stat = fstat(&to)?;
    own(&to, &stat, from_stat.st_uid, from_stat.st_gid)?;
    fchmod(&to, Mode::from_bits_truncate(from_stat.st_mode & 0o7777))?;
    for name in corten_sys::xattr::llist(from)? {
        if steers_overlay(&name) {
            continue;
        }
        if let Some(value) = corten_sys::xattr::lget(from, &name)? {
            optional(corten_sys::xattr::fset(&to, &name, &value), &name)?;
        }
    }
    futimens(
        &to,
        &TimeSpec::new(from_stat.st_atime, from_stat.st_atime_nsec),
        &TimeSpec::new(from_stat.st_mtime, from_stat.st_mtime_nsec),
    )?;
    Ok(())
}
