//! A mount, as data.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One mount to perform, in the terms of `mount(8)` and of containerd's API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// `bind` or `overlay`.
    pub fs_type: String,
    /// The directory to bind, or `overlay`.
    pub source: PathBuf,
    /// Where below the mount point; empty for the mount point itself.
    pub target: PathBuf,
    /// Options as in fstab, flags and data mixed: `ro`, `rbind`, `lowerdir=…`.
    pub options: Vec<String>,
}

impl Mount {
    pub(crate) fn bind(source: impl Into<PathBuf>, access: &str) -> Mount {
        Mount {
            fs_type: "bind".to_owned(),
            source: source.into(),
            target: PathBuf::new(),
            options: vec!["rbind".to_owned(), access.to_owned()],
        }
    }
}
