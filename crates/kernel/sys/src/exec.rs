//! execve(2) and what has to be right just before it.

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsRawFd, BorrowedFd, RawFd},
};

use crate::check;

/// NUL-terminated strings and the null-terminated array of pointers to them that execve(2) takes.
#[derive(Debug)]
pub struct Strings {
    // Keeps what the pointers point to.
    _strings: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl Strings {
    /// Takes the strings; they don't move on the heap any more.
    #[must_use]
    pub fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect();
        Self { _strings: strings, pointers }
    }
}

/// execve(2): only returns if it fails.
#[must_use]
pub fn execve(path: &CStr, args: &Strings, env: &Strings) -> io::Error {
    // SAFETY: path is a NUL-terminated string; both arrays are null-terminated and their strings live.
    unsafe { libc::execve(path.as_ptr(), args.pointers.as_ptr(), env.pointers.as_ptr()) };
    io::Error::last_os_error()
}

/// execveat(2) of an open file: only returns if it fails.
#[must_use]
pub fn fexecve(file: BorrowedFd<'_>, args: &Strings, env: &Strings) -> io::Error {
    let (args, env) = (args.pointers.as_ptr(), env.pointers.as_ptr());
    // SAFETY: the path is a NUL-terminated string; both arrays are null-terminated and their strings live.
    unsafe {
        libc::syscall(libc::SYS_execveat, file.as_raw_fd(), c"".as_ptr(), args, env, libc::AT_EMPTY_PATH)
    };
    io::Error::last_os_error()
}

/// close_range(2) with CLOSE_RANGE_CLOEXEC: every descriptor from `first` on is closed by the next execve.
///
/// # Errors
/// EINVAL before Linux 5.11.
pub fn cloexec_from(first: u32) -> io::Result<()> {
    let flags = libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: takes no pointers; only sets a flag, so descriptors owned elsewhere stay valid.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) }).map(drop)
}

/// Closes every descriptor from `first` on but those of `keep`, whoever owns them: for a process that waits a long time
/// before it executes a program, and that never returns to where its other descriptors are used or dropped.
///
/// # Errors
/// ENOSYS before Linux 5.9.
pub fn close_but(first: u32, keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep.iter().map(|fd| fd.as_raw_fd().cast_unsigned()).collect();
    keep.sort_unstable();
    let mut from = first;
    for fd in keep.into_iter().chain([u32::MAX]) {
        if from < fd {
            // SAFETY: takes no pointers. What else owns these descriptors isn't used any more: the caller's promise.
            check(unsafe { libc::syscall(libc::SYS_close_range, from, fd - 1, 0) })?;
        }
        from = from.max(fd.saturating_add(1));
    }
    Ok(())
}

/// Clears close-on-exec of descriptor number `fd`, which the caller of this program has left open for us to pass on.
///
/// # Errors
/// EBADF if it isn't open.
pub fn keep_on_exec(fd: RawFd) -> io::Result<()> {
    // SAFETY: F_SETFD takes an int and doesn't touch memory.
    check(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) }.into()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Also for miri: the pointers still are to the strings when those have moved.
    #[test]
    fn strings_are_where_their_pointers_say() {
        let strings = Box::new(Strings::new(vec![c"one".to_owned(), c"".to_owned()]));
        let [one, empty, end] = strings.pointers.as_slice() else { panic!("{strings:?}") };
        // SAFETY: both point to strings that live as long as `strings`.
        let (one, empty) = unsafe { (CStr::from_ptr(*one), CStr::from_ptr(*empty)) };
        assert_eq!((one, empty), (c"one", c""));
        assert!(end.is_null());
    }
}
