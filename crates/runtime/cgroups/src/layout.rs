//! Which cgroup hierarchies this machine has, and where they are mounted.
//!
//! One statfs(2) settles a pure v2 machine; else one read of /proc/self/mountinfo tells everything.

use std::{
    ffi::OsString,
    fs,
    io::Read as _,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use bitflags::bitflags;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

bitflags! {
    /// A set of cgroup controllers.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct Controllers: u32 {
        /// CPU time.
        const CPU = 1;
        /// CPU accounting (v1 only; part of CPU on v2).
        const CPUACCT = 1 << 1;
        /// Which CPUs and memory nodes.
        const CPUSET = 1 << 2;
        /// Memory.
        const MEMORY = 1 << 3;
        /// Which devices (v1 only; a BPF program on v2).
        const DEVICES = 1 << 4;
        /// Freezing (v1 only; always there on v2).
        const FREEZER = 1 << 5;
        /// Block devices: "blkio" on v1, "io" on v2.
        const IO = 1 << 6;
        /// Number of tasks.
        const PIDS = 1 << 7;
        /// Huge pages.
        const HUGETLB = 1 << 8;
        /// Class of network packets (v1 only).
        const NET_CLS = 1 << 9;
        /// Priority of network packets (v1 only).
        const NET_PRIO = 1 << 10;
        /// perf(1).
        const PERF_EVENT = 1 << 11;
        /// RDMA resources.
        const RDMA = 1 << 12;
        /// Scalar resources such as encrypted virtual machines.
        const MISC = 1 << 13;
        /// Device memory.
        const DMEM = 1 << 14;
        /// A v1 hierarchy without a controller, such as systemd's.
        const NAMED = 1 << 15;
    }
}

/// Names as the kernel writes them in mount options and cgroup.controllers.
const NAMES: [(&str, Controllers); 16] = [
    ("cpu", Controllers::CPU),
    ("cpuacct", Controllers::CPUACCT),
    ("cpuset", Controllers::CPUSET),
    ("memory", Controllers::MEMORY),
    ("devices", Controllers::DEVICES),
    ("freezer", Controllers::FREEZER),
    ("blkio", Controllers::IO),
    ("io", Controllers::IO),
    ("pids", Controllers::PIDS),
    ("hugetlb", Controllers::HUGETLB),
    ("net_cls", Controllers::NET_CLS),
    ("net_prio", Controllers::NET_PRIO),
    ("perf_event", Controllers::PERF_EVENT),
    ("rdma", Controllers::RDMA),
    ("misc", Controllers::MISC),
    ("dmem", Controllers::DMEM),
];

impl Controllers {
    /// The controllers named, separated by commas or white space; other words are left out.
    #[must_use]
    pub fn parse(names: &str) -> Self {
        let words = names.split([',', ' ', '\n']);
        words.filter_map(Self::named).collect()
    }

    fn named(name: &str) -> Option<Self> {
        if name.starts_with("name=") {
            return Some(Self::NAMED);
        }
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, controller)| *controller)
    }

    /// The v1 names, joined by commas; "systemd" for a hierarchy without a controller.
    #[must_use]
    pub fn names(self) -> String {
        if self == Self::NAMED {
            return "systemd".to_owned();
        }
        let named = NAMES.iter().filter(|(name, controller)| *name != "io" && self.contains(*controller));
        named.map(|(name, _)| *name).collect::<Vec<_>>().join(",")
    }
}

impl Serialize for Controllers {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.bits())
    }
}

impl<'de> Deserialize<'de> for Controllers {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u32::deserialize(deserializer).map(Self::from_bits_truncate)
    }
}

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// v1: what it controls. v2: everything it could.
    pub controllers: Controllers,
    /// Whether it is cgroup v2.
    pub v2: bool,
}

/// The hierarchies of the machine; v2 is the last if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// At least one.
    pub hierarchies: Vec<Hierarchy>,
}

const ROOT: &str = "/sys/fs/cgroup";

impl Layout {
    /// Looks at this machine.
    ///
    /// # Errors
    /// [`Error::NotMounted`]; [`Error::Io`] if mountinfo can't be read.
    pub fn detect() -> Result<Self> {
        let unified = Hierarchy { mount: ROOT.into(), controllers: Controllers::all(), v2: true };
        match statfs(ROOT) {
            Ok(stat) if stat.filesystem_type() == CGROUP2_SUPER_MAGIC => {
                return Ok(Self { hierarchies: vec![unified] });
            }
            Ok(_) => {}
            Err(nix::errno::Errno::ENOENT) => return Err(Error::NotMounted),
            Err(errno) => return Err(Error::io("examine", ROOT)(errno.into())),
        }
        let path = Path::new("/proc/self/mountinfo");
        // procfs tells no size: with room for all of it one read does.
        let mut mountinfo = Vec::with_capacity(32 * 1024);
        let read = fs::File::open(path).and_then(|mut file| file.read_to_end(&mut mountinfo));
        read.map_err(Error::io("read", path))?;
        Self::from_mountinfo(&mountinfo)
    }

    /// Whether there is only cgroup v2.
    #[must_use]
    pub fn is_unified(&self) -> bool {
        matches!(self.hierarchies.as_slice(), [Hierarchy { v2: true, .. }])
    }

    /// The hierarchies mounted below /sys/fs/cgroup (proc_pid_mountinfo(5)).
    pub(crate) fn from_mountinfo(mountinfo: &[u8]) -> Result<Self> {
        let mut hierarchies: Vec<Hierarchy> = Vec::with_capacity(16);
        for line in String::from_utf8_lossy(mountinfo).lines() {
            let Some(hierarchy) = parse_line(line) else { continue };
            // The same hierarchy may be mounted several times (bind mounts, symlink stand-ins): the first is it.
            if !hierarchies.iter().any(|known| same(known, &hierarchy)) {
                hierarchies.push(hierarchy);
            }
        }
        hierarchies.sort_by_key(|hierarchy| hierarchy.v2);
        if hierarchies.is_empty() { Err(Error::NotMounted) } else { Ok(Self { hierarchies }) }
    }
}

fn same(one: &Hierarchy, other: &Hierarchy) -> bool {
    one.v2 == other.v2 && (one.v2 || one.controllers.intersects(other.controllers))
}

/// `32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu`.
fn parse_line(line: &str) -> Option<Hierarchy> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut filesystem = filesystem.split(' ');
    let v2 = match filesystem.next()? {
        "cgroup" => false,
        "cgroup2" => true,
        _ => return None,
    };
    let mount = unescape(mount.split(' ').nth(4)?);
    if !mount.starts_with(ROOT) {
        return None;
    }
    let controllers =
        if v2 { Controllers::all() } else { Controllers::parse(filesystem.nth(1).unwrap_or_default()) };
    // An empty set is a hierarchy of something that we know nothing of (and can't set limits for).
    (!controllers.is_empty()).then_some(Hierarchy { mount, controllers, v2 })
}

/// `a\040b` is "a b": white space and the backslash itself are written so (proc_pid_mounts(5)).
pub fn unescape(path: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits =
            (*first == b'\\').then(|| after.get(..3)).flatten().and_then(|d| std::str::from_utf8(d).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        rest = if byte.is_some() { after.get(3..).unwrap_or_default() } else { after };
        bytes.push(byte.unwrap_or(*first));
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid() {
        let mountinfo = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
42 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:3 - cgroup2 cgroup2 rw,nsdelegate
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:2 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,release_agent=/x,name=systemd
41 31 0:39 / /sys/fs/cgroup/of\\040pids rw,relatime - cgroup cgroup rw,pids
50 31 0:32 / /sys/fs/cgroup/again rw,relatime - cgroup cgroup rw,memory
51 31 0:32 / /elsewhere rw,relatime - cgroup cgroup rw,pids
";
        let layout = Layout::from_mountinfo(mountinfo.as_bytes()).expect("layout");
        let found: Vec<_> = layout
            .hierarchies
            .iter()
            .map(|h| {
                (
                    h.mount.to_str().expect("UTF-8"),
                    h.v2,
                    if h.v2 { String::new() } else { h.controllers.names() },
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                ("/sys/fs/cgroup/cpu,cpuacct", false, "cpu,cpuacct".to_owned()),
                ("/sys/fs/cgroup/memory", false, "memory".to_owned()),
                ("/sys/fs/cgroup/systemd", false, "systemd".to_owned()),
                ("/sys/fs/cgroup/of pids", false, "pids".to_owned()),
                ("/sys/fs/cgroup/unified", true, String::new()),
            ]
        );
        assert!(!layout.is_unified());
    }

    #[test]
    fn nothing_mounted() {
        let error =
            Layout::from_mountinfo(b"22 27 0:21 / /proc rw - proc proc rw\n").expect_err("no cgroups");
        assert!(matches!(error, Error::NotMounted));
    }
}
