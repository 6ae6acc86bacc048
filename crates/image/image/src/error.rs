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
    /// A pull that this one had joined failed; its error was reported where it began, and the text is repeated here.
    #[error("{0}")]
    Joined(std::sync::Arc<Error>),
    /// A thread of the library panicked.
    #[error("{0} ended abnormally: this is a bug")]
    Panicked(&'static str),
}
