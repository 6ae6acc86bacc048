//! Signal dispositions and masks of a process that is about to become another program.

use std::{io, os::unix::process::CommandExt, process::Command};

/// Every signal to its default disposition, and none blocked: execve(2) would pass on what is ignored (Rust
/// ignores SIGPIPE) and what is blocked.
///
/// # Errors
/// The kernel's.
pub fn reset() -> io::Result<()> {
    // SAFETY: sigaction is plain data for which all zeroes is SIG_DFL without flags and an empty mask.
    let default: libc::sigaction = unsafe { std::mem::zeroed() };
    for signal in 1..=libc::SIGRTMAX() {
        // glibc keeps 32 and 33 for itself and refuses them, as the kernel does SIGKILL and SIGSTOP.
        // SAFETY: default is a valid sigaction; the old one may be null.
        unsafe { libc::sigaction(signal, &raw const default, std::ptr::null_mut()) };
    }
    unblock_all()
}

/// No signal blocked.
///
/// # Errors
/// The kernel's.
pub fn unblock_all() -> io::Result<()> {
    nix::sys::signal::SigSet::empty().thread_set_mask().map_err(Into::into)
}

/// Makes `command` begin with no signal blocked, whatever is blocked here: what it is started with it inherits.
pub fn unblocked(command: &mut Command) {
    // SAFETY: between fork and exec only what is async-signal-safe may run: this is one sigprocmask.
    unsafe { command.pre_exec(unblock_all) };
}

/// Makes a signal end this process with exit status 128 + its number, which is what its default action looks like to who waits.
/// For PID 1 of a namespace: the kernel keeps from it what it has no handler for. The signal isn't blocked any more then.
///
/// # Errors
/// EINVAL for no such signal, or one that can't be caught.
pub fn exit_on(signal: i32) -> io::Result<()> {
    extern "C" fn end(signal: i32) {
        // SAFETY: async-signal-safe, and it touches nothing of ours.
        unsafe { libc::_exit(128 + signal) }
    }
    // SAFETY: the handler calls only what is async-signal-safe.
    let ret = unsafe { libc::signal(signal, end as extern "C" fn(i32) as libc::sighandler_t) };
    if ret == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    let mut set = nix::sys::signal::SigSet::empty();
    set.add(nix::sys::signal::Signal::try_from(signal)?);
    set.thread_unblock().map_err(Into::into)
}

/// A signal to its default disposition. Who has inherited SIGCHLD ignored can't learn how its children end.
///
/// # Errors
/// EINVAL for no such signal.
pub fn default(signal: i32) -> io::Result<()> {
    // SAFETY: SIG_DFL is a valid disposition and runs no code of ours.
    let ret = unsafe { libc::signal(signal, libc::SIG_DFL) };
    if ret == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Ignores a signal; for SIGTTOU and the like, around a call.
///
/// # Errors
/// EINVAL for no such signal.
pub fn ignore(signal: i32) -> io::Result<()> {
    // SAFETY: SIG_IGN is a valid disposition and runs no code of ours.
    let ret = unsafe { libc::signal(signal, libc::SIG_IGN) };
    if ret == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}
