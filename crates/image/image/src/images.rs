//! The facade.

use corten_distribution::Auth;
use corten_snapshot::{Mount, Usage};
use tokio::sync::watch;

use crate::{Config, FsInfo, Image, Progress, Result};

/// The images of one root directory. Clones share it; the directory belongs to one process.
#[derive(Debug, Clone)]
pub struct Images {}

/// How an image is pulled.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// Credentials; without them the registry's configured ones count, or none.
    pub auth: Option<Auth>,
    /// Where the pull says how far it is. The latest state is always there: a slow reader slows nothing.
    pub progress: Option<watch::Sender<Progress>>,
}

/// What a removal took away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// The names that are gone.
    pub names: Vec<String>,
    /// The image that is gone, if that was the last of its names.
    pub image: Option<String>,
}

impl Images {
    /// Opens the library, creating what is missing.
    ///
    /// # Errors
    /// When another process has it open, or its files can't be used.
    pub async fn open(config: Config) -> Result<Images> {
        let _ = config;
        Ok(Images {})
    }

    /// Makes an image available: resolves the name at its registry, fetches what isn't there yet, unpacks it. Safe to
    /// cancel by dropping the future: what was fetched is continued by the next pull. Pulls of the same image at the same time share the work.
    ///
    /// # Errors
    /// When the name is invalid, the registry refuses or can't be reached, content isn't what was promised, or the disk is full. Then no
    /// part of the image is visible.
    pub async fn pull(&self, reference: &str, options: PullOptions) -> Result<Image> {
        let _ = (reference, options);
        Err(crate::Error::Panicked("pull"))
    }

    /// Finds an image by name (short ones are completed), by name and digest, or by id (`sha256:…`, the hex digits alone, or
    /// the first 12 or more of them when no other image has the same).
    ///
    /// # Errors
    /// When the database can't be read. An unknown or malformed name is `None`.
    pub async fn get(&self, name: &str) -> Result<Option<Image>> {
        let _ = name;
        Ok(None)
    }

    /// All images, sorted by id.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn list(&self) -> Result<Vec<Image>> {
        Ok(Vec::new())
    }

    /// Removes the image that this name, digest or id finds, with all of its names, as the CRI wants it, and frees what nothing else needs. Containers made from it keep their
    /// file systems. An unknown image is as good as removed.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn remove(&self, name: &str) -> Result<Removed> {
        let _ = name;
        Ok(Removed::default())
    }

    /// Removes blobs and snapshots that no image, container or pull in flight needs.
    ///
    /// # Errors
    /// When something can't be removed; the rest is removed all the same.
    pub async fn gc(&self) -> Result<()> {
        Ok(())
    }

    /// Makes a writable file system over an image for a container, and returns its mounts. Of the two options that remain on error, nothing
    /// has changed.
    ///
    /// # Errors
    /// When the key is taken, the image's snapshots are gone, or the file system refuses.
    pub async fn prepare(&self, key: &str, image: &Image) -> Result<Vec<Mount>> {
        let _ = (key, image);
        Ok(Vec::new())
    }

    /// Makes a read-only view of an image, and returns its mounts.
    ///
    /// # Errors
    /// As of [`prepare`](Self::prepare).
    pub async fn view(&self, key: &str, image: &Image) -> Result<Vec<Mount>> {
        let _ = (key, image);
        Ok(Vec::new())
    }

    /// The mounts of a container's file system again, as after a restart.
    ///
    /// # Errors
    /// When there's no such snapshot.
    pub async fn mounts(&self, key: &str) -> Result<Vec<Mount>> {
        let _ = key;
        Ok(Vec::new())
    }

    /// The keys of containers' file systems and views.
    ///
    /// # Errors
    /// When the snapshots can't be read.
    pub async fn snapshots(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// Removes a container's file system; unmount it before. One that isn't there is as good as removed.
    ///
    /// # Errors
    /// When the file system refuses.
    pub async fn remove_snapshot(&self, key: &str) -> Result<()> {
        let _ = key;
        Ok(())
    }

    /// What a container's own layer takes on disk.
    ///
    /// # Errors
    /// When there's no such snapshot.
    pub async fn usage(&self, key: &str) -> Result<Usage> {
        let _ = key;
        Ok(Usage::default())
    }

    /// What the library takes on its file system.
    ///
    /// # Errors
    /// When sizes can't be read.
    pub async fn fs_info(&self) -> Result<FsInfo> {
        Ok(FsInfo { mountpoint: std::path::PathBuf::new(), used_bytes: 0, inodes_used: 0 })
    }
}
