//! The engines that people run, as clients of our runtime and our shim: each with directories, sockets and cgroups of
//! the test's own, so that nothing of the machine's is touched and everything can be told from it afterwards.
//!
//! * [`Containerd`] and its `ctr`; [`Pods`] speaks CRI to its CRI plugin.
//! * [`Podman`] has no daemon.
//! * [`Docker`] is a private `dockerd` and its client.
//!
//! Every container gets a cgroup below the scope's, by its absolute path: a relative one would land in the cgroup that
//! the tests run in.
#![forbid(unsafe_code)]

mod containerd;
mod docker;
mod podman;
mod pods;
mod process;
mod pty;

pub use containerd::{Containerd, Flavour};
pub use docker::Docker;
pub use integration_cri::v1;
pub use podman::Podman;
pub use pods::{Pod, Pods};
pub use process::{Background, parent_of, runs};
pub use pty::on_a_terminal;

use anyhow::{Context, Result, ensure};
use integration_support::{ImageBuilder, Registry, Scope};

/// Makes the image with busybox and the workload, pushes it, and yields its reference.
///
/// # Errors
/// When the registry refuses it.
pub fn push_busybox(registry: &Registry) -> Result<String> {
    let image = ImageBuilder::busybox()?;
    Ok(image.push(registry.address(), "test/busybox", "1", None)?.reference)
}

/// Makes the image that holds a pod's namespaces, and pushes it.
///
/// # Errors
/// When the registry refuses it.
pub(crate) fn push_pause(registry: &Registry) -> Result<()> {
    ImageBuilder::workload()?.push(registry.address(), PAUSE.0, PAUSE.1, None).map(drop)
}

/// The name and the tag of that image.
pub(crate) const PAUSE: (&str, &str) = ("test/pause", "1");

/// What a file of a container's cgroup says, in whichever v1 hierarchy it is. `cgroup` is the container's, as an
/// absolute path within the hierarchy.
///
/// # Errors
/// When there is no such file.
pub fn limit(controller: &str, cgroup: &str, file: &str) -> Result<String> {
    let path = format!("/sys/fs/cgroup/{controller}{cgroup}/{file}");
    Ok(std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?.trim().to_owned())
}

/// Removes cgroups that an engine itself leaves behind, whatever the runtime: `names` below the scope's.
///
/// # Errors
/// When one isn't empty.
pub fn remove_cgroups(scope: &Scope, names: &[&str]) -> Result<()> {
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").context("read /sys/fs/cgroup")?.flatten() {
        for name in names {
            let dir = hierarchy.path().join(scope.cgroup_parent().trim_start_matches('/')).join(name);
            if dir.is_dir() {
                std::fs::remove_dir(&dir).with_context(|| format!("remove {}", dir.display()))?;
            }
        }
    }
    Ok(())
}

/// Demands that `text` has `needle`.
///
/// # Errors
/// When it hasn't; with all of the text.
pub fn has(text: &str, needle: &str) -> Result<()> {
    ensure!(text.contains(needle), "expected {needle:?} in:\n{text}");
    Ok(())
}
