//! Loading a compiled seccomp filter: seccomp(2).

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd, RawFd},
};

use crate::check;

/// SECCOMP_FILTER_FLAG_NEW_LISTENER: loading the filter gives a descriptor that its notifications come from.
pub const NEW_LISTENER: u64 = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;

/// One BPF instruction; the same layout as the kernel's `struct sock_filter`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// How many instructions to skip if true.
    pub jt: u8,
    /// How many instructions to skip if false.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

#[repr(C)]
struct Program {
    len: u16,
    filter: *const Instruction,
}

/// Loads the filter with SECCOMP_FILTER_FLAG_* `flags`; with NEW_LISTENER returns the notification descriptor.
///
/// # Errors
/// EACCES without no_new_privs or CAP_SYS_ADMIN; EINVAL for a bad filter or unknown flags; ESRCH if with TSYNC another
/// thread can't have it, then no thread has.
pub fn load(filter: &[Instruction], flags: u64) -> io::Result<Option<OwnedFd>> {
    let len = u16::try_from(filter.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = Program { len, filter: filter.as_ptr() };
    let mode = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: program points to len instructions of the kernel's layout, which it copies.
    let fd = check(unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) })?;
    if flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER == 0 {
        // With TSYNC a positive number isn't success but the thread that is in the way, unless TSYNC_ESRCH is given.
        return if fd == 0 { Ok(None) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) };
    }
    // SAFETY: with NEW_LISTENER the kernel has just made this descriptor for us.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn a_thread_that_cannot_follow_is_an_error() {
        const TSYNC: u64 = libc::SECCOMP_FILTER_FLAG_TSYNC;
        // Lets everything through, so that it doesn't matter which threads of the tests get it.
        let allow = [Instruction { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW }];
        let (loaded, is_loaded) = mpsc::channel();
        let (end, is_end) = mpsc::channel::<()>();
        let other = thread::spawn(move || {
            let result = crate::process::no_new_privs().and_then(|()| load(&allow, 0));
            loaded.send(result.map(drop).map_err(|e| e.to_string())).expect("send");
            is_end.recv().ok(); // because the end is that there's nobody to send
        });
        is_loaded.recv().expect("receive").expect("a filter of its own");
        let error = thread::spawn(move || {
            crate::process::no_new_privs()?;
            load(&allow, TSYNC)
        });
        let error = error.join().expect("join").expect_err("the other thread has another filter");
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH), "{error}");
        drop(end);
        other.join().expect("join");
    }
}
