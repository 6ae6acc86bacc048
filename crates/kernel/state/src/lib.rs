//! Crash-safe, versioned records and locks under a state directory.
//!
//! Three things that every part of Corten which outlives its process needs:
//!
//! - [`write_atomic`]: a file is there whole or not at all, whenever the process or the machine dies;
//! - [`Store`]: a directory of JSON records, one file `<id>.json` per record, each `{"version":N,"data":...}`;
//! - [`Lock`]: flock(2) on a file, so that two processes don't work on the same thing.
#![forbid(unsafe_code)]

mod atomic;
mod error;
mod lock;
mod store;

pub use atomic::{Durability, write_atomic};
pub use error::{Error, Result};
pub use lock::Lock;
pub use store::{Listing, Store};
