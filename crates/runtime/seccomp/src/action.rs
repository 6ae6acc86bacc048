//! Actions as return values of a filter (seccomp(2), "SECCOMP_RET_*").

use oci_spec::runtime::LinuxSeccompAction as Action;

use crate::{Error, name_of};

/// Kills the thread; also the answer to an architecture that the profile doesn't have.
pub(crate) const KILL_THREAD: u32 = 0;
/// Lets the call through.
pub(crate) const ALLOW: u32 = 0x7fff_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
const TRAP: u32 = 0x0003_0000;
const ERRNO: u32 = 0x0005_0000;
const NOTIFY: u32 = 0x7fc0_0000;
const TRACE: u32 = 0x7ff0_0000;
/// Lets it through as well.
pub(crate) const LOG: u32 = 0x7ffc_0000;

/// What a program that tries a system call newer than the profile should see.
pub(crate) const NO_SUCH_CALL: u32 = ERRNO | 38;

/// What ERRNO and TRACE give if the profile doesn't say: EPERM.
const DEFAULT_ERRNO: u32 = 1;
/// The kernel's MAX_ERRNO.
const MAX_ERRNO: u32 = 4095;
/// A tracer gets 16 bits.
const MAX_TRACE: u32 = 0xffff;

/// The return value for an action; `at` is its place below linux.seccomp, for the error.
pub(crate) fn value(action: Action, errno: Option<u32>, at: impl Fn() -> String) -> Result<u32, Error> {
    let with_errno = |base: u32, max: u32| match errno.unwrap_or(DEFAULT_ERRNO) {
        errno if errno <= max => Ok(base | errno),
        errno => Err(Error::ErrnoRange { at: at(), errno, max }),
    };
    let plain = match action {
        Action::ScmpActErrno => return with_errno(ERRNO, MAX_ERRNO),
        Action::ScmpActTrace => return with_errno(TRACE, MAX_TRACE),
        Action::ScmpActKill | Action::ScmpActKillThread => KILL_THREAD,
        Action::ScmpActKillProcess => KILL_PROCESS,
        Action::ScmpActTrap => TRAP,
        Action::ScmpActNotify => NOTIFY,
        Action::ScmpActLog => LOG,
        Action::ScmpActAllow => ALLOW,
    };
    if errno.is_some() { Err(Error::Errno { at: at(), action: name_of(action) }) } else { Ok(plain) }
}
