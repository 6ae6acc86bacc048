//! Annotations that change what is made: the few of crun's that engines write. As in crun it is their presence that counts.

use std::{collections::HashMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::Problems;

/// The process keeps the supplementary groups of whoever calls the runtime, in the place of `additionalGids`: podman's
/// `--group-add keep-groups`.
pub(crate) const KEEP_GROUPS: &str = "run.oci.keep_original_groups";
/// Whether they are to be kept: unless it says "0", as in crun.
pub(crate) fn keeps_groups(value: Option<&String>) -> bool {
    value.is_some_and(|value| value != "0")
}

/// A system call that nobody knows is an error in `linux.seccomp`.
pub(crate) const STRICT_SECCOMP: &str = "run.oci.seccomp_fail_unknown_syscall";

/// Where hooks' output goes, at its end: files of the host.
const HOOKS_STDOUT: &str = "run.oci.hooks.stdout";
const HOOKS_STDERR: &str = "run.oci.hooks.stderr";
/// A socket of the host that gets init's pidfd.
const PIDFD_RECEIVER: &str = "run.oci.pidfd_receiver";

/// What the annotations that name something of the host's ask for: nothing, unless they're trusted. An engine may pass on
/// those of a pod's author, who has no business there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trusted {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hooks_stdout: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hooks_stderr: Option<PathBuf>,
    #[serde(skip)]
    pub(crate) pidfd_receiver: Option<PathBuf>,
}

pub(super) fn trusted(annotations: &HashMap<String, String>, problems: &mut Problems) -> Trusted {
    let mut path = |name: &str| {
        let path = annotations.get(name).map(PathBuf::from)?;
        if !path.is_absolute() {
            problems
                .add(&format!("annotations[\"{name}\"]"), format_args!("{} is not absolute", path.display()));
        }
        Some(path)
    };
    Trusted {
        hooks_stdout: path(HOOKS_STDOUT),
        hooks_stderr: path(HOOKS_STDERR),
        pidfd_receiver: path(PIDFD_RECEIVER),
    }
}
