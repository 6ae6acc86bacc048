//! The daemon's side of the shim: starts shims, finds them again after a restart, hands out task handles.
//!
//! One shim serves one pod. [`Shims::start`] makes one, [`Shims::reconnect`] finds one that an earlier daemon made, and a
//! [`Shim`] is a connection to it whose clones share it. When a shim has died ([`Shim::closed`]), nobody supervises its containers any more:
//! [`Shims::cleanup_dead`] takes them away.
#![forbid(unsafe_code)]

mod cleanup;
mod error;
mod shim;
mod start;

pub use cleanup::{DeadTask, ExitRecord, read_exit_record};
pub use error::{Error, Result};
pub use shim::{CreateTask, ExecOutput, Exit, Mount, Shim, Stats, Task, TaskStatus};
pub use start::{ShimConfig, Shims};
