//! What joins: a further process in a running container, [`exec`], as flat a list as [`super::init::create`]; and the
//! process between parent and init, where something must be joined before init can be cloned.

use std::{
    convert::Infallible,
    ffi::CStr,
    os::fd::{AsFd, OwnedFd},
};

use corten_sys::process::{self, Namespaces};
use nix::{
    fcntl::{OFlag, open},
    libc,
    sys::stat::Mode,
    unistd::setsid,
};

use super::{
    init::{Wires, become_process, become_program, environment, hide, join_cgroups, session_keyring, warn},
    sync::{Channel, FromInit, FromParent},
};
use crate::{
    Result,
    error::Doing,
    failpoint::Failpoint,
    plan::{Plan, ProcessPlan},
    steps::{console, dev, filter, limits, lsm, rootfs},
};

/// Where a further process goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'a> {
    /// The namespaces that are still to be joined.
    pub(crate) join: Namespaces,
    /// The container's init.
    pub(crate) target: &'a OwnedFd,
    /// The container's root directory, if that isn't its mount namespace's.
    pub(crate) root: Option<&'a OwnedFd>,
    /// The container's execution domain.
    pub(crate) personality: Option<u64>,
    /// The name of the container's session keyring, if it has one.
    pub(crate) keyring: Option<&'a CStr>,
    /// The container's NUMA policy.
    pub(crate) memory_policy: Option<&'a (u32, Vec<u64>)>,
}

/// A further process: joins the namespaces of a running container.
pub(crate) fn exec(
    wires: &Wires,
    plan: &ProcessPlan,
    entry: Entry<'_>,
    setgroups: bool,
) -> Result<Infallible> {
    Failpoint::JoinBorn.pass()?;
    let Entry { join, target, root, personality, keyring, memory_policy } = entry;
    limits::affinity(plan.affinity.initial.as_deref())?;
    join_cgroups(wires)?;
    Failpoint::JoinCgroup.pass()?;
    if plan.affinity.initial.is_none() {
        limits::all_cpus();
    }
    limits::affinity(plan.affinity.last.as_deref())?;
    setsid().doing(|| "start a session".to_owned())?;
    // The host's limits may have to be raised while we still have the privilege of the host.
    if join.contains(Namespaces::USER) {
        limits::rlimits(&plan.rlimits, |text| warn(wires, text))?;
    }
    // The PID namespace is the parent's affair: it is entered by being born in it.
    let kinds = join.difference(Namespaces::PID);
    process::setns(target.as_fd(), kinds).doing(|| format!("join the container's namespaces ({kinds})"))?;
    if let Some(root) = root {
        rootfs::enter_shared(root.as_fd())?;
    }
    if join.contains(Namespaces::USER) {
        process::set_user(0, 0, None).doing(|| "become root of the user namespace".to_owned())?;
    }
    // Not the caller's: what is in that isn't for containers.
    if let Some(name) = keyring {
        lsm::with_key_label(plan, || session_keyring(wires, name))?;
    }
    Failpoint::JoinNamespaces.pass()?;
    if plan.terminal {
        let root =
            open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).doing(|| "open /".to_owned())?;
        let socket = wires.console.as_ref().map(AsFd::as_fd);
        console::set_up(root.as_fd(), plan, socket, &wires.channel, false)?;
    } else {
        dev::own_null()?;
    }
    limits::domain(personality, memory_policy)?;
    let path = become_process(wires, plan, setgroups)?;
    Failpoint::JoinProcess.pass()?;
    wires.channel.await_order(FromParent::Go)?;
    Failpoint::JoinGo.pass()?;
    if filter::loads_late(wires, plan) {
        filter::load(wires)?;
    }
    become_program(wires, plan, path, environment(plan)?)
}

/// Joins the namespaces whose files the parent has opened. Which of them belong to the host and which to the user
/// namespace that comes last, only the kernel knows: what can't be joined before it, is joined after it.
pub(crate) fn join_namespaces(wires: &Wires) -> Result<()> {
    let user = wires.join.iter().any(|(kind, _)| *kind == Namespaces::USER);
    let mut later = Vec::new();
    for (kind, file) in &wires.join {
        match process::setns(file.as_fd(), *kind) {
            Err(e) if user && *kind != Namespaces::USER && e.raw_os_error() == Some(libc::EPERM) => {
                later.push((kind, file));
            }
            other => other.doing(|| format!("join the {kind} namespace"))?,
        }
    }
    for (kind, file) in later {
        process::setns(file.as_fd(), *kind).doing(|| format!("join the {kind} namespace"))?;
    }
    Ok(())
}

/// The life of a process between parent and init, where something must be joined before init can be cloned: `prepare`
/// does that. True in that process, when it's done; false in init.
pub(crate) fn help(
    wires: &Wires,
    reporter: &Channel,
    new: Namespaces,
    prepare: impl FnOnce(&Wires) -> Result<()>,
) -> Result<bool> {
    prepare(wires)?;
    Failpoint::HelperJoined.pass()?;
    match process::clone(new, None, true).doing(|| "clone container init".to_owned())? {
        process::Forked::Child => Ok(false),
        process::Forked::Parent { pid, pidfd } => {
            Failpoint::HelperCloned.pass()?;
            reporter.tell(&FromInit::Born { pid, pidfd })?;
            Ok(true)
        }
    }
}

/// What has to be joined before the new namespaces are made.
pub(crate) fn join_first(wires: &Wires, plan: &Plan) -> Result<()> {
    let namespaces = &plan.namespaces;
    if !namespaces.new.contains(Namespaces::USER) {
        hide(wires, &plan.process)?;
    }
    join_cgroups(wires)?;
    join_namespaces(wires)?;
    if namespaces.joins(Namespaces::USER).is_some() {
        process::set_user(0, 0, None).doing(|| "become root of the user namespace".to_owned())?;
    }
    if namespaces.new.contains(Namespaces::TIME) {
        process::unshare(Namespaces::TIME).doing(|| "make a time namespace".to_owned())?;
        if !namespaces.time_offsets.is_empty() {
            std::fs::write("/proc/self/timens_offsets", &namespaces.time_offsets)
                .doing(|| "set the offsets of the time namespace".to_owned())?;
        }
    }
    Ok(())
}

/// What has to be joined before a further process can be cloned, by those who get their privileges there.
pub(crate) fn enter_first(
    wires: &Wires,
    plan: &ProcessPlan,
    kinds: Namespaces,
    target: &OwnedFd,
) -> Result<()> {
    hide(wires, plan)?;
    join_cgroups(wires)?;
    process::setns(target.as_fd(), kinds).doing(|| format!("join the container's namespaces ({kinds})"))?;
    process::set_user(0, 0, None).doing(|| "become root of the user namespace".to_owned())
}
