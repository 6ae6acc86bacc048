//! From a CRI container to an OCI runtime configuration: one file per topic, no effects but looking at host paths.
//!
//! What a request asks for and isn't served is an error here, so that nobody believes in a protection that isn't there.

mod capabilities;
mod devices;
mod mounts;
mod namespaces;
mod process;
mod resources;
mod seccomp;
mod security;
mod signal;
pub(crate) mod user;

use std::path::PathBuf;

use corten_cri_api::v1::{
    ContainerConfig, LinuxContainerResources, LinuxContainerSecurityContext, NamespaceOption,
};
use oci_spec::image::Config as ImageConfig;
use serde_json::{Value, json};

pub(crate) use capabilities::held as held_capabilities;
pub(crate) use namespaces::{PodPins, check as check_namespaces, mode};
pub(crate) use process::for_exec as exec_process;
pub(crate) use resources::{effective as effective_resources, to_oci as resources_to_oci};
pub(crate) use signal::{number as signal_number, of_number as signal_of_number, parse as parse_signal};
use user::Identity;

use crate::Result;

/// All that a container's configuration follows from.
#[derive(Debug)]
pub(crate) struct Input<'a> {
    pub(crate) id: &'a str,
    pub(crate) config: &'a ContainerConfig,
    pub(crate) pod: Pod<'a>,
    pub(crate) image: &'a ImageConfig,
    pub(crate) identity: &'a Identity,
    /// The capabilities the daemon holds.
    pub(crate) held: &'a [String],
    /// The process whose PID namespace is joined, for mode TARGET.
    pub(crate) target_pid: Option<u32>,
}

/// What a container takes from its pod.
#[derive(Debug, Clone)]
pub(crate) struct Pod<'a> {
    pub(crate) id: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) uid: &'a str,
    /// As seen inside.
    pub(crate) hostname: &'a str,
    pub(crate) options: NamespaceOption,
    /// Absolute.
    pub(crate) cgroup_parent: &'a str,
    pub(crate) pins: PodPins,
    /// The files that all containers of the pod see: `hosts`, `hostname`, `resolv.conf`, `shm`.
    pub(crate) files: PathBuf,
}

impl Input<'_> {
    fn security(&self) -> LinuxContainerSecurityContext {
        self.config.linux.as_ref().and_then(|linux| linux.security_context.clone()).unwrap_or_default()
    }

    fn resources(&self) -> LinuxContainerResources {
        self.config.linux.as_ref().and_then(|linux| linux.resources.clone()).unwrap_or_default()
    }

    /// The container's namespaces; the pod's where the container doesn't say.
    fn options(&self) -> NamespaceOption {
        self.security().namespace_options.unwrap_or_else(|| self.pod.options.clone())
    }
}

/// The configuration for the runtime.
///
/// # Errors
///
/// Names what can't be served or isn't there, in the request's own terms.
pub(crate) fn build(input: &Input<'_>) -> Result<Value> {
    security::refuse_unsupported(input)?;
    let security = input.security();
    let capabilities = capabilities::Capabilities::of(&security, input.held)?;
    let devices = devices::of(input.config, security.privileged)?;
    let mounts = mounts::of(input)?;
    let mut resources = resources::to_oci(&input.resources());
    resources["devices"] = devices.rules;
    let (masked, readonly) = security::hidden_paths(&security);
    let mut linux = json!({
        "cgroupsPath": cgroup_path(input.pod.cgroup_parent, input.id),
        "namespaces": namespaces::of(input)?,
        "resources": resources,
        "devices": devices.nodes,
        "maskedPaths": masked,
        "readonlyPaths": readonly,
    });
    if let Some(propagation) = mounts.rootfs_propagation {
        linux["rootfsPropagation"] = json!(propagation);
    }
    if let Some(filter) = seccomp::filter(&security, &capabilities.bounding)? {
        linux["seccomp"] = filter;
    }
    Ok(json!({
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs", "readonly": security.readonly_rootfs},
        "process": process::of(input, &capabilities)?,
        "mounts": mounts.mounts,
        "annotations": annotations(input),
        "linux": linux,
    }))
}

/// The container's cgroup: always absolute, since a relative one would land below whatever starts the runtime.
pub(crate) fn cgroup_path(parent: &str, id: &str) -> String {
    format!("/{}/{id}", parent.trim_matches('/'))
}

/// Who the container is, as shims and observers on the node look for it.
fn annotations(input: &Input<'_>) -> Value {
    let name = input.config.metadata.as_ref().map_or("", |metadata| metadata.name.as_str());
    let image = input.config.image.as_ref().map_or("", |image| {
        if image.user_specified_image.is_empty() { &image.image } else { &image.user_specified_image }
    });
    json!({
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.container-name": name,
        "io.kubernetes.cri.image-name": image,
        "io.kubernetes.cri.sandbox-id": input.pod.id,
        "io.kubernetes.cri.sandbox-name": input.pod.name,
        "io.kubernetes.cri.sandbox-namespace": input.pod.namespace,
        "io.kubernetes.cri.sandbox-uid": input.pod.uid,
    })
}

#[cfg(test)]
mod tests;
