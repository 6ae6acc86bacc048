//! A process that is in a pod's namespaces: PID 1 of those that its containers share. It reaps, and ends with the shim.

use anyhow::Context;
use nix::sys::signal::Signal;

use crate::args::Args;
use crate::sandbox::set_up;

/// Does nothing, for ever.
///
/// # Errors
/// What prctl or sigaction say, or what can't be set up.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context("ask to die with the shim")?;
    // Ignoring it makes the kernel reap for us.
    corten_sys::signal::ignore(Signal::SIGCHLD as i32).context("ignore SIGCHLD")?;
    set_up(args.loopback, &args.hostname, &args.sysctls).context("set up the pod's namespaces")?;
    loop {
        nix::unistd::pause();
    }
}
