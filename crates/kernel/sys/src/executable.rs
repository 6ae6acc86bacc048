//! Our own executable in a form in which nobody who gets at it through `/proc/<pid>/exe` can overwrite the file (CVE-2019-5736).

use std::{
    ffi::CStr,
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::memfd::{MFdFlags, memfd_create},
};

use crate::mount::{self, Attributes, Change};

/// How it is found.
pub const PATH: &str = "/proc/self/exe";

const SEALS: SealFlag = SealFlag::F_SEAL_SEAL
    .union(SealFlag::F_SEAL_SHRINK)
    .union(SealFlag::F_SEAL_GROW)
    .union(SealFlag::F_SEAL_WRITE);

/// A read-only mount of it that has no path, for [`crate::exec::fexecve`]. Costs next to nothing.
///
/// # Errors
/// Without the privilege to clone mounts, or where the executable's own isn't in our mount namespace (any more).
pub fn read_only() -> io::Result<OwnedFd> {
    let exe = mount::clone_tree_path(c"/proc/self/exe", false)?;
    let change = Change { set: Attributes::RDONLY, ..Change::default() };
    mount::set_attributes(exe.as_fd(), false, &change)?;
    Ok(exe)
}

/// A copy of it in memory that can't be changed any more. Needs no privilege, but the memory.
///
/// # Errors
/// The kernel's.
pub fn sealed_copy(name: &CStr) -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut copy = File::from(memfd_create(name, flags)?);
    io::copy(&mut File::open(PATH)?, &mut copy)?;
    fcntl(&copy, FcntlArg::F_ADD_SEALS(SEALS))?;
    // Executed through a descriptor that was never open for writing, or execve would call it busy.
    File::open(format!("/proc/self/fd/{}", copy.as_raw_fd())).map(OwnedFd::from)
}

/// Whether it is such a copy. A file that can't be sealed isn't.
///
/// # Errors
/// If it can't be opened.
pub fn is_sealed() -> io::Result<bool> {
    let seals = fcntl(File::open(PATH)?, FcntlArg::F_GET_SEALS);
    Ok(seals.is_ok_and(|seals| SealFlag::from_bits_truncate(seals).contains(SEALS)))
}
