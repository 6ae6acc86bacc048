//! What the library says about an image.

use std::path::PathBuf;

use corten_distribution::Digest;
use oci_spec::image::ImageConfiguration;

/// An image that is here, unpacked and ready for containers.
#[derive(Debug, Clone)]
pub struct Image {
    /// `sha256:…`, the digest of the configuration.
    pub id: String,
    /// Its names with a tag: `registry/repository:tag`.
    pub repo_tags: Vec<String>,
    /// Its names with a digest: `registry/repository@sha256:…`.
    pub repo_digests: Vec<String>,
    /// The digest of the manifest, for this platform.
    pub manifest: Digest,
    /// Bytes of the manifest, the configuration and the compressed layers.
    pub size: u64,
    /// The configuration.
    pub config: ImageConfiguration,
    /// The name of the topmost snapshot; none if the image has no layers.
    pub chain_id: Option<String>,
    /// Whether it is meant to stay: whoever collects images should spare it.
    pub pinned: bool,
}

/// What the library takes on its file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FsInfo {
    /// The directory whose file system it is.
    pub mountpoint: PathBuf,
    /// Bytes of blobs, snapshots (containers' included) and what awaits its removal.
    pub used_bytes: u64,
    /// Inodes of the same.
    pub inodes_used: u64,
}
