//! The seccomp filter: when it is loaded, and who gets its listener.

use std::os::fd::AsRawFd;

use corten_sys::{exec, seccomp};

use crate::{
    Result,
    error::Doing,
    plan::ProcessPlan,
    spawn::{
        init::Wires,
        sync::{FromInit, FromParent},
    },
};

/// Whether the filter is loaded right before the program: with no_new_privs it can be. But a listener has to be
/// handed over while there's a parent to do that, and `start` is not it.
pub(crate) fn loads_late(wires: &Wires, plan: &ProcessPlan) -> bool {
    let notifies = |(_, flags): &(_, u64)| flags & seccomp::NEW_LISTENER != 0;
    plan.no_new_privileges && !wires.seccomp.as_ref().is_some_and(notifies)
}

/// Loads it, if there is one, and hands over its listener, if it has one; called once on every way to the program.
pub(crate) fn load(wires: &Wires) -> Result<()> {
    // Whatever we were started with is not for the container (CVE-2024-21626). Before the filter: a profile may be older
    // than close_range. What is opened from here on is opened with close-on-exec.
    exec::cloexec_from(3 + wires.keep).doing(|| "close descriptors on exec".to_owned())?;
    let Some((filter, flags)) = &wires.seccomp else { return Ok(()) };
    let doing = || "load the seccomp filter (flags: is the kernel new enough for them?)".to_owned();
    let Some(listener) = seccomp::load(filter, *flags).doing(doing)? else { return Ok(()) };
    // From here on any system call may wait for an agent that doesn't have the listener yet: this is a write(2),
    // which the compiler doesn't let a profile notify.
    wires.channel.tell(&FromInit::Listener(listener.as_raw_fd()))?;
    wires.channel.await_order(FromParent::Delivered)
}
