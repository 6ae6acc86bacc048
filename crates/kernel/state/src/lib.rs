//! Crash-safe, versioned records and locks under a state directory.
//!
//! What every part of Corten which outlives its process needs:
//!
//! - [`write_atomic`]: a file is there whole or not at all, whenever the process or the machine dies;
//! - [`Store`]: a directory of JSON records, one file `<id>.json` per record, each `{"version":N,"data":...}`;
//! - [`Lock`]: flock(2) on a file, so that two processes don't work on the same thing;
//! - [`failpoint`]: for tests that kill a process between any two of its steps.
//!
//! ```
//! use corten_state::{Error, Lock, Store};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Pod {
//!     pid: i32,
//! }
//!
//! let dir = tempfile::tempdir()?;
//! let pods = Store::<Pod>::open(dir.path().join("pods"), 1)?;
//! let _lock = Lock::exclusive(dir.path().join("lock"))?;
//! pods.put("web", &Pod { pid: 42 })?; // is on disk when this returns
//! assert_eq!(pods.get("web")?.map(|pod| pod.pid), Some(42));
//! assert!(matches!(pods.put("../web", &Pod { pid: 0 }), Err(Error::InvalidId { .. })));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod atomic;
mod error;
pub mod failpoint;
mod lock;
mod store;

pub use atomic::{Durability, write_atomic};
pub use error::{Error, Result};
pub use lock::Lock;
pub use store::{Listing, Store};
