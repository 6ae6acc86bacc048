//! Applies and produces layer tars: whiteouts, xattrs, hard links, no escapes.
//!
//! A layer is a tar stream, usually compressed, that says how one directory
//! tree differs from the one below it (OCI image-spec, `layer.md`). [`apply`]
//! turns the stream into files, [`produce`] turns files into the stream.
//!
//! The stream comes from strangers. Whatever it holds, nothing outside the
//! target directory is read, written or removed: every path is resolved by the
//! kernel beneath a directory descriptor, never by this program from strings.
//!
//! One layer is three threads: the caller's thread reads and inflates, one
//! hashes (the diffID), one writes files. They share a few recycled buffers,
//! so memory is bounded whatever the layer's size, and the caller's reader may
//! be a pipe from the network.
#![forbid(unsafe_code)]

mod apply;
mod archive;
mod compression;
mod error;
mod name;
mod options;
mod pending;
mod pipe;
mod produce;
mod unpack;

pub use apply::{Applied, apply};
pub use compression::Compression;
pub use error::Error;
pub use options::{ApplyOptions, Limits, Whiteouts};
pub use pending::Pending;
pub use produce::{ProduceOptions, Produced, produce};

/// What every fallible function of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;
