//! What is kept on disk of sandboxes and containers, and in which states they can be.
//!
//! A record is written before what it announces happens: `Creating` before the first file exists, `Removing` before
//! the first one goes. So a daemon that was killed in between knows what to finish or take back.
//!
//! Writes don't wait for the disk: after a power failure no container runs any more, and what a lost record would
//! have told is found by the sweep of [`recover`](crate::Server::recover).

use std::net::IpAddr;
use std::path::PathBuf;

use corten_cri_api::v1::{ContainerConfig, LinuxContainerResources, PodSandboxConfig};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::spec::user::Identity;

/// The format of the records below.
pub(crate) const VERSION: u32 = 1;

/// A pod sandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SandboxRecord {
    pub(crate) id: String,
    pub(crate) config: PodSandboxConfig,
    pub(crate) handler: String,
    /// Nanoseconds since the epoch, as all times here.
    pub(crate) created_at: i64,
    pub(crate) phase: SandboxPhase,
    /// All of it has been taken down that stopping takes down.
    pub(crate) stopped: bool,
    /// The first one is the pod's address.
    pub(crate) ips: Vec<IpAddr>,
    /// The PID namespace that the containers share, if they do.
    pub(crate) pid_namespace: Option<PathBuf>,
    /// Absolute.
    pub(crate) cgroup_parent: String,
    /// Whether that cgroup is ours to remove.
    pub(crate) own_cgroup: bool,
}

/// Where a sandbox stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SandboxPhase {
    /// Not there yet for clients. After a restart it is taken back.
    Creating,
    Ready,
    /// Stopped, or its shim died.
    NotReady,
    /// Gone for clients. What is left is taken away, if need be in another attempt.
    Removing,
}

impl SandboxPhase {
    /// Whether clients know of it.
    pub(crate) fn is_visible(self) -> bool {
        matches!(self, Self::Ready | Self::NotReady)
    }
}

/// A container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub(crate) id: String,
    pub(crate) sandbox_id: String,
    pub(crate) config: ContainerConfig,
    pub(crate) created_at: i64,
    pub(crate) phase: ContainerPhase,
    pub(crate) image_id: String,
    /// The image as people know it.
    pub(crate) image_name: String,
    pub(crate) log_path: Option<PathBuf>,
    pub(crate) identity: Identity,
    /// What holds now.
    pub(crate) resources: LinuxContainerResources,
    /// The first process, from which those of exec follow.
    pub(crate) process: Value,
    /// The kernel's number.
    pub(crate) stop_signal: i32,
    /// Absolute.
    pub(crate) cgroup: String,
}

/// Where a container stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ContainerPhase {
    /// Not there yet for clients. After a restart it is taken back.
    Creating,
    Created,
    /// The shim has been asked. After a restart the shim says what came of it.
    Starting,
    Running {
        pid: u32,
        started_at: i64,
    },
    Exited(Ended),
    /// Gone for clients.
    Removing,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    /// 0 if it never ran.
    pub(crate) started_at: i64,
    pub(crate) finished_at: i64,
    pub(crate) exit_code: i32,
    /// One word, as Kubernetes shows it.
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl ContainerPhase {
    /// Whether clients know of it.
    pub(crate) fn is_visible(&self) -> bool {
        !matches!(self, Self::Creating | Self::Removing)
    }

    pub(crate) fn started_at(&self) -> i64 {
        match self {
            Self::Running { started_at, .. } | Self::Exited(Ended { started_at, .. }) => *started_at,
            _ => 0,
        }
    }
}
