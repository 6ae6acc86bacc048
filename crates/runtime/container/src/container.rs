//! [`Runtime`]: a root directory with containers in it. Each operation is a file of its own.

use std::path::PathBuf;

/// A directory of containers, and how they are run.
#[derive(Debug, Clone)]
pub struct Runtime {
    /// Holds one directory per container.
    pub root: PathBuf,
    /// Use systemd's cgroup driver (`slice:prefix:name` paths).
    pub systemd_cgroup: bool,
    /// Whether a container may go without a cgroup where we may not make one and it has no limits; None: if
    /// [`crate::is_limited`].
    pub rootless: Option<bool>,
    /// Make no cgroup at all: containers stay in the caller's, without limits or device rules of their own.
    pub without_cgroup: bool,
}

impl Runtime {
    /// The containers under `root`, with the cgroupfs driver.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), systemd_cgroup: false, rootless: None, without_cgroup: false }
    }
}
