//! A container's state as `state`, `list` and hooks show it (runtime-spec, "State").

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

/// Where a container is in its life.
///
/// ```text
///  creating ──▶ created ──▶ running ◀──▶ paused
///     │            │           │
///     └────────────┴───────────┴──▶ stopped
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// `create` is at work (or was killed in the middle).
    Creating,
    /// Everything is set up, the program hasn't been started.
    Created,
    /// The program runs.
    Running,
    /// The program is frozen (an extension to runtime-spec).
    Paused,
    /// Init has exited.
    Stopped,
}

impl Status {
    /// runtime-spec's word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A container's state; serializes to what `runc state` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The runtime-spec version of this document.
    pub oci_version: String,
    /// The container's id.
    pub id: String,
    /// Init's pid in the runtime's PID namespace; 0 if there is none (any more).
    pub pid: i32,
    /// Where the container is in its life.
    pub status: Status,
    /// The bundle, absolute.
    pub bundle: PathBuf,
    /// The root filesystem, absolute.
    pub rootfs: PathBuf,
    /// When the container was created, RFC 3339 in UTC.
    pub created: String,
    /// config.json's annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The user that created it.
    pub owner: String,
}
