//! The operations of an OCI runtime on one container: create, start, run, exec, kill, delete, pause, resume,
//! update, ps, events, checkpoint, restore and state, as runtime-spec 1.3 and runc define them.
//!
//! ```
//! use corten_container::{Error, Runtime};
//!
//! let root = tempfile::tempdir()?;
//! let runtime = Runtime::new(root.path());
//! assert!(runtime.list()?.is_empty());
//! // Errors are values: what a caller decides upon has a variant of its own.
//! match runtime.state("web") {
//!     Err(Error::NotFound { id }) => assert_eq!(id, "web"),
//!     other => panic!("{other:?}"),
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! To run a container takes root and a bundle; `examples/run.rs` does it in forty lines:
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use corten_container::{CreateOptions, Outcome, RunOptions, Runtime};
//!
//! corten_container::protect_executable()?;
//! let create = CreateOptions { bundle: "/path/to/bundle".into(), ..CreateOptions::default() };
//! let outcome = Runtime::new("/run/my-containers").run("web", &create, &RunOptions::default())?;
//! assert_eq!(outcome, Outcome::Exited(0));
//! # Ok(())
//! # }
//! ```
//!
//! # The process that calls
//!
//! There is no state but that below [`Runtime::root`]: any number of processes may work on the same containers, and a
//! value of [`Runtime`] is only a path with two options. No other program is needed (but criu to checkpoint and restore): the
//! clone of the caller becomes the container's program, and nothing is executed in between. What that means for the calling process:
//!
//! - **One thread.** [`Runtime::create`], [`Runtime::run`], [`Runtime::exec`] and [`Runtime::restore`] clone or unshare
//!   the process, and refuse one with more than one thread with [`Error::Threads`], before they do anything. All other
//!   operations may be called from any thread. A program with threads starts itself again for these four, as
//!   `examples/threads.rs` does.
//! - **Its executable can be seen from the container** for a moment before execve (CVE-2019-5736). Call
//!   [`protect_executable`] first thing in `main`; it may execute the program again from a read-only mount.
//! - **What the kernel keeps per process**: with root's privileges create, run and exec leave it undumpable (prctl(2),
//!   PR_SET_DUMPABLE), since a clone that a container can see must not be looked into for a moment either. While run and
//!   exec wait, all signals of the process are blocked and passed on to the container; run and restore make it a
//!   subreaper meanwhile ([`RunOptions::no_subreaper`]). Both are as before when they return.
//! - **Its children.** Init and exec's processes are children of the caller. Who creates, or detaches, collects them
//!   (SIGCHLD, waitpid(2)) or ends itself.
//! - **What is inherited**: standard input, output and error; of other descriptors only those of
//!   [`CreateOptions::preserve_fds`] and, as systemd's socket activation has it, of `LISTEN_FDS`. Hooks on the host that name no
//!   environment have the caller's; the container never has it.
//!
//! The story of a container in this crate:
//!
//! 1. `plan/` turns config.json into one immutable `Plan`; everything that can be refused is refused there;
//! 2. `create.rs` makes the state directory and the cgroup, and registers how to undo each;
//! 3. `spawn/` clones init; parent and init run two straight-line scripts that exchange a known list of messages;
//! 4. `steps/` is what init does, one file a step;
//! 5. `start.rs` lets init go through the exec fifo and returns once the program runs.
#![forbid(unsafe_code)]

mod accommodate;
mod alone;
mod cgroup;
mod checkpoint;
mod container;
mod create;
mod criu;
mod default_ids;
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
pub use rdt::{Bandwidth, Cache, Occupancy, Rdt, Traffic};
pub use restore::RestoreOptions;
pub use status::{State, Status};
