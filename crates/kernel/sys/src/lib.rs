//! Every Linux system call that Corten makes, safe and typed.
//!
//! Where nix has a safe wrapper, use nix directly; here is what it lacks. Every file descriptor is owned
//! (`OwnedFd`) or borrowed (`BorrowedFd`/`AsFd`) and close-on-exec. Errors are the kernel's errno as
//! [`std::io::Error`]; the caller knows what it was doing and says so.
//!
//! ```
//! use std::{fs::File, io, os::fd::AsFd};
//! use corten_sys::path;
//!
//! let image = tempfile::tempdir()?;
//! std::fs::create_dir(image.path().join("etc"))?;
//! std::fs::write(image.path().join("etc/hostname"), "inside")?;
//! std::os::unix::fs::symlink("../../../../etc/hostname", image.path().join("name"))?;
//!
//! // As a process sees it whose root directory that is: the link can't lead out of it.
//! let root = File::open(image.path())?;
//! let file = path::open_in_root(root.as_fd(), c"/name", 0, 0)?;
//! assert_eq!(io::read_to_string(File::from(file))?, "inside");
//! # Ok::<(), io::Error>(())
//! ```
//!
//! Some of what is here changes the whole process or the calling thread (namespaces, credentials, signal masks,
//! undumpability): that is what these system calls do, nothing else is kept, and each function says so.

pub mod bpf;
pub mod capability;
#[cfg(target_arch = "x86_64")]
mod early;
pub mod exec;
pub mod executable;
pub mod fds;
pub mod keyring;
pub mod memory;
pub mod mount;
pub mod net;
pub mod netlink;
pub mod path;
pub mod process;
pub mod pty;
pub mod regex;
pub mod sched;
pub mod seccomp;
pub mod signal;
pub mod start;
pub mod stuck;
pub mod xattr;

use std::io;

/// The kernel's answer as a result: -1 means errno.
fn check(ret: libc::c_long) -> io::Result<libc::c_long> {
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}
