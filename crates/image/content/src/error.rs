//! Why the store couldn't do something.

use std::io;
use std::path::PathBuf;

use crate::Digest;

/// A failed operation on the store. It names the blob or the ingest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store doesn't hold the blob.
    #[error("blob {0} does not exist")]
    NotFound(Digest),
    /// Another writer, perhaps of another process, has the ingest open.
    #[error("ingest {reference:?} is being written by somebody else")]
    Busy {
        /// The ingest's reference.
        reference: String,
    },
    /// The bytes aren't those that were promised. The ingest is gone.
    #[error("content of {reference:?} has digest {actual}, expected {expected}")]
    DigestMismatch {
        /// The ingest's reference.
        reference: String,
        /// What was promised.
        expected: Digest,
        /// What was received.
        actual: Digest,
    },
    /// There are fewer bytes than promised, or more (`actual` is then where the writer stopped counting).
    #[error("content of {reference:?} has {actual} bytes, expected {expected}")]
    SizeMismatch {
        /// The ingest's reference.
        reference: String,
        /// What was promised, in bytes.
        expected: u64,
        /// What was received, in bytes.
        actual: u64,
    },
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
}

impl Error {
    pub(crate) fn io(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { operation, path, source }
    }

    /// Whether the disk, or the quota, is full.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        let Error::Io { source, .. } = self else { return false };
        matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}
