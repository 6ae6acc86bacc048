//! What is mounted into a container: the kernel's file systems, the pod's files, and what the request names.

use std::path::{Component, Path};

use corten_cri_api::v1::{Mount, MountPropagation, NamespaceMode};
use serde_json::{Value, json};

use super::{Input, mode};
use crate::{Error, Result};

/// The `mounts` section and what follows from it for the root.
#[derive(Debug)]
pub(super) struct Mounts {
    pub(super) mounts: Vec<Value>,
    /// Set where mounts of the host must reach the container, or the container's the host.
    pub(super) rootfs_propagation: Option<&'static str>,
}

pub(super) fn of(input: &Input<'_>) -> Result<Mounts> {
    let asked = &input.config.mounts;
    let wanted = |path: &str| !asked.iter().any(|mount| clean(&mount.container_path) == path);
    let mut all: Vec<Value> = Vec::new();
    let privileged = input.security().privileged;
    all.extend(kernel(privileged).into_iter().filter(|m| m["destination"].as_str().is_some_and(wanted)));
    all.extend(pod(input, &wanted)?);
    let mut rootfs_propagation = None;
    let mut table = None;
    for mount in asked {
        let (value, propagation) = bind(mount, &mut table)?;
        all.push(value);
        rootfs_propagation = rootfs_propagation.max(propagation);
    }
    // Whatever lies below another mount comes after it. The sort keeps the order of what is as deep.
    all.sort_by_key(|mount| {
        mount["destination"].as_str().map_or(0, |path| Path::new(path).components().count())
    });
    Ok(Mounts { mounts: all, rootfs_propagation: rootfs_propagation.map(Propagation::of_rootfs) })
}

fn kernel(privileged: bool) -> Vec<Value> {
    let access = if privileged { "rw" } else { "ro" };
    let mount = |destination: &str, kind: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": kind, "options": options});
    vec![
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", access]),
        mount(
            "/dev/pts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", access]),
    ]
}

/// The files that the containers of a pod share.
fn pod(input: &Input<'_>, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<Value>> {
    let access = if input.security().readonly_rootfs { "ro" } else { "rw" };
    let files = &input.pod.files;
    let mut all = Vec::new();
    for name in ["hosts", "hostname", "resolv.conf"] {
        let destination = format!("/etc/{name}");
        if wanted(&destination) {
            all.push(json!({
                "destination": destination, "type": "bind", "source": files.join(name),
                "options": ["rbind", "rprivate", access],
            }));
        }
    }
    if wanted("/dev/shm") {
        let host = mode(input.pod.options.ipc, "IPC")? == NamespaceMode::Node;
        let source = if host { Path::new("/dev/shm").to_owned() } else { files.join("shm") };
        all.push(json!({
            "destination": "/dev/shm", "type": "bind", "source": source,
            "options": ["rbind", "rprivate", "nosuid", "nodev", "noexec", "rw"],
        }));
    }
    Ok(all)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Propagation {
    FromHost,
    BothWays,
}

impl Propagation {
    fn of_rootfs(self) -> &'static str {
        match self {
            Self::FromHost => "rslave",
            Self::BothWays => "rshared",
        }
    }
}

/// One mount that the request names.
fn bind(mount: &Mount, table: &mut Option<String>) -> Result<(Value, Option<Propagation>)> {
    let inside = mount.container_path.as_str();
    refuse_unsupported(mount)?;
    let host = Path::new(&mount.host_path);
    if !host.is_absolute() {
        return Err(Error::invalid(format!(
            "mount at {inside}: host path {:?} is not absolute",
            mount.host_path
        )));
    }
    // A link is followed here: what it points to when the container starts could be something else.
    let source = host.canonicalize().map_err(Error::io("find the host path of a mount,", host))?;
    let propagation = match mount.propagation() {
        MountPropagation::PropagationPrivate => None,
        MountPropagation::PropagationHostToContainer => Some(Propagation::FromHost),
        MountPropagation::PropagationBidirectional => Some(Propagation::BothWays),
    };
    if let Some(propagation) = propagation {
        check_propagation(&source, propagation, table)?;
    }
    let mut options = vec!["rbind".to_owned()];
    options.push(propagation.map_or("rprivate", Propagation::of_rootfs).to_owned());
    options.push(if mount.readonly { "ro" } else { "rw" }.to_owned());
    if mount.recursive_read_only {
        options.push("rro".to_owned());
    }
    options.extend(mount.mount_options.iter().cloned());
    let value = json!({"destination": clean(inside), "type": "bind", "source": source, "options": options});
    Ok((value, propagation))
}

fn refuse_unsupported(mount: &Mount) -> Result<()> {
    let inside = mount.container_path.as_str();
    if !inside.starts_with('/') || Path::new(inside).components().any(|part| part == Component::ParentDir) {
        return Err(Error::invalid(format!(
            "mount: container path {inside:?} is not absolute or has .. in it"
        )));
    }
    if mount.image.is_some() {
        return Err(Error::Unsupported(format!("mount at {inside}: an image as a volume")));
    }
    if !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty() {
        return Err(Error::Unsupported(format!("mount at {inside}: id mappings")));
    }
    let private = mount.propagation() == MountPropagation::PropagationPrivate;
    if mount.recursive_read_only && !(mount.readonly && private) {
        return Err(Error::invalid(format!(
            "mount at {inside}: recursive_read_only needs readonly and private propagation"
        )));
    }
    for option in &mount.mount_options {
        if !["noexec", "nodev", "nosuid"].contains(&option.as_str()) {
            return Err(Error::invalid(format!("mount at {inside}: unknown option {option:?}")));
        }
    }
    Ok(())
}

/// Mounts can only travel where the host lets them: asking otherwise would be ignored in silence.
fn check_propagation(source: &Path, wanted: Propagation, table: &mut Option<String>) -> Result<()> {
    let path = Path::new("/proc/self/mountinfo");
    let text = match table {
        Some(text) => text,
        None => table.insert(std::fs::read_to_string(path).map_err(Error::io("read", path))?),
    };
    let mut best: Option<(&str, bool, bool)> = None;
    for line in text.lines() {
        let mut fields = line.split(' ').skip(4);
        let Some(point) = fields.next() else { continue };
        let longer = best.is_none_or(|(known, ..)| point.len() >= known.len());
        if longer && source.starts_with(point) {
            let tags: Vec<&str> = fields.skip(1).take_while(|field| *field != "-").collect();
            let has = |tag: &str| tags.iter().any(|field| field.starts_with(tag));
            best = Some((point, has("shared:"), has("master:")));
        }
    }
    let (point, shared, slave) = best.unwrap_or(("/", false, false));
    let (fits, needed) = match wanted {
        Propagation::BothWays => (shared, "shared"),
        Propagation::FromHost => (shared || slave, "shared or slave"),
    };
    if fits {
        return Ok(());
    }
    Err(Error::Precondition(format!(
        "mount propagation: {} lies on {point}, which is not a {needed} mount",
        source.display()
    )))
}

/// The path without trailing and doubled slashes, to compare by.
fn clean(path: &str) -> String {
    Path::new(path).components().collect::<std::path::PathBuf>().to_string_lossy().into_owned()
}
