//! The operations of an OCI runtime on one container: create, start, run, exec, kill, delete, pause, resume,
//! update, ps, events, checkpoint, restore and state, as runtime-spec 1.3 and runc define them.
//!
//! Everything here is synchronous and single-threaded: the process that calls [`Runtime::create`],
//! [`Runtime::run`] or [`Runtime::exec`] is cloned and the clone goes on running Rust code until it becomes
//! the container's program; [`Runtime::restore`] changes namespaces. **Don't call these four from a process with more
//! than one thread.**
//! With root's privileges create, run and exec also make the calling process undumpable (prctl(2), PR_SET_DUMPABLE)
//! and leave it so: a clone that a container can see must not be looked into for a moment either.
//!
//! The story of a container in this crate:
//!
//! 1. `plan/` turns config.json into one immutable `Plan`; everything that can be refused is refused there;
//! 2. `create.rs` makes the state directory and the cgroup, and registers how to undo each;
//! 3. `spawn/` clones init; parent and init run two straight-line scripts that exchange a known list of messages;
//! 4. `steps/` is what init does, one file a step;
//! 5. `start.rs` lets init go through the exec fifo and returns once the program runs.
#![forbid(unsafe_code)]

mod cgroup;
mod checkpoint;
mod container;
mod create;
mod criu;
mod delete;
mod descriptors;
mod error;
mod events;
mod exec;
pub mod failpoint;
mod filter;
mod foreground;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
mod hooks;
mod kill;
mod load;
mod net_devices;
mod notify;
mod options;
mod pause;
mod pid_file;
mod plan;
mod privilege;
mod procfs;
mod protect;
mod query;
mod rdt;
mod record;
mod restore;
mod rootless;
mod run;
mod shared_mounts;
mod spawn;
mod start;
mod status;
mod steps;
mod support;
mod undo;
mod update;

pub use checkpoint::CheckpointOptions;
pub use container::Runtime;
pub use corten_cgroups::stats;
pub use criu::{CgroupsMode, CriuOptions};
pub use descriptors::inherited_descriptors;
pub use error::{Error, Result};
pub use events::{Event, Interface, Usage};
pub use options::{CreateOptions, ExecOptions, Outcome, RunOptions};
pub use privilege::{in_user_namespace, is_limited};
pub use protect::protect_executable;
pub use restore::RestoreOptions;
pub use status::{State, Status};
