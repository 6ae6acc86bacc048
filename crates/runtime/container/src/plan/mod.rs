//! config.json as decisions: an immutable [`Plan`] in which nothing is left to interpret.
//!
//! Making a plan is pure: it reads no file and asks the kernel nothing, so it can be tested on any machine, and
//! a config.json that can't be run is refused before anything exists that would have to be taken back. All
//! problems are collected and told at once, each with its JSON path.

pub(crate) mod annotations;
mod devices;
mod host;
mod mounts;
mod namespaces;
mod net_devices;
mod process;
mod rdt;

use std::{
    ffi::CString,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use corten_sys::mount::Propagation;
use oci_spec::runtime::{Hooks, LinuxIdMapping, Spec};

pub(crate) use annotations::Trusted;
pub(crate) use devices::{Device, DeviceKind, Devices};
pub(crate) use mounts::{CgroupMount, FsOption, InProc, Link, Mount, MountKind};
pub(crate) use namespaces::{Join, NamespacePlan};
pub(crate) use net_devices::NetDevice;
pub(crate) use process::{CapabilityPlan, ProcessPlan, RlimitPlan};
pub(crate) use rdt::RdtPlan;

/// The problems found so far: "json.path: what is wrong".
#[derive(Debug, Default)]
pub(crate) struct Problems(pub(crate) Vec<String>);

impl Problems {
    fn add(&mut self, at: &str, what: impl std::fmt::Display) {
        self.0.push(format!("{at}: {what}"));
    }

    /// A C string, or a problem if there's a NUL in it.
    fn c_string(&mut self, at: &str, bytes: impl AsRef<[u8]>) -> CString {
        CString::new(bytes.as_ref()).unwrap_or_else(|_| {
            self.add(at, "contains a NUL character");
            CString::default()
        })
    }

    fn c_path(&mut self, at: &str, path: &Path) -> CString {
        self.c_string(at, path.as_os_str().as_bytes())
    }
}

/// Everything that `create` will do, decided.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) rootfs: RootfsPlan,
    pub(crate) namespaces: NamespacePlan,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) devices: Devices,
    /// The container is in another user namespace than the machine's first one: devices can't be made there, but
    /// have to be bind mounted, and groups may be denied.
    pub(crate) in_user_namespace: bool,
    pub(crate) net_devices: Vec<NetDevice>,
    pub(crate) rdt: Option<RdtPlan>,
    /// `linux.mountLabel`: the SELinux context of every new file system that takes one.
    pub(crate) mount_label: Option<CString>,
    pub(crate) masked: Vec<CString>,
    pub(crate) readonly: Vec<CString>,
    /// Path below /proc/sys, and value.
    pub(crate) sysctl: Vec<(CString, String)>,
    pub(crate) hostname: Option<String>,
    pub(crate) domainname: Option<String>,
    pub(crate) personality: Option<u64>,
    pub(crate) memory_policy: Option<(u32, Vec<u64>)>,
    /// `root.path` and all relative mount sources are relative to the bundle and have been joined to it.
    pub(crate) process: ProcessPlan,
    /// The profile may not name system calls that we don't know.
    pub(crate) strict_seccomp: bool,
    pub(crate) hooks: Hooks,
    pub(crate) trusted: Trusted,
    /// createContainer hooks start in the bundle, not in the root file system.
    pub(crate) hooks_start_in_bundle: bool,
}

/// The root filesystem.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RootfsPlan {
    pub(crate) path: PathBuf,
    pub(crate) readonly: bool,
    /// `linux.rootfsPropagation`, and whether for all mounts; None means slave for all.
    pub(crate) propagation: Option<(Propagation, bool)>,
}

/// What isn't in config.json but decides too.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Circumstances {
    /// Number of descriptors from 3 on that the process inherits because of LISTEN_FDS.
    pub(crate) listen_fds: u32,
    /// We may make no namespace but a user namespace, and what is then possible in it.
    pub(crate) unprivileged: bool,
    /// Device nodes can't be made, not even by root.
    pub(crate) in_user_namespace: bool,
    /// See [`crate::CreateOptions::like_crun`].
    pub(crate) like_crun: bool,
}

impl Plan {
    /// Decides everything, or returns every problem.
    pub(crate) fn new(bundle: &Path, spec: &Spec, circumstances: Circumstances) -> Result<Self, Vec<String>> {
        let mut problems = Problems::default();
        let Some(linux) = spec.linux() else {
            return Err(vec!["linux: is required to create a container on Linux".to_owned()]);
        };
        let namespaces = NamespacePlan::new(linux, &mut problems);
        if circumstances.unprivileged && !namespaces.user() {
            problems.add("linux.namespaces", "without root's privileges a user namespace is required");
        }
        let mounts = mounts::plan(bundle, spec, &namespaces, &mut problems);
        let label = linux.mount_label().as_deref().filter(|label| !label.is_empty());
        let annotated = |name| spec.annotations().as_ref().is_some_and(|all| all.contains_key(name));
        let mut plan = Self {
            rootfs: rootfs(bundle, spec, &mut problems),
            devices: devices::plan(linux, &mounts, &mut problems),
            in_user_namespace: namespaces.user() || circumstances.in_user_namespace,
            net_devices: net_devices::plan(linux, &namespaces, &mut problems),
            rdt: rdt::plan(linux, &mut problems),
            mount_label: label.map(|label| problems.c_string("linux.mountLabel", label)),
            masked: paths("linux.maskedPaths", linux.masked_paths().as_deref(), &mut problems),
            readonly: paths("linux.readonlyPaths", linux.readonly_paths().as_deref(), &mut problems),
            sysctl: host::sysctl(linux, &namespaces, &mut problems),
            hostname: host::uts_name("hostname", spec.hostname().as_deref(), &namespaces, &mut problems),
            domainname: host::uts_name(
                "domainname",
                spec.domainname().as_deref(),
                &namespaces,
                &mut problems,
            ),
            personality: host::personality(linux, &mut problems),
            memory_policy: host::memory_policy(linux, &mut problems),
            process: match spec.process() {
                Some(process) => ProcessPlan::new(process, circumstances.listen_fds, &mut problems),
                None => {
                    problems.add("process", "is required to create a container");
                    ProcessPlan::default()
                }
            },
            strict_seccomp: annotated(annotations::STRICT_SECCOMP),
            hooks: spec.hooks().clone().unwrap_or_default(),
            hooks_start_in_bundle: circumstances.like_crun,
            trusted: match spec.annotations() {
                Some(all) if circumstances.like_crun => annotations::trusted(all, &mut problems),
                _ => Trusted::default(),
            },
            mounts,
            namespaces,
        };
        plan.process.keep_groups = annotations::keeps_groups(
            spec.annotations().as_ref().and_then(|all| all.get(annotations::KEEP_GROUPS)),
        );
        host::refuse_unsupported(spec, &plan, &mut problems);
        if problems.0.is_empty() { Ok(plan) } else { Err(problems.0) }
    }
}

/// Everything about one more process in a container, or every problem.
pub(crate) fn exec(
    process: &oci_spec::runtime::Process,
    circumstances: Circumstances,
) -> Result<ProcessPlan, Vec<String>> {
    let mut problems = Problems::default();
    let plan = ProcessPlan::new(process, circumstances.listen_fds, &mut problems);
    if problems.0.is_empty() { Ok(plan) } else { Err(problems.0) }
}

fn rootfs(bundle: &Path, spec: &Spec, problems: &mut Problems) -> RootfsPlan {
    let Some(root) = spec.root() else {
        problems.add("root", "is required");
        return RootfsPlan { path: PathBuf::new(), readonly: false, propagation: None };
    };
    let at = "linux.rootfsPropagation";
    let text = spec.linux().as_ref().and_then(|l| l.rootfs_propagation().clone()).unwrap_or_default();
    let propagation = match text.as_str() {
        "" => None,
        "private" => Some((Propagation::Private, false)),
        "rprivate" => Some((Propagation::Private, true)),
        "slave" => Some((Propagation::Slave, false)),
        "rslave" => Some((Propagation::Slave, true)),
        "shared" => Some((Propagation::Shared, false)),
        "rshared" => Some((Propagation::Shared, true)),
        "unbindable" => Some((Propagation::Unbindable, false)),
        "runbindable" => Some((Propagation::Unbindable, true)),
        other => {
            problems.add(at, format_args!("{other:?} is not shared, slave, private or unbindable"));
            None
        }
    };
    RootfsPlan { path: bundle.join(root.path()), readonly: root.readonly().unwrap_or(false), propagation }
}

fn paths(at: &str, paths: Option<&[String]>, problems: &mut Problems) -> Vec<CString> {
    let mut all = Vec::new();
    for (i, path) in paths.unwrap_or_default().iter().enumerate() {
        let path = problems.c_string(&format!("{at}[{i}]"), path);
        // Once is enough: engines append their own to a user's.
        if !all.contains(&path) {
            all.push(path);
        }
    }
    all
}

/// A path for a system call.
pub(crate) fn c_path(path: &Path) -> std::io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(Into::into)
}

/// The text of a uid_map or gid_map file.
pub(crate) fn id_map(mappings: &[LinuxIdMapping]) -> String {
    let line = |m: &LinuxIdMapping| format!("{} {} {}\n", m.container_id(), m.host_id(), m.size());
    mappings.iter().map(line).collect()
}

/// Bits of a list like "0-3,7".
pub(crate) fn bit_list(text: &str) -> Option<Vec<u64>> {
    let mut bits = Vec::new();
    for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= 1 << 16 {
            return None;
        }
        bits.resize(bits.len().max(last / 64 + 1), 0);
        for n in first..=last {
            *bits.get_mut(n / 64)? |= 1 << (n % 64);
        }
    }
    Some(bits)
}

#[cfg(test)]
mod tests;
