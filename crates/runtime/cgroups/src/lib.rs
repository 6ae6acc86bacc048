//! Creates, limits, watches, freezes, kills and removes one cgroup (runtime-spec, "Control groups"; cgroups(7)).
//!
//! One [`Cgroup`] is one place in the tree, whatever that means on the machine: one directory on cgroup v2, a
//! directory in each of a dozen hierarchies on v1, or both on a hybrid machine. What limits mean in files is
//! decided by pure functions ([`limits`], [`devices`]); the rest is opening, writing and reading small files.
//!
//! The order of life: [`Cgroup::create`] (or, by systemd, [`Cgroup::create_unit`]) → [`Cgroup::entrance`] → clone3 → [`Entrance::enter`] → ... →
//! [`Cgroup::kill`] → [`Cgroup::remove`]. A `Cgroup` can be kept in a state record (it implements serde's
//! traits), which spares later commands finding out about the machine again.
//!
//! ```
//! use corten_cgroups::limits::{self, Step};
//! use oci_spec::runtime::LinuxResources;
//!
//! // What limits mean in files needs no privileges and no cgroup.
//! let resources: LinuxResources = serde_json::from_str(r#"{"pids": {"limit": 100}, "cpu": {"shares": 1024}}"#)?;
//! let steps = limits::v2::writes(&resources)?;
//! let is_pids = |step: &Step| matches!(step, Step::Write(write) if write.file == "pids.max" && write.value == "100");
//! assert!(steps.iter().any(is_pids), "{steps:?}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! As root, a program that can't escape its limits; `tests/root.rs` does the same for real:
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use corten_cgroups::Cgroup;
//! # let resources = oci_spec::runtime::LinuxResources::default();
//! let cgroup = Cgroup::create("/my-service/job-1", &resources)?;
//! let mut job = std::process::Command::new("sleep").arg("1000").spawn()?;
//! cgroup.add_pid(job.id().cast_signed())?;
//! println!("{:?} use {:?}", cgroup.pids()?, cgroup.stats()?.memory);
//! cgroup.kill()?; // with all its children
//! job.wait()?;
//! cgroup.remove()?;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod create;
pub mod devices;
mod entrance;
mod error;
mod file;
mod freeze;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
mod kill;
mod layout;
pub mod limits;
mod remove;
pub mod stats;
mod systemd;
mod update;
mod watch;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use entrance::Entrance;
pub use error::{Error, Result};
pub use layout::{Controllers, Layout, unescape};
pub use stats::Stats;
pub use systemd::{Manager, Unit};
pub use watch::OomWatch;

/// One cgroup in all hierarchies of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// Where it is, seen from the root of every hierarchy; absolute.
    path: PathBuf,
    /// One directory per hierarchy; v2 is the last if there is one.
    dirs: Vec<Dir>,
    /// systemd's unit that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unit: Option<systemd::Made>,
}

/// A cgroup in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Dir {
    /// The directory.
    path: PathBuf,
    /// What is controlled there. For v2: what there could be, not what is enabled.
    controllers: Controllers,
    /// Whether it is cgroup v2.
    v2: bool,
}

impl Cgroup {
    /// Where it is, seen from the root of every hierarchy.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// No cgroup at all, for a container whose runtime may make none: entering, killing and removing it do nothing,
    /// and what can't be done without a cgroup fails. `path` is where it would have been.
    #[must_use]
    pub fn none(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), dirs: Vec::new(), unit: None }
    }

    /// Whether this is [`Self::none`].
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.dirs.is_empty()
    }

    /// Whether this machine has cgroup v2 only.
    #[must_use]
    pub fn is_unified(&self) -> bool {
        matches!(self.dirs.as_slice(), [Dir { v2: true, .. }])
    }

    /// The directories, one for each hierarchy: `("memory", "/sys/fs/cgroup/memory/x")`, `("", ".../unified/x")`.
    pub fn directories(&self) -> impl Iterator<Item = (String, &Path)> {
        self.dirs.iter().map(|dir| (if dir.v2 { String::new() } else { dir.controllers.names() }, &*dir.path))
    }

    /// Whether it exists (any more), in any hierarchy.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.dirs.iter().any(|dir| dir.path.exists())
    }

    /// The v1 directory of a controller.
    fn v1(&self, controller: Controllers) -> Option<&Path> {
        self.dirs.iter().find(|dir| !dir.v2 && dir.controllers.contains(controller)).map(|dir| &*dir.path)
    }

    /// The v2 directory; on a hybrid machine too.
    fn v2(&self) -> Option<&Path> {
        self.dirs.iter().find(|dir| dir.v2).map(|dir| &*dir.path)
    }

    /// The directory whose cgroup.procs says who is in it.
    fn members(&self) -> &Path {
        // Never asked of `none`.
        self.v2()
            .or_else(|| self.v1(Controllers::DEVICES))
            .or_else(|| self.dirs.first().map(|dir| &*dir.path))
            .expect("a cgroup has at least one directory")
    }
}
