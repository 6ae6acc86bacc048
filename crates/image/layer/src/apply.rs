//! Applying a layer: three threads and what they report.

use std::io::Read;
use std::path::Path;

use crate::{ApplyOptions, Compression, Pending, Result};

/// What was applied.
#[derive(Debug)]
pub struct Applied {
    /// Digest of the uncompressed archive, `sha256:<64 hex digits>`.
    pub diff_id: String,
    /// How the stream was compressed.
    pub compression: Compression,
    /// Bytes read from the caller.
    pub compressed_bytes: u64,
    /// Bytes of the uncompressed archive.
    pub bytes: u64,
    /// Entries in the archive, whiteouts included.
    pub entries: u64,
    /// What must be done before the layer is used above others.
    pub pending: Pending,
}

/// Applies one layer to the directory `target`, which must exist.
///
/// The stream is read to its end, gzip, zstd or plain. With [`Whiteouts::Overlay`](crate::Whiteouts::Overlay) the
/// target must be empty; after an error it holds part of the layer and should be emptied.
///
/// # Errors
///
/// [`Error::Read`](crate::Error::Read) when `reader` fails; all others speak of the layer or of the target.
pub fn apply(reader: impl Read, target: &Path, options: &ApplyOptions) -> Result<Applied> {
    let _ = (reader, target, options);
    Err(crate::Error::Unsupported { entry: String::new(), what: "apply" })
}
