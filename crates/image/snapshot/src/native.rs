//! A driver that copies: for file systems without overlayfs, and for tests without root.

/// Stores each snapshot as a whole tree.
#[derive(Debug)]
pub struct Native;
