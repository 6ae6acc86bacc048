//! The executable can't be overwritten from inside a container (CVE-2019-5736).
//!
//! A process in a container can get hold of the runtime's executable: an image's program may be a script whose
//! interpreter is `/proc/self/exe`, so that execve in the container runs the runtime itself, whose `/proc/<pid>/exe`
//! then is a way to the file on the host, past all mounts. The file must not be writable through that way.
//!
//! The answer is to run from a mount that is read-only: a detached clone of the mount of our executable, made
//! read-only and executed from, which nobody else can reach or change. That costs one execve of a small static
//! binary that is in the page cache (a third of a millisecond), where a sealed copy in memory would also cost copying
//! it. If the executable is on a read-only mount already, as it is when installed on a read-only file system or by
//! a caller that has prepared one, nothing needs doing at all.

use std::{
    ffi::{CString, OsString},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::ffi::OsStringExt,
    },
};

use corten_sys::{
    exec::{Strings, fexecve},
    executable,
};
use nix::sys::statvfs::{FsFlags, statvfs};

use crate::{Result, error::Doing};

const COPY: &std::ffi::CStr = c"corten";

/// Makes sure that what runs us can't be written through us; runs this program again from the beginning if it has
/// to, with the same arguments, environment and descriptors. To be called before anything that creates containers or
/// processes in them, as the first thing, while there's one thread.
///
/// The program then runs from a mount that has no path, so that [`std::env::current_exe`] names nothing: who has to start
/// itself again does it through `/proc/self/exe`.
///
/// # Errors
/// If the executable can be protected neither by a read-only mount nor by a copy.
pub fn protect_executable() -> Result<()> {
    let doing = || "protect the executable against being overwritten from a container".to_owned();
    if statvfs(executable::PATH).doing(doing)?.flags().contains(FsFlags::ST_RDONLY) {
        return Ok(());
    }
    if executable::is_sealed().doing(doing)? {
        return Ok(());
    }
    if let Ok(mount) = executable::read_only() {
        // It comes back only if that failed.
        drop(again(mount.as_fd()));
    }
    // Without the privilege to clone mounts, or to execute what is on them, there's the copy, which needs none.
    let file = executable::sealed_copy(COPY).doing(doing)?;
    Err(again(file.as_fd())).doing(doing)
}

fn again(file: BorrowedFd<'_>) -> io::Error {
    let strings = |all: Vec<OsString>| -> io::Result<Strings> {
        let all: Result<Vec<_>, _> = all.into_iter().map(|s| CString::new(s.into_vec())).collect();
        Ok(Strings::new(all?))
    };
    let env = std::env::vars_os().map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        name
    });
    match (strings(std::env::args_os().collect()), strings(env.collect())) {
        (Ok(args), Ok(env)) => fexecve(file, &args, &env),
        (Err(e), _) | (_, Err(e)) => e,
    }
}
