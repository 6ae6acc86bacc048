//! Disk usage of a tree.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// What a snapshot takes on disk by itself, without its parents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Bytes allocated (blocks, not lengths).
    pub bytes: u64,
    /// Inodes; a file with several hard links counts once.
    pub inodes: u64,
}

impl Usage {
    /// Walks a tree. Files that vanish on the way are not counted, so that a running container's tree can be measured.
    ///
    /// # Errors
    ///
    /// When a directory can't be read for another reason than its absence.
    pub(crate) fn measure(root: &Path) -> io::Result<Usage> {
        let mut usage = Usage::default();
        let mut linked = HashSet::new();
        let mut stack = vec![root.to_owned()];
        let Some(top) = present(fs::symlink_metadata(root))? else {
            return Ok(usage);
        };
        usage.add(&top);
        while let Some(directory) = stack.pop() {
            let Some(entries) = present(fs::read_dir(&directory))? else {
                continue;
            };
            for entry in entries {
                let Some(entry) = present(entry)? else { continue };
                let Some(metadata) = present(entry.metadata())? else {
                    continue;
                };
                if metadata.is_dir() {
                    stack.push(entry.path());
                } else if metadata.nlink() > 1 && !linked.insert((metadata.dev(), metadata.ino())) {
                    continue;
                }
                usage.add(&metadata);
            }
        }
        Ok(usage)
    }

    fn add(&mut self, metadata: &fs::Metadata) {
        self.bytes += metadata.blocks() * 512;
        self.inodes += 1;
    }
}

fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
