//! What a caller decides about the application of a layer.

use std::path::PathBuf;

/// How a layer is applied. `ApplyOptions::default()` suits an overlayfs upper directory as root.
#[derive(Debug, Clone, Default)]
pub struct ApplyOptions {
    /// What the target directory holds, and so how a removal is expressed in it.
    pub whiteouts: Whiteouts,
    /// The directories of the layers below, the topmost first, when they are already there.
    ///
    /// They are only looked at for what a layer may borrow from below: the mode and owner of directories
    /// that it uses without listing them, and hard links to files it doesn't contain. Leave this empty to
    /// apply layers side by side, and call [`Pending::settle`](crate::Pending::settle) when the lower ones are there.
    pub lowers: Vec<PathBuf>,
    /// The diffID that the image's config promises (`sha256:<64 hex digits>`). With it, [`apply`](crate::apply) fails
    /// on any other content. The target then holds files that must be thrown away.
    pub expected_diff_id: Option<String>,
    /// Where to stop believing a layer.
    pub limits: Limits,
}

/// How deletions are expressed in the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Whiteouts {
    /// The target is one layer of an overlay mount, empty at the start: a deletion is a character device 0/0, an opaque directory
    /// carries `trusted.overlay.opaque`. Needs root.
    #[default]
    Overlay,
    /// As `Overlay`, for overlay mounts with `userxattr`: the attribute is `user.overlay.opaque`.
    OverlayUser,
    /// The target already holds the layers below: a deletion removes files.
    Merge,
}

/// Upper bounds. Beyond one of them a layer is refused, whatever else is right with it.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Entries in the archive.
    pub entries: u64,
    /// Bytes of the uncompressed archive.
    pub bytes: u64,
    /// Components in a path.
    pub depth: usize,
    /// Bytes of the extended headers (PAX records, GNU long names) in front of one entry.
    pub header_bytes: u64,
}

impl Default for Limits {
    /// Far above any image seen in the wild; small enough that a layer made to exhaust memory or disk ends here.
    fn default() -> Limits {
        Limits { entries: 20_000_000, bytes: 1 << 40, depth: 1024, header_bytes: 1 << 20 }
    }
}
