//! The shim: keeps the containers of one pod alive and accounted for, whatever becomes of the daemon.
//!
//! ```text
//! main ─ args ─┬─ start    bootstrap.rs, start.rs: binds the socket, leaves a `serve` behind, tells its address
//!              ├─ serve    the process that stays: one thread, a Reaper, a ttrpc Server over a workload's service
//!              ├─ delete   clears up after a shim that was killed
//!              ├─ -info    what the runtime can do
//!              └─ pod-init PID 1 of a pod's shared PID namespace
//!
//! workload.rs  what a kind of workload has to bring
//! containers.rs  the kind that this crate brings: containers of a pod, through an OCI runtime
//!   service/  one file per call          task.rs     containers, their processes and states
//!   io/       fifos, logs, terminals     exit.rs     what happens when a process ends, in order
//!   sandbox/  the pod itself             cgroup/     figures and the kernel's kills
//! events.rs    what containerd is told, in order, until it has been told
//! ```
//!
//! A shim for another kind of workload is a [`Workload`] and a `main` that calls [`main`]: see examples/.
//!
//! Nothing is locked while a runtime works: state is changed between awaits only, by a single thread, and states in
//! transition ([`task::Phase`]) keep calls for the same process apart. A container that is stuck stalls nobody else.
#![forbid(unsafe_code)]

pub mod args;
mod aside;
mod bootstrap;
mod bundle;
mod cgroup;
mod containers;
mod delete;
mod error;
mod events;
mod exec_cgroup;
mod exit;
pub mod failpoint;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
mod io;
mod mounts;
mod options;
mod pod_init;
mod sandbox;
mod serve;
mod service;
mod start;
mod task;
mod trace;
mod tree;
mod workload;

pub use args::Args;
pub use containers::Containers;
pub use corten_runtime_client::Reaper;
pub use corten_task_api as api;
pub use events::Events;
pub use service::Service;
pub use workload::{Host, Workload, main};
