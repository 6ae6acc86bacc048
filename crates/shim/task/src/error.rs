//! Why something that was asked of a shim failed.

use std::io;
use std::path::PathBuf;

use corten_task_api::ttrpc::{Code, Status};

/// The result of something asked of a shim.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something that was asked of a shim failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The shim's binary couldn't be run.
    #[error("can't run the shim {binary}")]
    Spawn {
        /// The binary.
        binary: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The shim's `start` failed.
    #[error("the shim of {id} did not start: {reason}")]
    Start {
        /// The sandbox.
        id: String,
        /// Its exit status, and what it wrote to standard error.
        reason: String,
    },
    /// The shim's socket can't be reached.
    #[error("can't connect to the shim of {id} at {address}")]
    Connect {
        /// The sandbox.
        id: String,
        /// The socket.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The shim answered with an error, or not at all.
    #[error("the shim can't {operation} {id}")]
    Call {
        /// What was asked for.
        operation: &'static str,
        /// The container, or the sandbox.
        id: String,
        /// Its answer.
        #[source]
        source: Status,
    },
    /// A record that a shim leaves, or that is left for one, can't be read or written.
    #[error("can't {operation} {path}")]
    File {
        /// read, write or remove.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A container without a shim couldn't be taken away.
    #[error("can't clean up after container {id}: {reason}")]
    Cleanup {
        /// The container.
        id: String,
        /// What the runtime said, or which unmount failed.
        reason: String,
    },
}

impl Error {
    /// The kind of failure, by which programs decide.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Call { source, .. } => source.code,
            Self::Connect { .. } => Code::Unavailable,
            _ => Code::Internal,
        }
    }

    /// Whether the shim doesn't know the container (any more), or its process is gone.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code() == Code::NotFound
    }
}
