//! Which namespaces are new, joined or the host's.

use std::path::PathBuf;

use corten_cri_api::v1::{NamespaceMode, NamespaceOption};
use serde_json::{Value, json};

use super::Input;
use crate::{Error, Result};

/// Where the pod's namespaces are pinned; none where the pod has the host's.
#[derive(Debug, Clone, Default)]
pub(crate) struct PodPins {
    pub(crate) net: Option<PathBuf>,
    pub(crate) ipc: Option<PathBuf>,
    pub(crate) uts: Option<PathBuf>,
    /// Only where the pod's containers share one.
    pub(crate) pid: Option<PathBuf>,
}

/// A mode by its number; a number from a newer client is an error.
pub(crate) fn mode(number: i32, of: &str) -> Result<NamespaceMode> {
    NamespaceMode::try_from(number)
        .map_err(|_| Error::invalid(format!("unknown {of} namespace mode {number}")))
}

/// The `linux.namespaces` section.
pub(super) fn of(input: &Input<'_>) -> Result<Value> {
    let options = input.options();
    let pins = &input.pod.pins;
    let mut all = vec![json!({"type": "mount"})];
    let pinned = [("network", &pins.net), ("ipc", &pins.ipc), ("uts", &pins.uts)];
    all.extend(
        pinned.iter().filter_map(|(kind, pin)| pin.as_ref().map(|path| json!({"type": kind, "path": path}))),
    );
    match mode(options.pid, "PID")? {
        NamespaceMode::Container => all.push(json!({"type": "pid"})),
        NamespaceMode::Pod => match &pins.pid {
            Some(path) => all.push(json!({"type": "pid", "path": path})),
            None => {
                return Err(Error::Precondition(format!(
                    "the container wants the PID namespace of pod {}, which has none",
                    input.pod.id
                )));
            }
        },
        NamespaceMode::Target => match input.target_pid {
            Some(pid) => all.push(json!({"type": "pid", "path": format!("/proc/{pid}/ns/pid")})),
            None => {
                return Err(Error::Precondition(format!(
                    "container {:?}, whose PID namespace is wanted, doesn't run",
                    options.target_id
                )));
            }
        },
        NamespaceMode::Node => {}
    }
    if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() && !input.security().privileged {
        all.push(json!({"type": "cgroup"}));
    }
    Ok(json!(all))
}

/// What is wrong with a pod's or a container's namespace options, if anything.
pub(crate) fn check(options: &NamespaceOption) -> Result<()> {
    let Some(user) = &options.userns_options else { return Ok(()) };
    match mode(user.mode, "user")? {
        NamespaceMode::Node => Ok(()),
        NamespaceMode::Pod => Err(Error::Unsupported("a user namespace for the pod".to_owned())),
        other => Err(Error::invalid(format!("user namespace mode {other:?} doesn't exist"))),
    }
}
