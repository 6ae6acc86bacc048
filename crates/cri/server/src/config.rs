//! What the server is told by whoever builds it.

use std::path::PathBuf;

/// Where things are on disk.
#[derive(Debug, Clone)]
pub struct Dirs {
    /// What survives a reboot: records.
    pub root: PathBuf,
    /// What doesn't: pins, bundles, the files of pods.
    pub state: PathBuf,
}

impl Dirs {
    /// The directory of a sandbox: its pins below `ns/`, the files its containers share, its shim's files.
    pub(crate) fn pod(&self, id: &str) -> PathBuf {
        self.pods().join(id)
    }

    pub(crate) fn pods(&self) -> PathBuf {
        self.state.join("pods")
    }

    /// The bundle of a container.
    pub(crate) fn bundle(&self, id: &str) -> PathBuf {
        self.bundles().join(id)
    }

    pub(crate) fn bundles(&self) -> PathBuf {
        self.state.join("containers")
    }
}

/// Choices.
#[derive(Debug, Clone)]
pub struct Config {
    /// The parent cgroup of pods that name none. Absolute.
    pub cgroup_parent: String,
    /// Log lines are cut at this many bytes.
    pub max_log_line: u32,
    /// What ExecSync returns of each stream, in bytes; the rest is discarded.
    pub max_exec_output: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { cgroup_parent: "/corten".to_owned(), max_log_line: 16384, max_exec_output: 16 << 20 }
    }
}
