//! `mounts[]`: options parsed into flags, attributes and file system data (runtime-spec, config "Mounts").

use std::{
    ffi::CString,
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};

use corten_sys::{
    mount::{Attributes, Propagation},
    process::Namespaces,
};
use oci_spec::runtime::{LinuxIdMapping, Spec};

use super::{NamespacePlan, Problems, id_map};

/// One entry of `mounts[]`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// As in config.json; resolved beneath the rootfs when its turn comes, as earlier mounts may change it.
    pub(crate) destination: CString,
    pub(crate) kind: MountKind,
    /// To set and to clear on the mount itself.
    pub(crate) set: Attributes,
    pub(crate) clear: Attributes,
    /// To set and to clear on it and everything below (`rro` and so on).
    pub(crate) set_recursive: Attributes,
    pub(crate) clear_recursive: Attributes,
    /// In the order given; true means with everything below.
    pub(crate) propagation: Vec<(Propagation, bool)>,
    pub(crate) idmap: Option<IdMap>,
    pub(crate) in_proc: InProc,
    /// The mount is put over a link at the destination, not where it leads to.
    pub(crate) over_link: bool,
}

/// What a destination has to do with /proc. Sysctls, masks and security labels count on finding the kernel there, so
/// nothing else may be mounted over it or in it (CVE-2019-16884).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InProc {
    /// Nothing; nor may a link of the image's lead there.
    No,
    /// /proc itself: only a procfs.
    Itself,
    /// One of the files that lxcfs imitates.
    Imitated,
}

/// What is mounted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum MountKind {
    /// Something of the host.
    Bind { source: PathBuf, recursive: bool, link: Link },
    /// A file system of its own.
    Filesystem { name: CString, source: CString, options: Vec<FsOption>, copy_up: bool },
    /// The container's view of the cgroups.
    Cgroup(CgroupMount),
    /// What is mounted there already gets other options; those for the file system itself unless `bind`.
    Remount { options: Vec<FsOption>, bind: bool },
}

/// What becomes of a bind mount's source that is a symbolic link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Link {
    /// What it leads to is mounted.
    #[default]
    Followed,
    /// It is mounted itself.
    Mounted,
    /// A link like it is made.
    Copied,
}

/// How the cgroup file systems appear.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CgroupMount {
    /// In a cgroup namespace of its own, mounting shows the container's part; otherwise it's bind mounted.
    pub(crate) namespaced: bool,
    /// Version 2 by name, also where the host has both.
    pub(crate) v2: bool,
    /// For the file system itself.
    pub(crate) options: Vec<FsOption>,
}

/// An option for the file system itself: `key` or `key=value`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FsOption {
    pub(crate) key: CString,
    pub(crate) value: Option<CString>,
}

/// Whose mappings an id-mapped mount has.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct IdMap {
    /// uid_map and gid_map; None means those of the container's user namespace.
    pub(crate) maps: Option<(String, String)>,
    pub(crate) recursive: bool,
}

pub(super) fn plan(bundle: &Path, spec: &Spec, ns: &NamespacePlan, problems: &mut Problems) -> Vec<Mount> {
    let mounts = spec.mounts().as_deref().unwrap_or_default().iter().enumerate();
    mounts.map(|(i, mount)| one(bundle, mount, ns, &format!("mounts[{i}]"), problems)).collect()
}

/// What options have said so far.
#[derive(Default)]
pub(super) struct Options {
    bind: Option<bool>,
    set: Attributes,
    clear: Attributes,
    set_recursive: Attributes,
    clear_recursive: Attributes,
    propagation: Vec<(Propagation, bool)>,
    idmap: Option<bool>,
    copy_up: bool,
    remount: bool,
    link: Link,
    contradicting_links: bool,
    over_link: bool,
    pub(super) data: Vec<String>,
}

fn one(
    bundle: &Path,
    mount: &oci_spec::runtime::Mount,
    ns: &NamespacePlan,
    at: &str,
    problems: &mut Problems,
) -> Mount {
    let mut options = Options::default();
    for option in mount.options().as_deref().unwrap_or_default() {
        options.parse(option);
    }
    let name = mount.typ().as_deref().unwrap_or_default();
    let source = mount.source().clone().unwrap_or_default();
    if mount.destination().as_os_str().is_empty() {
        problems.add(at, "destination is empty");
    }
    let mut data =
        || -> Vec<FsOption> { options.data.iter().map(|text| fs_option(text, at, problems)).collect() };
    let kind = match (options.bind, name) {
        (bind, _) if options.remount => MountKind::Remount { options: data(), bind: bind.is_some() },
        // Options for a file system are ignored, as mount(2) ignores them for bind mounts: configs have them.
        (Some(recursive), _) => bind(bundle, &source, (recursive, options.link), at, problems),
        // Some writers say it by type alone.
        (None, "bind" | "none") if !source.as_os_str().is_empty() => {
            bind(bundle, &source, (false, options.link), at, problems)
        }
        (None, "") => {
            problems.add(at, "neither a type nor the option bind or rbind");
            bind(bundle, &source, (false, options.link), at, problems)
        }
        (None, "cgroup" | "cgroup2") => {
            let namespaced = ns.has(Namespaces::CGROUP);
            MountKind::Cgroup(CgroupMount { namespaced, v2: name == "cgroup2", options: data() })
        }
        (None, _) => MountKind::Filesystem {
            options: data(),
            name: problems.c_string(at, name),
            source: problems.c_path(at, &source),
            copy_up: options.copy_up,
        },
    };
    let in_proc = in_proc(mount.destination()).unwrap_or_else(|| {
        problems.add(at, format_args!("{} is inside of /proc", mount.destination().display()));
        InProc::No
    });
    // Whether a bind mount's source is one is seen when it's opened.
    let changes = matches!(kind, MountKind::Bind { .. } | MountKind::Remount { .. });
    if in_proc == InProc::Itself && !(changes || name == "proc") {
        problems.add(at, format_args!("{name} on /proc: only a procfs may be there"));
    }
    if !matches!(kind, MountKind::Bind { .. }) && (options.link != Link::Followed || options.over_link) {
        problems.add(at, "copy-symlink, src-nofollow and dest-nofollow are for bind mounts");
    }
    if options.contradicting_links || options.link == Link::Copied && options.over_link {
        problems
            .add(at, "copy-symlink mounts nothing, so neither src-nofollow nor dest-nofollow goes with it");
    }
    if options.link == Link::Mounted && (options.idmap.is_some() || mount.uid_mappings().is_some()) {
        problems.add(at, "a link (src-nofollow) can't be id-mapped");
    }
    if options.copy_up && name != "tmpfs" {
        problems.add(at, "tmpcopyup is only for tmpfs");
    }
    Mount {
        destination: problems.c_path(at, mount.destination()),
        kind,
        set: options.set,
        clear: options.clear,
        set_recursive: options.set_recursive,
        clear_recursive: options.clear_recursive,
        idmap: idmap(mount, &options, ns, at, problems),
        propagation: options.propagation,
        in_proc,
        over_link: options.over_link,
    }
}

/// What the destination says about itself; None if it is in /proc and mustn't be.
fn in_proc(destination: &Path) -> Option<InProc> {
    const IMITATED: [&str; 10] = [
        "cpuinfo",
        "diskstats",
        "loadavg",
        "meminfo",
        "slabinfo",
        "stat",
        "swaps",
        "uptime",
        "net/dev",
        "sys/kernel/ns_last_pid",
    ];
    let normal: PathBuf = destination.components().filter(|c| matches!(c, Component::Normal(_))).collect();
    let Ok(below) = normal.strip_prefix("proc") else { return Some(InProc::No) };
    if below.as_os_str().is_empty() {
        return Some(InProc::Itself);
    }
    IMITATED.iter().any(|name| below == Path::new(name)).then_some(InProc::Imitated)
}

fn bind(
    bundle: &Path,
    source: &Path,
    (recursive, link): (bool, Link),
    at: &str,
    problems: &mut Problems,
) -> MountKind {
    if source.as_os_str().is_empty() {
        problems.add(at, "a bind mount needs a source");
    }
    if source.as_os_str().as_bytes().contains(&0) {
        problems.add(at, "source contains a NUL character");
    }
    MountKind::Bind { source: bundle.join(source), recursive, link }
}

fn fs_option(text: &str, at: &str, problems: &mut Problems) -> FsOption {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (text, None),
    };
    FsOption { key: problems.c_string(at, key), value: value.map(|value| problems.c_string(at, value)) }
}

fn idmap(
    mount: &oci_spec::runtime::Mount,
    options: &Options,
    ns: &NamespacePlan,
    at: &str,
    problems: &mut Problems,
) -> Option<IdMap> {
    let uid: &[LinuxIdMapping] = mount.uid_mappings().as_deref().unwrap_or_default();
    let gid: &[LinuxIdMapping] = mount.gid_mappings().as_deref().unwrap_or_default();
    if uid.is_empty() != gid.is_empty() {
        problems.add(at, "uidMappings and gidMappings must be given together");
    }
    let own = !uid.is_empty();
    if !own && options.idmap.is_none() {
        return None;
    }
    if !own && !ns.user() {
        problems.add(at, "idmap without mappings needs a user namespace");
    }
    if options.bind.is_none() {
        problems.add(at, "only bind mounts can be id-mapped");
    }
    Some(IdMap { maps: own.then(|| (id_map(uid), id_map(gid))), recursive: options.idmap.unwrap_or(false) })
}

impl Options {
    pub(super) fn parse(&mut self, option: &str) {
        if !(self.attribute(option) || self.propagation(option)) {
            match option {
                "defaults" => {}
                "bind" => self.bind = Some(self.bind.unwrap_or(false)),
                "rbind" => self.bind = Some(true),
                "idmap" => self.idmap = Some(false),
                "ridmap" => self.idmap = Some(true),
                "tmpcopyup" => self.copy_up = true,
                "remount" => self.remount = true,
                // crun's.
                "src-nofollow" => self.treat_links(Link::Mounted),
                "copy-symlink" => self.treat_links(Link::Copied),
                "dest-nofollow" => self.over_link = true,
                // Defaults of every file system which not all of them take as words; and no access time policy
                // means the kernel's, relatime.
                "loud" | "noiversion" | "norelatime" | "rnorelatime" => {}
                other => self.data.push(other.to_owned()),
            }
        }
    }

    fn treat_links(&mut self, link: Link) {
        self.contradicting_links |= self.link != Link::Followed && self.link != link;
        self.link = link;
    }

    fn propagation(&mut self, option: &str) -> bool {
        let (kind, recursive) = match option {
            "private" => (Propagation::Private, false),
            "rprivate" => (Propagation::Private, true),
            "slave" => (Propagation::Slave, false),
            "rslave" => (Propagation::Slave, true),
            "shared" => (Propagation::Shared, false),
            "rshared" => (Propagation::Shared, true),
            "unbindable" => (Propagation::Unbindable, false),
            "runbindable" => (Propagation::Unbindable, true),
            _ => return false,
        };
        self.propagation.push((kind, recursive));
        true
    }

    fn attribute(&mut self, option: &str) -> bool {
        if let Some((attribute, set)) = attribute(option) {
            apply(&mut self.set, &mut self.clear, attribute, set);
            return true;
        }
        // "relatime" begins with an r without being recursive: it's found above.
        if let Some((attribute, set)) = option.strip_prefix('r').and_then(attribute) {
            apply(&mut self.set_recursive, &mut self.clear_recursive, attribute, set);
            return true;
        }
        false
    }
}

fn apply(to_set: &mut Attributes, to_clear: &mut Attributes, attribute: Attributes, set: bool) {
    if set {
        if attribute.intersects(Attributes::ATIME) {
            to_set.remove(Attributes::ATIME);
        }
        to_clear.remove(attribute);
        to_set.insert(attribute);
    } else {
        to_set.remove(attribute);
        to_clear.insert(attribute);
    }
}

/// The attribute that an option sets (true) or clears.
fn attribute(option: &str) -> Option<(Attributes, bool)> {
    Some(match option {
        "ro" => (Attributes::RDONLY, true),
        "rw" => (Attributes::RDONLY, false),
        "nosuid" => (Attributes::NOSUID, true),
        "suid" => (Attributes::NOSUID, false),
        "nodev" => (Attributes::NODEV, true),
        "dev" => (Attributes::NODEV, false),
        "noexec" => (Attributes::NOEXEC, true),
        "exec" => (Attributes::NOEXEC, false),
        "noatime" => (Attributes::NOATIME, true),
        "strictatime" => (Attributes::STRICTATIME, true),
        // All three mean the kernel's default policy, relatime: no bit of it set.
        "atime" | "relatime" | "nostrictatime" => (Attributes::ATIME, false),
        "nodiratime" => (Attributes::NODIRATIME, true),
        "diratime" => (Attributes::NODIRATIME, false),
        "nosymfollow" => (Attributes::NOSYMFOLLOW, true),
        "symfollow" => (Attributes::NOSYMFOLLOW, false),
        _ => return None,
    })
}
