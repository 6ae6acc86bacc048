//! PID 1 of a PID namespace that the containers of a pod share: it reaps, and ends with the shim.

use anyhow::Context;
use nix::sys::signal::Signal;

/// Does nothing, for ever.
///
/// # Errors
/// What prctl or sigaction say.
pub fn run() -> anyhow::Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context("ask to die with the shim")?;
    // Ignoring it makes the kernel reap for us.
    corten_sys::signal::ignore(Signal::SIGCHLD as i32).context("ignore SIGCHLD")?;
    loop {
        nix::unistd::pause();
    }
}
