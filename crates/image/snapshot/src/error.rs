//! Why an operation on snapshots failed.

use std::io;
use std::path::PathBuf;

/// A failed operation on snapshots. It names the snapshot; the cause is its source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No snapshot has this key or name.
    #[error("snapshot {0:?} does not exist")]
    NotFound(String),
    /// The key or name is taken.
    #[error("snapshot {0:?} already exists")]
    Exists(String),
    /// The parent isn't a committed snapshot.
    #[error("snapshot {parent:?} can't be a parent: it is {kind}, not committed")]
    ParentNotCommitted {
        /// The parent asked for.
        parent: String,
        /// What it is.
        kind: crate::Kind,
    },
    /// The snapshot isn't of the kind that the operation needs.
    #[error("can't {operation} snapshot {key:?}: it is {kind}")]
    WrongKind {
        /// What was asked for.
        operation: &'static str,
        /// The snapshot.
        key: String,
        /// What it is.
        kind: crate::Kind,
    },
    /// Other snapshots build on it.
    #[error("can't remove snapshot {key:?}: {child:?} builds on it")]
    HasChildren {
        /// The snapshot.
        key: String,
        /// One of its children.
        child: String,
    },
    /// The driver stores merged trees, so a snapshot's parent can't change at its commit.
    #[error("can't commit snapshot {key:?} onto another parent: the {driver} driver stores merged trees")]
    CantRebase {
        /// The snapshot.
        key: String,
        /// The driver.
        driver: &'static str,
    },
    /// A key, name or path that can't be used.
    #[error("{0:?} can't name a snapshot: {1}")]
    BadKey(String, &'static str),
    /// The chain of parents is too long for one mount call.
    #[error(
        "snapshot {key:?} has {layers} layers whose paths need {bytes} bytes, one mount call takes {limit}: use a shorter root directory or fewer layers"
    )]
    TooManyLayers {
        /// The snapshot.
        key: String,
        /// Layers below it.
        layers: usize,
        /// Bytes that the mount options need.
        bytes: usize,
        /// Bytes there are.
        limit: usize,
    },
    /// The root directory can't be put into overlay mounts.
    #[error("{} can't be the root of overlay snapshots: {reason}", path.display())]
    BadRoot {
        /// The directory.
        path: PathBuf,
        /// Why not.
        reason: &'static str,
    },
    /// Another process has the snapshots open.
    #[error("snapshots in {} are in use by another process", .0.display())]
    Locked(PathBuf),
    /// A file operation failed.
    #[error("{operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The records on disk can't be read or written.
    #[error("{operation} the record of snapshot {key:?}")]
    Record {
        /// What was tried.
        operation: &'static str,
        /// The snapshot.
        key: String,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    pub(crate) fn io(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { operation, path, source }
    }
}
