//! From one process to two: the parent (`create`, `run`, `exec`) and init, which becomes the container's program.
//!
//! Both run straight-line scripts; these are all the messages they exchange, in this order:
//!
//! ```text
//!  parent                                              init (a clone of the parent)
//!  ──────────────────────────────────────────────────────────────────────────────────────────────────────────
//!  clone3 with all new namespaces ───────────────────▶ (born in its cgroup, or joins it first thing)
//!                       ◀── Born{pid, pidfd} ─────────  only if an intermediate process had to join first
//!  writes uid_map, gid_map
//!                       ─── Mapped ──────────────────▶  only if there's a new user namespace
//!                       ◀── Rooted ──────────────────   only if the mount namespace is somebody else's too
//!  saves the state      (concurrently)                  mounts, devices
//!                       ◀── Mounted ─────────────────   only if there are hooks to run here
//!  runs prestart, createRuntime hooks
//!                       ─── Continue ────────────────▶  createContainer hooks, masks, pivot_root, security
//!                       ◀── Terminal + fd ───────────   only if we relay the terminal ourselves
//!                       ◀── Listener ────────────────   only if seccomp notifies: init's filter is loaded
//!  sends it to listenerPath
//!                       ─── Delivered ───────────────▶
//!                       ◀── Ready ───────────────────   only for create
//!                       ─── Go ──────────────────────▶  sent as soon as the state is saved: then init may live
//!                                                       create: reads the exec fifo until start writes
//!                                                       startContainer hooks, seccomp, execve
//!  EOF: the program runs, or init is dead
//! ```
//!
//! Init may send `Warning` at any time, and `Failed` in place of any message. If the parent dies, init's next
//! read is EOF and it exits.

mod idmap;
pub(crate) mod init;
pub(crate) mod join;
pub(crate) mod parent;
pub(crate) mod sync;
