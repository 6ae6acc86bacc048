//! File systems for containers: active snapshots and views over images.

use std::sync::Arc;

use corten_snapshot::{Kind, Mount, Result as SnapshotResult, Snapshotter, Usage};

use crate::images::{UNPACK_PREFIX, blocking};
use crate::{Error, FsInfo, Image, Images, Result};

impl Images {
    /// Makes a writable file system over an image for a container, and returns its mounts.
    ///
    /// # Errors
    /// When the key is taken, the image's snapshots are gone, or the file system refuses. Then nothing has changed.
    pub async fn prepare(&self, key: &str, image: &Image) -> Result<Vec<Mount>> {
        let chain = image.chain_id.clone();
        self.snapshot("make the file system", key, move |s, key| s.prepare(key, chain.as_deref())).await
    }

    /// Makes a read-only view of an image, and returns its mounts.
    ///
    /// # Errors
    /// As of [`prepare`](Self::prepare).
    pub async fn view(&self, key: &str, image: &Image) -> Result<Vec<Mount>> {
        let chain = image.chain_id.clone();
        self.snapshot("make a view", key, move |s, key| s.view(key, chain.as_deref())).await
    }

    /// The mounts of a container's file system again, as after a restart.
    ///
    /// # Errors
    /// When there's no such snapshot.
    pub async fn mounts(&self, key: &str) -> Result<Vec<Mount>> {
        self.snapshot("look up the file system", key, |s, key| s.mounts(key)).await
    }

    /// The keys of containers' file systems and views.
    ///
    /// # Errors
    /// When a thread of the library died.
    pub async fn snapshots(&self) -> Result<Vec<String>> {
        let snapshotter = self.inner.snapshotter.clone();
        let all = blocking("listing snapshots", move || snapshotter.walk()).await?;
        let ours = |info: &corten_snapshot::Info| {
            info.kind != Kind::Committed && !info.key.starts_with(UNPACK_PREFIX)
        };
        Ok(all.into_iter().filter(ours).map(|info| info.key).collect())
    }

    /// Removes a container's file system; unmount it before. One that isn't there is as good as removed.
    ///
    /// # Errors
    /// When the file system refuses.
    pub async fn remove_snapshot(&self, key: &str) -> Result<()> {
        self.snapshot("remove the file system", key, |s, key| s.remove(key)).await
    }

    /// What a container's own layer takes on disk.
    ///
    /// # Errors
    /// When there's no such snapshot.
    pub async fn usage(&self, key: &str) -> Result<Usage> {
        self.snapshot("measure the file system", key, |s, key| s.usage(key)).await
    }

    /// What the library takes on its file system.
    ///
    /// # Errors
    /// When sizes can't be read.
    pub async fn fs_info(&self) -> Result<FsInfo> {
        let inner = self.inner.clone();
        blocking("measuring the library", move || {
            let blobs = inner.content.list().map_err(Error::Garbage)?;
            let mut used_bytes: u64 = blobs.iter().map(|blob| blob.size).sum();
            let mut inodes_used = blobs.len() as u64;
            for partial in inner.content.partials().map_err(Error::Garbage)? {
                used_bytes += partial.size;
                inodes_used += 1;
            }
            for info in inner.snapshotter.walk() {
                // One that goes away while we count takes nothing.
                let usage = inner.snapshotter.usage(&info.key).unwrap_or_default();
                used_bytes += usage.bytes;
                inodes_used += usage.inodes;
            }
            Ok(FsInfo { mountpoint: inner.config.root.clone(), used_bytes, inodes_used })
        })
        .await?
    }

    async fn snapshot<T: Send + 'static>(
        &self,
        operation: &'static str,
        key: &str,
        work: impl FnOnce(&Arc<dyn Snapshotter>, &str) -> SnapshotResult<T> + Send + 'static,
    ) -> Result<T> {
        let (snapshotter, owned) = (self.inner.snapshotter.clone(), key.to_owned());
        let result = blocking(operation, move || work(&snapshotter, &owned)).await?;
        result.map_err(|source| Error::Snapshot { operation, subject: key.to_owned(), source })
    }
}
