//! What every integration test stands on.
//!
//! * [`require_root`] and friends decide whether a test can run here; one that can't says why and is counted.
//! * A [`Scope`] is one test's world: a temporary directory, a name prefix, a cgroup parent. [`Scope::finish`] proves
//!   that nothing of it is left: no mount, cgroup, process, network namespace or state file.
//! * [`Bundle`] writes config.json and a rootfs as Kubernetes and Docker do; [`Runtime`] drives corten, runc or crun
//!   with it, always with a deadline.
//! * [`ImageBuilder`], [`Registry`] and [`Daemon`] make images without a network, serve them on loopback and start a
//!   private `cortend` for them.
//!
//! Tests wait on conditions with deadlines ([`wait_for`]), never by sleeping for a while and hoping.
#![forbid(unsafe_code)]

mod binaries;
mod bundle;
mod command;
mod console;
mod daemon;
mod disk;
pub mod http;
pub mod image;
mod leak;
mod need;
mod registry;
mod rootfs;
mod runtime;
mod scope;
mod seccomp;
mod trial;
mod wait;

pub use binaries::binary;
pub use bundle::{Bundle, DEFAULT_CAPABILITIES};
pub use command::{Finished, run, run_with_deadline};
pub use console::{Console, ConsoleSocket};
pub use daemon::{Daemon, DaemonOptions};
pub use disk::Disk;
pub use image::{Compression, ImageBuilder, LayerEntry, ManifestFormat, Pushed};
pub use leak::leaks;
pub use need::{require, require_binary, require_program, require_root, skip, users_may_unshare};
pub use registry::{Registry, RegistryOptions};
pub use rootfs::{busybox_rootfs, workload_rootfs};
pub use runtime::{Container, Kind, Runtime, hybrid_shows_controllers};
pub use scope::Scope;
pub use seccomp::default_profile as default_seccomp_profile;
pub use trial::Trial;
pub use wait::{DEADLINE, wait_for, wait_until};
