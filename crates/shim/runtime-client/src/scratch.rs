//! Files for the runtime that exist in memory only: it opens them as /proc/self/fd/N.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;

use nix::sys::memfd::{MFdFlags, memfd_create};

/// A file in memory that a child spawned while it exists inherits.
///
/// Not close-on-exec on purpose: create it, spawn, then [`Scratch::seal`] it, without an await between: then this thread
/// starts nothing else that would inherit it. Other threads that start something see to it themselves (the shim's
/// pod-init closes all that it isn't given).
#[derive(Debug)]
pub(crate) struct Scratch(File);

impl Scratch {
    pub(crate) fn new(name: &CStr, content: &[u8]) -> io::Result<Self> {
        let mut file = File::from(memfd_create(name, MFdFlags::empty())?);
        file.write_all(content)?;
        Ok(Self(file))
    }

    /// How the child finds it.
    pub(crate) fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.0.as_raw_fd())
    }

    /// Later children don't inherit it.
    pub(crate) fn seal(&self) -> io::Result<()> {
        use nix::fcntl::{FcntlArg, FdFlag, fcntl};
        fcntl(&self.0, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        Ok(())
    }

    /// All that has been written to it.
    pub(crate) fn read(mut self) -> io::Result<String> {
        let mut bytes = Vec::new();
        self.0.seek(SeekFrom::Start(0))?;
        self.0.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}
