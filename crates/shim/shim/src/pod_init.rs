//! A process that is in a pod's namespaces: PID 1 of those that its containers share. It reaps, and ends with the shim.
//!
//! Containers that share PIDs see it, and may look into it or trace it where they have CAP_SYS_PTRACE. So it has nothing
//! that they could want: an empty root, no capabilities, nobody's user, no descriptors but of /dev/null.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::Context;
use corten_sys::capability::{self, Set};
use corten_sys::mount::{self, Attributes, Filesystem, Propagation};
use corten_sys::process::{Namespaces, no_new_privs, not_dumpable, set_user, unshare};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::{chdir, chroot, dup2_stderr, dup2_stdin, dup2_stdout, fchdir, pause, write};

use crate::args::Args;
use crate::sandbox::{READY, set_up};

/// Whose processes may have nothing.
const NOBODY: u32 = 65534;

/// Sets the pod up, says on standard output that it is, or why not, and then does nothing, for ever.
///
/// # Errors
/// What couldn't be done.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if let Err(error) = begin(args) {
        let _ = write(io::stdout(), format!("{error:#}").as_bytes()); // it is in the shim's log, too
        return Err(error);
    }
    loop {
        pause();
    }
}

fn begin(args: &Args) -> anyhow::Result<()> {
    set_pdeathsig(Signal::SIGKILL).context("ask to die with the shim")?;
    // Ignoring it makes the kernel reap for us.
    corten_sys::signal::ignore(Signal::SIGCHLD as i32).context("ignore SIGCHLD")?;
    set_up(args.loopback, &args.hostname, &args.sysctls).context("set up the pod's namespaces")?;
    let null = File::options().read(true).write(true).open("/dev/null").context("open /dev/null")?;
    leave_files().context("leave the host's files")?;
    leave_privileges().context("give up privileges")?;
    // A change of user clears it.
    set_pdeathsig(Signal::SIGKILL).context("ask to die with the shim")?;
    dup2_stdin(&null).and_then(|()| dup2_stderr(&null)).context("let go of the shim's log")?;
    // Should the shim have died before we asked, then nobody has the pipe's other end.
    write(io::stdout(), &[READY]).context("tell the shim")?;
    dup2_stdout(&null).context("let go of the shim's pipe")
}

/// Makes an empty file system ours, and lets go of all others.
fn leave_files() -> anyhow::Result<()> {
    unshare(Namespaces::MOUNT).context("make a mount namespace")?;
    mount::set_propagation(c"/", Propagation::Private, true).context("make its mounts private")?;
    let attributes = Attributes::RDONLY | Attributes::NOSUID | Attributes::NODEV | Attributes::NOEXEC;
    let root =
        Filesystem::open(c"tmpfs").and_then(|tmpfs| tmpfs.mount(attributes)).context("make a tmpfs")?;
    let place: OwnedFd = open("/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    mount::move_mount(root.as_fd(), place.as_fd()).context("mount it")?;
    fchdir(&root)?;
    match mount::pivot_root_here() {
        Ok(()) => mount::detach_here().context("unmount the old root")?,
        // On a ramdisk it isn't possible.
        Err(e) if e.raw_os_error() == Some(Errno::EINVAL as i32) => chroot(".").context("chroot")?,
        Err(e) => return Err(e).context("pivot_root"),
    }
    chdir("/").context("change into /")
}

fn leave_privileges() -> anyhow::Result<()> {
    no_new_privs()?;
    capability::limit_bounding(Set::default()).context("limit the bounding set")?;
    match set_user(NOBODY, NOBODY, Some(&[])) {
        // The pod's users needn't include it: then root of them, without capabilities.
        Err(e) if e.raw_os_error() == Some(Errno::EINVAL as i32) => {}
        other => other.context("become nobody")?,
    }
    capability::set_ambient(Set::default()).context("drop ambient capabilities")?;
    capability::set(Set::default(), Set::default(), Set::default()).context("drop capabilities")?;
    not_dumpable().context("become undumpable")
}
