//! The overlayfs driver.

use std::path::PathBuf;

/// Stores each snapshot as a directory of its own, stacked by overlayfs at mount time.
#[derive(Debug)]
pub struct Overlay;

/// How overlay snapshots are stored and mounted.
#[derive(Debug, Clone, Default)]
pub struct OverlayOptions {}

impl Overlay {
    /// Opens, or creates, the snapshots in `root`.
    ///
    /// # Errors
    ///
    /// When another process has them open, or a record can't be read.
    pub fn open(root: impl Into<PathBuf>) -> crate::Result<Overlay> {
        let root = root.into();
        Err(crate::Error::Locked(root))
    }
}
