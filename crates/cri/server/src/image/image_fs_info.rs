//! ImageFsInfo: images and containers live on one file system.

use corten_cri_api::v1::{FilesystemIdentifier, FilesystemUsage, ImageFsInfoResponse, UInt64Value};

use crate::Result;
use crate::server::{Inner, image_error};

impl Inner {
    pub(super) async fn image_fs_info(&self) -> Result<ImageFsInfoResponse> {
        let info = self.deps.images.fs_info().await;
        let info = info.map_err(image_error("measure the images' file system"))?;
        let usage = FilesystemUsage {
            timestamp: crate::time::now(),
            fs_id: Some(FilesystemIdentifier { mountpoint: info.mountpoint.display().to_string() }),
            used_bytes: Some(UInt64Value { value: info.used_bytes }),
            inodes_used: Some(UInt64Value { value: info.inodes_used }),
        };
        Ok(ImageFsInfoResponse { image_filesystems: vec![usage.clone()], container_filesystems: vec![usage] })
    }
}
