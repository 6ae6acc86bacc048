//! Why something can't be done to a cgroup.

use std::{io, path::PathBuf};

/// The result of working on a cgroup.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something can't be done to a cgroup.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No cgroup filesystem is mounted.
    #[error("no cgroup filesystem is mounted at /sys/fs/cgroup")]
    NotMounted,
    /// cgroupsPath isn't absolute, or climbs.
    #[error("cgroup path {path:?} must be absolute, without \"..\"")]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// The path of a cgroup below a container's climbs out of it.
    #[error("bad sub cgroup path {path:?}: it must stay below the container's cgroup, without \"..\"")]
    SubPath {
        /// The path.
        path: PathBuf,
    },
    /// The cgroup is in use: it has processes.
    #[error("cgroup {path} is not empty: {count} process(es) found")]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// How many processes.
        count: usize,
    },
    /// The cgroup is frozen: a new process in it would not run.
    #[error("cgroup {path} is frozen")]
    Frozen {
        /// The directory.
        path: PathBuf,
    },
    /// A directory or file can't be worked on.
    #[error("cannot {operation} {path}")]
    Io {
        /// What was to be done.
        operation: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// Why it can't be.
        #[source]
        source: io::Error,
    },
    /// The kernel doesn't take the value.
    #[error("cannot write {value:?} to {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The value.
        value: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The limit needs a controller that isn't there.
    #[error("cannot set {limit}: cgroup controller {controller} is not available")]
    NoController {
        /// The limit, as a path in config.json.
        limit: String,
        /// The controller.
        controller: &'static str,
    },
    /// The limit makes no sense, or not on this version of cgroups.
    #[error("cannot set {limit}: {reason}")]
    Limit {
        /// The limit, as a path in config.json.
        limit: String,
        /// Why not.
        reason: String,
    },
    /// A limit below what is already used, and checkBeforeUpdate asks not to kill.
    #[error("memory limit {limit} is below the current usage {usage}")]
    BelowUsage {
        /// The limit, in bytes.
        limit: u64,
        /// The usage, in bytes.
        usage: u64,
    },
    /// It didn't happen in time.
    #[error("cgroup {path} did not become {state} within {seconds} s")]
    Timeout {
        /// The directory.
        path: PathBuf,
        /// The state waited for.
        state: &'static str,
        /// How long was waited.
        seconds: u64,
    },
    /// cgroupsPath isn't one for systemd.
    #[error("cgroupsPath {path:?} is not for the systemd driver: {reason}")]
    UnitPath {
        /// cgroupsPath.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An annotation isn't a property for the unit.
    #[error("annotation {key}={value:?}: {reason}")]
    Annotation {
        /// Its name.
        key: String,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The systemd driver was asked for where systemd isn't PID 1.
    #[error("systemd does not run here (there is no /run/systemd/system): use the cgroupfs driver")]
    NoSystemd,
    /// The bus through which systemd is reached can't be.
    #[error("cannot reach systemd over D-Bus at {address}")]
    Bus {
        /// The bus's address.
        address: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// systemd refuses, or doesn't get it done.
    #[error("systemd cannot {operation} {unit}: {reason}")]
    Systemd {
        /// What was to be done.
        operation: &'static str,
        /// The unit.
        unit: String,
        /// In systemd's words.
        reason: String,
    },
    /// The device program can't be loaded or attached.
    #[error("cannot {operation} the device program of {path}")]
    DeviceProgram {
        /// "load", "find" or "attach".
        operation: &'static str,
        /// The cgroup's directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// Whether what was to be done needs privileges that we don't have, or a cgroup file system that isn't there.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
        match self {
            Self::NotMounted => true,
            Self::Io { source, .. } | Self::Write { source, .. } | Self::DeviceProgram { source, .. } => {
                matches!(source.kind(), PermissionDenied | ReadOnlyFilesystem)
            }
            _ => false,
        }
    }

    /// Makes [`Error::Io`] of an I/O error: for `map_err`.
    pub(crate) fn io(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { operation, path, source }
    }
}
