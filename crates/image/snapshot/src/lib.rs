//! The Snapshotter contract and its drivers (overlayfs, native).
#![forbid(unsafe_code)]
