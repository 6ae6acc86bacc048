//! Why a layer couldn't be applied or produced.

use std::io;
use std::path::PathBuf;

/// A failed application or production of a layer.
///
/// Entries are named as the archive names them. The target may hold part of the
/// layer afterwards; nothing outside it was touched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The reader handed in by the caller failed: nothing is said about the layer.
    #[error("read the layer after {offset} bytes")]
    Read {
        /// Compressed bytes read before.
        offset: u64,
        /// What the reader said.
        source: io::Error,
    },
    /// The compressed stream is damaged or cut short.
    #[error("decompress the layer as {format} after {offset} bytes of output")]
    Decompress {
        /// The compression its first bytes announced.
        format: crate::Compression,
        /// Uncompressed bytes produced before.
        offset: u64,
        /// What the decompressor said.
        source: io::Error,
    },
    /// The archive ends in the middle of an entry.
    #[error("layer ends in the middle of {entry:?}, {missing} bytes early")]
    Truncated {
        /// The entry that is cut short.
        entry: String,
        /// Bytes that are missing at least.
        missing: u64,
    },
    /// Something that can't be a tar header.
    #[error("bad tar header at offset {offset} of the layer: {reason}")]
    Header {
        /// Offset of the header in the uncompressed archive.
        offset: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// An entry that would reach outside the target, or can't be expressed in it.
    #[error("refuse layer entry {entry:?}: {reason}")]
    Refused {
        /// The entry.
        entry: String,
        /// Why.
        reason: String,
    },
    /// The layer exceeds one of the [`Limits`](crate::Limits).
    #[error("refuse the layer at entry {entry:?}: more than {limit} {what}")]
    Limit {
        /// Where the limit was exceeded.
        entry: String,
        /// What is limited.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A feature of an archive format that isn't implemented.
    #[error("layer entry {entry:?} needs {what}, which is not supported")]
    Unsupported {
        /// The entry.
        entry: String,
        /// The feature.
        what: &'static str,
    },
    /// The file system refused an operation for an entry.
    #[error("{operation} for layer entry {entry:?}")]
    Entry {
        /// What was tried.
        operation: &'static str,
        /// The entry.
        entry: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// An operation on a path given by the caller failed.
    #[error("{operation} {}", path.display())]
    Path {
        /// What was tried.
        operation: &'static str,
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The content isn't what the image's config promises.
    #[error("layer has diffID {actual}, the image's config promises {expected}")]
    DiffId {
        /// What was promised.
        expected: String,
        /// What was received.
        actual: String,
    },
    /// A file that a tar can't hold, or a failing writer, while producing a layer.
    #[error("write {} to the layer", path.display())]
    Produce {
        /// The file, relative to the directory.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
}
