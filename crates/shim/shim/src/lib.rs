//! The shim: keeps the containers of one pod alive and accounted for, whatever becomes of the daemon.
//!
//! ```text
//! main ─ args ─┬─ start    containerd's start protocol: binds the socket, leaves a `serve` behind, prints its address
//!              ├─ serve    the shim itself: one thread, a Reaper, a ttrpc Server over service/
//!              ├─ delete   clears up after a shim that was killed
//!              └─ pod-init PID 1 of a pod's shared PID namespace
//!
//! service/  one file per call          task.rs     containers, their processes and states
//! io/       fifos, logs, terminals     exit.rs     what happens when a process ends, in order
//! ```
//!
//! Nothing is locked while a runtime works: state is changed between awaits only, by a single thread, and states in
//! transition ([`task::Phase`]) keep calls for the same process apart. A container that is stuck stalls nobody else.
#![forbid(unsafe_code)]

pub mod args;
mod bundle;
mod cgroup;
pub mod delete;
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
pub mod pod_init;
pub mod serve;
mod service;
pub mod start;
mod stuck;
mod task;
pub mod trace;
mod tree;
