//! The CRI v1 services: pods and containers over shims, CNI and images. One file per RPC.
//!
//! ```text
//! runtime/*.rs, image/*.rs   one RPC each: what the client sees
//!   sandbox.rs container.rs  the things behind them: a record, a lock, a shim
//!   teardown.rs              takes away what exists of a sandbox or container; failure, stop and recovery all use it
//!   watch.rs                 hears of exits and of shims that die
//!   recover.rs               what an earlier daemon left
//!   spec/                    from a CRI container to an OCI configuration
//! ```
//!
//! Two rules hold everywhere. A record says what is about to happen before it happens ([`records`]), so that a daemon
//! killed at any instruction can finish or take back. And what takes away is written once, for everything that may be
//! there ([`teardown`]): each step does nothing where there is nothing, so it serves a half-made pod as well as a running one.
#![forbid(unsafe_code)]

mod accounts;
mod cgroup;
mod coalesce;
mod config;
mod container;
mod entry;
mod error;
mod image;
mod pod_files;
mod records;
mod recover;
mod runtime;
mod sandbox;
mod server;
mod spec;
mod teardown;
mod time;
mod watch;

pub use config::{Config, Dirs};
pub use error::{Error, Result};
pub use server::{Deps, Server};

/// Runs what blocks on a thread for that.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(Error::internal("finish file work: this is a bug"))
}
