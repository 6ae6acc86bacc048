//! Which namespaces are new, which are joined, and with which ids (runtime-spec, config-linux "Namespaces").

use std::path::PathBuf;

use corten_sys::process::Namespaces;
use nix::unistd::{Gid, Uid};
use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType};

use super::{Problems, id_map};

/// A namespace to join.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Join {
    pub(crate) kind: Namespaces,
    pub(crate) path: PathBuf,
}

/// The namespaces of a container.
#[derive(Debug, PartialEq, Eq, Default)]
pub(crate) struct NamespacePlan {
    pub(crate) new: Namespaces,
    /// In the order in which they are to be joined: the user namespace last, because joining it takes away the
    /// privilege over those that the host owns.
    pub(crate) join: Vec<Join>,
    /// The text of uid_map; empty unless there's a new user namespace.
    pub(crate) uid_map: String,
    /// The text of gid_map.
    pub(crate) gid_map: String,
    /// The text of timens_offsets; empty if there are none.
    pub(crate) time_offsets: String,
}

const ORDER: [Namespaces; 8] = [
    Namespaces::NET,
    Namespaces::IPC,
    Namespaces::UTS,
    Namespaces::CGROUP,
    Namespaces::TIME,
    Namespaces::PID,
    Namespaces::MOUNT,
    Namespaces::USER,
];

impl NamespacePlan {
    pub(super) fn new(linux: &Linux, problems: &mut Problems) -> Self {
        let mut plan = Self::default();
        let mut seen = Namespaces::empty();
        for (i, namespace) in linux.namespaces().as_deref().unwrap_or_default().iter().enumerate() {
            let at = format!("linux.namespaces[{i}]");
            let kind = kind(namespace.typ());
            if seen.contains(kind) {
                problems.add(&at, format_args!("a second namespace of type {}", namespace.typ()));
                continue;
            }
            seen |= kind;
            match namespace.path() {
                None => plan.new |= kind,
                Some(path) if path.as_os_str().is_empty() => plan.new |= kind,
                Some(path) if path.is_absolute() => plan.join.push(Join { kind, path: path.clone() }),
                Some(path) => problems.add(&at, format_args!("path {} is not absolute", path.display())),
            }
        }
        plan.join.sort_by_key(|join| ORDER.iter().position(|&kind| kind == join.kind));
        plan.ids(linux, problems);
        plan.time(linux, problems);
        plan
    }

    /// Whether the container will be in a user namespace other than ours.
    pub(crate) fn user(&self) -> bool {
        self.has(Namespaces::USER)
    }

    /// Whether the container doesn't share this kind with us.
    pub(crate) fn has(&self, kind: Namespaces) -> bool {
        self.new.contains(kind) || self.joins(kind).is_some()
    }

    /// Who a user and a group of a new user namespace are outside of it; None if one of them is nobody there.
    pub(crate) fn on_the_host(&self, uid: u32, gid: u32) -> Option<(Uid, Gid)> {
        Some((Uid::from_raw(outside(&self.uid_map, uid)?), Gid::from_raw(outside(&self.gid_map, gid)?)))
    }

    /// Whether nobody else sees the container's mounts. If it shares somebody's namespace, ours or one that it joins,
    /// they're made below its rootfs, and unmounted when it is deleted.
    pub(crate) fn own_mounts(&self) -> bool {
        self.new.contains(Namespaces::MOUNT)
    }

    /// The path to join for this kind.
    pub(crate) fn joins(&self, kind: Namespaces) -> Option<&Join> {
        self.join.iter().find(|join| join.kind == kind)
    }

    fn ids(&mut self, linux: &Linux, problems: &mut Problems) {
        let uid: &[LinuxIdMapping] = linux.uid_mappings().as_deref().unwrap_or_default();
        let gid: &[LinuxIdMapping] = linux.gid_mappings().as_deref().unwrap_or_default();
        if self.new.contains(Namespaces::USER) {
            if uid.is_empty() {
                problems.add("linux.uidMappings", "required by a new user namespace");
            }
            if gid.is_empty() {
                problems.add("linux.gidMappings", "required by a new user namespace");
            }
            check("linux.uidMappings", uid, problems);
            check("linux.gidMappings", gid, problems);
            self.uid_map = id_map(uid);
            self.gid_map = id_map(gid);
        } else if !(self.user() || uid.is_empty() && gid.is_empty()) {
            problems.add("linux.uidMappings", "id mappings need a user namespace");
        }
    }

    fn time(&mut self, linux: &Linux, problems: &mut Problems) {
        let Some(offsets) = linux.time_offsets().as_ref().filter(|offsets| !offsets.is_empty()) else {
            return;
        };
        if !self.new.contains(Namespaces::TIME) {
            problems.add("linux.timeOffsets", "offsets need a new time namespace");
        }
        let mut lines: Vec<String> = Vec::new();
        for (clock, offset) in offsets {
            if clock != "monotonic" && clock != "boottime" {
                problems.add("linux.timeOffsets", format_args!("unknown clock {clock:?}"));
            }
            if offset.nanosecs().is_some_and(|nanosecs| nanosecs >= 1_000_000_000) {
                problems.add("linux.timeOffsets", format_args!("nanosecs of {clock} is a second or more"));
            }
            lines.push(format!(
                "{clock} {} {}\n",
                offset.secs().unwrap_or_default(),
                offset.nanosecs().unwrap_or_default()
            ));
        }
        lines.sort();
        self.time_offsets = lines.concat();
    }
}

/// Looks an id up in the text of a uid_map or gid_map.
fn outside(map: &str, id: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut numbers = line.split(' ').map(|number| number.parse::<u32>().ok());
        let (Some(Some(first)), Some(Some(host)), Some(Some(size))) =
            (numbers.next(), numbers.next(), numbers.next())
        else {
            return None;
        };
        let offset = id.checked_sub(first).filter(|offset| *offset < size)?;
        host.checked_add(offset)
    })
}

/// What the kernel would answer with a bare EINVAL; and id 0 must be there, as it's what sets the container up.
fn check(at: &str, mappings: &[LinuxIdMapping], problems: &mut Problems) {
    let ranges = |first: fn(&LinuxIdMapping) -> u32| {
        let mut ranges: Vec<_> = mappings
            .iter()
            .map(|m| (u64::from(first(m)), u64::from(first(m)) + u64::from(m.size())))
            .collect();
        ranges.sort_unstable();
        ranges
    };
    let (inside, outside) = (ranges(LinuxIdMapping::container_id), ranges(LinuxIdMapping::host_id));
    if mappings.iter().any(|m| m.size() == 0) {
        problems.add(at, "a range of no ids");
    }
    if [&inside, &outside].iter().any(|ranges| ranges.iter().any(|&(_, end)| end > u64::from(u32::MAX))) {
        problems.add(at, "a range goes beyond the last id");
    }
    let overlap = |pair: &[(u64, u64)]| matches!(pair, [(_, end), (next, _)] if end > next);
    if [&inside, &outside].iter().any(|ranges| ranges.windows(2).any(overlap)) {
        problems.add(at, "ranges overlap");
    }
    if !mappings.is_empty() && inside.first().is_none_or(|&(first, _)| first != 0) {
        problems.add(at, "id 0 must be mapped");
    }
}

fn kind(kind: LinuxNamespaceType) -> Namespaces {
    match kind {
        LinuxNamespaceType::Mount => Namespaces::MOUNT,
        LinuxNamespaceType::Cgroup => Namespaces::CGROUP,
        LinuxNamespaceType::Uts => Namespaces::UTS,
        LinuxNamespaceType::Ipc => Namespaces::IPC,
        LinuxNamespaceType::User => Namespaces::USER,
        LinuxNamespaceType::Pid => Namespaces::PID,
        LinuxNamespaceType::Network => Namespaces::NET,
        LinuxNamespaceType::Time => Namespaces::TIME,
    }
}

#[cfg(test)]
mod tests {
    use super::outside;

    #[test]
    fn ids_outside() {
        let map = "0 100000 10\n10 300000 5\n";
        let ids = [0, 9, 10, 14, 15].map(|id| outside(map, id));
        assert_eq!(ids, [Some(100_000), Some(100_009), Some(300_000), Some(300_004), None]);
        assert_eq!(outside("", 0), None);
    }
}
