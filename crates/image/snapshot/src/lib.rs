//! The [`Snapshotter`] contract and its drivers: [`Overlay`] and [`Native`].
//!
//! A snapshotter keeps directory trees that build on one another and hands
//! out the mounts that make them visible. Image layers are committed snapshots, a
//! container's writable root file system is an active one.
#![forbid(unsafe_code)]

mod error;
mod index;
mod mount;
mod native;
mod overlay;
mod snapshotter;
mod sweep;
#[cfg(feature = "testsuite")]
pub mod testsuite;
mod usage;

pub use error::Error;
pub use mount::Mount;
pub use native::Native;
pub use overlay::{Overlay, OverlayOptions};
pub use snapshotter::{Info, Kind, Layering, Reclaimed, Snapshotter};
pub use usage::Usage;

/// What every fallible function of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;
