//! Creating, waiting for and signalling processes without pid races.

use std::{
    fmt, io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use bitflags::bitflags;

use crate::check;

bitflags! {
    /// What a new process doesn't share with its parent, or what [`setns`] joins.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct Namespaces: u64 {
        /// Mounts.
        const MOUNT = libc::CLONE_NEWNS as u64;
        /// Hostname and domain name.
        const UTS = libc::CLONE_NEWUTS as u64;
        /// System V IPC and POSIX message queues.
        const IPC = libc::CLONE_NEWIPC as u64;
        /// Users and capabilities.
        const USER = libc::CLONE_NEWUSER as u64;
        /// Process ids.
        const PID = libc::CLONE_NEWPID as u64;
        /// Network devices, addresses, routes, ports.
        const NET = libc::CLONE_NEWNET as u64;
        /// The cgroup root.
        const CGROUP = libc::CLONE_NEWCGROUP as u64;
        /// Boot and monotonic clock. Not for [`clone`]: the kernel wants unshare for it.
        const TIME = 0x80;
    }
}

/// The names that runtime-spec has for them, with commas between.
impl fmt::Display for Namespaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (Self::MOUNT, "mount"),
            (Self::UTS, "uts"),
            (Self::IPC, "ipc"),
            (Self::USER, "user"),
            (Self::PID, "pid"),
            (Self::NET, "network"),
            (Self::CGROUP, "cgroup"),
            (Self::TIME, "time"),
        ];
        let mut names = names.iter().filter(|(kind, _)| self.contains(*kind)).map(|(_, name)| *name);
        f.write_str(names.next().unwrap_or("none"))?;
        names.try_for_each(|name| write!(f, ", {name}"))
    }
}

/// libc's constant of this name is an int, which it doesn't fit.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which side of [`clone`] this is.
#[derive(Debug)]
pub enum Forked {
    /// The caller; with the child's pid, and its pidfd.
    Parent {
        /// The child in the caller's PID namespace.
        pid: i32,
        /// Refers to the child whatever becomes of the pid.
        pidfd: OwnedFd,
    },
    /// The new process. It has a copy of everything, must not return to the caller's caller and ends with [`exit`].
    Child,
}

/// Whether this process has one thread, and shares its memory with no other process: what [`clone`] needs.
///
/// # Errors
/// The kernel's, other than that there are more: EPERM where unshare(2) itself is forbidden.
pub fn is_single_threaded() -> io::Result<bool> {
    // unshare(2): "If the caller is single-threaded, these flags have no effect", and EINVAL otherwise.
    // SAFETY: unshare takes no pointers.
    match check(unsafe { libc::unshare(libc::CLONE_THREAD) }.into()) {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(e) => Err(e),
    }
}

/// clone3(2) like fork: the child runs on in a copy of the address space, in the namespaces `new`, in `cgroup`
/// (an open cgroup v2 directory) if given. With `sibling` the child's parent is the caller's parent.
///
/// Where the caller has other threads ([`is_single_threaded`]), one of them may hold the allocator's lock (or another),
/// which nobody will ever release in the child: there the child must not allocate, and do no more than system calls until
/// it executes or exits.
///
/// # Errors
/// The kernel's. With `cgroup`: EBADF or ENOSYS-like errors mean the kernel or directory can't (fall back to cgroup.procs).
pub fn clone(new: Namespaces, cgroup: Option<BorrowedFd<'_>>, sibling: bool) -> io::Result<Forked> {
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is plain data for which all zeroes is a valid value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = new.bits() | libc::CLONE_PIDFD as u64;
    args.pidfd = std::ptr::from_mut(&mut pidfd) as u64;
    if sibling {
        // The exit signal is then the caller's own.
        args.flags |= libc::CLONE_PARENT as u64;
    } else {
        args.exit_signal = libc::SIGCHLD as u64;
    }
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: no CLONE_VM, so the child has its own copy of memory; no stack is given, so it returns here on its
    // copy of ours; args outlives the call and has the size told. What a thread of ours had locked makes the child
    // hang at worst, see above.
    let pid = check(unsafe {
        libc::syscall(libc::SYS_clone3, &raw const args, std::mem::size_of::<libc::clone_args>())
    })?;
    if pid == 0 {
        return Ok(Forked::Child);
    }
    // SAFETY: with CLONE_PIDFD the kernel has stored a new descriptor, which nobody else owns.
    Ok(Forked::Parent { pid: pid as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

/// _exit(2): ends the process without running the exit handlers, which belong to the process we were copied from.
pub fn exit(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// setns(2) with an nsfd, or with a pidfd and any number of namespaces at once.
///
/// # Errors
/// The kernel's; EINVAL if the namespace isn't of the kind.
pub fn setns(fd: BorrowedFd<'_>, kinds: Namespaces) -> io::Result<()> {
    // SAFETY: setns takes no pointers.
    check(unsafe { libc::setns(fd.as_raw_fd(), kinds.bits() as libc::c_int) }.into()).map(drop)
}

/// unshare(2).
///
/// # Errors
/// The kernel's.
pub fn unshare(kinds: Namespaces) -> io::Result<()> {
    // SAFETY: unshare takes no pointers.
    check(unsafe { libc::unshare(kinds.bits() as libc::c_int) }.into()).map(drop)
}

/// ioctl NS_GET_NSTYPE: which kind of namespace an open file is.
///
/// # Errors
/// ENOTTY if it isn't one at all.
pub fn namespace_kind(fd: BorrowedFd<'_>) -> io::Result<Namespaces> {
    const NS_GET_NSTYPE: libc::c_ulong = 0xb703;
    // SAFETY: this ioctl takes no argument.
    let kind = check(unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) }.into())?;
    Ok(Namespaces::from_bits_retain(kind as u64))
}

/// pidfd_open(2).
///
/// # Errors
/// ESRCH if there's no such process.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// pidfd_getfd(2): a copy of another process's descriptor.
///
/// # Errors
/// The kernel's; EPERM without ptrace access.
pub fn pidfd_getfd(pidfd: BorrowedFd<'_>, fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0) })?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// pidfd_send_signal(2).
///
/// # Errors
/// ESRCH if the process is gone.
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed and means that of kill(2).
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, none, 0) }).map(drop)
}

/// How a process ended, as runc's exit codes have it: its own code, or 128 + signal.
///
/// Blocks until the child `pid` has ended, and reaps it.
///
/// # Errors
/// ECHILD if it isn't a child of ours.
pub fn wait(pid: i32) -> io::Result<i32> {
    loop {
        let mut status = 0;
        // SAFETY: status is a valid place for an int.
        match check(unsafe { libc::waitpid(pid, &raw mut status, 0) }.into()) {
            Ok(_) if libc::WIFEXITED(status) => return Ok(libc::WEXITSTATUS(status)),
            Ok(_) if libc::WIFSIGNALED(status) => return Ok(128 + libc::WTERMSIG(status)),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// PR_SET_NO_NEW_PRIVS.
///
/// # Errors
/// The kernel's.
pub fn no_new_privs() -> io::Result<()> {
    nix::sys::prctl::set_no_new_privs().map_err(Into::into)
}

/// prlimit(2): sets soft and hard limit of `resource` (a RLIMIT_ number) for `pid` (0: ourselves).
///
/// # Errors
/// EPERM if the hard limit would be raised without CAP_SYS_RESOURCE.
pub fn set_rlimit(pid: i32, resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let new = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    let old = std::ptr::null_mut::<libc::rlimit64>();
    // SAFETY: new is a valid rlimit64 (which is what prlimit64 takes), old may be null.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, &raw const new, old) }).map(drop)
}

/// prlimit(2): soft and hard limit of `resource` of `pid` (0: ourselves).
///
/// # Errors
/// The kernel's.
pub fn rlimit(pid: i32, resource: u32) -> io::Result<(u64, u64)> {
    let mut old = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    let new = std::ptr::null::<libc::rlimit64>();
    // SAFETY: old is a valid place for an rlimit64, new may be null.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, new, &raw mut old) })?;
    Ok((old.rlim_cur, old.rlim_max))
}

/// setdomainname(2).
///
/// # Errors
/// EPERM, EINVAL if it's too long.
pub fn set_domainname(name: &str) -> io::Result<()> {
    // SAFETY: the pointer and length are of the same string.
    check(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }.into()).map(drop)
}

/// PR_SET_DUMPABLE off until the next execve: other processes, except those with CAP_SYS_PTRACE over us, can't look
/// into our memory or /proc entries.
///
/// # Errors
/// The kernel's.
pub fn not_dumpable() -> io::Result<()> {
    nix::sys::prctl::set_dumpable(false).map_err(Into::into)
}

/// PR_SET_KEEPCAPS: keep the permitted capabilities through a change of user.
///
/// # Errors
/// The kernel's.
pub fn keep_capabilities(keep: bool) -> io::Result<()> {
    nix::sys::prctl::set_keepcaps(keep).map_err(Into::into)
}

/// personality(2).
///
/// # Errors
/// The kernel's.
pub fn personality(persona: u64) -> io::Result<()> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::personality(persona as libc::c_ulong) }.into()).map(drop)
}

/// setgroups(2), setresgid(2) and setresuid(2), straight to the kernel: we have one thread.
///
/// # Errors
/// The kernel's; `groups` of None leaves the supplementary groups alone.
pub fn set_user(uid: u32, gid: u32, groups: Option<&[u32]>) -> io::Result<()> {
    if let Some(groups) = groups {
        // SAFETY: the pointer and length are of the same slice; gid_t is u32.
        check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })?;
    }
    // SAFETY: these take no pointers.
    unsafe {
        check(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        check(libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clone_returns_twice_and_wait_gives_the_code() {
        match clone(Namespaces::empty(), None, false).expect("clone3") {
            Forked::Child => exit(42),
            Forked::Parent { pid, .. } => assert_eq!(wait(pid).expect("wait"), 42),
        }
    }

    #[test]
    fn threads_are_noticed() {
        assert!(!is_single_threaded().expect("unshare"), "the test harness has a thread for this test");
        match clone(Namespaces::empty(), None, false).expect("clone3") {
            Forked::Child => exit(i32::from(!is_single_threaded().unwrap_or(false))),
            Forked::Parent { pid, .. } => assert_eq!(wait(pid).expect("wait"), 0),
        }
    }

    #[test]
    fn a_killed_child_is_128_plus_signal() {
        match clone(Namespaces::empty(), None, false).expect("clone3") {
            Forked::Child => loop {
                nix::unistd::pause();
            },
            Forked::Parent { pid, pidfd } => {
                use std::os::fd::AsFd;
                pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL).expect("signal");
                assert_eq!(wait(pid).expect("wait"), 137);
            }
        }
    }

    #[test]
    fn namespace_files_know_their_kind() {
        use std::os::fd::AsFd;
        let uts = std::fs::File::open("/proc/self/ns/uts").expect("open");
        assert_eq!(namespace_kind(uts.as_fd()).expect("kind"), Namespaces::UTS);
        let other = std::fs::File::open("/dev/null").expect("open");
        assert!(namespace_kind(other.as_fd()).is_err());
    }
}
