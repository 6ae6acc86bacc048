//! Where a container's cgroup is, and its end. The rest is `corten-cgroups`'.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use corten_cgroups::{Cgroup, Manager, Unit};
use corten_sys::{
    mount::Attributes,
    process::{self, Forked, Namespaces},
};
use nix::sys::{prctl, signal::Signal};
use oci_spec::runtime::{LinuxIdMapping, Spec};

use crate::{
    Error, Result, Runtime,
    error::Doing,
    plan::{Mount, MountKind, Plan},
    privilege::is_limited,
    rootless,
    spawn::parent::Child,
};

/// Says which cgroup it was about.
pub(crate) trait CgroupDoing<T> {
    /// `cannot <operation> cgroup <path>`, with the cause as source.
    fn cgroup(self, operation: &'static str, path: &Path) -> Result<T>;
}

impl<T> CgroupDoing<T> for corten_cgroups::Result<T> {
    fn cgroup(self, operation: &'static str, path: &Path) -> Result<T> {
        self.map_err(|e| match e {
            corten_cgroups::Error::Frozen { path } => Error::CgroupBusy { path, why: "unexpectedly frozen" },
            corten_cgroups::Error::NotEmpty { path, .. } => Error::CgroupBusy { path, why: "is not empty" },
            other => Error::Cgroup { operation, path: path.to_owned(), source: other.into() },
        })
    }
}

/// Where the cgroup is going to be, and by whom it is made.
pub(crate) enum Place {
    /// By nobody; where it would have been.
    Nowhere(PathBuf),
    /// By us, at this path.
    Cgroupfs(PathBuf),
    /// By systemd.
    Systemd(Box<Unit>),
}

/// `linux.cgroupsPath`. Without systemd absolute; a relative one begins at the root of the hierarchies (for users at the
/// cgroup above ours), none is /corten/<id> there.
pub(crate) fn place(runtime: &Runtime, spec: &Spec, id: &str) -> Result<Place> {
    if runtime.without_cgroup {
        // Not where the config says: what others have there isn't ours.
        return Ok(Place::Nowhere(Path::new("/corten").join(id)));
    }
    let linux = spec.linux().as_ref();
    let given = linux.and_then(|linux| linux.cgroups_path().clone()).filter(|p| !p.as_os_str().is_empty());
    if !runtime.systemd_cgroup {
        return Ok(Place::Cgroupfs(absolute(runtime, given, id)));
    }
    let given = given.unwrap_or_default();
    let annotations = spec.annotations().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    let manager = if is_limited() { Manager::User } else { Manager::System };
    let unit = Unit::new(manager, &given.to_string_lossy(), id, &annotations);
    unit.map(|unit| Place::Systemd(Box::new(unit))).cgroup("create", &given)
}

fn absolute(runtime: &Runtime, given: Option<PathBuf>, id: &str) -> PathBuf {
    match given {
        Some(path) if path.is_absolute() => path,
        given => {
            let name = given.unwrap_or_else(|| id.into());
            let base = if runtime.is_rootless() { rootless::base() } else { None };
            match base {
                Some(base) => base.join(name),
                None if name == Path::new(id) => Path::new("/corten").join(id),
                None => Path::new("/").join(name),
            }
        }
    }
}

impl Place {
    /// From the root of each hierarchy.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Cgroupfs(path) | Self::Nowhere(path) => path,
            Self::Systemd(unit) => unit.place(),
        }
    }

    /// Makes the cgroup. What comes with it keeps its unit alive, and is to be kept until init is in it.
    pub(crate) fn make(&self, runtime: &Runtime, spec: &Spec) -> Result<(Cgroup, Option<Placeholder>)> {
        let linux = spec.linux().as_ref();
        let mut resources = linux.and_then(|linux| linux.resources().clone()).unwrap_or_default();
        // Who isn't the machine's root can't make device nodes, so there's nothing to keep away from; nor may they load
        // the program that would do it. All others get rules, also if there are none in the config.
        let devices = resources.devices().clone().unwrap_or_default();
        resources.set_devices((!runtime.is_rootless()).then_some(devices));
        let unit = match self {
            Self::Nowhere(path) => {
                if rootless::needs_cgroup(&resources) {
                    tracing::warn!("linux.resources is ignored: the container is to have no cgroup");
                }
                return Ok((Cgroup::none(path), None));
            }
            Self::Cgroupfs(path) if runtime.is_rootless() => {
                return Ok((rootless::create(path, linux, &resources)?, None));
            }
            Self::Cgroupfs(path) => {
                return Ok((Cgroup::create(path, &resources).cgroup("create", path)?, None));
            }
            Self::Systemd(unit) => unit,
        };
        let placeholder = unit.needs_process().then(Placeholder::new).transpose()?;
        let pid = placeholder.as_ref().map_or(0, |placeholder| placeholder.pid);
        let cgroup = Cgroup::create_unit(unit, &resources, pid).cgroup("create", unit.place())?;
        Ok((cgroup, placeholder))
    }
}

/// A process that does nothing, for systemd, which makes no scope without one. It goes when this goes.
pub(crate) struct Placeholder {
    pid: i32,
    pidfd: OwnedFd,
}

impl Placeholder {
    fn new() -> Result<Self> {
        let us = nix::unistd::getpid();
        match process::clone(Namespaces::empty(), None, false)
            .doing(|| "clone a process for systemd".to_owned())?
        {
            Forked::Parent { pid, pidfd } => Ok(Self { pid, pidfd }),
            Forked::Child => {
                // It isn't to stay when we are killed, nor to hold our descriptors open.
                prctl::set_pdeathsig(Signal::SIGKILL).ok(); // because it's better than no placeholder at all
                while nix::unistd::getppid() == us {
                    nix::unistd::pause();
                }
                process::exit(0)
            }
        }
    }
}

impl Placeholder {
    /// Goes, now that there is init.
    pub(crate) fn hand_over(self, cgroup: &Cgroup, init: &Child) -> Result<()> {
        if init.born_there {
            return Ok(());
        }
        // It walks in by itself, but maybe not before its unit would have ended for want of processes.
        cgroup.add_pid(init.pid).cgroup("join", cgroup.path())
    }
}

impl Drop for Placeholder {
    fn drop(&mut self) {
        crate::spawn::parent::kill(self.pid, &self.pidfd).ok(); // because there is nothing to do about it
    }
}

/// The user on the host to whom the cgroup is given so that the container can divide it further (runtime-spec, "Cgroup
/// ownership"): `process.user.uid`, if there is a new cgroup namespace, and the cgroups are mounted for writing.
pub(crate) fn owner(spec: &Spec, plan: &Plan) -> Option<u32> {
    let writable = |mount: &Mount| {
        matches!(mount.kind, MountKind::Cgroup(_))
            && mount.destination.as_bytes() == b"/sys/fs/cgroup"
            && !(mount.set | mount.set_recursive).contains(Attributes::RDONLY)
    };
    if !plan.namespaces.new.contains(Namespaces::CGROUP) || !plan.mounts.iter().any(writable) {
        return None;
    }
    let inside = spec.process().as_ref().map_or(0, |process| process.user().uid());
    let mappings =
        spec.linux().as_ref().and_then(|linux| linux.uid_mappings().as_deref()).unwrap_or_default();
    let outside = |mapping: &LinuxIdMapping| {
        let offset = inside.checked_sub(mapping.container_id()).filter(|offset| *offset < mapping.size())?;
        mapping.host_id().checked_add(offset)
    };
    let uid = if mappings.is_empty() { Some(inside) } else { mappings.iter().find_map(outside) };
    uid.filter(|uid| *uid != 0) // Root's it is already.
}

/// Kills what is in it, and removes it.
pub(crate) fn destroy(cgroup: &Cgroup) -> Result<()> {
    if cgroup.remove_if_empty() {
        return Ok(());
    }
    if cgroup.pids().is_ok_and(|pids| !pids.is_empty()) {
        cgroup.kill().cgroup("kill the processes of", cgroup.path())?;
    }
    cgroup.remove().cgroup("remove", cgroup.path())
}
