//! A driver that copies: for file systems without overlayfs, and for tests without root.

mod copy;

use std::path::{Path, PathBuf};

use crate::index::{Index, Record, make_directory};
use crate::{Error, Info, Kind, Layering, Mount, Reclaimed, Result, Snapshotter, Usage};

/// Stores each snapshot as a whole tree, `<root>/<n>/fs`, copied from its parent's.
#[derive(Debug)]
pub struct Native {
    index: Index,
}

impl Native {
    /// Opens, or creates, the snapshots in `root`. Call [`cleanup`](Snapshotter::cleanup) next.
    ///
    /// # Errors
    ///
    /// `Locked` when another process has them open, or what the file system says.
    pub fn open(root: impl Into<PathBuf>) -> Result<Native> {
        Ok(Native { index: Index::open(root.into())? })
    }

    fn tree(&self, number: u64) -> PathBuf {
        self.index.tree(number).join("fs")
    }

    fn create(&self, key: &str, kind: Kind, parent: Option<&str>) -> Result<Vec<Mount>> {
        let record = self.index.create(key, kind, parent, |directory: &Path, chain: &[Record]| {
            let tree = directory.join("fs");
            match chain.first() {
                None => make_directory(&tree, 0o755),
                // It can't be written to: its parent's tree serves.
                Some(_) if kind == Kind::View => Ok(()),
                Some(below) => copy::copy_tree(&self.tree(below.number), &tree),
            }
        })?;
        self.mounts_of(&record)
    }

    fn mounts_of(&self, record: &Record) -> Result<Vec<Mount>> {
        match (record.kind, &record.parent) {
            (Kind::Committed, _) => {
                Err(Error::WrongKind { operation: "mount", key: record.key.clone(), kind: record.kind })
            }
            (Kind::Active, _) => Ok(vec![Mount::bind(self.tree(record.number), "rw")]),
            (Kind::View, None) => Ok(vec![Mount::bind(self.tree(record.number), "ro")]),
            (Kind::View, Some(parent)) => {
                Ok(vec![Mount::bind(self.tree(self.index.get(parent)?.number), "ro")])
            }
        }
    }
}

impl Snapshotter for Native {
    fn layering(&self) -> Layering {
        Layering::Merged
    }

    fn prepare(&self, key: &str, parent: Option<&str>) -> Result<Vec<Mount>> {
        self.create(key, Kind::Active, parent)
    }

    fn view(&self, key: &str, parent: Option<&str>) -> Result<Vec<Mount>> {
        self.create(key, Kind::View, parent)
    }

    fn mounts(&self, key: &str) -> Result<Vec<Mount>> {
        self.mounts_of(&self.index.get(key)?)
    }

    fn directory(&self, key: &str) -> Result<PathBuf> {
        let record = self.index.get(key)?;
        if record.kind == Kind::View {
            return Err(Error::WrongKind { operation: "write to", key: key.to_owned(), kind: record.kind });
        }
        Ok(self.tree(record.number))
    }

    fn lowers(&self, name: &str) -> Result<Vec<PathBuf>> {
        Ok(self.index.chain(Some(name))?.first().map(|record| self.tree(record.number)).into_iter().collect())
    }

    fn commit(&self, name: &str, key: &str) -> Result<()> {
        let parent = self.index.get(key)?.parent;
        self.index.commit(name, key, parent.as_deref())
    }

    fn commit_onto(&self, name: &str, key: &str, parent: Option<&str>) -> Result<()> {
        if self.index.get(key)?.parent.as_deref() != parent {
            return Err(Error::CantRebase { key: key.to_owned(), driver: "native" });
        }
        self.index.commit(name, key, parent)
    }

    fn remove(&self, key: &str) -> Result<()> {
        self.index.remove(key)
    }

    fn stat(&self, key: &str) -> Option<Info> {
        self.index.stat(key)
    }

    fn usage(&self, key: &str) -> Result<Usage> {
        if self.index.get(key)?.kind == Kind::View {
            return Ok(Usage::default());
        }
        self.index.usage(key, |number| self.tree(number))
    }

    fn walk(&self) -> Vec<Info> {
        self.index.walk()
    }

    fn cleanup(&self) -> Result<Reclaimed> {
        self.index.cleanup()
    }
}

#[cfg(test)]
mod tests;
