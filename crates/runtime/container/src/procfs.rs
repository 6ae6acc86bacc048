//! /proc as a place to write to: made sure to be the kernel's, and never through a link.
//!
//! What is written there (id maps, OOM scores, sysctls, security labels) protects the host. A write that lands
//! elsewhere because something else is mounted there is a hole (CVE-2019-16884, CVE-2025-52881).

use std::{
    ffi::{CStr, CString},
    fs::File,
    io::{self, Write as _},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use corten_sys::{
    mount::{Attributes, Filesystem},
    path::open_beneath,
};
use nix::{
    fcntl::{OFlag, open, readlinkat},
    libc,
    sys::{
        stat::Mode,
        statfs::{PROC_SUPER_MAGIC, fstatfs},
    },
};

/// Whether an open file is on a procfs.
pub(crate) fn is_procfs(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(fstatfs(fd)?.filesystem_type() == PROC_SUPER_MAGIC)
}

/// A procfs.
#[derive(Debug)]
pub(crate) struct Proc(OwnedFd);

impl Proc {
    /// The one that is mounted on /proc where we are.
    pub(crate) fn mounted() -> io::Result<Self> {
        let proc = open("/proc", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        if !is_procfs(proc.as_fd())? {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "/proc is not a procfs"));
        }
        Ok(Self(proc))
    }

    /// One of our PID namespace that nobody else sees: the container's own /proc may be anything.
    pub(crate) fn private() -> io::Result<Self> {
        Filesystem::open(c"proc")?
            .mount(Attributes::NOSUID | Attributes::NODEV | Attributes::NOEXEC)
            .map(Self)
    }

    /// Writes a file, in one write: that is how the kernel parses it. Nothing mounted over it is written instead.
    pub(crate) fn write(&self, path: &CStr, value: &[u8]) -> io::Result<()> {
        let file = open_beneath(self.0.as_fd(), path, libc::O_WRONLY, 0)?;
        File::from(file).write_all(value)
    }

    /// Writes a file of ourselves, whichever pid we have there.
    pub(crate) fn write_self(&self, name: &str, value: &str) -> io::Result<()> {
        let pid = readlinkat(&self.0, c"self")?;
        pid.to_str()
            .and_then(|pid| pid.parse().ok())
            .map_or_else(|| Err(io::ErrorKind::NotFound.into()), |pid| self.write_of(pid, name, value))
    }

    /// Writes a file of a process.
    pub(crate) fn write_of(&self, pid: i32, name: &str, value: &str) -> io::Result<()> {
        self.write(&CString::new(format!("{pid}/{name}"))?, value.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_procfs_is_seen() {
        let tmp = tempfile::tempdir().expect("tempdir");
        let other = File::open(tmp.path()).expect("open");
        assert!(!is_procfs(other.as_fd()).expect("fstatfs"));
        Proc::mounted().expect("/proc");
    }

    #[test]
    fn links_are_not_followed() {
        let proc = Proc::mounted().expect("/proc");
        let error = proc.write(c"self/oom_score_adj", b"0").expect_err("self is a link");
        assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
        let score = std::fs::read_to_string("/proc/self/oom_score_adj").expect("read");
        proc.write_self("oom_score_adj", score.trim()).expect("the same again");
    }
}
