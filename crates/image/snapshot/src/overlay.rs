//! The overlayfs driver.
//!
//! Each snapshot is a directory of its own, `<root>/<n>/fs`, with what differs from its parent in the form that overlayfs gives to its
//! upper directories; an active snapshot with a parent has `<root>/<n>/work` too. Nothing is copied, and layers
//! needn't wait for one another.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use crate::index::{Index, Record, make_directory};
use crate::{Error, Info, Kind, Layering, Mount, Reclaimed, Result, Snapshotter, Usage};

/// Bytes of options that mount(2) takes: a page, with the final NUL. With numbers of three digits beneath `/var/lib/corten/snapshots`
/// this is enough for 116 layers.
const OPTIONS_MAX: usize = 4095;

/// Stores each snapshot as a directory of its own, stacked by overlayfs at mount time.
///
/// What the process can lose with the power: neither records nor files are synced. Whoever needs that calls syncfs(2) before a commit.
#[derive(Debug)]
pub struct Overlay {
    index: Index,
    options: OverlayOptions,
}

/// How overlay snapshots are mounted. The default suits root.
#[derive(Debug, Clone, Copy, Default)]
pub struct OverlayOptions {
    /// Overlayfs keeps its marks in `user.*` attributes, as it must inside a user namespace.
    pub user_xattr: bool,
    /// Containers' file systems are never synced: fsync does nothing in them, and unmounting is fast. What they wrote is
    /// lost with the power.
    pub volatile: bool,
}

impl Overlay {
    /// Opens, or creates, the snapshots in `root`, an absolute path. Call [`cleanup`](Snapshotter::cleanup) next.
    ///
    /// # Errors
    ///
    /// `Locked` when another process has them open, `BadRoot`, or what the file system says.
    pub fn open(root: impl Into<PathBuf>) -> Result<Overlay> {
        Overlay::open_with(root, OverlayOptions::default())
    }

    /// As [`open`](Self::open), with options.
    ///
    /// # Errors
    ///
    /// As of [`open`](Self::open).
    pub fn open_with(root: impl Into<PathBuf>, options: OverlayOptions) -> Result<Overlay> {
        let root = root.into();
        let bad = |reason| Err(Error::BadRoot { path: root.clone(), reason });
        if !root.is_absolute() {
            return bad("it is not absolute");
        }
        match root.to_str() {
            None => return bad("it is not UTF-8"),
            Some(text) if text.contains([':', ',', '\\', '"']) => {
                return bad(
                    "it contains a colon, comma, backslash or quote, which separate overlay's options",
                );
            }
            Some(_) => {}
        }
        Ok(Overlay { index: Index::open(root)?, options })
    }

    fn upper(&self, number: u64) -> PathBuf {
        self.index.tree(number).join("fs")
    }

    fn create(&self, key: &str, kind: Kind, parent: Option<&str>) -> Result<Vec<Mount>> {
        let record = self.index.create(key, kind, parent, |tree, chain| {
            self.check_length(key, tree, chain)?;
            if kind == Kind::View && !chain.is_empty() {
                return Ok(());
            }
            let upper = tree.join("fs");
            make_directory(&upper, 0o755)?;
            if let Some(below) = chain.first() {
                // A mount shows the attributes of the upper root directory.
                take_over_attributes(&self.upper(below.number), &upper)?;
                make_directory(&tree.join("work"), 0o711)?;
            }
            Ok(())
        })?;
        self.mounts_of(&record)
    }

    /// Refuses what couldn't be mounted, before anything is created.
    fn check_length(&self, key: &str, tree: &Path, chain: &[Record]) -> Result<()> {
        let paths: usize = chain.iter().map(|record| self.upper(record.number).as_os_str().len() + 1).sum();
        let fixed = "lowerdir=,upperdir=/fs,workdir=/work,index=off,userxattr,volatile".len();
        let bytes = paths + fixed + 2 * tree.as_os_str().len();
        if chain.len() > 1 && bytes > OPTIONS_MAX {
            let layers = chain.len();
            return Err(Error::TooManyLayers { key: key.to_owned(), layers, bytes, limit: OPTIONS_MAX });
        }
        Ok(())
    }

    fn mounts_of(&self, record: &Record) -> Result<Vec<Mount>> {
        let lowers: Vec<_> = self
            .index
            .chain(record.parent.as_deref())?
            .iter()
            .map(|below| self.upper(below.number).display().to_string())
            .collect();
        let mut options = Vec::new();
        match (record.kind, lowers.as_slice()) {
            (Kind::Committed, _) => {
                return Err(Error::WrongKind {
                    operation: "mount",
                    key: record.key.clone(),
                    kind: record.kind,
                });
            }
            (Kind::Active, []) => return Ok(vec![Mount::bind(self.upper(record.number), "rw")]),
            (Kind::View, []) => return Ok(vec![Mount::bind(self.upper(record.number), "ro")]),
            (Kind::View, [only]) => return Ok(vec![Mount::bind(only, "ro")]),
            (Kind::View, _) => options.push("ro".to_owned()),
            (Kind::Active, _) => {
                let tree = self.index.tree(record.number);
                options.push(format!("workdir={}", tree.join("work").display()));
                options.push(format!("upperdir={}", tree.join("fs").display()));
                if self.options.volatile {
                    options.push("volatile".to_owned());
                }
            }
        }
        options.push(format!("lowerdir={}", lowers.join(":")));
        // An index of hard links would bind the upper directory to these very lower ones.
        options.push("index=off".to_owned());
        if self.options.user_xattr {
            options.push("userxattr".to_owned());
        }
        Ok(vec![Mount {
            fs_type: "overlay".to_owned(),
            source: PathBuf::from("overlay"),
            target: PathBuf::new(),
            options,
        }])
    }
}

impl Snapshotter for Overlay {
    fn layering(&self) -> Layering {
        Layering::Stacked { user_xattr: self.options.user_xattr }
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
        Ok(self.upper(record.number))
    }

    fn lowers(&self, name: &str) -> Result<Vec<PathBuf>> {
        Ok(self.index.chain(Some(name))?.iter().map(|record| self.upper(record.number)).collect())
    }

    fn commit(&self, name: &str, key: &str) -> Result<()> {
        let parent = self.index.get(key)?.parent;
        self.commit_onto(name, key, parent.as_deref())
    }

    fn commit_onto(&self, name: &str, key: &str, parent: Option<&str>) -> Result<()> {
        let number = self.index.get(key)?.number;
        self.index.commit(name, key, parent)?;
        // Only a mount needs it. What is left in it, if the process dies now, takes no space worth mentioning.
        let _ = fs::remove_dir_all(self.index.tree(number).join("work"));
        Ok(())
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
        self.index.usage(key, |number| self.upper(number))
    }

    fn walk(&self) -> Vec<Info> {
        self.index.walk()
    }

    fn cleanup(&self) -> Result<Reclaimed> {
        self.index.cleanup()
    }
}

/// Makes a directory like the one it will cover.
fn take_over_attributes(from: &Path, to: &Path) -> Result<()> {
    let metadata = fs::metadata(from).map_err(Error::io("look at", from))?;
    if metadata.uid() != 0 || metadata.gid() != 0 {
        chown(to, Some(metadata.uid()), Some(metadata.gid())).map_err(Error::io("set the owner of", to))?;
    }
    fs::set_permissions(to, fs::Permissions::from_mode(metadata.mode() & 0o7777))
        .map_err(Error::io("set the mode of", to))
}

#[cfg(test)]
mod tests;
