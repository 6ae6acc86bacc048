//! Content-addressed blob store: ingest, verify, commit, read by digest.
//!
//! A blob is a file named by the digest of its bytes (OCI image-spec, `descriptor.md`). It gets there in one way only: an
//! *ingest* collects the bytes in a file of its own and hashes them on the way, and its commit compares size and digest with what
//! was promised before the file is renamed to its final name. What has a name is therefore whole and right; what was
//! interrupted is an ingest, which a later one under the same reference continues.
//!
//! ```text
//! <dir>/blobs/<algorithm>/<hex>     immutable, 0444
//! <dir>/ingest/<hex of the reference's sha256>   partial, locked while written
//! ```
//!
//! The crate is synchronous. There is no database: the file system is the index.
#![forbid(unsafe_code)]

mod digest;
mod error;
mod store;
mod writer;

pub use digest::{Algorithm, Digest, Hasher, InvalidDigest};
pub use error::Error;
pub use store::{Info, Partial, Store};
pub use writer::{Expected, Writer};

/// What every fallible function of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;
