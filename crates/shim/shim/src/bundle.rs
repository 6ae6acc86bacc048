//! What the shim wants to know of a config.json, and what it leaves in a bundle.
//!
//! ```text
//! <bundle>/config.json   the runtime-spec's
//!          rootfs/       where Create mounts
//!          runtime.json  which runtime this container was created with: for `delete`
//!          init.pid      the runtime's PID file
//!          exit.json     how it ended
//! ```

use std::collections::HashMap;
use std::io;
use std::path::Path;

use corten_state::{Durability, write_atomic};
use serde::{Deserialize, Serialize};

/// The few fields of config.json that matter here.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Config {
    #[serde(default)]
    pub(crate) annotations: HashMap<String, String>,
    #[serde(default)]
    linux: Linux,
}

#[derive(Debug, Default, Deserialize)]
struct Linux {
    #[serde(default)]
    namespaces: Vec<Namespace>,
}

#[derive(Debug, Deserialize)]
struct Namespace {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    path: String,
}

impl Config {
    pub(crate) fn load(bundle: &Path) -> io::Result<Self> {
        let bytes = std::fs::read(bundle.join("config.json"))?;
        serde_json::from_slice(&bytes).map_err(io::Error::from)
    }

    /// Whether the container's init is PID 1 of a namespace of its own: then all end with it.
    pub(crate) fn own_pid_namespace(&self) -> bool {
        self.linux.namespaces.iter().any(|n| n.kind == "pid" && n.path.is_empty())
    }

    /// Which shim the container belongs to: containers with the same answer share one.
    pub(crate) fn group(&self) -> Option<&str> {
        ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"]
            .iter()
            .find_map(|key| self.annotations.get(*key))
            .map(String::as_str)
            .filter(|group| !group.is_empty())
    }
}

/// runtime.json
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RuntimeRecord {
    pub(crate) binary: String,
    pub(crate) root: Option<String>,
    pub(crate) systemd_cgroup: bool,
}

/// exit.json
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExitRecord {
    /// Exit code, or 128 + n after signal n.
    pub(crate) exit_status: u32,
    /// Nanoseconds since 1970.
    pub(crate) exited_at_ns: i64,
    /// The kernel has killed a process of the container for want of memory.
    pub(crate) oom_killed: bool,
}

pub(crate) fn write<T: Serialize>(
    bundle: &Path,
    name: &str,
    record: &T,
    durability: Durability,
) -> Result<(), corten_state::Error> {
    // Plain structs of numbers and strings always serialise.
    let json = serde_json::to_vec(record).unwrap_or_default();
    write_atomic(bundle.join(name), json, durability)
}

pub(crate) fn read<T: for<'a> Deserialize<'a>>(bundle: &Path, name: &str) -> Option<T> {
    serde_json::from_slice(&std::fs::read(bundle.join(name)).ok()?).ok()
}
