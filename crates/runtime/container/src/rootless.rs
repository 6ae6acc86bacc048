//! Cgroups for those who may not make them: a user other than root, or root of a user namespace.
//!
//! What somebody has delegated is used. Otherwise the container stays in the cgroup that we are in, which is fine as
//! long as nobody asked for limits: that is what runc does, and what engines expect.

use std::{
    fs,
    path::{Path, PathBuf},
};

use corten_cgroups::{Cgroup, Layout};
use oci_spec::runtime::{Linux, LinuxResources};

use crate::{Error, Result, Runtime, cgroup::CgroupDoing, privilege::is_limited};

impl Runtime {
    /// Whether cgroups that we may not make can be done without.
    pub(crate) fn is_rootless(&self) -> bool {
        self.rootless.unwrap_or_else(is_limited)
    }
}

/// What `linux.cgroupsPath` is relative to: the cgroup above ours, as one with processes in it can't be divided.
/// None without a v2-only layout: nobody delegates v1 cgroups.
pub(crate) fn base() -> Option<PathBuf> {
    if !Layout::detect().is_ok_and(|layout| layout.is_unified()) {
        return None;
    }
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(Path::new(own).parent().unwrap_or(Path::new("/")).to_owned())
}

/// Makes the cgroup, or finds that the container can do without.
pub(crate) fn create(place: &Path, linux: Option<&Linux>, resources: &LinuxResources) -> Result<Cgroup> {
    match Cgroup::create(place, resources) {
        Err(error) if error.is_permission() => {
            let given = linux
                .and_then(|linux| linux.cgroups_path().as_ref())
                .is_some_and(|p| !p.as_os_str().is_empty());
            if given || needs_cgroup(resources) {
                return Err(Error::Cgroup {
                    operation: "create",
                    path: place.to_owned(),
                    source: Box::new(NotDelegated(error)),
                });
            }
            tracing::warn!("no cgroup for the container, it stays in ours: {}", crate::error::chain(&error));
            Ok(Cgroup::none(place))
        }
        other => other.cgroup("create", place),
    }
}

#[derive(Debug, thiserror::Error)]
#[error(
    "this user may not: have a cgroup delegated, or leave out linux.cgroupsPath and all limits of linux.resources"
)]
struct NotDelegated(#[source] corten_cgroups::Error);

/// Whether limits are asked for.
pub(crate) fn needs_cgroup(resources: &LinuxResources) -> bool {
    // Only what has a value: engines write empty sections.
    let value = serde_json::to_value(resources).unwrap_or_default();
    has_value(&value)
}

fn has_value(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Null => false,
        serde_json::Value::Object(fields) => fields.values().any(has_value),
        serde_json::Value::Array(items) => items.iter().any(has_value),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_sections_ask_for_nothing() {
        let resources = |json| serde_json::from_str::<LinuxResources>(json).expect("resources");
        assert!(!needs_cgroup(&resources(r#"{"memory":{},"cpu":{},"hugepageLimits":[]}"#)));
        assert!(needs_cgroup(&resources(r#"{"pids":{"limit":10}}"#)));
        assert!(needs_cgroup(&resources(r#"{"unified":{"memory.high":"1"}}"#)));
    }
}
