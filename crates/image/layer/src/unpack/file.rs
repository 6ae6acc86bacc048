//! Regular files.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::{Unpacker, at, attributes};
use crate::Result;
use crate::archive::{Archive, Entry};
use crate::name::split;

impl Unpacker<'_> {
    pub(super) fn file<R: BufRead>(
        &mut self,
        entry: &Entry,
        path: &[u8],
        archive: &mut Archive<R>,
    ) -> Result<()> {
        let mut file = File::from(self.create(entry, path)?);
        match &entry.sparse {
            None => copy(archive, &mut file, entry.length, entry)?,
            Some(extents) => {
                for extent in extents {
                    file.seek(SeekFrom::Start(extent.offset)).map_err(at("seek in the file", entry))?;
                    copy(archive, &mut file, extent.length, entry)?;
                }
                file.set_len(entry.length).map_err(at("set the length", entry))?;
            }
        }
        attributes::apply(&file, entry)
    }

    /// Creates a file that wasn't there, whatever was.
    fn create(&mut self, entry: &Entry, path: &[u8]) -> Result<OwnedFd> {
        let (parent, base) = split(path);
        let name = OsStr::from_bytes(base);
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(entry.mode & 0o777);
        let parent_fd = self.tree.parent(parent).map_err(at("open the parent directory", entry))?;
        match openat(parent_fd, name, flags, mode) {
            Err(Errno::EEXIST) => {
                self.tree.remove(parent, base).map_err(at("replace what is there", entry))?;
                let parent_fd = self.tree.parent(parent).map_err(at("open the parent directory", entry))?;
                openat(parent_fd, name, flags, mode)
            }
            result => result,
        }
        .map_err(at("create the file", entry))
    }
}

/// Writes the next `length` bytes of the archive's data straight from its buffers.
fn copy<R: BufRead>(archive: &mut Archive<R>, file: &mut File, length: u64, entry: &Entry) -> Result<()> {
    let mut left = length;
    while left > 0 {
        let data = archive.data()?;
        let part = &data[..data.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
        if part.is_empty() {
            break;
        }
        file.write_all(part).map_err(at("write the file", entry))?;
        let written = part.len();
        archive.consume(written);
        left -= written as u64;
    }
    Ok(())
}
