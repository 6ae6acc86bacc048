//! What a pull tells while it runs.

use corten_distribution::Digest;

/// The state of a pull. Each message is complete: whoever misses some misses nothing that the last doesn't say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// The image's name, complete.
    pub reference: String,
    /// The layers, the lowest first; empty until the manifest is there.
    pub layers: Vec<LayerProgress>,
}

/// The state of one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerProgress {
    /// The digest of the compressed layer.
    pub digest: Digest,
    /// Where it stands.
    pub phase: Phase,
    /// Compressed bytes in all.
    pub total: u64,
    /// Compressed bytes received.
    pub downloaded: u64,
    /// Compressed bytes unpacked.
    pub extracted: u64,
}

/// Where a layer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It hasn't begun.
    Waiting,
    /// It is being received, and unpacked on the way.
    Downloading,
    /// It has been received, and is still being unpacked.
    Extracting,
    /// It is there.
    Done,
    /// It was there before.
    AlreadyExists,
}
