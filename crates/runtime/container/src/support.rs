//! What a config may ask of a kernel that not every kernel has: refused before anything exists, with what is missing.

use std::{
    fs,
    os::fd::{AsFd, OwnedFd},
};

use corten_sys::process::Namespaces;
use nix::sys::stat::fstat;

use crate::{
    Error, Result,
    error::Doing,
    plan::{Plan, ProcessPlan},
};

/// All of a container.
pub(crate) fn container(plan: &Plan) -> Result<()> {
    if plan.mount_label.is_some() && !selinux() {
        return Err(missing("linux.mountLabel", "SELinux is not enabled in this kernel"));
    }
    process(&plan.process)
}

/// A process, of `create` or `exec`.
pub(crate) fn process(plan: &ProcessPlan) -> Result<()> {
    if plan.selinux.is_some() && !selinux() {
        return Err(missing("process.selinuxLabel", "SELinux is not enabled in this kernel"));
    }
    // Where there is no AppArmor, everything is unconfined.
    if plan.apparmor.as_ref().is_some_and(|profile| profile != "unconfined") && !apparmor() {
        return Err(missing("process.apparmorProfile", "AppArmor is not enabled in this kernel"));
    }
    Ok(())
}

fn missing(field: &'static str, why: &str) -> Error {
    Error::Unsupported { field, why: why.to_owned() }
}

/// Whether AppArmor is there to be asked.
pub(crate) fn apparmor() -> bool {
    fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y"))
}

fn selinux() -> bool {
    // Its file system is only registered if it was enabled when the machine started.
    fs::read_to_string("/proc/filesystems").is_ok_and(|text| text.lines().any(|l| l.ends_with("\tselinuxfs")))
}

/// Refuses settings of a namespace that is joined by a path and turns out to be our own: they would change the host.
pub(crate) fn joins(plan: &Plan, joins: &[(Namespaces, OwnedFd)]) -> Result<()> {
    let sysctl = |prefix: &[&[u8]]| {
        let starts = |key: &[u8]| prefix.iter().any(|prefix| key.starts_with(prefix));
        plan.sysctl.iter().any(|(key, _)| starts(key.to_bytes()))
    };
    for (kind, file) in joins {
        let field = match *kind {
            Namespaces::NET if !plan.net_devices.is_empty() => "linux.netDevices",
            Namespaces::NET if sysctl(&[b"net/"]) => "linux.sysctl",
            Namespaces::IPC if sysctl(&[b"fs/mqueue/", b"kernel/msg", b"kernel/sem", b"kernel/shm"]) => {
                "linux.sysctl"
            }
            Namespaces::UTS if plan.hostname.is_some() => "hostname",
            Namespaces::UTS if plan.domainname.is_some() || sysctl(&[b"kernel/domainname"]) => "domainname",
            Namespaces::USER if sysctl(&[b"user/"]) => "linux.sysctl",
            _ => continue,
        };
        if is_ours(*kind, file)? {
            return Err(missing(
                field,
                "the namespace to join is the runtime's own: it would change the host",
            ));
        }
    }
    Ok(())
}

fn is_ours(kind: Namespaces, file: &OwnedFd) -> Result<bool> {
    let name = match kind {
        Namespaces::NET => "net",
        Namespaces::IPC => "ipc",
        Namespaces::UTS => "uts",
        _ => "user",
    };
    let path = format!("/proc/thread-self/ns/{name}");
    let own = nix::sys::stat::stat(path.as_str()).doing(|| format!("stat {path}"))?;
    let theirs = fstat(file.as_fd()).doing(|| "stat a namespace".to_owned())?;
    Ok((own.st_dev, own.st_ino) == (theirs.st_dev, theirs.st_ino))
}
