//! The image library's facade: pull, unpack, list, remove, collect garbage.
//!
//! [`Images`] is what embedders hold. It ties the content store, the registry client, layer application and the
//! snapshotter together:
//!
//! ```text
//! socket ─► blob file (size, digest) ─┐
//!        └► inflate ─► diffID ─► files ┴─► snapshots, named by chain id ─► image, named by its references
//! ```
//!
//! Images have an id (the digest of their configuration), any number of names (`registry/repository:tag`, `…@digest`) and
//! a chain of committed snapshots. Everything else is found from these.
#![forbid(unsafe_code)]

mod catalog;
mod config;
mod error;
mod flight;
mod gc;
mod image;
mod images;
mod layer;
mod lease;
mod manifest;
mod progress;
mod pull;
mod rootfs;

pub use config::{Config, Platform};
pub use corten_distribution::{Auth, Digest, InvalidReference, Reference, Registry, RegistryConfig};
pub use corten_snapshot::{Mount, Snapshotter, Usage};
pub use error::{Error, ErrorKind};
pub use image::{FsInfo, Image};
pub use images::{Images, PullOptions, Removed};
pub use progress::{LayerProgress, Phase, Progress};

/// What every fallible function of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;
