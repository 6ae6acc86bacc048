//! Ids for a new user namespace whose config has no mappings at all: runc refuses it, crun gives it the caller's.
//!
//! The process's user is then the caller; all others are those that /etc/subuid and /etc/subgid give to the caller, if
//! they do, and else there are none.

use std::fs;

use nix::unistd::{getegid, geteuid};
use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespaceType, Spec};

use crate::privilege::in_user_namespace;

/// A range of the host's ids: the first, and how many.
type Range = (u32, u32);

/// Puts the mappings into `spec`, if it wants a new user namespace and has none.
pub(crate) fn complete(spec: &mut Spec) {
    let user = spec.process().as_ref().map_or((0, 0), |process| (process.user().uid(), process.user().gid()));
    let Some(linux) = spec.linux_mut() else { return };
    let new = |linux: &oci_spec::runtime::Linux| {
        linux.namespaces().iter().flatten().any(|namespace| {
            let path = namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty());
            namespace.typ() == LinuxNamespaceType::User && path.is_none()
        })
    };
    let none = |mappings: &Option<Vec<LinuxIdMapping>>| mappings.as_ref().is_none_or(Vec::is_empty);
    if !(none(linux.uid_mappings()) && none(linux.gid_mappings()) && new(linux)) {
        return;
    }
    let uid = geteuid().as_raw();
    if uid == 0 && !in_user_namespace() {
        // Whoever the process is, it would be the host's root. If it's to be another, nobody means that: the plan refuses it,
        // as runc does.
        if user != (0, 0) {
            return;
        }
        tracing::warn!("linux.uidMappings: none given, so root of the container is root of the host");
    }
    let name = name(&fs::read_to_string("/etc/passwd").unwrap_or_default(), uid);
    let range = |file| given(&fs::read_to_string(file).unwrap_or_default(), uid, name.as_deref());
    let (uids, gids) = match (range("/etc/subuid"), range("/etc/subgid")) {
        (Some(uids), Some(gids)) => (Some(uids), Some(gids)),
        _ => (None, None),
    };
    linux.set_uid_mappings(Some(mappings(user.0, uid, uids)));
    linux.set_gid_mappings(Some(mappings(user.1, getegid().as_raw(), gids)));
}

/// `inside` is `own`; the others, from 0 on, are those of `range`.
fn mappings(inside: u32, own: u32, range: Option<Range>) -> Vec<LinuxIdMapping> {
    let Some((first, count)) = range else { return vec![mapping(0, own, 1)] };
    let below = inside.min(count);
    let mut mappings = vec![
        mapping(0, first, below),
        mapping(inside, own, 1),
        mapping(inside.saturating_add(1), first.saturating_add(below), count - below),
    ];
    mappings.retain(|mapping| mapping.size() > 0);
    mappings
}

fn mapping(container: u32, host: u32, size: u32) -> LinuxIdMapping {
    let builder = LinuxIdMappingBuilder::default().container_id(container).host_id(host).size(size);
    // All that has no default is given.
    builder.build().unwrap_or_default()
}

/// The first range of a subuid(5) file that is `uid`'s.
fn given(file: &str, uid: u32, name: Option<&str>) -> Option<Range> {
    file.lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        if Some(owner) != name && owner.parse() != Ok(uid) {
            return None;
        }
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    })
}

/// The name of `uid` in a passwd(5) file.
fn name(file: &str, uid: u32) -> Option<String> {
    file.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::id_map;

    #[test]
    fn the_caller_is_the_containers_user() {
        assert_eq!(id_map(&mappings(0, 1000, None)), "0 1000 1\n");
        assert_eq!(id_map(&mappings(0, 1000, Some((100_000, 10)))), "0 1000 1\n1 100000 10\n");
        assert_eq!(id_map(&mappings(3, 1000, Some((100_000, 10)))), "0 100000 3\n3 1000 1\n4 100003 7\n");
        assert_eq!(id_map(&mappings(10, 1000, Some((100_000, 10)))), "0 100000 10\n10 1000 1\n");
    }

    #[test]
    fn ranges_are_found_by_name_and_number() {
        let file = "# comment\nother:1:2\nme:100000:65536\n1001:5:6\nbad:x:y\n";
        assert_eq!(given(file, 1000, Some("me")), Some((100_000, 65_536)));
        assert_eq!(given(file, 1001, None), Some((5, 6)));
        assert_eq!(given(file, 1002, Some("bad")), None);
        assert_eq!(given(file, 1003, Some("m")), None);
        assert_eq!(name("root:x:0:0::/:/bin/sh\nme:x:1000:1000::/:/bin/sh\n", 1000).as_deref(), Some("me"));
    }

    #[test]
    fn what_is_given_stays() {
        let mut spec: Spec = serde_json::from_str(
            r#"{"ociVersion": "1.0.2", "linux": {"namespaces": [{"type": "user"}],
                "uidMappings": [{"containerID": 0, "hostID": 5, "size": 1}]}}"#,
        )
        .expect("a spec");
        let before = spec.clone();
        complete(&mut spec);
        assert_eq!(spec, before);
        let mut joined: Spec = serde_json::from_str(
            r#"{"ociVersion": "1.0.2", "linux": {"namespaces": [{"type": "user", "path": "/proc/1/ns/user"}]}}"#,
        )
        .expect("a spec");
        let before = joined.clone();
        complete(&mut joined);
        assert_eq!(joined, before);
    }
}
