//! What can be wrong with a bundle.

use std::{fmt, io, path::PathBuf};

/// The result of loading a bundle.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a bundle can't be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file can't be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It isn't JSON, or a field is missing or has the wrong type. The source says which line and column.
    #[error("invalid {path}{}", if field.is_empty() { String::new() } else { format!(" at {field}") })]
    Json {
        /// The file.
        path: PathBuf,
        /// Path of the field, like `linux.namespaces[2].type`; empty for the whole document.
        field: String,
        /// What is wrong, with line and column.
        #[source]
        source: serde_json::Error,
    },
}

/// Something wrong with a config.json.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Path of the field, like `linux.namespaces[2].type`.
    pub field: String,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.what)
    }
}
