//! Drives any OCI runtime binary (runc's command line) as an async Rust API with typed errors.
//!
//! ```text
//! Reaper ── waits for all children of this process, by one SIGCHLD loop
//!   ▲
//! Runtime ── create, start, exec, kill, delete, state, ps, pause, resume, update,
//!             checkpoint, restore: each runs the binary once
//! ```
//!
//! For a process of one thread which is the subreaper of what it starts: a container's init becomes the child of
//! whoever runs the binary when that has ended. Nothing is written to disk but PID files: the runtime's log and an
//! exec's `process` go through memory.
#![forbid(unsafe_code)]

mod criu;
mod error;
mod reaper;
mod runtime;
mod scratch;

pub use criu::{Checkpoint, Restore};
pub use error::{Error, Kind};
pub use reaper::{Exited, Hold, Reaper, Watch};
pub use runtime::{Io, Launch, Patience, Runtime, Started, State};
