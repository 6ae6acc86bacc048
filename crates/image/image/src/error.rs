//! Why the library couldn't do something.

use std::io;
use std::path::PathBuf;

use corten_distribution::Digest;

use crate::Platform;

/// A failed operation on images.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The name isn't an image name.
    #[error(transparent)]
    InvalidReference(#[from] corten_distribution::InvalidReference),
    /// A conversation with the registry failed.
    #[error("pull {image}")]
    Registry {
        /// The image.
        image: String,
        /// What the registry did.
        source: corten_distribution::Error,
    },
    /// One layer couldn't be unpacked.
    #[error("unpack layer {layer} of {image}")]
    Layer {
        /// The image.
        image: String,
        /// The digest of the compressed layer.
        layer: Digest,
        /// What is wrong.
        source: corten_layer::Error,
    },
    /// Content couldn't be stored, or isn't what was promised.
    #[error("store content of {image}")]
    Content {
        /// The image.
        image: String,
        /// What is wrong.
        source: corten_content::Error,
    },
    /// The image has no manifest for the platform.
    #[error("{image} has no manifest for {platform}; it has {available}")]
    NoPlatform {
        /// The image.
        image: String,
        /// What was looked for.
        platform: Platform,
        /// What there is.
        available: String,
    },
    /// A manifest, index or configuration that can't be used.
    #[error("{image} can't be used: {reason}")]
    BadImage {
        /// The image.
        image: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A snapshot operation failed.
    #[error("{operation} of {subject}")]
    Snapshot {
        /// What was tried.
        operation: &'static str,
        /// The image or container.
        subject: String,
        /// What the snapshotter said.
        source: corten_snapshot::Error,
    },
    /// The metadata couldn't be read or written.
    #[error("{operation} in the image database {}", path.display())]
    Database {
        /// What was tried.
        operation: &'static str,
        /// The database.
        path: PathBuf,
        /// What the database said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file operation failed.
    #[error("{operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The content store as a whole can't be used, or something in it can't be removed.
    #[error("look after the content store")]
    Garbage(#[source] corten_content::Error),
    /// An error that several callers share, because they shared the work.
    #[error(transparent)]
    Shared(std::sync::Arc<Error>),
    /// A thread of the library panicked.
    #[error("{0} ended abnormally: this is a bug")]
    Panicked(&'static str),
}

/// What a caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The name isn't an image name.
    InvalidName,
    /// There's no such image, tag, platform, or snapshot.
    NotFound,
    /// The key or name is taken.
    AlreadyExists,
    /// Credentials are missing or wrong.
    Unauthorized,
    /// The registry can't be reached, or fails: later it may work.
    Unavailable,
    /// The disk is full.
    DiskFull,
    /// The image is broken, or isn't one: trying again doesn't help.
    BadImage,
    /// Everything else.
    Internal,
}

impl Error {
    /// Sorts the error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        use corten_distribution::Error as D;
        use corten_snapshot::Error as S;
        if self.is_disk_full() {
            return ErrorKind::DiskFull;
        }
        match self {
            Error::Shared(error) => error.kind(),
            Error::InvalidReference(_) => ErrorKind::InvalidName,
            Error::NoPlatform { .. } => ErrorKind::NotFound,
            Error::BadImage { .. } | Error::Layer { .. } => ErrorKind::BadImage,
            Error::Registry { source, .. } => match source {
                D::InvalidReference(_) => ErrorKind::InvalidName,
                D::NotFound { .. } => ErrorKind::NotFound,
                D::Unauthorized { .. } => ErrorKind::Unauthorized,
                D::DigestMismatch { .. } | D::SizeMismatch { .. } | D::TooLarge { .. } | D::Schema1(_) => {
                    ErrorKind::BadImage
                }
                _ => ErrorKind::Unavailable,
            },
            Error::Content { source, .. } => match source {
                corten_content::Error::Io { .. } | corten_content::Error::Busy { .. } => ErrorKind::Internal,
                _ => ErrorKind::BadImage,
            },
            Error::Snapshot { source, .. } => match source {
                S::NotFound(_) => ErrorKind::NotFound,
                S::Exists(_) => ErrorKind::AlreadyExists,
                _ => ErrorKind::Internal,
            },
            _ => ErrorKind::Internal,
        }
    }

    /// Whether the disk, or a quota, is full, wherever in the chain of causes that is said.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = next {
            if let Some(error) = error.downcast_ref::<io::Error>() {
                return matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            }
            next = error.source();
        }
        false
    }
}
