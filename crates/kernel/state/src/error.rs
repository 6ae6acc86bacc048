//! Why state can't be read or written.

use std::{io, path::PathBuf};

/// The result of working on state.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why state can't be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed.
    #[error("cannot {operation} {path}")]
    Io {
        /// What was to be done.
        operation: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it can't be.
        #[source]
        source: io::Error,
    },
    /// The record isn't what we once wrote: cut off, or edited.
    #[error("record {path} is corrupt")]
    Corrupt {
        /// The record's file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The record was written by another version of Corten, whose format we don't know.
    #[error("record {path} has format version {found}, expected {expected}")]
    Version {
        /// The record's file.
        path: PathBuf,
        /// The version it has.
        found: u32,
        /// The version we can read.
        expected: u32,
    },
    /// The value can't be represented as JSON.
    #[error("cannot encode record {path}")]
    Encode {
        /// The record's file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// The id can't be a file name.
    #[error("invalid record id {id:?}: empty, too long, begins with a dot or contains a slash or NUL")]
    InvalidId {
        /// The id.
        id: String,
    },
}

impl Error {
    /// Makes [`Error::Io`] of an I/O error: for `map_err`.
    pub(crate) fn io(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { operation, path, source }
    }

    /// Whether the cause is that the file doesn't exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}
